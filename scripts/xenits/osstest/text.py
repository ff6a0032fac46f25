# SPDX-License-Identifier: GPL-2.0-only
"""The report of a flight as text, in the form of osstest's mails."""

from __future__ import annotations

from . import statuses
from .history import Failure, History
from .home import Home

WIDTH = 60


def _line(failure: Failure) -> str:
    return f" {failure.job:<44} {failure.stepno:>2} {failure.testid:<20} {failure.status:<8} {failure.remark()}"


def is_good(words: list[str]) -> bool:
    """Whether a flight whose jobs have these statuses is no failure."""
    return not any(word in statuses.BAD or word in statuses.UNFINISHED for word in words)


def outcome(words: list[str], failures: list[Failure], compared: bool) -> str:
    """What became of a flight in a few words, given the statuses of its jobs and whether there is an earlier one."""
    if any(word in statuses.UNFINISHED for word in words):
        return "unfinished"
    if any(failure.blocking for failure in failures):
        return "regressions - FAIL"
    if not is_good(words):
        return "tolerable FAIL" if compared else "FAIL"
    starved = words.count(statuses.STARVED)
    return f"all pass, but {starved} starved" if starved else "all pass"


def header_lines(branch: str, failures: list[Failure]) -> list[str]:
    """The mail's header that lists the failures."""
    entries = [
        f"{branch}:{f.job}:{f.testid}:{f.status}:{'regression' if f.blocking else 'nonblocking'}" for f in failures
    ]
    return ["X-Osstest-Failures: " + "\n    ".join(entries)] if entries else []


def render(home: Home, flight: int, against: int | None = None) -> str:
    """All of the report."""
    database = home.database
    row = database.flight(flight)
    assert row is not None, flight
    history = History(database, flight, against)
    failures = history.failures()
    jobs = database.jobs(flight)
    word = outcome([job.status for job in jobs], failures, history.against is not None)
    lines = [f"[{row.branch} test] {flight}: {word}", *header_lines(row.branch, failures), ""]
    lines += [f"flight {flight} {row.branch} {row.blessing}", f"logs: {home.flight_logs(flight)}", ""]
    blocking = [f for f in failures if f.blocking]
    if blocking:
        lines += ["Regressions:", "", "Tests that did not succeed, and did before:", *map(_line, blocking), ""]
    others = [f for f in failures if not f.blocking]
    if others:
        lines += ["Tests that did not succeed, but are not blocking:", *map(_line, others), ""]
    lines.append(
        f"compared with flight {history.against}" if history.against is not None else "nothing to compare with"
    )
    lines += ["", "jobs:", *(f" {job.job:<{WIDTH}} {job.status}" for job in jobs)]
    return "\n".join(lines)
