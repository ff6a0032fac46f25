# SPDX-License-Identifier: GPL-2.0-only
"""Reads what Xen and Dom0 said on the serial console.

Lines that count:

``XENITS: plan N``, ``XENITS: ok N NAME k=v...``, ``XENITS: not ok N NAME REASON``,
``XENITS: irq IRQ CHIP/HWIRQ NAME COUNT...`` and ``XENITS: done`` are the Dom0 tool's;
``ITS: WHAT [WHOM] k=v ...`` are Xen's counters (``stats``, ``state``, ``commands``,
``vcpu``, ``device``, ``host``), or those of a live patch. The rest is searched for crashes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PREFIX = re.compile(r"(?:^|[\s\])])(XENITS|ITS): (.*)$")
_CRASHES = [
    # (what it is, expression)
    ("Xen panicked", re.compile(r"^\(XEN\).*Panic on CPU|Xen BUG at|^\(XEN\).*FATAL", re.IGNORECASE)),
    ("an assertion of Xen's failed", re.compile(r"\(XEN\).*Assertion '.*' failed")),
    (
        "a data abort in Xen",
        re.compile(r"\(XEN\).*(Data Abort Trap\. Syndrome|Hypervisor Trap|Unexpected Trap)", re.IGNORECASE),
    ),
    ("Xen crashed", re.compile(r"\(XEN\).*(CPU\d+: Unexpected|Xen call trace|Manual reset required)")),
    ("Xen crashed Dom0", re.compile(r"\(XEN\).*(Domain 0 crashed|domain_crash|Hardware Dom0 crashed)")),
    ("Dom0's kernel panicked", re.compile(r"Kernel panic - not syncing")),
    ("Dom0's kernel oopsed", re.compile(r"Internal error: Oops|Unable to handle kernel|kernel BUG at")),
]
COUNTED = ("stats", "state", "commands", "vcpu", "device", "host", "livepatch")
_INDICES = ("vits", "its", "devid")
_WARNING = re.compile(r"\(XEN\).*Xen WARN at")
_HALTED = re.compile(r"^\(XEN\) Hardware Dom\d+ \w+: ")
"""Xen's last words: Dom0 has ended, and so will the machine, if the firmware can switch it off."""


@dataclass
class Interrupt:
    """A line of Dom0's interrupts, as its tool printed it."""

    irq: str
    source: str
    name: str
    counts: list[int]

    @property
    def total(self) -> int:
        """Over all CPUs."""
        return sum(self.counts)


@dataclass
class Check:
    """One check of the Dom0 tool's."""

    number: int
    name: str
    passed: bool
    detail: str = ""

    @property
    def values(self) -> dict[str, str]:
        """The ``key=value`` words of the detail."""
        return key_values(self.detail)


@dataclass
class Console:
    """Everything learned from a console, fed line by line."""

    plan: int | None = None
    checks: list[Check] = field(default_factory=list)
    interrupts: list[Interrupt] = field(default_factory=list)
    counters: dict[str, dict[str, str]] = field(default_factory=dict)
    """Xen's counters; the key is what they count and whose they are, as ``commands d0 vits=0``."""

    crashes: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    done: bool = False
    halted: bool = False
    """Xen has said its last words."""

    def feed(self, raw: str) -> None:
        """Take one line."""
        line = raw.replace("\r", "").rstrip("\n")
        for what, expression in _CRASHES:
            if expression.search(line):
                self.crashes.append((what, line.strip()))
                break
        if _WARNING.search(line):
            self.warnings.append(line.strip())
        self.halted = self.halted or bool(_HALTED.search(line))
        match = _PREFIX.search(line)
        if match is None:
            return
        if match[1] == "ITS":
            self._xen(match[2])
        elif not self._dom0(match[2].strip()):
            self.malformed.append(line.strip())

    def _xen(self, text: str) -> None:
        words = text.split()
        values = key_values(text)
        if not words or words[0] not in COUNTED or not values:
            return
        whom = [w for w in words if "=" not in w or w.split("=", 1)[0] in _INDICES]
        # What was printed last is what counts, if the debug key was pressed twice.
        self.counters[" ".join(whom)] = {k: v for k, v in values.items() if k not in _INDICES}

    def stat(self, key: str, whom: str = "d0") -> int | None:
        """A counter by name, out of the ``stats`` and ``state`` of a domain, or summed over the ``host`` lines."""
        if whom == "host":
            found = [v[key] for k, v in self.counters.items() if k.split()[0] == "host" and key in v]
        else:
            found = [v[key] for k in (f"stats {whom}", f"state {whom}") if key in (v := self.counters.get(k, {}))]
        return sum(int(value, 0) for value in found) if found else None

    def _dom0(self, text: str) -> bool:
        if match := re.fullmatch(r"plan (\d+)", text):
            self.plan = int(match[1])
        elif match := re.fullmatch(r"(not )?ok (\d+) (\S+)\s*(.*)", text):
            self.checks.append(Check(int(match[2]), match[3], match[1] is None, match[4]))
        elif match := re.fullmatch(r"irq (\S+) (\S+/\S+) (\S+)((?: \d+)+)", text):
            self.interrupts.append(Interrupt(match[1], match[2], match[3], [int(n) for n in match[4].split()]))
        elif text == "done":
            self.done = True
        else:
            # Other words (notes, progress) are allowed; the ones above have a fixed form.
            return text.split(" ", 1)[0] not in ("plan", "ok", "not", "irq")
        return True

    def problems(self) -> list[str]:
        """Why this console does not tell of a good boot; empty if it does."""
        found = [f"{what}: {line}" for what, line in self.crashes[:4]]
        found += [f"Xen warned: {line}" for line in self.warnings[:4]]
        found += [f"a line that cannot be read: {line}" for line in self.malformed]
        found += [f"check {c.number} {c.name} failed: {c.detail}" for c in self.checks if not c.passed]
        if self.plan is None:
            found.append("Dom0 never announced its checks (no 'XENITS: plan')")
        else:
            numbers = [c.number for c in self.checks]
            absent = sorted(set(range(1, self.plan + 1)) - set(numbers))
            if absent:
                found.append(f"{len(absent)} of {self.plan} checks never ran: {', '.join(map(str, absent))}")
            if len(set(numbers)) != len(numbers) or any(not 1 <= n <= self.plan for n in numbers):
                found.append(f"checks do not fit the plan of {self.plan}: {numbers}")
            if self.plan == 0:
                found.append("the plan has no check in it")
            if not self.done:
                found.append("Dom0 did not get to the end (no 'XENITS: done')")
        return found


def key_values(text: str) -> dict[str, str]:
    """The ``key=value`` words of a text."""
    return dict(word.split("=", 1) for word in text.split() if "=" in word)
