# SPDX-License-Identifier: GPL-2.0-only
"""Runs the unit tests of a folder and writes what became of each to a JSON file.

Run as a program of its own, so that a test that ends its process fails as a test:
``python3 -m xenits.unit_runner FOLDER RESULTS.json``.
"""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path
from typing import Any


class _Recorder(unittest.TextTestResult):
    """Keeps ``name: [outcome, reason]``; a subtest that fails makes its test fail."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.outcomes: dict[str, tuple[str, str]] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.outcomes[test.id()] = ("ok", "")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._broken(test, err)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._broken(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._broken(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.outcomes[test.id()] = ("skipped", reason or "no reason is given")

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self.outcomes[test.id()] = ("ok", "")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self.outcomes[test.id()] = ("failed", "it passed, but is marked as an expected failure")

    def _broken(self, test: unittest.TestCase, err: Any) -> None:
        lines = str(err[1]).strip().splitlines() or [""]
        self.outcomes[test.id()] = ("failed", f"{err[0].__name__}: {lines[0]}")


def main(folder: str, results: str) -> int:
    """Discover, run, write."""
    tests = unittest.defaultTestLoader.discover(folder)
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=_Recorder)
    result = runner.run(tests)
    assert isinstance(result, _Recorder)
    Path(results).write_text(json.dumps(result.outcomes), encoding="utf-8")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
