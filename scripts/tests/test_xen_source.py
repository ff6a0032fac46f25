# SPDX-License-Identifier: GPL-2.0-only
"""Trees: what is copied, how patches fail, and how a build folder is brought up to date."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from xenits import xen_source
from xenits.errors import StepError

MAKEFILE = "export XEN_VERSION       = 4\nexport XEN_SUBVERSION    = 20\n"

PATCH = """\
--- a/xen/file.c
+++ b/xen/file.c
@@ -1,5 +1,5 @@
 one
 two
-three
+drei
 four
 five
"""


class Scratch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = Path(folder.name)
        self.log = self.top / "log"

    def write(self, name, text="x"):
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class Trees(Scratch):
    def test_version(self):
        self.write("t/xen/Makefile", MAKEFILE)
        self.assertEqual(xen_source.tree_version(self.top / "t"), "4.20")

    def test_not_a_tree(self):
        with self.assertRaisesRegex(StepError, "is not a Xen tree"):
            xen_source.own_tree(self.top, self.log)

    def test_build_products_are_left_out(self):
        for name in (
            "a.c",
            "a.o",
            ".a.o.cmd",
            "xen/.config",
            "xen/xen-syms",
            "made.lds",
            "made.lds.S",
            "own.lds",
            "entry.S",
        ):
            self.write(f"t/{name}")
        files = xen_source._tree_files(self.top / "t", self.log)
        self.assertEqual(files, ["a.c", "entry.S", "made.lds.S", "own.lds"])

    def test_a_change_in_the_users_tree_is_another_key(self):
        self.write("t/xen/Makefile", MAKEFILE)
        file = self.write("t/xen/arch/arm/a.c", "one")
        first = xen_source.own_tree(self.top / "t", self.log).key
        self.assertEqual(xen_source.own_tree(self.top / "t", self.log).key, first)
        file.write_text("other")
        self.assertNotEqual(xen_source.own_tree(self.top / "t", self.log).key, first)


class Suites(Scratch):
    """Which of Debian's Xens is taken. No package is fetched."""

    VERSIONS = ("4.20.3+127-0+deb13u1", "4.20.10-1", "4.21.0-1")

    def pinned(self, suite, versions=VERSIONS, missing=()):
        """The version that is taken of those that a suite has; the tarballs of some are missing."""

        class Apt:
            def __init__(self, log, suite):
                self.log, self.suite = log, suite

            def source_stanzas(self, package):
                return [{"Package": package, "Version": version} for version in versions]

            def refresh(self, force):
                """There is nothing newer."""

            def pool_file(self, path, sha256):
                return there(Path(path).name)

        def there(name):
            if name in missing:
                raise StepError(f"no {name}")
            return Path(name)

        with (
            mock.patch.object(xen_source, "cache_root", lambda: self.top),
            mock.patch("xenits.layout.cache_root", lambda: self.top),
            mock.patch.object(xen_source, "Apt", Apt),
            mock.patch.object(xen_source, "upstream_tarball", lambda apt, stanza: there(stanza["Version"])),
            mock.patch.object(xen_source, "_unpack", self.unpack),
        ):
            return xen_source.pinned(self.log, suite)

    @staticmethod
    def unpack(tarball, src, log):
        tree = src / f"xen-{tarball}"
        tree.mkdir()
        return tree

    def test_the_newest_of_the_series_or_of_the_suite(self):
        usual, had = self.pinned("trixie")
        self.assertEqual((usual.label, usual.place(), had), ("xen-4.20.10-1", "", False))
        other, had = self.pinned("sid")
        self.assertEqual((other.label, other.place(), had), ("xen-4.21.0-1", "sid", False))

    def test_each_suite_has_what_it_had(self):
        first = [self.pinned("trixie")[0], self.pinned("sid", self.VERSIONS[:1])[0]]
        self.assertEqual([(s, True) for s in first], [self.pinned("trixie"), self.pinned("sid")])

    def test_a_tarball_that_is_missing(self):
        newest, before = "4.20.10-1", "4.20.3+127-0+deb13u1"
        last = Path(xen_source.LAST_GOOD[0]).name
        cases = (((newest,), f"xen-{before}"), ((newest, before), f"xen-{last}"))
        for missing, want in cases:
            with self.subTest(missing=missing):
                self.setUp()
                self.assertEqual(self.pinned("trixie", missing=missing)[0].label, want)
        self.setUp()
        with self.assertRaisesRegex(StepError, f"no {newest}"):
            self.pinned("trixie", missing=(newest, before, last))
        with self.assertRaisesRegex(StepError, "no 4.21.0-1"):
            self.pinned("sid", missing=self.VERSIONS + ("4.21.0-1",))

    def test_a_suite_without_xen(self):
        with self.assertRaisesRegex(StepError, "index of trixie has no source of Xen 4.20"):
            self.pinned("trixie", ("4.21.0-1",))
        with self.assertRaisesRegex(StepError, "index of sid has no source of Xen$"):
            self.pinned("sid", ())


