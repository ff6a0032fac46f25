# SPDX-License-Identifier: GPL-2.0-only
"""Which lines and branches of the core the host tests run.

A branch is one way out of a condition in the source. Generic code is compiled
once for each use, and so is what two test programs share: a way is taken if any
of these takes it. (LLVM's own summary takes the best single one.) ``docs/guards.md``
lists conditions that cannot go one way, with the reason; a figure without them
is printed beside the one with them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import rust
from .errors import StepError
from .layout import REPO, locked
from .shell import Command, run
from .suite import Case, Context, Result
from .tools import cargo_tool

TOOL = ("cargo-llvm-cov", "cargo-llvm-cov", "0.9.1")
"""Package, program, version."""

GATED = "rust/its-core/src/"
"""What has to be covered; its-arch is measured as well."""

LEAST = 95.0
"""Percent of lines, and of branches, of what is `GATED`."""

GUARDS = Path("docs/guards.md")


@dataclass
class File:
    """One source file: numbers of lines and of ways out of conditions."""

    name: str
    lines: int = 0
    lines_run: int = 0
    ways: int = 0
    ways_taken: int = 0
    untaken: list[tuple[int, str]] = field(default_factory=list)
    """Line, and its text, for each way that was not taken."""
    both: set[str] = field(default_factory=set)
    """The text of lines whose conditions all went both ways."""


def read(export: Mapping[str, Any], repo: Path) -> list[File]:
    """The files of an export of ``llvm-cov``, as JSON."""
    # A test program that compiles sources of the core once more has them under another name.
    same: dict[Path, list[Mapping[str, Any]]] = {}
    for entry in export["data"][0]["files"]:
        path = Path(os.path.normpath(entry["filename"]))
        if path.is_relative_to(repo) and "tests" not in path.relative_to(repo).parts:
            same.setdefault(path, []).append(entry)
    found = []
    for path, entries in same.items():
        text = path.read_text(encoding="utf-8").splitlines()
        lines = max((entry["summary"]["lines"] for entry in entries), key=lambda lines: lines["covered"])
        file = File(str(path.relative_to(repo)), lines["count"], lines["covered"])
        counts: dict[tuple[int, ...], list[int]] = {}
        for branch in (branch for entry in entries for branch in entry["branches"]):
            # First line and column, last line and column, times true, times false.
            total = counts.setdefault(tuple(branch[:4]), [0, 0])
            total[0] += branch[4]
            total[1] += branch[5]
        for place, taken in sorted(counts.items()):
            source = text[place[0] - 1].strip()
            missing = taken.count(0)
            file.ways += 2
            file.ways_taken += 2 - missing
            file.untaken += [(place[0], source)] * missing
            file.both |= set() if missing else {source}
        found.append(file)
    return sorted(found, key=lambda file: file.name)


Guards = dict[tuple[str, str], int]
"""How many ways are never taken on a line of a file, by its text."""


def guards(text: str) -> Guards:
    """The table of `GUARDS`: the file below `GATED`, the line's text, the number of ways, and why."""
    found: Guards = {}
    for line in text.splitlines():
        match = re.match(r"\| `([^`]+)` \| `` (.+?) `` \| (\d+) \| (.*\S) \|$", line)
        if match:
            found[GATED + match[1], match[2].replace("\\|", "|")] = int(match[3])
        elif line.startswith("| `"):
            raise StepError(f"{GUARDS}: not a row of its table: {line}")
    return found


def stale(files: list[File], known: Guards) -> Iterable[str]:
    """Guards that are none: no condition of that text fails to go both ways as often as the table says."""
    untaken: Guards = {}
    for file in files:
        for _, source in file.untaken:
            untaken[file.name, source] = untaken.get((file.name, source), 0) + 1
    for (name, source), count in known.items():
        if untaken.get((name, source), 0) < count:
            yield f"{GUARDS}: {name} has no {count} ways that are never taken at: {source}"


@dataclass(frozen=True)
class Totals:
    """Percentages of several files."""

    lines: float
    ways: float
    apart: float
    """Of ways, apart from guards."""

    def __str__(self) -> str:
        return f"lines {self.lines:.2f} %, branches {self.ways:.2f} %, apart from guards {self.apart:.2f} %"


def totals(files: list[File], known: Guards) -> Totals:
    """Sum up; raises an error if there is nothing."""
    lines, ways = sum(f.lines for f in files), sum(f.ways for f in files)
    if not lines or not ways:
        raise StepError("nothing was measured")
    names = {f.name for f in files}
    guarded = sum(count for (name, _), count in known.items() if name in names)
    taken = sum(f.ways_taken for f in files)
    run_lines = sum(f.lines_run for f in files)
    return Totals(100 * run_lines / lines, 100 * taken / ways, 100 * taken / (ways - guarded))


def table(files: list[File], known: Guards) -> str:
    """A line for each file, then the ways that nothing took and no guard explains."""
    out = [f"{'file':44} {'lines':>12} {'branches':>12}"]
    for f in files:
        out.append(f"{f.name:44} {f'{f.lines_run}/{f.lines}':>12} {f'{f.ways_taken}/{f.ways}':>12}")
    for f in files:
        out += [f"not taken: {f.name}:{n}: {text}" for n, text in f.untaken if (f.name, text) not in known]
    return "\n".join(out)


def test(context: Context) -> list[Result]:
    """Run all tests of its-arch and its-core, instrumented."""
    rust.ensure_nightly(("llvm-tools",), context.log)
    with locked("tools"):
        tool = cargo_tool(*TOOL, context.log)
    out = context.logs / "coverage.json"
    argv: Command = [
        tool, "llvm-cov", "--branch", "--json", "--output-path", out, "-p", "its-arch", "-p", "its-core",
        "--disable-default-ignore-filename-regex",
    ]  # fmt: skip
    env = {
        "CARGO_TARGET_DIR": str(rust.target_dir() / "coverage"), "CARGO_TERM_COLOR": "never",
        "RUSTUP_TOOLCHAIN": rust.NIGHTLY,
    }  # fmt: skip
    run(argv, context.log, cwd=REPO, env=env, what="the tests fail, or cannot be measured")
    files = read(json.loads(out.read_text(encoding="utf-8")), REPO)
    known = guards((REPO / GUARDS).read_text(encoding="utf-8"))
    with open(context.log, "a", encoding="utf-8") as log:
        print(table(files, known), file=log)
    gated = [f for f in files if f.name.startswith(GATED)]
    found = totals(gated, known)
    problems = list(stale(gated, known))
    if found.lines < LEAST or found.ways < LEAST:
        problems.append(f"its-core: {found}; at least {LEAST} % is wanted\n" + table(gated, known))
    note = "\n".join(
        f"{name}: {totals([f for f in files if f.name.startswith(top)], known)}"
        for name, top in (("its-core", GATED), ("its-arch", "rust/its-arch/src/"))
    )
    return [Result("rust/coverage", problems=tuple(problems), note=note)]


def cases() -> Iterable[Case]:
    """One."""
    yield Case("rust/coverage", f"the host tests run {LEAST:.0f} % of its-core's lines and branches", test, quick=False)
