# SPDX-License-Identifier: GPL-2.0-only
"""The gate for Python, with tools that only pretend to look."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from xenits import python_gate


class Tools(unittest.TestCase):
    """What they say, and what becomes of it."""

    def problems(self, **tools: str) -> list[str]:
        """What is found if these are the programs of the tools."""
        with tempfile.TemporaryDirectory() as name:
            home = Path(name) / "home"
            for tool in ("ruff", "mypy"):
                (home / tool).mkdir(parents=True)
                (home / tool / "__main__.py").write_text(tools.get(tool, ""), encoding="utf-8")
            with mock.patch.object(python_gate, "python_packages", lambda *_: home):
                found = list(python_gate.problems(Path(name), Path(name) / "log"))
            log = (Path(name) / "log").read_text(encoding="utf-8")
            self.assertEqual(log.count("(exit status"), len(python_gate.CHECKS))
            return found

    def test_content(self) -> None:
        self.assertEqual(self.problems(), [])

    def test_each_fault_is_told(self) -> None:
        ruff = "import sys\nprint('x.py:1:1: E501', sys.argv[1])\nsys.exit(sys.argv[1] == 'check')"
        self.assertEqual(self.problems(ruff=ruff), ["ruff check finds fault:\nx.py:1:1: E501 check"])
        [found] = self.problems(mypy="import sys\nsys.exit('y.py:2: error')")
        self.assertRegex(found, "^mypy .*\ny.py:2: error$")

    def test_a_tool_that_is_broken_is_a_fault(self) -> None:
        [found] = self.problems(mypy="import nothing_like_it")
        self.assertIn("ModuleNotFoundError", found)


if __name__ == "__main__":
    unittest.main()
