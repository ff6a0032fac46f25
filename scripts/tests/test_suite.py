# SPDX-License-Identifier: GPL-2.0-only
"""The test runner itself: a test that cannot fail would be worth nothing."""

import io
import os
import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from xenits import boots, host_tests, suite
from xenits.console import Console
from xenits.errors import StepError
from xenits.qemu import Boot
from xenits.suite import Case, Result

SCRIPTS = Path(__file__).resolve().parents[1]

CARGO = """\
   Compiling its-arch v0.1.0
     Running unittests src/lib.rs (target/debug/deps/its_arch-0123)

running 3 tests
test cmd::decodes_mapd ... ok
test cmd::rejects ... FAILED
test slow ... ignored, needs an hour

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests its_arch

running 1 test
test rust/its-arch/src/lib.rs - Lpi (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
"""

UNITTEST = """\
import os, sys, unittest

class A(unittest.TestCase):
    def test_good(self):
        \'\'\'A text that unittest prints in the place of the name.\'\'\'
        os.write(1, b"noise")
    def test_bad(self):
        self.assertEqual(1, 2)
    def test_broken(self):
        raise ValueError("oops")
    @unittest.skip("no network")
    def test_skipped(self):
        pass
    def test_part(self):
        for n in range(3):
            with self.subTest(n):
                self.assertNotEqual(n, 1)
"""


class Counting(unittest.TestCase):
    def test_cargo(self):
        results = host_tests.parse_cargo_test(CARGO)
        self.assertEqual([r.failed for r in results], [False, True, False, False])
        self.assertEqual(results[2].skipped, "needs an hour")
        self.assertEqual(results[0].name, "src/lib.rs: cmd::decodes_mapd")
        self.assertEqual(results[3].name, "doc its_arch: rust/its-arch/src/lib.rs - Lpi (line 3)")

    def test_cargo_lines_that_were_missed_are_a_failure(self):
        results = host_tests.parse_cargo_test(CARGO.replace("test cmd::decodes_mapd ... ok", "noise"))
        self.assertRegex(results[-1].problems[0], "cargo counted 4 tests, but 3 were read")

    def test_orders(self):
        one = "threads: two at once: 12 orders (loom: all)\n"
        self.assertEqual(
            host_tests.orders_note(one + "threads: three (again): 9 orders (loom: all)\n"),
            "loom: all: 2 scenarios in 21 orders, at least 9 each (three (again))",
        )
        with self.assertRaises(StepError):
            host_tests.orders_note("test deliver::again ... ok\n")

    def unittest_of(self, text):
        with tempfile.TemporaryDirectory() as name:
            Path(name, "tests").mkdir()
            Path(name, "tests/test_a.py").write_text(text)
            with mock.patch.object(host_tests, "REPO", Path(name)), mock.patch.dict(os.environ):
                (Path(name) / "scripts").symlink_to(SCRIPTS)
                return {r.name: r for r in host_tests._unittest(suite.Context(Path(name)), "tests")}

    def test_unittest(self):
        results = self.unittest_of(UNITTEST)
        self.assertEqual(
            {name.rsplit(".", 1)[1]: r.problems for name, r in results.items()},
            {
                "test_good": (),
                "test_bad": ("AssertionError: 1 != 2",),
                "test_broken": ("ValueError: oops",),
                "test_skipped": (),
                "test_part": ("AssertionError: 1 == 1",),
            },
        )
        self.assertEqual(results["test_a.A.test_skipped"].skipped, "no network")

    def test_unittest_that_ends_its_process(self):
        results = self.unittest_of("import os\nos._exit(7)\n")
        self.assertEqual([r.problems for r in results.values()], [("ended with status 7: see the log",)])

    def test_unittest_that_cannot_be_loaded(self):
        results = self.unittest_of("import nothing_like_this\n")
        self.assertTrue(all(r.failed for r in results.values()))
        self.assertEqual(len(results), 1)

    def test_packages_for_the_hypervisor(self):
        lib = {"kind": ["lib"], "crate_types": ["lib"], "src_path": __file__}  # this text has no_std in it
        static = {"kind": ["staticlib"], "crate_types": ["staticlib"], "src_path": "/x"}
        core = {"name": "core", "targets": [lib]}
        self.assertEqual(host_tests.hypervisor_packages({"packages": [core]}), ["core"])
        top = {"name": "top", "targets": [static]}
        self.assertEqual(host_tests.hypervisor_packages({"packages": [core, top]}), ["top"])


