# SPDX-License-Identifier: GPL-2.0-only
"""A flight as JUnit XML: a suite for each job, a case for each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import libraries, statuses
from .database import Step
from .home import Home

TAIL_LINES = 40
"""So much of its log goes with a step that did not pass."""


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The end of a log; empty if there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # XML has no room for control characters.
    return "".join(c if c in "\n\t" or c.isprintable() else "?" for c in "\n".join(text.splitlines()[-lines:]))


def seconds(step: Step) -> int:
    """How long a step took."""
    return (step.finished or step.started or 0) - (step.started or 0)


def write(home: Home, flight: int, path: Path, log: Path) -> None:
    """Write the file."""
    junit = libraries.load("junitparser", log)
    kinds = {statuses.FAIL: junit.Failure, statuses.BLOCKED: junit.Skipped, statuses.STARVED: junit.Skipped}
    xml = junit.JUnitXml(f"flight {flight}")
    for job in home.database.jobs(flight):
        suite = junit.TestSuite(job.job)
        for step in home.database.steps(flight, job.job):
            case = junit.TestCase(f"{step.stepno} {step.testid}", job.job, seconds(step))
            if step.status != statuses.PASS:
                case.result = [_result(kinds.get(step.status, junit.Error), step, home)]
            suite.add_testcase(case)
        xml.add_testsuite(suite)
    xml.update_statistics()
    xml.write(str(path), pretty=True)


def _result(kind: Any, step: Step, home: Home) -> Any:
    result = kind(step.status)
    result.text = tail(home.step_log(step.flight, step.job, step.stepno, step.step))
    return result
