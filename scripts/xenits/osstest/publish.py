# SPDX-License-Identifier: GPL-2.0-only
"""The files that a flight leaves for people and for other programs to read."""

from __future__ import annotations

from pathlib import Path

from . import junit, page, text
from .home import Home

TEXT, JUNIT, PAGE = "report.txt", "junit.xml", "index.html"
"""Beside the folders of the flight's jobs."""


def publish(home: Home, flight: int, against: int | None = None) -> list[Path]:
    """Write all of them; the text first, as the others need packages that may have to be fetched."""
    folder = home.flight_logs(flight)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "publish.log"
    (folder / TEXT).write_text(text.render(home, flight, against) + "\n", encoding="utf-8")
    junit.write(home, flight, folder / JUNIT, log)
    page.write(home, flight, folder / PAGE, log, against)
    return [folder / TEXT, folder / JUNIT, folder / PAGE]
