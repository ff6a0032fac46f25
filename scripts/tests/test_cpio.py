# SPDX-License-Identifier: GPL-2.0-only
"""Archives for a kernel, read back by the program that made them."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from xenits import cpio  # noqa: E402
from xenits.errors import StepError  # noqa: E402


class Pack(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        (self.dir / "top/sub").mkdir(parents=True)
        (self.dir / "top/sub/file").write_text("content", encoding="utf-8")

    def test_all_below_a_folder(self) -> None:
        target = self.dir / "archive.gz"
        cpio.pack(self.dir / "top", target, self.dir / "log")
        packed = gzip.decompress(target.read_bytes())
        self.assertTrue(packed.startswith(b"070701"), "not what a kernel unpacks")
        listed = subprocess.run(["cpio", "-itv"], input=packed, capture_output=True, check=True).stdout.decode()
        self.assertEqual([line.split()[-1] for line in listed.splitlines()], [".", "sub", "sub/file"])
        self.assertTrue(all(line.split()[2:4] == ["root", "root"] for line in listed.splitlines()), listed)

    def test_a_failure_is_told(self) -> None:
        # A name over two lines is two names, and neither is there.
        (self.dir / "top/a\nb").touch()
        with self.assertRaisesRegex(StepError, "cpio could not pack"):
            cpio.pack(self.dir / "top", self.dir / "archive.gz", self.dir / "log")
        self.assertFalse((self.dir / "archive.gz").exists())


if __name__ == "__main__":
    unittest.main()