class Patches(Scratch):
    def setUp(self):
        super().setUp()
        patcher = mock.patch.object(xen_source, "REPO", self.top)
        patcher.start()
        self.addCleanup(patcher.stop)
        self.write("xen/Makefile", MAKEFILE)
        self.patch = self.write("xen-patches/4.20/0001-drei.patch", PATCH)

    def apply(self, text, own=False):
        file = self.write("xen/file.c", text)
        source = xen_source.Source(self.top, "k", "the tree", own)
        return xen_source._apply(self.patch, self.top, self.log, source), file.read_text()

    def test_exact(self):
        self.assertEqual(self.apply("one\ntwo\nthree\nfour\nfive\n"), (False, "one\ntwo\ndrei\nfour\nfive\n"))

    def test_offset_is_told(self):
        inexact, text = self.apply("new\none\ntwo\nthree\nfour\nfive\n", own=True)
        self.assertTrue(inexact)
        self.assertIn("drei", text)

    def test_fuzz_only_on_the_users_tree(self):
        text = "ONE\ntwo\nthree\nfour\nFIVE\n"
        self.assertTrue(self.apply(text, own=True)[0])
        with self.assertRaises(StepError):
            self.apply(text, own=False)

    def test_a_hunk_that_does_not_apply_is_named(self):
        with self.assertRaises(StepError) as caught:
            self.apply("something\nelse\n", own=True)
        said = caught.exception.render()
        self.assertIn("xen-patches/4.20/0001-drei.patch does not apply to the tree", said)
        self.assertIn("xen/file.c: Hunk #1 FAILED at 1.", said)
        self.assertIn("-three", said)

    def test_a_job_of_xens_ci_may_be_left_out_on_the_users_tree(self):
        self.write("xen/file.c", "one\ntwo\nthree\nfour\nfive\n")
        self.write("xen-patches/4.20/0002-ci.patch", PATCH.replace("xen/file.c", "automation/job"))
        self.write("xen/arch/arm/a.c")

        def patched(own):
            source = xen_source.Source(self.top, f"k{own}", "the tree", own)
            with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.top / f"cache{own}")}):
                tree, _, remark, _ = xen_source.patched(source, self.log)
            return (tree / "xen/file.c").read_text(), remark

        text, remark = patched(own=True)
        self.assertIn("drei", text)
        self.assertEqual(remark, "2 patches; without 0002-ci.patch")
        with self.assertRaisesRegex(StepError, "0002-ci.patch does not apply"):
            patched(own=False)
        job = self.write("automation/job", "one\ntwo\nthree\nfour\nfive\n")
        with mock.patch.object(xen_source, "digest_files", return_value="other"):
            self.assertEqual(patched(own=True)[1], "2 patches")
        self.assertIn("three", job.read_text())

    def test_without_the_series(self):
        self.write("xen/file.c", "one\ntwo\nthree\nfour\nfive\n")
        self.write("xen/arch/arm/a.c")
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.top / "cache")}):
            source = xen_source.Source(self.top, "k", "the tree", False)
            ours = xen_source.patched(source, self.log)[0]
            tree, _, remark, _ = xen_source.patched(source, self.log, series=False)
        self.assertIn("drei", (ours / "xen/file.c").read_text())
        self.assertIn("three", (tree / "xen/file.c").read_text())
        self.assertEqual(remark, "no patches: pristine")

    def test_order_is_that_of_the_numbers_or_of_series(self):
        self.write("xen-patches/4.20/0002-b.patch", PATCH)
        names = [p.name for p in xen_source.patch_files("4.20")]
        self.assertEqual(names, ["0001-drei.patch", "0002-b.patch"])
        self.write("xen-patches/4.20/series", "0002-b.patch\n# none\n0001-drei.patch\n")
        names = [p.name for p in xen_source.patch_files("4.99")]
        self.assertEqual(names, ["0002-b.patch", "0001-drei.patch"])

    def test_a_version_without_a_series_has_that_of_the_last_one_before_it(self):
        self.write("xen-patches/4.9/0001-old.patch", PATCH)
        new = self.write("xen-patches/4.23/0001-new.patch", PATCH)
        for tree, chosen in (("4.10", "0001-old"), ("4.22", "0001-drei"), ("4.24", "0001-new"), ("5.0", "0001-new"),
                             ("4.1", "0001-drei"), ("unknown", "0001-drei")):  # fmt: skip
            self.assertEqual([p.stem for p in xen_source.patch_files(tree)], [chosen], tree)
        self.assertEqual(xen_source.patch_files("4.23"), [new])

    def test_a_version_takes_patches_of_another(self):
        own = self.write("xen-patches/4.21/0002-own.patch", PATCH)
        series = self.write("xen-patches/4.21/series", "# what fits\n../4.20/0001-drei.patch\n0002-own.patch\n")
        self.assertEqual(xen_source.patch_files("4.21"), [self.patch, own])
        series.write_text("../4.20/0009-gone.patch\n")
        self.write("xen/Makefile", MAKEFILE.replace("20", "21"))
        with self.assertRaisesRegex(StepError, "names xen-patches/4.20/0009-gone.patch, which is not there"):
            xen_source.patched(xen_source.Source(self.top, "k", "the tree", False), self.log)


class Sync(Scratch):
    def sync(self):
        (self.top / "to").mkdir(exist_ok=True)
        return xen_source.sync(self.top / "from", self.top / "to", self.top / "manifest")

    def test_only_changes_are_written_and_products_stay(self):
        self.write("from/a.c", "a")
        gone = self.write("from/b.c", "b")
        (self.top / "from/link").symlink_to("a.c")
        self.assertEqual(self.sync(), 3)
        product = self.write("to/a.o", "object")
        os.utime(self.top / "to/a.c", (1, 1))
        self.assertEqual(self.sync(), 0)
        self.assertEqual((self.top / "to/a.c").stat().st_mtime, 1)
        gone.unlink()
        self.write("from/a.c", "A")
        self.assertEqual(self.sync(), 2)
        self.assertGreater((self.top / "to/a.c").stat().st_mtime, 1)
        self.assertFalse((self.top / "to/b.c").exists())
        self.assertTrue(product.exists())


if __name__ == "__main__":
    unittest.main()
