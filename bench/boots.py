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

FIRST_SPAN = 900
"""The numbers of operations that are functions; the guest's begin with 1."""

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
    edus: int = 1
    """Devices that fire."""
    xen_args: tuple[str, ...] = ()
    spans: tuple[tuple[str, str], ...] = ()
    """Functions of the hypervisor whose calls are operations, too: their names as such, and the functions."""


OPERATIONS = Boot("operations", "lpi,exit,commands,batch,devices,registers")
LINES = Boot("lines", "lpi,commands", lines=True)
"""Some of `OPERATIONS` once more, with their cache lines, and their accesses to the guest's tables and queue."""

LPIS = Boot("lpis", "grow-lpis")
DEVICES = Boot("devices", "grow-devices")
HOLD = Boot("hold", "hold", xen_args=("dom0_max_vcpus=2",))
TWO_CPUS = Boot("two-cpus", "lpi-cpus", cpus=2, lines=True)
HOST = ("memory/host-tables", "gicv3_init")
SPANS = (("memory/domain", "domain_vgic_init"), ("memory/vcpu", "vcpu_vgic_init"))
MEMORY = Boot("memory", "memory", xen_args=("dom0_max_vcpus=2",), spans=(*SPANS, (f"{HOST[0]}/16-bits", HOST[1])))
MEMORY_14 = Boot("memory-14-bits", "exit", xen_args=("max_lpi_bits=14",), spans=((f"{HOST[0]}/14-bits", HOST[1]),))
VCPUS = tuple(Boot(f"vcpus-{n}", "grow-vcpus", cpus=n) for n in (1, 2, 4, 8))

CHECKED = (OPERATIONS, LPIS, DEVICES, HOLD)
"""What ``--check`` boots: one CPU, which takes seconds."""

CONCURRENT = tuple(Boot(f"concurrent-{n}", "concurrent", cpus=n, edus=n, lines=True) for n in (2, 4, 8))
TIMED = (2, 4, 8)
"""CPUs for which throughput is compared."""

ALL = (*CHECKED, LINES, MEMORY, MEMORY_14, TWO_CPUS, *VCPUS, *CONCURRENT)


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
        *["-device", "edu"] * boot.edus, "-M", "dtb-randomness=off", "-icount", "shift=0,sleep=off",
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
    spans = {FIRST_SPAN + n: function for n, (_, function) in enumerate(boot.spans)}
    words = marks.arguments(plugin, symbols, out, lines=boot.lines, spans=spans, profile=profile)
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
    functions = {FIRST_SPAN + n: name for n, (name, _) in enumerate(boot.spans)}
    return match(serial.notes, counted, functions), counted.functions


def lpis_per_second(xen: Xen, image: Path, cpus: int, logs: Path, label: str) -> float:
    """What all CPUs take when a device each fires as fast as it can, by the clock: of use as a ratio only."""
    machine = guest.Machine(cpus=cpus, xen_args=(*XEN_ARGS, "its-lpi-rate=1000000000"))
    name = f"throughput-{cpus}-{xen.its}-{label}"
    argv = guest.command(xen.its, image, xen.image, "its.bench=throughput", logs / f"{name}.errors.log", machine)
    serial, ended = guest.boot([*argv, *["-device", "edu"] * cpus], logs, name, LIMIT_S)
    for note in serial.notes:
        if note.startswith("throughput "):
            said = dict(pair.split("=", 1) for pair in note.split()[1:])
            return 1000 * int(said["lpis"]) / int(said["ms"])
    raise StepError(f"no throughput on {xen.its}: {ended or 'the guest failed'}", log=logs / f"{name}.serial.log")


def match(notes: list[str], counted: marks.Output, spans: dict[int, str] | None = None) -> list[Measured]:
    """What the guest said it did, with what the plugin counted. Raises `StepError` unless they agree.

    `spans` are the names of operations that the guest does not know of.
    """
    done = [shlex.split(note)[1:] for note in notes if note.startswith("bench ")]
    said_so = [dict(pair.split("=", 1) for pair in pairs) for pairs in done]
    for number, name in (spans or {}).items():
        calls = counted.ops[number].calls if number in counted.ops else 1
        said_so.append({"op": str(number), "calls": str(calls), "late": "0", "name": name})
    found: list[Measured] = []
    for said in said_so:
        number, calls = int(said["op"]), int(said["calls"])
        op = counted.ops.get(number)
        if op is None or op.calls != calls:
            raise StepError(f"{said['name']}: it was done {calls} times, {op.calls if op else 0} were counted")
        costs = op.sorted()
        middle = costs[(calls - 1) // 2]
        one = Measured(said["name"], calls, int(said["late"]), op.usual(), costs[0], middle, costs[-1], op.hold)
        found.append(one)
    extra = set(counted.ops) - {0} - {int(said["op"]) for said in said_so}
    if extra or len({op.name for op in found}) != len(found):
        raise StepError(f"operations that the guest said nothing about: {sorted(extra)}, or names that come twice")
    return found
