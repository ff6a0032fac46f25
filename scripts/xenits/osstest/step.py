# SPDX-License-Identifier: GPL-2.0-only
"""What a step's program works with.

A step finds its flight and job in ``OSSTEST_FLIGHT`` and ``OSSTEST_JOB``, all else in
their runvars, and says by its exit status what became of it (`statuses.EXIT_STATUS`).
So it can be run by hand for a job that is there.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from ..errors import StepError
from ..processes import die_with_parent
from . import statuses
from .home import Home
from .statuses import Verdict

FLIGHT_VARIABLE = "OSSTEST_FLIGHT"
JOB_VARIABLE = "OSSTEST_JOB"
RUNNER_VARIABLE = "OSSTEST_RUNNER_PID"
"""Set by the runner, whose end ends the step; one that was started by hand goes on."""

BUILD = "build"
"""The folder among a job's logs that has what it makes for others."""

_DISK_FULL = "No space left on device"


def pass_unless(problems: list[str]) -> None:
    """Print the problems, and fail if there are any."""
    for problem in problems:
        print(f"problem: {problem}")
    if problems:
        raise Verdict(statuses.FAIL, problems[0])


class Job:
    """The job that a step is part of."""

    def __init__(self, home: Home, flight: int, name: str) -> None:
        self.home = home
        self.flight = flight
        self.name = name
        self.logs = home.job_logs(flight, name)
        self.logs.mkdir(parents=True, exist_ok=True)

    @property
    def runvars(self) -> dict[str, str]:
        """As they are now."""
        return self.home.database.runvars(self.flight, self.name)

    def store(self, name: str, value: object) -> None:
        """Hand a runvar out."""
        print(f"runvar: {name}={value}")
        self.home.database.store(self.flight, self.name, name, str(value))

    def build_job(self, name: str) -> tuple[int, str]:
        """Flight and name of another job: ``JOB`` is of this flight, ``FLIGHT.JOB`` of that one."""
        flight, dot, job = name.partition(".")
        return (int(flight), job) if dot else (self.flight, name)

    def artefact(self, built_by: str, variable: str) -> Path:
        """A file that another job has made: the job is in our runvar, the file's path in its own."""
        flight, name = self.build_job(self.runvars[built_by])
        place = self.home.database.runvars(flight, name).get(variable)
        path = self.home.job_logs(flight, name) / place if place else None
        if path is None or not path.exists():
            raise Verdict(statuses.BROKEN, f"{name} of flight {flight} passed, but its {variable} is not there")
        return path

    def stash(self, path: Path, variable: str, name: str) -> None:
        """Keep a file for other jobs, and hand its path out."""
        target = self.logs / BUILD / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(path, target)
        self.store(variable, f"{BUILD}/{name}")


def _from_environment() -> Job:
    try:
        flight, name = int(os.environ[FLIGHT_VARIABLE]), os.environ[JOB_VARIABLE]
    except (KeyError, ValueError):
        print(f"set {FLIGHT_VARIABLE} and {JOB_VARIABLE} to a job of a flight (osstest/run list)", file=sys.stderr)
        sys.exit(2)
    home = Home()
    if home.database.job(flight, name) is None:
        print(f"flight {flight} has no job {name}", file=sys.stderr)
        sys.exit(2)
    return Job(home, flight, name)


def disk_full(error: Exception) -> bool:
    """Whether it is the disk that is full."""
    if isinstance(error, StepError):
        return any(_DISK_FULL in line for line in [error.message, *error.lines])
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


def _outcome(error: Exception, on_error: str) -> tuple[str, str]:
    """Status and reason for whatever ended a step."""
    if isinstance(error, Verdict):
        return error.status, str(error)
    if disk_full(error):
        return statuses.BROKEN, f"the disk is full: {error}"
    if isinstance(error, StepError):
        return on_error, error.render()
    # Not what is tested is wrong then, but this program or the machine.
    return statuses.BROKEN, "".join(traceback.format_exception(error)).rstrip()


def main(body: Callable[[Job], None], on_error: str = statuses.BROKEN) -> None:
    """Run a step, and end this program.

    `on_error` is the status if it ends in a `StepError`: something that is needed cannot be
    had. In a step that builds, it is what is built that is wrong.
    """
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if RUNNER_VARIABLE in os.environ:
        die_with_parent()
    job = _from_environment()
    try:
        body(job)
    except Exception as error:
        status, why = _outcome(error, on_error)
        print(f"{status}: {why}")
        sys.exit(statuses.EXIT_STATUS[status])
    print(statuses.PASS)
