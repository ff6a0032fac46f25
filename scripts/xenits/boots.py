# SPDX-License-Identifier: GPL-2.0-only
"""The boot tests: what to boot, and what must have been seen besides a good boot.

A good boot is one where `qemu.Boot.problems` is empty: all checks of the scenario
passed, Xen did not crash, QEMU found no guest error, and Dom0 powered off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from . import livepatch, pipeline, qemu, report
from .pipeline import Options
from .suite import Case, Context, Result
from .xen_source import XEN_SERIES, patch_files

Expectation = Callable[[qemu.Boot], str | None]
"""Looks at a boot, and says what is wrong with it."""


def fired(name: str, at_least: int) -> Expectation:
    """Vectors whose name matches have this many interrupts in all."""

    def check(boot: qemu.Boot) -> str | None:
        total = sum(i.total for i in boot.console.interrupts if re.search(name, i.name))
        return None if total >= at_least else f"vectors like '{name}' fired {total} times, not {at_least}"

    return check


def vectors(at_least: int) -> Expectation:
    """Dom0 has this many vectors from the ITS."""

    def check(boot: qemu.Boot) -> str | None:
        count = sum("ITS" in i.source for i in boot.console.interrupts)
        return None if count >= at_least else f"Dom0 has {count} ITS vectors, not {at_least}"

    return check


def said(expression: str) -> Expectation:
    """The console has a line like this."""

    def check(boot: qemu.Boot) -> str | None:
        found = re.search(expression, boot.serial.read_text(errors="replace"), re.MULTILINE)
        return None if found else f"nothing on the console is like '{expression}'"

    return check


def never_said(expression: str) -> Expectation:
    """The console has no line like this."""

    def check(boot: qemu.Boot) -> str | None:
        found = re.search(expression, boot.serial.read_text(errors="replace"), re.MULTILINE)
        return f"the console has: {found[0]}" if found else None

    return check


def stat(key: str, holds: Callable[[int], bool], whom: str = "d0") -> Expectation:
    """A counter of Xen's (``ITS: stats``, ``state`` or ``host``) is there and is as it should be."""

    def check(boot: qemu.Boot) -> str | None:
        value = boot.console.stat(key, whom)
        if value is None:
            return f"Xen printed no counter '{key}' for {whom}"
        return None if holds(value) else f"counter {key} of {whom} is {value}"

    return check


def accounted(boot: qemu.Boot) -> str | None:
    """Xen raised as many LPIs as Dom0 took, or more (those that were merged)."""
    taken = sum(i.total for i in boot.console.interrupts if "ITS" in i.source)
    raised = boot.console.stat("lpis")
    if raised is None:
        return "Xen printed no counter 'lpis' for d0"
    return None if raised >= taken else f"Dom0 took {taken} interrupts, but Xen counted {raised} LPIs"


def balanced(boot: qemu.Boot) -> str | None:
    """Nothing has leaked: host LPIs belong to devices, and what entered a queue slot has left it or is in it."""
    names = ("events", "queued", "done", "evicted", "slots", "waiting", "dormant")
    counters = {name: boot.console.stat(name) for name in names}
    in_use = boot.console.stat("lpis", "host")
    missing = [name for name, value in counters.items() if value is None] + (["host lpis"] if in_use is None else [])
    if missing:
        return f"Xen printed no counter {', '.join(missing)}"
    events, queued, done, evicted, slots, waiting, dormant = (value or 0 for value in counters.values())
    if in_use != events:
        return f"{in_use} host LPIs are in use, but the devices have {events} events"
    if queued != done + evicted + slots:
        return f"{queued} LPIs were queued, but {done} are done, {evicted} were taken back, {slots} are in slots"
    return f"{waiting} LPIs still wait, and {dormant} are pending but disabled" if waiting or dormant else None


def counted_calls(boot: qemu.Boot) -> str | None:
    """While our live patch was applied, each of the functions that it counts was called for each of Dom0's reads."""
    reads = [int(c.values.get("reads", "0")) for c in boot.console.checks if c.name == "its-calls"]
    if not reads or reads[0] == 0:
        return "Dom0 read nothing while the live patch was applied"
    for function in livepatch.COUNTED:
        calls = int(boot.console.counters.get(f"livepatch {function}", {}).get("calls", "-1"))
        if calls < reads[0]:
            said = "printed no number of calls" if calls < 0 else f"counted {calls} calls for {reads[0]} reads"
            return f"the live patch {said} of {function}"
    return None


@dataclass(frozen=True)
class BootTest:
    """One boot. Its name begins with the ITS that it is about."""

    name: str
    about: str
    options: Options
    expect: tuple[Expectation, ...] = ()


MANY = "nvme=4,queues=8,virtio-net=3,ivshmem=2"
"""Devices with 285 vectors on four CPUs."""

