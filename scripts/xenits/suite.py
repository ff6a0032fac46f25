# SPDX-License-Identifier: GPL-2.0-only
"""Runs cases and counts what they found; knows nothing of what is tested.

A `Case` is a unit that can be chosen by name. It gives one or more `Result`s:
a boot gives one, ``cargo test`` gives one for each of its tests.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from .errors import StepError


@dataclass(frozen=True)
class Result:
    """How one test went.

    `problems` is empty if it passed; `skipped` has the reason if it did not run; `note` is shown in any case.
    """

    name: str
    problems: tuple[str, ...] = ()
    skipped: str = ""
    remark: str = ""
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether it ran and did not pass."""
        return bool(self.problems)


@dataclass
class Context:
    """What a case gets: a folder for its logs."""

    logs: Path

    @property
    def log(self) -> Path:
        """The main log of the case."""
        return self.logs / "test.log"


@dataclass(frozen=True)
class Case:
    """Something to run. `quick` ones need neither a build of Xen nor a boot."""

    name: str
    about: str
    run: Callable[[Context], Iterable[Result]]
    quick: bool = True


def choose(cases: list[Case], pattern: str, quick: bool) -> list[Case]:
    """The cases whose names match, and that are quick if that is asked for."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise StepError(f"--filter: {error}") from None
    return [c for c in cases if expression.search(c.name) and (c.quick or not quick)]


@dataclass
class Tally:
    """The totals."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one result."""
        if result.skipped:
            self.skipped += 1
        elif result.failed:
            self.failed += 1
            self.failures.append(result.name)
        else:
            self.passed += 1

    def closing_line(self) -> str:
        """``N passed, N failed`` and, if there are any, ``, N skipped``."""
        line = f"{self.passed} passed, {self.failed} failed"
        return line + (f", {self.skipped} skipped" if self.skipped else "")


def run(cases: list[Case], logs: Path, out: TextIO) -> Tally:
    """Run all cases in order, print a line for each, and the failures below it."""
    tally = Tally()
    width = max((len(c.name) for c in cases), default=0)
    for case in cases:
        print(f"{case.name.ljust(width)} ... ", end="", file=out, flush=True)
        folder = logs / case.name.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        results = _results(case, Context(folder))
        seconds = time.monotonic() - start
        for result in results:
            tally.add(result)
        print(_summary(results, seconds), file=out, flush=True)
        for result in results:
            if result.note:
                print("\n".join(f"    {line}" for line in result.note.splitlines()), file=out)
            if result.skipped and len(results) > 1:
                print(f"    skipped {result.name}: {result.skipped}", file=out)
            for problem in result.problems:
                head = f"    {result.name}: " if result.name != case.name else "    "
                print(head + problem.replace("\n", "\n      "), file=out)
        if any(r.failed for r in results):
            print(f"    logs: {folder}", file=out, flush=True)
    return tally


def _results(case: Case, context: Context) -> list[Result]:
    try:
        results = list(case.run(context))
    except StepError as error:
        return [Result(case.name, problems=(error.render(),))]
    except Exception:  # a broken test must not end the others
        return [Result(case.name, problems=(traceback.format_exc().rstrip(),))]
    if not results:
        return [Result(case.name, problems=("it ran no test at all",))]
    return results


def _summary(results: list[Result], seconds: float) -> str:
    failed = sum(r.failed for r in results)
    skipped = sum(bool(r.skipped) for r in results)
    if len(results) == 1:
        only = results[0]
        if only.skipped:
            return f"skipped: {only.skipped}"
        remark = f"  ({only.remark})" if only.remark else ""
        return f"{'FAILED' if failed else 'ok'} {seconds:.1f}s{remark}"
    counts = f"{len(results) - failed - skipped} passed"
    counts += f", {failed} failed" if failed else ""
    counts += f", {skipped} skipped" if skipped else ""
    return f"{'FAILED' if failed else 'ok'} {seconds:.1f}s  ({counts})"
