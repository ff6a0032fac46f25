# SPDX-License-Identifier: GPL-2.0-only
"""The series for the versions of Xen: what counts as a difference."""

import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from xenits import series

HEAD = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: somebody <somebody@example.org>
Date: Sat, 21 Nov 2026 09:36:40 +0000
Subject: [PATCH] xen/arm: its: say {what} in a subject that is
 folded

Subject: this is not.
---
 new.c | 2 ++
"""

NEW = """\
diff --git a/new.c b/new.c
new file mode 100644
index 0000000..{index}
--- /dev/null
+++ b/new.c
@@ -0,0 +1,{count} @@
+one
+{line}
"""

OLD = """\
diff --git a/old.c b/old.c
index 1111111..2222222 100644
--- a/old.c
+++ b/old.c
@@ -{at},3 +{at},3 @@ int function(void)
 one
-two
+{line}
 three
"""


def patch(what="something", line="two", index="3333333", at=1, old="zwei"):
    return series.parse(
        HEAD.format(what=what) + NEW.format(line=line, index=index, count=2) + OLD.format(at=at, line=old)
    )


def change(what, line):
    text = NEW.replace("new file mode 100644\n", "").replace("--- /dev/null", "--- a/new.c")
    return series.parse(HEAD.format(what=what) + text.format(line=line, index="4444444", count=3))


class Parse(unittest.TestCase):
    def test_what_is_read(self):
        read = patch()
        self.assertEqual(read.subject, "xen/arm: its: say something in a subject that is folded")
        self.assertEqual(set(read.changes), {"new.c", "old.c"})
        self.assertEqual(read.added, {"new.c"})
        self.assertEqual(read.changes["new.c"], "\n@@\n+one\n+two\n")


class Differences(unittest.TestCase):
    def check(self, a, b, not_needed=None):
        return series.differences({"1.0": a, "1.1": b}, not_needed or {})

    def test_the_same_elsewhere_in_other_files_of_xen(self):
        self.assertEqual(self.check([patch()], [patch(index="5555555", at=70)]), [])
        self.assertEqual(self.check([patch()], [patch(old="dos")]), [])

    def test_an_added_file_that_differs(self):
        self.assertEqual(self.check([patch()], [patch(line="drei")]), ["new.c is not the same in 1.0 and 1.1"])

    def test_an_added_file_that_a_later_patch_makes_differ(self):
        a, b = ([patch(), change("more", line)] for line in ("three", "four"))
        self.assertEqual(self.check(a, b), ["new.c is not the same in 1.0 and 1.1"])
        self.assertEqual(self.check(a, a), [])

    def test_an_added_file_that_is_there_in_one_only(self):
        other = series.Patch(patch().subject, {"old.c": "@@"})
        self.assertEqual(self.check([other], [patch()]), ["new.c is not the same in 1.0 and 1.1"])

    def test_a_patch_that_is_missing(self):
        more = change("more", "three")
        found = self.check([patch(), more], [patch()])
        self.assertIn(f"1.1 has no patch '{more.subject}', and nothing says why", found)

    def test_a_patch_that_is_not_needed(self):
        more = series.Patch("more", {"old.c": "@@"})
        note = {("1.1", "more"): "it is in Xen"}
        self.assertEqual(self.check([patch(), more], [patch()], note), [])
        found = self.check([patch(), more], [patch(), more], note)
        self.assertEqual(found, ["1.1 has the patch 'more', which is said not to be needed"])

    def test_a_note_on_nothing(self):
        for note in ({("1.1", "gone"): "why"}, {("9.9", patch().subject): "why"}):
            (found,) = self.check([patch()], [patch()], note)
            self.assertIn("is about nothing", found)

    def test_order_and_repetition(self):
        a, b = series.Patch("a"), series.Patch("b")
        self.assertEqual(self.check([a, b], [b, a]), ["1.1 has the patches in another order than 1.0"])
        self.assertIn("1.1 has 'a' twice", self.check([a, b], [a, b, a]))


class Unused(unittest.TestCase):
    def test_a_patch_that_no_series_has(self):
        with TemporaryDirectory() as folder:
            top = Path(folder)
            (top / "1.0").mkdir()
            for name in ("0001-a.patch", "0002-b.patch"):
                (top / "1.0" / name).touch()
            self.assertEqual(series.unused(top, {top / "1.0/0001-a.patch"}), ["1.0/0002-b.patch"])
