# SPDX-License-Identifier: GPL-2.0-only
"""What may become of a job or a step, and how a step says so."""

from __future__ import annotations

QUEUED = "queued"
RUNNING = "running"
PASS = "pass"
FAIL = "fail"
"""What is tested is wrong."""

BROKEN = "broken"
"""What it is tested with is wrong: a full disk, a tool that is missing, a QEMU that somebody killed."""

BLOCKED = "blocked"
"""A build that the job needs did not pass."""

STARVED = "starved"
"""The job needs something that this machine cannot offer, such as a model that is sold."""

ABORTED = "aborted"
"""Somebody stopped the flight."""

UNFINISHED = (QUEUED, RUNNING, ABORTED)
"""Jobs that are run when their flight is resumed."""

BAD = (FAIL, BROKEN, BLOCKED, ABORTED)
"""Jobs that make a flight end in a failure. A machine that has no model is no failure."""

EXIT_STATUS = {PASS: 0, FAIL: 1, BLOCKED: 3, STARVED: 4, BROKEN: 5}
"""What a step's program ends with. 2 is Python's own, for wrong options."""


class Verdict(Exception):
    """Ends a step with a status."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


def of_exit_status(code: int, iffail: str) -> str:
    """The status of a step whose program ended so; `iffail` is what its recipe says of a plain failure."""
    if code == EXIT_STATUS[FAIL]:
        return iffail
    return next((status for status, known in EXIT_STATUS.items() if known == code), BROKEN)
