# SPDX-License-Identifier: GPL-2.0-only
"""Runs one job: the steps of its recipe, in order, each with a log and a limit on time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..layout import REPO
from . import statuses
from .home import HOME_VARIABLE, Home
from .recipes import RECIPES, Step
from .step import FLIGHT_VARIABLE, JOB_VARIABLE, RUNNER_VARIABLE

PROGRAMS = REPO / "osstest"
POLL_S = 0.1
PATIENCE_S = 5.0
"""How long a step that is told to stop has before it is killed."""


@dataclass
class Runner:
    """Runs jobs of one home; `stop` ends all of them."""

    home: Home
    stop: threading.Event = field(default_factory=threading.Event)
    recipes: Mapping[str, Sequence[Step]] = field(default_factory=lambda: RECIPES)
    programs: Path = PROGRAMS

    def run(self, flight: int, job: str) -> str:
        """Run a job from its first step on; gives its status, which is in the database too."""
        database = self.home.database
        row = database.job(flight, job)
        assert row is not None, job
        logs = self.home.job_logs(flight, job)
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        database.rewind(flight, job)
        database.set_job(flight, job, statuses.RUNNING)
        status, over = statuses.PASS, False
        for number, step in enumerate(self.recipes[row.recipe], 1):
            if self.stop.is_set():
                status = statuses.ABORTED
                break
            if over and not step.always:
                continue
            database.begin_step(flight, job, number, step.program, step.testid)
            outcome = self._step(flight, job, number, step)
            database.end_step(flight, job, number, outcome)
            # The first step that is not well says what became of the job.
            if outcome != statuses.PASS and status == statuses.PASS:
                status = outcome
            over = over or (outcome != statuses.PASS and not step.goes_on)
        database.set_job(flight, job, status)
        return status

    def _step(self, flight: int, job: str, number: int, step: Step) -> str:
        log = self.home.step_log(flight, job, number, step.program)
        env = {
            **os.environ,
            HOME_VARIABLE: str(self.home.folder),
            FLIGHT_VARIABLE: str(flight),
            JOB_VARIABLE: job,
            RUNNER_VARIABLE: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
        }
        with open(log, "ab") as out:
            try:
                process = subprocess.Popen(
                    [str(self.programs / step.program), *step.arguments],
                    cwd=REPO, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                _say(log, f"{step.program} cannot be run: {error.strerror}")
                return statuses.BROKEN
            why = self._wait(process, step.limit)
        if why:
            _say(log, why)
            return statuses.ABORTED if self.stop.is_set() else step.iffail
        if process.returncode < 0:
            _say(log, f"{step.program} was killed by signal {-process.returncode}")
        return statuses.of_exit_status(process.returncode, step.iffail)

    def _wait(self, process: subprocess.Popen[bytes], limit: float) -> str:
        """Wait for a step to end, with all that it has started; gives the reason if it had to be stopped."""
        end = time.monotonic() + limit
        why = ""
        try:
            while process.poll() is None and not why:
                if self.stop.wait(POLL_S):
                    why = "stopped with its flight"
                elif time.monotonic() > end:
                    why = f"still running after {limit:.0f} s: stopped"
            if why:
                _signal(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE_S)
        finally:
            _signal(process.pid, signal.SIGKILL)
            process.wait()
        return why


def _signal(session: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, number)


def _say(log: Path, line: str) -> None:
    # Where the disk is full, the status must do.
    with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as out:
        print(f"xenits: {line}", file=out)
