# SPDX-License-Identifier: GPL-2.0-only
"""How a run of the job for Xen's CI is judged, and the job itself as the series has it."""

import re
import unittest

from xenits import xen_ci
from xenits.layout import REPO
from xenits.pipeline import Options

C = xen_ci.Job("c", "", Options(its="c"))
RUST = xen_ci.Job("rust", "", Options(), variant="rust")
FAILS = xen_ci.Job("fails", "", Options(), fails_with="its test failed: 0 LPIs")
PATCH = next((REPO / "xen-patches").glob("*/*-automation-*.patch"))


class Judged(unittest.TestCase):
    def test_passes(self):
        self.assertEqual(xen_ci.problems(C, 0, "+ echo\n1000 LPIs for 1000 reads\r\nits test passed\r\n"), [])
        self.assertEqual(xen_ci.problems(RUST, 0, "its rust test passed\n"), [])

    def test_the_script_itself_does_not_count(self):
        self.assertTrue(xen_ci.problems(C, 0, "+ export 'PASSED=its test passed'\n"))

    def test_the_other_variant_does_not_count(self):
        self.assertTrue(xen_ci.problems(RUST, 0, "its test passed\n"))

    def test_a_status_and_a_crash(self):
        self.assertEqual(xen_ci.problems(C, 1, "its test passed\n"), ["ended with status 1"])
        self.assertTrue(xen_ci.problems(C, 0, "its test passed\n(XEN) Panic on CPU 0:\n"))

    def test_one_that_must_fail(self):
        self.assertEqual(xen_ci.problems(FAILS, 1, "its test failed: 0 LPIs for 1000 reads\n"), [])
        self.assertEqual(xen_ci.problems(FAILS, 0, "its test failed: 0 LPIs\n"), ["it passed"])
        self.assertTrue(xen_ci.problems(FAILS, 1, "something else failed\n"))


class Patch(unittest.TestCase):
    def setUp(self):
        text = PATCH.read_text(encoding="utf-8")
        self.files = re.findall(r"^\+\+\+ b/(.*)$", text, re.MULTILINE)
        self.added = [line[1:] for line in text.splitlines() if line.startswith("+")]

    def test_is_about_automation_only(self):
        self.assertTrue(self.files)
        self.assertEqual([name for name in self.files if not name.startswith("automation/")], [])

    def test_each_test_job_has_its_build_job(self):
        needed = [line.strip("- ") for line in self.added if re.match(r"    - alpine-\S+$", line)]
        self.assertEqual(len(needed), 2)
        for name in needed:
            self.assertIn(f"{name}:", self.added)

    def test_jobs_run_the_script(self):
        script = f"    - ./{xen_ci.SCRIPT} 2>&1 | tee ${{LOGFILE}}"
        self.assertEqual(self.added.count(script), 2)
        self.assertIn(xen_ci.SCRIPT, self.files)


if __name__ == "__main__":
    unittest.main()
