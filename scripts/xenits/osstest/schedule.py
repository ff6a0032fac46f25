# SPDX-License-Identifier: GPL-2.0-only
"""Runs the jobs of a flight: several at once, each after those whose artefacts it takes."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterable

from . import jobs, statuses
from .database import Database, Job
from .execute import Runner
from .home import Home
from .jobs import Spec
from .step import BUILD

Listener = Callable[[str, str, str], None]
"""Is told of a job, its status, and a remark."""

BUILDS_KEPT = 5
"""Flights whose builds are kept; of older ones there are only the logs."""


def create(database: Database, branch: str, specs: Iterable[Spec], blessing: str = "real") -> int:
    """A flight of these jobs, none of which has run yet."""
    flight = database.add_flight(branch, blessing)
    for spec in specs:
        database.add_job(flight, spec.name, spec.recipe, spec.runvars)
    return flight


def drop_builds(home: Home, flight: int) -> None:
    """Make room: remove what a flight's jobs made for one another."""
    for folder in home.flight_logs(flight).glob(f"*/{BUILD}"):
        shutil.rmtree(folder, ignore_errors=True)


def drop_old_builds(home: Home) -> None:
    """The same for all flights but the last ones."""
    for flight in home.database.flights()[:-BUILDS_KEPT]:
        drop_builds(home, flight.flight)


def queue_lost_builds(home: Home, flight: int) -> None:
    """A flight is to go on: what unfinished jobs need, and has been dropped since, is made anew."""
    database = home.database
    every = {job.job: job for job in database.jobs(flight)}
    unfinished = [name for name, job in every.items() if job.status in statuses.UNFINISHED]
    for need in {need for name in unfinished for need in jobs.needed(database.runvars(flight, name))}:
        made = (home.flight_logs(flight) / need / BUILD).is_dir()
        if not made and need in every and every[need].status == statuses.PASS:
            database.set_job(flight, need, statuses.QUEUED)


class Flight:
    """A flight while it runs."""

    def __init__(self, runner: Runner, flight: int, listen: Listener, cores: int | None = None) -> None:
        self.runner = runner
        self.flight = flight
        self.listen = listen
        self.cores = cores or os.cpu_count() or 1
        self._over: queue.Queue[tuple[str, str]] = queue.Queue()
        self._started: dict[str, float] = {}
        self._threads: dict[str, threading.Thread] = {}

    @property
    def database(self) -> Database:
        """Where it is written down."""
        return self.runner.home.database

    def running(self) -> dict[str, float]:
        """The jobs that run now, and for how long."""
        now = time.monotonic()
        return {job: now - self._started[job] for job in self._threads}

    def run(self) -> dict[str, str]:
        """Run what is unfinished; gives the status of each job. An interrupt stops it, and leaves nothing running."""
        waiting = [job for job in self.database.jobs(self.flight) if job.status in statuses.UNFINISHED]
        try:
            while waiting or self._threads:
                self._start_some(waiting)
                self._wait_for_one()
        finally:
            self._stop_all(waiting)
        return {job.job: job.status for job in self.database.jobs(self.flight)}

    def _start_some(self, waiting: list[Job]) -> None:
        unfinished = {job.job for job in waiting} | set(self._threads)
        for job in list(waiting):
            runvars = self.database.runvars(self.flight, job.job)
            used = sum(self._cores_of(running) for running in self._threads)
            fits = used + self._cores_of(job.job) <= self.cores
            if fits and not unfinished & set(jobs.needed(runvars)):
                waiting.remove(job)
                self._start(job.job)

    def _cores_of(self, job: str) -> int:
        """How many CPUs a job may keep busy: a build takes all."""
        smp = self.database.runvars(self.flight, job).get("smp", "")
        return min(int(smp), self.cores) if smp else self.cores

    def _start(self, job: str) -> None:
        def body() -> None:
            status = statuses.BROKEN
            try:
                status = self.runner.run(self.flight, job)
            except Exception:
                # Such as a disk that is so full that nothing can be written down.
                traceback.print_exc()
                with contextlib.suppress(sqlite3.Error):
                    self.database.set_job(self.flight, job, status)
            finally:
                self._over.put((job, status))

        self._started[job] = time.monotonic()
        self._threads[job] = threading.Thread(target=body, name=job)
        self._threads[job].start()
        self.listen(job, statuses.RUNNING, "")

    def _wait_for_one(self) -> None:
        try:
            job, status = self._over.get(timeout=1.0)
        except queue.Empty:
            self.listen("", statuses.RUNNING, "")
            return
        self._threads.pop(job).join()
        self.listen(job, status, f"{time.monotonic() - self._started[job]:.1f} s")

    def _stop_all(self, waiting: list[Job]) -> None:
        if not waiting and not self._threads:
            return
        self.runner.stop.set()
        for thread in self._threads.values():
            thread.join()
        for job in waiting:
            self.database.set_job(self.flight, job.job, statuses.ABORTED)
