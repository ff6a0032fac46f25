# SPDX-License-Identifier: GPL-2.0-only
"""How the output of the fuzzer is read."""

from __future__ import annotations

import os
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from xenits import fuzz
from xenits.errors import StepError

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


class Corpus(unittest.TestCase):
    """The archive in the repository."""

    def test_what_is_packed_comes_out_again(self) -> None:
        """And makes the same archive whenever it is packed."""
        with tempfile.TemporaryDirectory() as name, mock.patch.object(fuzz, "FOLDER", Path(name) / "fuzz"):
            (Path(name) / "fuzz").mkdir()
            made = Path(name) / "made"
            made.mkdir()
            for number in (2, 1, 3):
                (made / f"{number}").write_bytes(bytes([number]) * 100)
            fuzz.pack("some", made)
            first = fuzz.archive("some").read_bytes()
            [folder] = fuzz.unpack("some", Path(name) / "out")
            self.assertEqual([p.read_bytes()[0] for p in sorted(folder.iterdir())], [1, 2, 3])
            os.utime(made / "1", (1, 1))
            fuzz.pack("some", made)
            self.assertEqual(fuzz.archive("some").read_bytes(), first)

    def test_an_archive_of_something_else_is_refused(self) -> None:
        with tempfile.TemporaryDirectory() as name, mock.patch.object(fuzz, "FOLDER", Path(name)):
            (Path(name) / "corpus").mkdir()
            for member, kind in (("../outside", tarfile.REGTYPE), ("folder", tarfile.DIRTYPE)):
                with tarfile.open(fuzz.archive("some"), "w:xz") as tar:
                    info = tarfile.TarInfo(member)
                    info.type = kind
                    tar.addfile(info)
                with self.assertRaisesRegex(StepError, "no file of a corpus"):
                    fuzz.unpack("some", Path(name) / kind.decode())
            self.assertFalse((Path(name) / "outside").exists())

    def test_regressions_are_replayed_too(self) -> None:
        """Each target has a folder for them, if there are any."""
        with tempfile.TemporaryDirectory() as name, mock.patch.object(fuzz, "FOLDER", Path(name)):
            (Path(name) / "regressions/some").mkdir(parents=True)
            folders = fuzz.unpack("some", Path(name) / "out")
            self.assertEqual(folders[1:], [Path(name) / "regressions/some"])


if __name__ == "__main__":
    unittest.main()
