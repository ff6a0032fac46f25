# SPDX-License-Identifier: GPL-2.0-only
"""Numbered steps with progress, elapsed time and a log each."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import StepError


class Step:
    """One step while it runs: where it logs, and what to say when it is done."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.remark = ""
        self.skipped = False

    def up_to_date(self, remark: str = "") -> None:
        """Nothing had to be done."""
        self.skipped = True
        self.remark = remark

    def say(self, remark: str) -> None:
        """A word for the line that the step ends with."""
        self.remark = remark


class Steps:
    """Runs the steps of one command in order and prints a line for each."""

    def __init__(self, total: int, logs: Path, out: TextIO | None = None, quiet: bool = False) -> None:
        self.total = total
        self.logs = logs
        self.done = 0
        self.out = out or sys.stdout
        self.quiet = quiet

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run the body as the next step. A `StepError` out of it gets the step's name and log."""
        self.done += 1
        slug = "".join(c if c.isalnum() else "-" for c in name.lower())
        step = Step(name, self.logs / f"{self.done}-{slug}.log")
        head = f"[{self.done}/{self.total}] {name} ... "
        start = time.monotonic()
        ticker = _Ticker(self.out, head, start) if not self.quiet else None
        try:
            yield step
        except StepError as error:
            self._finish(ticker, head, "FAILED", start, "")
            if error.log is None and step.log.exists():
                error.log = step.log
            error.message = f"step {self.done}/{self.total} ({name}) failed: {error.message}"
            raise
        except BaseException:
            self._finish(ticker, head, "stopped", start, "")
            raise
        self._finish(ticker, head, "up to date" if step.skipped else "ok", start, step.remark)

    def _finish(self, ticker: _Ticker | None, head: str, word: str, start: float, remark: str) -> None:
        if ticker is None:
            return
        ticker.stop()
        tail = f"  ({remark})" if remark else ""
        print(f"{word} {time.monotonic() - start:.1f}s{tail}", file=self.out, flush=True)


class _Ticker:
    """Prints the head of the line; on a terminal also counts the seconds while the step runs."""

    def __init__(self, out: TextIO, head: str, start: float) -> None:
        self.out = out
        self.head = head
        self.start = start
        self.over = threading.Event()
        self.thread: threading.Thread | None = None
        print(head, end="", file=out, flush=True)
        if out.isatty():
            self.thread = threading.Thread(target=self._tick, daemon=True)
            self.thread.start()

    def _tick(self) -> None:
        while not self.over.wait(1.0):
            print(f"\r{self.head}{time.monotonic() - self.start:.0f}s", end="", file=self.out, flush=True)

    def stop(self) -> None:
        """Leave the cursor after the head, ready for the result."""
        self.over.set()
        if self.thread:
            self.thread.join()
            print(f"\r\033[K{self.head}", end="", file=self.out, flush=True)
