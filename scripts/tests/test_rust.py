# SPDX-License-Identifier: GPL-2.0-only
"""Which Rust is used, with programs that stand for rustup and rustc."""

import os
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from xenits import rust
from xenits.errors import StepError

RUSTUP = """#!/bin/sh
echo "$@" >> "$ASKED"
case "$*" in
"toolchain list") printf "$TOOLCHAINS" ;;
"toolchain install "*) exit "${INSTALLING:-0}" ;;
esac
"""

RUSTC = """#!/bin/sh
test -n "$RELEASE" || exit 1
echo "rustc $RELEASE (0123456789 2026-01-01)"
"""


class Release(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        for name, text in (("rustup", RUSTUP), ("rustc", RUSTC)):
            (self.dir / name).write_text(text)
            (self.dir / name).chmod(0o755)
        cache = unittest.mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.dir / "cache")})
        cache.start()
        self.addCleanup(cache.stop)

    def prepare(self, **environment: str) -> tuple[list[str], str | None]:
        """What rustup was asked, and the toolchain that is used then."""
        asked = self.dir / "asked"
        asked.write_text("")
        values = {"PATH": f"{self.dir}:{os.environ['PATH']}", "ASKED": str(asked), "TOOLCHAINS": "", **environment}
        with unittest.mock.patch.dict(os.environ, values):
            if "RUSTUP_TOOLCHAIN" not in environment:
                os.environ.pop("RUSTUP_TOOLCHAIN", None)
            rust.prepare(self.dir / "log")
            return asked.read_text().splitlines(), os.environ.get("RUSTUP_TOOLCHAIN")

    def test_the_default_is_used_if_it_is_the_right_one(self) -> None:
        self.assertEqual(self.prepare(RELEASE=rust.RELEASE), ([], None))

    def test_one_that_is_there_is_used(self) -> None:
        there = f"stable-x (active, default)\\n{rust.RELEASE}-x\\n"
        asked, chosen = self.prepare(RELEASE="1.99.1", TOOLCHAINS=there)
        self.assertEqual((asked, chosen), (["toolchain list"], rust.RELEASE))

    def test_one_that_is_not_there_is_installed(self) -> None:
        for default in ("1.99.1", ""):
            asked, chosen = self.prepare(RELEASE=default, TOOLCHAINS="nightly-x\\n")
            self.assertEqual(chosen, rust.RELEASE)
            self.assertIn(f"toolchain install {rust.RELEASE} ", asked[-1])

    def test_it_cannot_be_installed(self) -> None:
        with self.assertRaisesRegex(StepError, f"no Rust {rust.RELEASE}"):
            self.prepare(RELEASE="1.99.1", INSTALLING="1")

    def test_the_users_word_is_the_last(self) -> None:
        self.assertEqual(self.prepare(RELEASE="1.99.1", RUSTUP_TOOLCHAIN="mine"), ([], "mine"))


if __name__ == "__main__":
    unittest.main()
