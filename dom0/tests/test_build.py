# SPDX-License-Identifier: GPL-2.0-only
"""Tests of build.py: the archive that it writes, and the order of modules."""

import gzip
import lzma
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import build  # noqa: E402


class Archive(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def entries(self, data):
        """Names, modes and contents of a newc archive, read by its definition."""
        found, at = {}, 0
        while True:
            self.assertEqual(data[at : at + 6], b"070701")
            fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
            mode, size, name_size = fields[1], fields[6], fields[11]
            name = data[at + 110 : at + 110 + name_size - 1].decode()
            at += 110 + name_size
            at += -at % 4
            if name == "TRAILER!!!":
                return found
            found[name] = (mode, data[at : at + size])
            at += size + -size % 4

    def pack(self):
        files = []
        for name, content in (("exerciser", b"init"), ("busybox", b"box12"), ("a.ko", b"A"), ("b.ko", b"BB")):
            path = self.folder / name
            path.write_bytes(content)
            files.append(path)
        out = self.folder / "out" / "initrd.gz"
        build.pack(out, files[0], files[1], files[2:])
        return out

    def test_holds_what_the_kernel_needs(self):
        entries = self.entries(gzip.decompress(self.pack().read_bytes()))
        self.assertEqual(entries["init"], (0o100755, b"init"))
        self.assertEqual(entries["bin/busybox"][1], b"box12")
        self.assertEqual(entries["bin/sh"], (0o120777, b"busybox"))
        self.assertEqual(entries["dev/console"][0], 0o020600)
        self.assertEqual(entries["modules/order"][1], b"a.ko\nb.ko\n")
        self.assertEqual(entries["modules/b.ko"][1], b"BB")

    def test_same_content_same_bytes(self):
        first = self.pack().read_bytes()
        self.assertEqual(first, self.pack().read_bytes())

    def test_cpio_reads_it(self):
        data = gzip.decompress(self.pack().read_bytes())
        listed = subprocess.run(["cpio", "-t"], input=data, capture_output=True, check=True).stdout.decode().split()
        self.assertIn("modules/order", listed)
        self.assertIn("dev/null", listed)


class Modules(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.found = []
        for name, depends in (("net-front", "core_a,core_b"), ("core_b", "core_a"), ("core-a", ""), ("other", "")):
            path = Path(folder.name) / f"{name}.ko"
            path.write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")
            self.found.append(path)

    def test_dependencies_come_first(self):
        order = [path.name for path in build.module_order(self.found, ["net_front"])]
        self.assertEqual(order, ["core-a.ko", "core_b.ko", "net-front.ko"])

    def test_each_once(self):
        order = [path.name for path in build.module_order(self.found, ["core_a", "net-front", "core-b"])]
        self.assertEqual(order, ["core-a.ko", "core_b.ko", "net-front.ko"])

    def test_compressed_ones_are_unpacked(self):
        packed = self.found[0].with_suffix(".ko.xz")
        packed.write_bytes(lzma.compress(self.found[0].read_bytes()))
        order = build.module_order([packed, *self.found[1:]], ["net_front"])
        self.assertEqual([build.module_name(path) for path in order], ["core-a", "core_b", "net-front"])
        self.assertEqual(build.module_content(packed), self.found[0].read_bytes())

    def test_what_the_kernel_has_built_in_is_no_module(self):
        order = build.module_order(self.found[:2], ["net_front", "absent"], builtin=["core-a", "absent"])
        self.assertEqual([build.module_name(path) for path in order], ["core_b", "net-front"])

    def test_says_what_is_missing(self):
        with self.assertRaisesRegex(build.BuildError, "absent"):
            build.module_order(self.found, ["absent"])


class Steps(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.builder = build.Builder(Path(folder.name))
        self.output = Path(folder.name) / "output"
        self.made = 0

    def make(self):
        self.made += 1
        self.output.write_text("made")

    def test_redone_only_when_inputs_change_or_the_output_is_gone(self):
        for key, made in (([1], 1), ([1], 1), ([2], 2), ([2], 2)):
            self.builder.stamped("step", key, self.output, self.make)
            self.assertEqual(self.made, made)
        self.output.unlink()
        self.builder.stamped("step", [2], self.output, self.make)
        self.assertEqual(self.made, 3)

    def test_a_failed_step_is_done_again(self):
        def fail():
            self.make()
            raise build.BuildError("no")

        self.builder.stamped("step", [1], self.output, self.make)
        with self.assertRaises(build.BuildError):
            self.builder.stamped("step", [2], self.output, fail)
        self.builder.stamped("step", [1], self.output, self.make)
        self.assertEqual(self.made, 3)

    def test_a_failure_names_step_and_log(self):
        with self.assertRaisesRegex(build.BuildError, r"(?s)step 'bad'.*went wrong.*bad\.log"):
            self.builder.run("bad", ["sh", "-c", "echo went wrong; exit 3"])


if __name__ == "__main__":
    unittest.main()
