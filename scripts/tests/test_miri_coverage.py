# SPDX-License-Identifier: GPL-2.0-only
"""How Miri's tests are dealt out, and how coverage is counted."""

import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from xenits import coverage, miri
from xenits.errors import StepError

BINARY = miri.Binary("its-core", ("--test", "behaviour"))
RUNS = "     Running tests/behaviour/main.rs (target/miri/behaviour-0123)\n\nrunning 3 tests\n"
ABORTED = RUNS + "test a::one ... ok\ntest a::two ... error: Undefined Behavior: Data race\n  --> src/once.rs:7:1\n"
REST = RUNS + "test a::three ... ignored, too large\n\ntest result: ok. 0 passed; 0 failed; 1 ignored; 0 measured\n"


class Miri(unittest.TestCase):
    """No test may go missing."""

    def test_all_are_dealt(self):
        names = [str(n) for n in range(20)]
        hands = miri.deal(names, 8)
        self.assertEqual(sorted(n for hand in hands for n in hand), sorted(names))
        self.assertEqual(len(hands), 3)
        self.assertEqual(miri.deal([], 8), [])

    def test_binaries(self):
        targets = [
            {"name": "its_core", "kind": ["lib"], "test": True},
            {"name": "behaviour", "kind": ["test"], "test": True},
            {"name": "xen_its", "kind": ["staticlib"], "test": False},
        ]
        found = miri.binaries({"packages": [{"name": "its-core", "targets": targets}]})
        self.assertEqual([b.name for b in found], ["its-core lib", "its-core behaviour"])

    def test_what_runs_always(self):
        names = ("its-core behaviour: happy::a", "its-core lib: a", "its-arch lib: a", "xen-sys abi: a")
        self.assertTrue(all(re.search(miri.ALWAYS, name) for name in names))
        names = ("its-core behaviour: jobs::happy", "its-core inside: parts::a")
        self.assertFalse(any(re.search(miri.ALWAYS, name) for name in names))

    def test_unsafe_code_is_looked_at_most_closely(self):
        self.assertIn(miri.SAFE, BINARY.flags)
        self.assertNotIn(miri.SAFE, miri.Binary("xen-sys", ("--test", "abi")).flags)

    def run_with(self, *outputs):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(miri, "captured", side_effect=outputs) as run:
            results = list(miri.run(BINARY, ["a::one", "a::two", "a::three"], Path(folder, "log.log")))
        return results, [call.args[0][call.args[0].index("--test-threads=1") + 1 :] for call in run.call_args_list]

    def test_after_undefined_behaviour_the_others_still_run(self):
        results, runs = self.run_with((1, ABORTED), (0, REST))
        self.assertEqual(runs, [["a::one", "a::two", "a::three"], ["a::three"]])
        self.assertEqual([bool(r.problems) for r in results], [False, True, False])
        self.assertIn("Data race", results[1].problems[0])
        self.assertEqual(results[2].skipped, "too large")

    def test_a_leak_at_the_end_is_a_failure(self):
        passed = "".join(f"test a::{n} ... ok\n" for n in ("one", "two", "three"))
        results, _ = self.run_with((1, f"{passed}error: memory leaked\n"))
        self.assertEqual([r.name for r in results if r.failed], ["its-core behaviour: the end"])

    def test_a_list_that_is_cut_off_is_an_error(self):
        for text, code in (("a: test\n", 0), ("a: test\n\n2 tests, 0 benchmarks\n", 0), ("error", 101)):
            with mock.patch.object(miri, "captured", return_value=(code, text)), self.assertRaises(StepError):
                miri.listed(BINARY, Path("log"))


class Coverage(unittest.TestCase):
    """Counting, and the list of what cannot be covered."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.repo = Path(folder.name)
        self.source = self.repo / "rust/its-core/src/a.rs"
        self.source.parent.mkdir(parents=True)
        self.source.write_text("fn f() {\n    if a || b {\n    if let Some(x) = y {\n")

    def read(self, *branches, lines=(10, 10)):
        summary = {"lines": {"count": lines[0], "covered": lines[1]}}
        files = [{"filename": str(self.source), "summary": summary, "branches": list(branches)}]
        return coverage.read({"data": [{"files": files}]}, self.repo)

    def test_instances_of_one_condition_are_one(self):
        (file,) = self.read([2, 8, 2, 9, 5, 0, 0, 0, 4], [2, 8, 2, 9, 0, 1, 0, 0, 4], [2, 13, 2, 14, 1, 0, 0, 0, 4])
        self.assertEqual((file.ways, file.ways_taken), (4, 3))
        self.assertEqual(file.untaken, [(2, "if a || b {")])

    def test_what_a_test_program_compiles_once_more_is_the_same(self):
        summary = {"lines": {"count": 10, "covered": 4}}
        names = [self.source, self.repo / "rust/its-core/tests/inside/../../src/a.rs", "/elsewhere/src/a.rs"]
        taken = [[2, 8, 2, 9, *times, 0, 0, 4] for times in ((5, 0), (0, 1), (0, 0))]
        files = [
            {"filename": str(name), "summary": summary, "branches": [one]}
            for name, one in zip(names, taken, strict=True)
        ]
        (file,) = coverage.read({"data": [{"files": files}]}, self.repo)
        self.assertEqual((file.name, file.lines, file.lines_run), ("rust/its-core/src/a.rs", 10, 4))
        self.assertEqual((file.ways, file.ways_taken), (2, 2))

    def test_guards(self):
        row = "| `a.rs` | `` if let Some(x) = y { `` | 1 | always there |\n"
        text = f"| file | code | ways | why |\n|---|---|---|---|\n{row}"
        known = coverage.guards(text)
        files = self.read([2, 8, 2, 9, 5, 1, 0, 0, 4], [3, 12, 3, 19, 5, 0, 0, 0, 4])
        found = coverage.totals(files, known)
        self.assertEqual((found.ways, found.apart), (75.0, 100.0))
        self.assertEqual(list(coverage.stale(files, known)), [])
        # One that a test takes is none.
        taken = self.read([3, 12, 3, 19, 5, 1, 0, 0, 4])
        self.assertRegex("".join(coverage.stale(taken, known)), "never taken at: if let Some")
        with self.assertRaises(StepError):
            coverage.guards("| `a.rs` | if x | because |\n")

    def test_nothing_is_not_everything(self):
        with self.assertRaises(StepError):
            coverage.totals([], {})
