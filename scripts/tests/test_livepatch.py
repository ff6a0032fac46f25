# SPDX-License-Identifier: GPL-2.0-only
"""The payloads of live patches: what can be moved, and what is made of a Xen's symbols."""

from __future__ import annotations

import gzip
import struct
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from xenits import boots, livepatch, qemu
from xenits.console import Console
from xenits.elf import Elf, Symbol
from xenits.errors import StepError
from xenits.pipeline import Options


class FakeElf:
    """Functions by name, each with its code."""

    def __init__(self, functions: dict[str, bytes]) -> None:
        self.path = Path("xen-syms")
        self.code = functions
        self.symbols = [Symbol(name, False, True, 1, 0x1000, len(code)) for name, code in functions.items()]

    def content(self, symbol: Symbol) -> bytes:
        """As `Elf.content`."""
        return self.code[symbol.name]


def fake(functions: dict[str, bytes]) -> Elf:
    """One that passes for a file."""
    return cast(Elf, FakeElf(functions))


CODE = struct.pack("<II", 0xD10243FF, 0xD65F03C0)  # sub sp, sp, #0x90; ret


class Instructions(unittest.TestCase):
    """The first instruction of a function is executed elsewhere."""

    def test_those_that_can_move(self) -> None:
        for word, what in (
            (0xD10243FF, "sub sp, sp, #0x90"),
            (0xA9BD7BFD, "stp x29, x30, [sp, #-48]!"),
            (0x71400808, "subs w8, w0, #2, lsl #12"),
            (0xD53B4221, "mrs x1, daif"),
            (0xD503233F, "paciasp"),
            (0xD503245F, "bti c"),
            (0xF9400001, "ldr x1, [x0]"),
            (0x2A0003F4, "mov w20, w0"),
            (0xD2800000, "mov x0, #0"),
        ):
            with self.subTest(what):
                self.assertTrue(livepatch.movable(word))

    def test_those_that_cannot(self) -> None:
        for word, what in (
            (0xB0000480, "adrp x0, ."),
            (0x10000000, "adr x0, ."),
            (0x14000000, "b ."),
            (0x94000000, "bl ."),
            (0x54000423, "b.cc"),
            (0x34000068, "cbz w8"),
            (0x363800E1, "tbz w1, #7"),
            (0x58000040, "ldr x0, literal"),
            (0x1C000040, "ldr s0, literal"),
            (0xD65F03C0, "ret"),
            (0xD4200020, "brk #1"),
        ):
            with self.subTest(what):
                self.assertFalse(livepatch.movable(word))


class Headers(unittest.TestCase):
    """What the payload's C is told of Xen and of itself."""

    def test_of_xen(self) -> None:
        names = (*livepatch.COUNTED, livepatch.REPLACED)
        text = livepatch.xen_functions(fake(dict.fromkeys(names, CODE)))
        for name in livepatch.COUNTED:
            self.assertIn(f" X({name}, 0xd10243ff, 8)", text)
        self.assertIn("#define HOST_DUMP_SIZE 8\n", text)

    def test_a_function_is_not_there(self) -> None:
        with self.assertRaisesRegex(StepError, f"no function {livepatch.COUNTED[0]}"):
            livepatch.xen_functions(fake({livepatch.REPLACED: CODE}))

    def test_a_function_cannot_be_counted(self) -> None:
        names = (*livepatch.COUNTED, livepatch.REPLACED)
        functions = {**dict.fromkeys(names, CODE), livepatch.COUNTED[0]: struct.pack("<I", 0x14000000)}
        with self.assertRaisesRegex(StepError, "must stay where it is"):
            livepatch.xen_functions(fake(functions))


class OfAnotherXen(unittest.TestCase):
    """A payload that Xen has to refuse."""

    ID = bytes(range(1, 21))

    def test_each_build_id_is_another(self) -> None:
        other = bytes(byte ^ 0xFF for byte in self.ID)
        made = livepatch.for_another_xen(b"a" + self.ID + b"b" + self.ID + b"c", b"GNU\0" + self.ID)
        self.assertEqual(made, b"a" + other + b"b" + other + b"c")

    def test_a_payload_or_a_xen_without_one(self) -> None:
        for payload, note in ((self.ID + b"a", b"GNU\0" + self.ID), (b"a" * 100, b""), (b"a" * 100, b"a" * 19)):
            with self.subTest(payload), self.assertRaisesRegex(StepError, "does not name the Xen"):
                livepatch.for_another_xen(payload, note)


class Initramfs(unittest.TestCase):
    """The payloads go behind what is there."""

    def test_appended(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            initrd, archive = Path(name) / "initrd.gz", Path(name) / livepatch.ARCHIVE
            initrd.write_bytes(gzip.compress(b"first"))
            archive.write_bytes(gzip.compress(b"second"))
            livepatch.append(initrd, archive)
            self.assertEqual(gzip.decompress(initrd.read_bytes()), b"firstsecond")


class Judged(unittest.TestCase):
    """The calls that the patch counted, against Dom0's reads."""

    def judge(self, lines: list[str]) -> str | None:
        """What is wrong with such a console."""
        console = Console()
        for line in lines:
            console.feed(line)
        return boots.counted_calls(cast(qemu.Boot, SimpleNamespace(console=console)))

    def test_calls(self) -> None:
        dom0 = "XENITS: ok 4 its-calls reads=500 ms=3"
        enough = [f"(XEN) ITS: livepatch {name} calls=500" for name in livepatch.COUNTED]
        self.assertIsNone(self.judge([*enough, dom0]))
        self.assertIn("read nothing", str(self.judge(enough)))
        self.assertIn("printed no number", str(self.judge([*enough[1:], dom0])))
        self.assertIn("499 calls for 500 reads", str(self.judge([enough[0].replace("500", "499"), *enough[1:], dom0])))


class Chosen(unittest.TestCase):
    """A Xen of its own is built for this scenario only."""

    def test_scenario(self) -> None:
        self.assertTrue(Options(test="livepatch,reads=5").livepatch)
        self.assertFalse(Options().livepatch)


if __name__ == "__main__":
    unittest.main()
