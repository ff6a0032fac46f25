# SPDX-License-Identifier: GPL-2.0-only
"""The patch series for the versions of Xen: that they are the same one.

A patch for one version of Xen may differ from that for another where Xen does. What it is about, and the
files that the series adds to Xen, may not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CACHEABILITY = "xen/arm: its: compare the cacheability that sticks as a field value"
XSM = "xsm: keep the hooks for PCI devices that come and go for the ITS in Rust"

NOT_NEEDED: dict[tuple[str, str], str] = {
    ("4.22", CACHEABILITY): "Xen does so since 4.22",
    ("4.23", CACHEABILITY): "Xen does so since 4.22",
    ("4.20", XSM): "the hooks depend on CONFIG_HAS_PCI since 4.23 only",
    ("4.21", XSM): "the hooks depend on CONFIG_HAS_PCI since 4.23 only",
    ("4.22", XSM): "the hooks depend on CONFIG_HAS_PCI since 4.23 only",
}
"""(version, subject): why that version has no such patch."""


@dataclass(frozen=True)
class Patch:
    """A patch as far as versions are compared: its subject, and how it changes each file."""

    subject: str
    changes: dict[str, str] = field(default_factory=dict)
    """Hunks by file name, without what says where in the file they are."""

    added: frozenset[str] = frozenset()
    """Those of the files that it adds."""


def parse(text: str) -> Patch:
    """Read a file that ``git format-patch`` wrote."""
    head, *sections = re.split(r"^diff --git ", text, flags=re.MULTILINE)
    found = re.search(r"^Subject: \[PATCH\] (.*(?:\n[ \t].*)*)", head, re.MULTILINE)
    subject = " ".join(found[1].split()) if found else ""
    changes: dict[str, str] = {}
    added = set()
    for section in sections:
        name = section.split("\n", 1)[0].rsplit(" b/", 1)[-1]
        if re.search(r"^new file mode", section, re.MULTILINE):
            added.add(name)
        hunks = section[section.index("\n@@ ") :] if "\n@@ " in section else ""
        changes[name] = re.sub(r"^@@ -\S+ \+\S+ @@.*$", "@@", hunks, flags=re.MULTILINE)
    return Patch(subject, changes, frozenset(added))


def differences(series: dict[str, list[Patch]], not_needed: dict[tuple[str, str], str]) -> list[str]:
    """Where the series of the versions are not one, but for what `not_needed` explains."""
    wrong = []
    subjects = {version: [p.subject for p in patches] for version, patches in series.items()}
    everything = list(dict.fromkeys(s for names in subjects.values() for s in names))
    for version, names in subjects.items():
        for subject in everything:
            explained = (version, subject) in not_needed
            if subject not in names and not explained:
                wrong.append(f"{version} has no patch '{subject}', and nothing says why")
            elif subject in names and explained:
                wrong.append(f"{version} has the patch '{subject}', which is said not to be needed")
        wrong += [f"{version} has '{s}' twice" for s in dict.fromkeys(names) if names.count(s) > 1]
    for version, subject in not_needed:
        if version not in series or subject not in everything:
            wrong.append(f"the note on '{subject}' in {version} is about nothing")
    wrong += _out_of_order(subjects)
    first, *others = series
    for other in others:
        wrong += _new_files(first, series[first], other, series[other])
    return wrong


def _out_of_order(subjects: dict[str, list[str]]) -> list[str]:
    first, *others = subjects
    wrong = []
    for other in others:
        common = [s for s in subjects[first] if s in subjects[other]]
        if common != [s for s in subjects[other] if s in common]:
            wrong.append(f"{other} has the patches in another order than {first}")
    return wrong


def _new_files(a: str, ours: Sequence[Patch], b: str, theirs: Sequence[Patch]) -> list[str]:
    """What the two series make of the files that they add."""
    names = sorted({n for p in (*ours, *theirs) for n in p.added})
    wrong = []
    for name in names:
        left, right = ([p.changes[name] for p in patches if name in p.changes] for patches in (ours, theirs))
        if left != right:
            wrong.append(f"{name} is not the same in {a} and {b}")
    return wrong


def unused(top: Path, used: Collection[Path]) -> list[str]:
    """Patches below `top` that are in no series."""
    return [str(p.relative_to(top)) for p in sorted(top.glob("*/*.patch")) if p not in used]
