# SPDX-License-Identifier: GPL-2.0-only
"""Which surviving mutants are news."""

import unittest

from xenits import mutants
from xenits.errors import StepError

TABLE = """\
| file | change | times | why |
|---|---|---|---|
| `a/src/x.rs` | `` replace \\| with ^ in f `` | 2 | equivalent |
| `a/src/y.rs` | `` replace g with () `` | 1 | performance only |
"""


class Mutants(unittest.TestCase):
    """Against the committed list."""

    def test_known(self):
        known = mutants.known(TABLE)
        self.assertEqual(known["rust/a/src/x.rs: replace | with ^ in f"], 2)
        with self.assertRaises(StepError):
            mutants.known("| `a/src/x.rs` | replace g |\n")

    def test_new_and_gone(self):
        known = mutants.known(TABLE)
        x = "rust/a/src/x.rs:7:{}: replace | with ^ in f"
        survivors = [x.format(1), x.format(2)]
        files = ["rust/a/src/x.rs"]
        self.assertEqual(mutants.report(survivors, known, files), ([], []))
        # Lines and columns do not matter, but how many there are does.
        new, gone = mutants.report([*survivors, x.format(3)], known, files)
        self.assertEqual((new, gone), (["rust/a/src/x.rs: replace | with ^ in f"], []))
        # One of two is caught by now; y.rs was not looked at.
        new, gone = mutants.report(survivors[:1], known, files)
        self.assertEqual((new, gone), ([], ["rust/a/src/x.rs: replace | with ^ in f"]))
        new, _ = mutants.report(["rust/a/src/z.rs:1:1: delete !"], known, files)
        self.assertEqual(new, ["rust/a/src/z.rs: delete !"])
