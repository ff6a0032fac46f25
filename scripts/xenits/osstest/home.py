# SPDX-License-Identifier: GPL-2.0-only
"""Where flights are kept: the database, and a folder of logs for each job."""

from __future__ import annotations

import os
from pathlib import Path

from ..layout import cache_root
from .database import Database

HOME_VARIABLE = "OSSTEST_HOME"
"""Names another place than the one in the cache."""


class Home:
    """A database and the logs that belong to it."""

    def __init__(self, folder: Path | None = None) -> None:
        own = os.environ.get(HOME_VARIABLE)
        self.folder = (folder or (Path(own) if own else cache_root() / "osstest")).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = Database(self.folder / "standalone.db")

    def flight_logs(self, flight: int) -> Path:
        """The logs of a flight."""
        return self.folder / "logs" / str(flight)

    def job_logs(self, flight: int, job: str) -> Path:
        """The logs of a job, and what it makes for others."""
        return self.flight_logs(flight) / job

    def step_log(self, flight: int, job: str, stepno: int, step: str) -> Path:
        """The log of a step."""
        return self.job_logs(flight, job) / f"{stepno}.{step}.log"
