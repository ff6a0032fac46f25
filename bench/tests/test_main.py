# SPDX-License-Identifier: GPL-2.0-only
"""``scripts/bench`` itself: what it writes, and how it ends. The boots are replaced."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from bench import limits, main
from bench.tests.test_limits import RUST, C


class Command(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.results: dict[str, Any] = {
            "date": "2026-01-02", "c": C, "rust": copy.deepcopy(RUST), "checked": {name: None for name in RUST},
            "versions": {"xen": "xen-4.20", "gcc": "gcc 12", "rustc": "rustc 1", "qemu": "QEMU 10"},
        }  # fmt: skip

    def run_main(self, *argv: str) -> tuple[int, str, Any]:
        out = io.StringIO()
        path = self.dir / "limits.json"
        with (
            contextlib.redirect_stdout(out),
            mock.patch.object(main, "new_run_dir", return_value=self.dir),
            mock.patch.object(main, "measure", return_value=self.results) as measure,
            mock.patch.object(main, "PAGE", self.dir / "docs/bench.md"),
            mock.patch.object(main, "FIGURES", self.dir / "docs/bench/figures.json"),
            mock.patch.object(limits.write, "__defaults__", (path,)),
            mock.patch.object(limits.problems, "__defaults__", (path,)),
        ):
            status = main.main(list(argv))
        return status, out.getvalue(), measure.call_args

    def test_update_writes_page_pictures_figures_and_limits(self) -> None:
        (self.dir / "docs").mkdir()
        status, _, called = self.run_main("--update")
        self.assertEqual(status, 0)
        self.assertEqual([boot.name for boot in called.args[0]], [boot.name for boot in main.boots.ALL])
        self.assertEqual((called.args[1], called.kwargs["extras"]), (["c", "rust"], main.EXTRAS))
        self.assertIn("xen-4.20", (self.dir / "docs/bench.md").read_text(encoding="utf-8"))
        figures = json.loads((self.dir / "docs/bench/figures.json").read_text(encoding="utf-8"))
        self.assertEqual(figures["SPDX-License-Identifier"], "GPL-2.0-only")
        self.assertEqual(figures["rust"], RUST)
        self.assertIn("<svg", (self.dir / "docs/bench/lpis.svg").read_text(encoding="utf-8"))
        self.assertEqual(set(limits.read(self.dir / "limits.json")), set(RUST))
        # And what was written is kept.
        self.assertEqual(self.run_main("--check")[0], 0)

    def test_check_fails_on_what_is_too_much(self) -> None:
        limits.write(RUST, self.dir / "limits.json")
        status, out, called = self.run_main("--check")
        self.assertEqual((status, out), (0, "within the limits\n"))
        self.assertEqual((called.args[0], called.args[1]), (list(main.boots.CHECKED), ["rust"]))
        self.results["rust"]["lpi/running"]["mode"]["insns"] += 100
        status, out, _ = self.run_main("--check")
        self.assertEqual(status, 1)
        self.assertIn("failed: lpi/running: 1000 instructions, 900 allowed", out)

    def test_a_profile_is_printed(self) -> None:
        self.results["profile"] = {"rust": {"few": 1.5, "many": 20.0}}
        _, out, called = self.run_main("--only", "rust", "--boot", "operations", "--profile", "lpi/running")
        self.assertRegex(out, r"20\.0  many\n +1\.5  few\n +21\.5  all")
        self.assertEqual(called.kwargs["profile"], "lpi/running")

    def test_options_that_make_no_sense(self) -> None:
        for argv in (["--boot", "nonsense"], ["--update", "--check"], ["--update", "--only", "rust"]):
            with self.subTest(argv), contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
                self.run_main(*argv)


if __name__ == "__main__":
    unittest.main()
