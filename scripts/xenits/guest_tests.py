# SPDX-License-Identifier: GPL-2.0-only
"""The bare-metal guest on ours, for ``scripts/test``: every case, on several machines; and the fuzzer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import pipeline
from .conformance import render
from .guest import Column, Machine, build_guest, failures, run_column
from .steps import Steps
from .suite import Case, Context, Result

ALL = "*"
HOSTILE = (
    "its-*-of-all-widths,gicr-*,accesses-*,queue-*,tables-*,itt*,properties-*,base-flip,map*,two-writers,"
    "cwriter-*,disable-*,commands-write-*,invall*,mov*-storm,*-thousands,quota-*,xen_its_c_3a_*,fuzz-commands"
)
ALONE = (
    "property-table-outside-ram",
    "property-table-on-devices",
    "property-table-partly-outside-ram",
    "idbits-too-small",
    "idbits-too-large",
    "xen_its_c_3a_4_14_bits",
)
"""Cases that need a boot each."""

ABOVE_RATE = ("device-above-its-rate", "device-above-its-rate-loses-none")
"""Cases that need a device, and a low limit on what it raises."""

LIMIT_S = 900.0
"""After that a boot hangs."""

FEW = 2000
"""Random commands where the fuzzer is but one case of many."""

RATE = 200
"""Interrupts a second that a device may raise (Xen's ``its-lpi-rate=``) where that is what is tested."""

MASKED = 20
"""A device above its rate has its host LPIs masked more often than that."""

CHATTY = 1500
"""More lines than these are a flood, whatever the guest did."""


@dataclass(frozen=True)
class GuestTest:
    """One machine, and the boots on it."""

    name: str
    about: str
    debug: bool = True
    machine: Machine = field(default_factory=Machine)
    tests: tuple[str, ...] = (ALL,)
    fuzz: int = FEW
    seed: int = 1
    seeds: int = 1
    options: str = ""
    """More of the guest's command line."""
    limit: float = LIMIT_S

    @property
    def must_run_all(self) -> bool:
        """Whether the machine has what every case needs."""
        return self.tests == (ALL,) and self.machine == Machine()

    def bootargs(self, test: str) -> str:
        """The guest's command line."""
        return f"its.test={test} its.seed={self.seed} its.seeds={self.seeds} its.fuzz={self.fuzz} {self.options}"


def _with_rate(name: str, about: str, cpus: int, *xen_args: str) -> GuestTest:
    """A machine with a device that fires, and may do so `RATE` times a second."""
    machine = Machine(cpus=cpus, xen_args=(f"its-lpi-rate={RATE}", *xen_args), edus=1)
    return GuestTest(name, about, machine=machine, tests=(",".join(ABOVE_RATE),), options=f"its.rate={RATE}")


TESTS = [
    GuestTest("debug", "all cases"),
    GuestTest("release", "all cases", debug=False),
    GuestTest("gic4", "all cases", machine=Machine(cpus=4, gic=4)),
    GuestTest("2-vcpus", "all cases", debug=False, machine=Machine(cpus=2)),
    GuestTest("1-vcpu", "all cases", machine=Machine(cpus=1)),
    GuestTest(
        "shared-cpu",
        "hostile cases; the vCPU with the heart shares a CPU with the hostile one",
        machine=Machine(cpus=1, xen_args=("dom0_max_vcpus=2",)),
        tests=(HOSTILE,),
    ),
    _with_rate("lpi-rate", "a device that fires more often than it may", 4, "sched=null", "vwfi=native"),
    _with_rate("lpi-rate-shared-cpu", "the same; all LPIs come to the CPU of both vCPUs", 1, "dom0_max_vcpus=2"),
    GuestTest("lpi-tables", "tables that spoil a boot", machine=Machine(cpus=2), tests=ALONE),
    GuestTest(
        "fuzz-debug", "600000 random commands", machine=Machine(cpus=4), tests=("fuzz-*",), fuzz=150_000, seeds=4
    ),
    GuestTest(
        "fuzz-release",
        "400000 random commands",
        debug=False,
        machine=Machine(cpus=4),
        tests=("fuzz-*",),
        fuzz=100_000,
        seed=5,
        seeds=4,
    ),
]


def mix(column: Column) -> list[str]:
    """What is wrong with the commands that the fuzzer had executed, as Xen counted them."""
    counted = next((v for k, v in column.counters.items() if k.startswith("commands ")), None)
    if counted is None:
        return ["Xen printed no counters of commands"]
    numbers = {name: int(value, 0) for name, value in counted.items()}
    skipped = numbers.pop("skipped", 0)
    executed = sum(numbers.values())
    found = [f"only {count} {name} were executed" for name, count in numbers.items() if count < 100]
    if len(numbers) < 11:
        found.append(f"only {len(numbers)} kinds of commands were executed: {', '.join(numbers)}")
    if executed < skipped:
        found.append(f"{skipped} commands were skipped, and only {executed} were executed")
    return found


def masking(column: Column) -> list[str]:
    """What is wrong with how often host LPIs were masked, as Xen counted it."""
    counted = column.counters.get("stats d0", {}) | column.counters.get("state d0", {})
    if "storms" not in counted or "masked" not in counted:
        return ["Xen printed no counters of masked LPIs"]
    found = [] if int(counted["storms"]) >= MASKED else [f"host LPIs were masked {counted['storms']} times only"]
    return found + ([f"{counted['masked']} host LPIs are still masked"] if int(counted["masked"]) else [])


def _note(column: Column) -> str:
    """What is worth a line in any case."""
    lines = [note for note in column.notes if re.match(r"fuzz-\w+: (in all|its\.seed)", note)]
    if column.gaps:
        case, gap = max(column.gaps.items(), key=lambda item: item[1])
        lines.append(f"longest gap of a heart in {len(column.gaps)} cases: {gap / 1000:.0f} ms, in {case}")
    for key, values in column.counters.items():
        if key.startswith("commands "):
            lines.append("executed: " + " ".join(f"{name}={count}" for name, count in values.items()))
    return "\n".join(lines)


def _run(test: GuestTest, context: Context) -> list[Result]:
    folder = context.logs / "xen-build"
    folder.mkdir()
    steps = Steps(pipeline.BUILD_STEPS, folder, quiet=True)
    pipeline.build_xen(pipeline.Options(debug=test.debug), steps, with_qemu=True)
    guest = context.logs / "guest.img"
    build_guest(context.log, guest)
    return boot(test, guest, folder / "xen", context.logs)


def boot(test: GuestTest, guest: Path, xen: Path, logs: Path) -> list[Result]:
    """All boots of a test, on a Xen and with a guest that are there."""
    results: list[Result] = []
    for number, pattern in enumerate(test.tests):
        folder = logs / f"boot-{number}"
        folder.mkdir()
        column = run_column("rust", guest, xen, test.bootargs(pattern), folder, test.limit, test.machine)
        (folder / "report.log").write_text(render([column]) + "\n", encoding="utf-8")
        results += _judge(test, f"guest/rust/{test.name}", column)
    return results


def _judge(test: GuestTest, name: str, column: Column) -> list[Result]:
    results = [
        Result(
            f"{name}/{case}",
            problems=() if o.word in ("ok", "skip") else (f"{o.word} {o.why}",),
            skipped=(o.why or "the guest says so") if o.word == "skip" else "",
        )
        for case, o in column.cases.items()
    ]
    whole = [why for why in failures(column) if why.partition(":")[0] not in column.cases]
    if test.must_run_all:
        whole += [f"{case} was skipped: {o.why}" for case, o in column.cases.items() if o.word == "skip"]
    if column.said > CHATTY:
        whole.append(f"Xen printed {column.said} lines, as many as the guest wanted")
    if test.fuzz > FEW:
        whole += mix(column)
    if test.machine.edus:
        whole += masking(column)
    remark = f"{test.machine.describe()}, {len(column.cases)} cases"
    return [*results, Result(name, problems=tuple(whole), remark=remark, note=_note(column))]


def cases() -> Iterable[Case]:
    """A case for each machine."""
    for test in TESTS:
        kind = "debug" if test.debug else "release"
        about = f"the bare-metal guest drives the Rust ITS: {test.about} ({kind} build, {test.machine.describe()})"
        yield Case(f"guest/rust/{test.name}", about, partial(_run, test), quick=False)
