# SPDX-License-Identifier: GPL-2.0-only
"""Flights, jobs, steps and runvars in SQLite, in tables as osstest has them.

Each call opens the database anew: the runner's threads and the steps' programs all use it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import statuses

_SCHEMA = """
CREATE TABLE IF NOT EXISTS flights (
    flight INTEGER PRIMARY KEY AUTOINCREMENT,
    started INTEGER NOT NULL,
    blessing TEXT NOT NULL,
    branch TEXT NOT NULL,
    intended TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    flight INTEGER NOT NULL REFERENCES flights (flight),
    job TEXT NOT NULL,
    recipe TEXT NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (flight, job)
);
CREATE TABLE IF NOT EXISTS steps (
    flight INTEGER NOT NULL,
    job TEXT NOT NULL,
    stepno INTEGER NOT NULL,
    step TEXT NOT NULL,
    testid TEXT NOT NULL,
    status TEXT NOT NULL,
    started INTEGER,
    finished INTEGER,
    PRIMARY KEY (flight, job, stepno),
    FOREIGN KEY (flight, job) REFERENCES jobs (flight, job)
);
CREATE TABLE IF NOT EXISTS runvars (
    flight INTEGER NOT NULL,
    job TEXT NOT NULL,
    name TEXT NOT NULL,
    val TEXT NOT NULL,
    synth BOOLEAN NOT NULL,
    PRIMARY KEY (flight, job, name),
    FOREIGN KEY (flight, job) REFERENCES jobs (flight, job)
);
"""

WAIT_S = 60.0
"""How long to wait for somebody else's transaction."""


@dataclass(frozen=True)
class Flight:
    """A row of ``flights``."""

    flight: int
    started: int
    blessing: str
    branch: str
    intended: str


@dataclass(frozen=True)
class Job:
    """A row of ``jobs``."""

    flight: int
    job: str
    recipe: str
    status: str


@dataclass(frozen=True)
class Step:
    """A row of ``steps``."""

    flight: int
    job: str
    stepno: int
    step: str
    testid: str
    status: str
    started: int | None
    finished: int | None


class Database:
    """The database at `path`; it is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as db:
            db.executescript(_SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        connection = sqlite3.connect(self.path, timeout=WAIT_S)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            with connection:
                yield connection
        finally:
            connection.close()

    def add_flight(self, branch: str, blessing: str) -> int:
        """A new flight; gives its number."""
        with self._open() as db:
            row = (int(time.time()), blessing, branch, blessing)
            added = db.execute("INSERT INTO flights (started, blessing, branch, intended) VALUES (?, ?, ?, ?)", row)
            assert added.lastrowid is not None
            return added.lastrowid

    def add_job(self, flight: int, job: str, recipe: str, runvars: Mapping[str, str]) -> None:
        """A job that waits, with what it is given."""
        with self._open() as db:
            db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?)", (flight, job, recipe, statuses.QUEUED))
            rows = [(flight, job, name, value, False) for name, value in runvars.items()]
            db.executemany("INSERT INTO runvars VALUES (?, ?, ?, ?, ?)", rows)

    def flight(self, flight: int) -> Flight | None:
        """One flight."""
        with self._open() as db:
            row = db.execute(
                "SELECT flight, started, blessing, branch, intended FROM flights WHERE flight = ?", [flight]
            )
            found = row.fetchone()
        return Flight(*found) if found else None

    def flights(self, branch: str = "") -> list[Flight]:
        """All flights, or those of a branch; the oldest first."""
        query = "SELECT flight, started, blessing, branch, intended FROM flights"
        with self._open() as db:
            rows = db.execute(f"{query} WHERE branch = ? OR ? = '' ORDER BY flight", (branch, branch)).fetchall()
        return [Flight(*row) for row in rows]

    def jobs(self, flight: int) -> list[Job]:
        """The jobs of a flight, in the order in which they were added."""
        with self._open() as db:
            query = "SELECT flight, job, recipe, status FROM jobs WHERE flight = ? ORDER BY rowid"
            return [Job(*row) for row in db.execute(query, [flight]).fetchall()]

    def job(self, flight: int, job: str) -> Job | None:
        """One job."""
        return next((j for j in self.jobs(flight) if j.job == job), None)

    def steps(self, flight: int, job: str = "") -> list[Step]:
        """The steps of a job, or of all jobs of a flight."""
        query = "SELECT flight, job, stepno, step, testid, status, started, finished FROM steps"
        where = "WHERE flight = ? AND (job = ? OR ? = '') ORDER BY job, stepno"
        with self._open() as db:
            return [Step(*row) for row in db.execute(f"{query} {where}", (flight, job, job)).fetchall()]

    def runvars(self, flight: int, job: str) -> dict[str, str]:
        """What a job was given, and what its steps have stored."""
        with self._open() as db:
            query = "SELECT name, val FROM runvars WHERE flight = ? AND job = ? ORDER BY rowid"
            return dict(db.execute(query, (flight, job)).fetchall())

    def store(self, flight: int, job: str, name: str, value: str) -> None:
        """A runvar that a step found out."""
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO runvars VALUES (?, ?, ?, ?, ?)", (flight, job, name, value, True))

    def set_job(self, flight: int, job: str, status: str) -> None:
        """The status of a job."""
        with self._open() as db:
            db.execute("UPDATE jobs SET status = ? WHERE flight = ? AND job = ?", (status, flight, job))

    def begin_step(self, flight: int, job: str, stepno: int, step: str, testid: str) -> None:
        """A step runs from now on."""
        row = (flight, job, stepno, step, testid, statuses.RUNNING, int(time.time()), None)
        with self._open() as db:
            db.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def end_step(self, flight: int, job: str, stepno: int, status: str) -> None:
        """A step has ended."""
        with self._open() as db:
            query = "UPDATE steps SET status = ?, finished = ? WHERE flight = ? AND job = ? AND stepno = ?"
            db.execute(query, (status, int(time.time()), flight, job, stepno))

    def rewind(self, flight: int, job: str) -> None:
        """Forget what a job has done: it is about to run anew."""
        with self._open() as db:
            db.execute("DELETE FROM steps WHERE flight = ? AND job = ?", (flight, job))
            db.execute("DELETE FROM runvars WHERE flight = ? AND job = ? AND synth", (flight, job))
            db.execute("UPDATE jobs SET status = ? WHERE flight = ? AND job = ?", (statuses.QUEUED, flight, job))
