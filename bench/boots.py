# SPDX-License-Identifier: GPL-2.0-only
"""Boots the bare-metal guest (rust/guest) to measure operations, and gives what each of them cost."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import marks
from bench.component import with_component
from bench.elfsyms import SymbolTable
from bench.plugin.build import build_plugin
from xenits import guest
from xenits.errors import StepError

LIMIT_S = 600.0
"""After that a boot hangs; the longest takes a minute on a machine with nothing else to do."""

XEN_ARGS = ("its-events=57344",)
"""Xen's command line: devices that nobody announced may have all host LPIs. A Xen in C does not know it."""


@dataclass(frozen=True)
class Boot:
    """One boot: the groups of operations that the guest does in it, and its CPUs."""

    name: str
    groups: str
    cpus: int = 1
    lines: bool = False
    """Count the cache lines, too: slow."""
    xen_args: tuple[str, ...] = ()


OPERATIONS = Boot("operations", "lpi,exit,commands,batch,devices,registers")
LPIS = Boot("lpis", "grow-lpis")
DEVICES = Boot("devices", "grow-devices")
HOLD = Boot("hold", "hold", xen_args=("dom0_max_vcpus=2",))
TWO_CPUS = Boot("two-cpus", "lpi-cpus", cpus=2, lines=True)
VCPUS = tuple(Boot(f"vcpus-{n}", "grow-vcpus", cpus=n) for n in (1, 2, 4, 8))

CHECKED = (OPERATIONS, LPIS, DEVICES, HOLD)
"""What ``--check`` boots: one CPU, which takes seconds."""

ALL = (*CHECKED, TWO_CPUS, *VCPUS)


@dataclass(frozen=True)
class Xen:
    """A build of Xen."""

    its: str
    image: Path
    symbols: Path
    tree: Path
    """Where it was built."""


@dataclass
class Measured:
    """What one operation cost."""

    name: str
    calls: int
    late: int
    """Calls after which the guest's commands were not yet all executed."""
    usual: dict[str, int] = field(default_factory=dict)
    """All counts of a call whose instructions are at the mode."""
    lowest: int = 0
    median: int = 0
    highest: int = 0
    hold: int = 0
    """The longest stretch without a preemption point in any of the calls."""

    def json(self) -> dict[str, Any]:
        """For the file with all figures."""
        return {
            "calls": self.calls, "late": self.late, "mode": self.usual, "min": self.lowest, "median": self.median,
            "max": self.highest, "hold": self.hold,
        }  # fmt: skip


def command(xen: Xen, image: Path, boot: Boot, plugin: str, errors: Path) -> list[str]:
    """QEMU's command line: time is instructions executed, and nothing is random."""
    machine = guest.Machine(cpus=boot.cpus, xen_args=XEN_ARGS + boot.xen_args)
    return [
        *guest.command(xen.its, image, xen.image, f"its.bench={boot.groups}", errors, machine),
        "-device", "edu", "-M", "dtb-randomness=off", "-icount", "shift=0,sleep=off",
        "-rtc", "base=2026-01-01,clock=vm", "-plugin", plugin,
    ]  # fmt: skip


def run(xen: Xen, image: Path, boot: Boot, logs: Path, profile: str = "") -> tuple[list[Measured], dict[str, float]]:
    """Boot once. What each operation cost; and of the one named `profile`, instructions by function in a call."""
    measured, _ = _run(xen, image, boot, logs, 0)
    if not profile:
        return measured, {}
    number = 1 + next((n for n, op in enumerate(measured) if op.name == profile), -1)
    if not number:
        raise StepError(f"--profile {profile}: {boot.name} does no such thing")
    measured, functions = _run(xen, image, boot, logs, number)
    calls = measured[number - 1].calls
    return measured, {name: insns / calls for name, insns in functions.items()}


def _run(xen: Xen, image: Path, boot: Boot, logs: Path, profiled: int) -> tuple[list[Measured], dict[str, int]]:
    label = f"{boot.name}-{xen.its}"
    out = (logs / f"{label}.marks").resolve()
    out.unlink(missing_ok=True)
    plugin = build_plugin(logs / "plugin.log", "marks")
    profile = (profiled, (logs / "syms.txt").resolve()) if profiled else None
    symbols = SymbolTable.read(xen.symbols)
    if profiled:
        symbols = with_component(symbols, xen.tree, logs / "component.log")
    words = marks.arguments(plugin, symbols, out, lines=boot.lines, profile=profile)
    argv = command(xen, image, boot, words, logs / f"{label}.guest-errors.log")
    serial, ended = guest.boot(argv, logs, label, LIMIT_S)
    log = logs / f"{label}.serial.log"
    bad = [f"{name}: {outcome.why}" for _, name, outcome in serial.results if outcome.word != "ok"]
    if ended or not serial.done or serial.bail or bad:
        lines = [*bad, serial.bail, ended, *(line for _, line in serial.xen.crashes[:3])]
        raise StepError(f"the guest did not measure {boot.name} on {xen.its}", log=log, lines=[x for x in lines if x])
    if not out.exists():
        raise StepError("the plugin left no result", log=logs / f"{label}.qemu.log")
    counted = marks.parse(out.read_text(encoding="utf-8"))
    return match(serial.notes, counted), counted.functions


def match(notes: list[str], counted: marks.Output) -> list[Measured]:
    """What the guest said it did, with what the plugin counted. Raises `StepError` unless they agree."""
    found: list[Measured] = []
    for note in notes:
        word, *rest = shlex.split(note)
        if word != "bench":
            continue
        said = dict(pair.split("=", 1) for pair in rest)
        number, calls = int(said["op"]), int(said["calls"])
        op = counted.ops.get(number)
        if op is None or op.calls != calls:
            raise StepError(f"{said['name']}: the guest did it {calls} times, {op.calls if op else 0} were counted")
        costs = op.sorted()
        middle = costs[(calls - 1) // 2]
        one = Measured(said["name"], calls, int(said["late"]), op.usual(), costs[0], middle, costs[-1], op.hold)
        found.append(one)
    extra = set(counted.ops) - {0} - set(range(1, len(found) + 1))
    if extra or len({op.name for op in found}) != len(found):
        raise StepError(f"operations that the guest said nothing about: {sorted(extra)}, or names that come twice")
    return found
