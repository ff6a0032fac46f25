# SPDX-License-Identifier: GPL-2.0-only
"""Figures of a boot that are worth comparing between flights; they are kept as runvars."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..qemu import Boot
from ..suite import Result

SECONDS = "boot_seconds"
INTERRUPTS = "dom0_interrupts"
LPIS = "xen_lpis"
RATE = "lpis_per_second"
CASES = "guest_cases"
GAP = "guest_longest_gap_ms"

TITLES = {
    SECONDS: "seconds from start to power-off",
    INTERRUPTS: "interrupts that Dom0 took",
    LPIS: "LPIs that Xen counted",
    RATE: "LPIs per second",
    CASES: "cases of the guest",
    GAP: "longest standstill of another vCPU, ms",
}
"""What each is, in words."""

_GAP = re.compile(r"longest gap of a heart in \d+ cases: (\d+) ms")


def of_boot(boot: Boot) -> dict[str, str]:
    """Of a boot of Dom0."""
    found = {SECONDS: f"{boot.seconds:.1f}"}
    if boot.console.interrupts:
        found[INTERRUPTS] = str(sum(i.total for i in boot.console.interrupts))
    lpis = boot.console.stat("lpis")
    if lpis is not None:
        found[LPIS] = str(lpis)
    timed = [c.values for c in boot.console.checks if c.passed and {"irqs", "reads", "ms"} <= set(c.values)]
    if milliseconds := sum(int(values["ms"]) for values in timed):
        found[RATE] = f"{sum(int(values['irqs']) for values in timed) * 1000 / milliseconds:.0f}"
    return found


def of_guest(results: Iterable[Result]) -> dict[str, str]:
    """Of the boots of the bare-metal guest."""
    kept = list(results)
    found = {CASES: str(sum(not r.skipped and not r.failed and r.name.count("/") > 2 for r in kept))}
    gaps = [int(match[1]) for r in kept if (match := _GAP.search(r.note))]
    if gaps:
        found[GAP] = str(max(gaps))
    return found
