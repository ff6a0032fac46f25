# SPDX-License-Identifier: GPL-2.0-only
"""How the output of the fuzzer is read."""

from __future__ import annotations

import unittest

from xenits import fuzz

GOOD = """\
INFO: Seed: 1
#2\tINITED cov: 20 ft: 21 corp: 1/1b exec/s: 0 rss: 30Mb
#900\tNEW    cov: 91 ft: 97 corp: 12/549b lim: 143 exec/s: 450 rss: 27Mb L: 33/134 MS: 3 ChangeBit-
#1000\tDONE   cov: 91 ft: 98 corp: 13/550b lim: 143 exec/s: 333 rss: 27Mb
Done 1000 runs in 3 second(s)
"""

BAD = """\
#2\tINITED cov: 20 ft: 21 corp: 1/1b exec/s: 0 rss: 30Mb

thread '<unnamed>' (3) panicked at src/some.rs:90:13:
an LPI belongs to two events
==3== ERROR: libFuzzer: deadly signal
SUMMARY: libFuzzer: deadly signal
artifact_prefix='x/'; Test unit written to x/crash-1
"""


class Reading(unittest.TestCase):
    """Results and figures."""

    def test_a_run_that_ended_well_has_no_problems(self) -> None:
        """Either way of ending."""
        self.assertEqual(fuzz.unfinished(GOOD, 0), [])
        self.assertEqual(fuzz.unfinished("Executed a in 3 ms\n", 0), [])

    def test_a_crash_is_told(self) -> None:
        """With the place, the words, and the input."""
        problems = "\n".join(fuzz.unfinished(BAD, 77))
        for word in ("status 77", "some.rs:90", "an LPI belongs to two events", "crash-1"):
            self.assertIn(word, problems)

    def test_an_end_without_a_word_is_no_success(self) -> None:
        """Not even with status 0."""
        self.assertTrue(fuzz.unfinished("", 0))
        self.assertTrue(fuzz.unfinished(GOOD, 1))

    def test_figures_are_the_last_ones(self) -> None:
        """And nothing where there are none."""
        self.assertEqual(fuzz.figures(GOOD), "1000 runs, 333/s, 91 edges, 98 features, corpus 13")
        self.assertEqual(fuzz.figures(""), "")


if __name__ == "__main__":
    unittest.main()