BOARD = "nvme=1,ivshmem=1"

C_BOOTS = [
    BootTest("c/nvme", "one NVMe", Options(its="c"), (fired("nvme0q", 2000), vectors(3))),
    BootTest("c/nvme-gic4", "one NVMe on a GICv4", Options(its="c", gic=4), (fired("nvme0q", 2000), vectors(3))),
    BootTest("c/nvme-release", "a release build", Options(its="c", debug=False), (fired("nvme0q", 2000), vectors(3))),
    BootTest(
        "c/multi",
        "many devices, every vector",
        Options(its="c", smp=4, devices=MANY, test="multi"),
        (vectors(285),),
    ),
]
"""Upstream's C ITS: what works there shows that the tests and the machine are sound."""

HEALTHY: tuple[Expectation, ...] = (
    accounted,
    balanced,
    stat("skipped", lambda n: n == 0),
    stat("unrouted", lambda n: n == 0),
    stat("abandoned", lambda n: n == 0, "host"),
)
"""Linux makes no mistakes: no command of its was skipped, no LPI got lost, no host command was given up."""

RUST_BOOTS = [
    BootTest(
        "rust/nvme",
        "one NVMe",
        Options(test="smoke,pciadd=1"),
        (fired("nvme0q", 2000), vectors(3), *HEALTHY),
    ),
    BootTest(
        "rust/nvme-gic4",
        "one NVMe on a GICv4",
        Options(gic=4, test="smoke,pciadd=1"),
        (fired("nvme0q", 2000), vectors(3), *HEALTHY),
    ),
    BootTest(
        "rust/nvme-release",
        "a release build",
        Options(debug=False, test="smoke,pciadd=1"),
        (fired("nvme0q", 2000), vectors(3), *HEALTHY),
    ),
    BootTest(
        "rust/multi",
        "many devices, every vector",
        Options(smp=4, devices=MANY, test="multi,pciadd=1"),
        (vectors(285), *HEALTHY),
    ),
    BootTest(
        "rust/sata",
        "one vector that goes to every CPU, with Debian's full kernel, as on the Fast Model",
        Options(smp=4, devices="sata=1", test="sata,pciadd=1"),
        (fired(r"ahci\[", 2500), vectors(1), *HEALTHY),
    ),
    BootTest(
        "rust/affinity",
        "64 vectors change CPUs under load",
        Options(smp=8, devices=BOARD, test="affinity,late=0,pciadd=1", limit=300),
        (*HEALTHY, stat("devices", lambda n: n == 2)),
    ),
    BootTest(
        "rust/rebind",
        "drivers and devices come and go",
        Options(smp=4, devices=BOARD, test="rebind,pciadd=1", limit=300),
        (*HEALTHY, stat("devices", lambda n: n == 2)),
    ),
    BootTest(
        "rust/hotplug",
        "vCPUs off and on",
        Options(smp=4, devices=BOARD, test="hotplug,pciadd=1", limit=300),
        (*HEALTHY, stat("devices", lambda n: n == 2)),
    ),
    BootTest(
        "rust/storm",
        "a device that fires as fast as it can",
        Options(smp=2, devices="ivshmem=1", test="storm,pciadd=1", limit=300),
        (
            *HEALTHY,
            said(r"ITS: state d0 .* masked=[1-9]"),
            stat("storms", lambda n: n >= 1),
            stat("masked", lambda n: n == 0),
        ),
    ),
    BootTest(
        "rust/livepatch",
        "functions of Xen's and of the component's are replaced under load",
        Options(test="livepatch,pciadd=1"),
        (fired("nvme0q", 2000), vectors(3), counted_calls, *HEALTHY),
    ),
]
"""The Rust ITS. `pciadd=1` has Dom0 check that Xen took the devices that Linux announced."""


def boots() -> list[BootTest]:
    """All boot tests, in the order in which they run; the Rust ones need the series that brings the Rust ITS."""
    return C_BOOTS + (RUST_BOOTS if patch_files(XEN_SERIES) else [])


def _run(test: BootTest, context: Context) -> list[Result]:
    boot = pipeline.run(test.options, context.logs, quiet=True)
    problems = boot.problems() + [p for e in test.expect if (p := e(boot))]
    text = report.render(boot, test.options.its, test.options.label(), problems)
    (context.logs / "report.log").write_text(text + "\n", encoding="utf-8")
    total = sum(i.total for i in boot.console.interrupts)
    remark = f"{len(boot.console.interrupts)} vectors, {total} interrupts"
    return [Result(f"boot/{test.name}", problems=tuple(problems), remark=remark)]


def cases() -> Iterable[Case]:
    """A case for each boot."""
    for test in boots():
        yield Case(f"boot/{test.name}", f"{test.about} ({test.options.label()})", partial(_run, test), quick=False)