class Running(unittest.TestCase):
    def run_cases(self, *cases):
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as name:
            tally = suite.run(list(cases), Path(name), out)
        return tally, out.getvalue()

    def case(self, name, *results):
        return Case(name, "", lambda context: list(results))

    def test_totals(self):
        tally, text = self.run_cases(
            self.case("a", Result("a")),
            self.case("b", Result("b", problems=("bad",))),
            self.case("c", Result("c", skipped="no network")),
        )
        self.assertEqual(tally.closing_line(), "1 passed, 1 failed, 1 skipped")
        self.assertIn("    bad\n", text)
        self.assertIn("skipped: no network", text)

    def test_a_note_is_shown_though_nothing_failed(self):
        self.assertIn("    C  Rust\n    2  1\n", self.run_cases(self.case("a", Result("a", note="C  Rust\n2  1")))[1])

    def test_no_skipped_in_the_line_if_none_was(self):
        self.assertEqual(self.run_cases(self.case("a", Result("a")))[0].closing_line(), "1 passed, 0 failed")

    def test_a_case_without_results_fails(self):
        self.assertEqual(self.run_cases(self.case("a"))[0].failed, 1)

    def test_exceptions_fail_their_case_only(self):
        def broken(_):
            raise ValueError("oops")

        def step(_):
            raise StepError("a step", hint="do this")

        tally, text = self.run_cases(Case("x", "", broken), Case("y", "", step), self.case("z", Result("z")))
        self.assertEqual((tally.passed, tally.failed), (1, 2))
        self.assertIn("ValueError: oops", text)
        self.assertIn("what to do: do this", text)

    def test_choose(self):
        cases = [Case("rust/fmt", "", list), Case("boot/c/nvme", "", list, quick=False)]
        self.assertEqual([c.name for c in suite.choose(cases, "", True)], ["rust/fmt"])
        self.assertEqual([c.name for c in suite.choose(cases, "^boot/", False)], ["boot/c/nvme"])
        with self.assertRaises(StepError):
            suite.choose(cases, "(", False)


class Expectations(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        serial = Path(folder.name, "serial.log")
        serial.write_text("(XEN) hello\n")
        console = Console()
        console.feed("XENITS: irq 17 ITS-MSI/1 nvme0q0 3 4")
        console.feed("(XEN) ITS: stats d0 lpis=0x10")
        self.boot = Boot(console, 1.0, serial, [], "powered off", ended_well=True)

    def test_each_holds_and_fails(self):
        for good, bad in (
            (boots.fired("nvme", 7), boots.fired("nvme", 8)),
            (boots.vectors(1), boots.vectors(2)),
            (boots.said("^.XEN. hello"), boots.said("bye")),
            (boots.never_said("bye"), boots.never_said("hello")),
            (boots.stat("lpis", lambda n: n == 16), boots.stat("lpis", lambda n: n < 16)),
        ):
            self.assertIsNone(good(self.boot))
            self.assertIsInstance(bad(self.boot), str)
        self.assertIsNone(boots.accounted(self.boot))
        self.boot.console.counters["stats d0"]["lpis"] = "6"
        self.assertEqual(boots.accounted(self.boot), "Dom0 took 7 interrupts, but Xen counted 6 LPIs")
        self.assertRegex(boots.stat("none", bool)(self.boot), "no counter 'none'")

    def test_names_are_unique_and_say_which_its(self):
        tests = boots.C_BOOTS + boots.RUST_BOOTS
        names = [b.name for b in tests]
        self.assertEqual(len(set(names)), len(names))
        for test in tests:
            self.assertTrue(re.match(rf"{test.options.its}/", test.name), test.name)


if __name__ == "__main__":
    unittest.main()
