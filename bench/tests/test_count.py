# SPDX-License-Identifier: GPL-2.0-only
"""What is around the counting: symbols, arguments, packages, the command's exit status."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from bench import compare, count
from bench.elfsyms import Symbol, SymbolTable
from bench.plugin import build
from bench.tests.test_results import run
from xenits.errors import StepError


def table(*symbols: tuple[int, int, str]) -> SymbolTable:
    return SymbolTable(Path("xen-syms"), [Symbol(a, s, n, True, True) for a, s, n in symbols])


class Symbols(unittest.TestCase):
    def test_address(self) -> None:
        symbols = table((16, 8, "one"), (32, 8, "two"), (48, 8, "two"), (64, 0, "alias"), (64, 0, "alias"))
        self.assertEqual(symbols.address("one"), 16)
        self.assertEqual(symbols.address("alias"), 64)
        for name in ("two", "three"):
            with self.assertRaises(StepError):
                symbols.address(name)

    def test_ranges_cover_everything_once(self) -> None:
        symbols = table((16, 8, "a"), (32, 0, "unsized"), (48, 64, "too_long"), (56, 4, "b"))
        pieces = [(p.addr, p.size, p.name) for p in symbols.ranges(8, 72)]
        self.assertEqual(
            pieces,
            [
                (8, 8, "[no-symbol-0x8]"), (16, 8, "a"), (24, 8, "[no-symbol-0x18]"), (32, 16, "unsized"),
                (48, 8, "too_long"), (56, 4, "b"), (60, 12, "[no-symbol-0x3c]"),
            ],
        )  # fmt: skip

    def test_a_function_wins_over_a_label(self) -> None:
        symbols = SymbolTable(
            Path("x"),
            [Symbol(0, 0, "label", True, False), Symbol(0, 4, "f", True, True), Symbol(0, 9, "data", False, True)],
        )
        self.assertEqual(symbols.ranges(0, 4)[0].name, "f")

    def test_refuses_other_files(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            for content in (b"", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01" + b"\0" * 100, b"text" * 50):
                path.write_bytes(content)
                with self.subTest(content=content[:6]), self.assertRaises(StepError):
                    SymbolTable.read(path)
            with self.assertRaises(StepError):
                SymbolTable.read(Path(folder) / "absent")


class Arguments(unittest.TestCase):
    SYMBOLS = table(
        (0x1000, 0, "_stext"), (0x1800, 0, "hyp_traps_vector"), (0x2000, 64, "gicv3_do_LPI"), (0x2100, 64, "b"),
        (0x3000, 0, "_etext"), (0x4000, 0, "_end"),
    )  # fmt: skip

    def test_a_label_takes_the_first_symbol_there_is(self) -> None:
        self.assertEqual(count.resolve("b", self.SYMBOLS), ("b", "b"))
        self.assertEqual(count.resolve("x=a|b", self.SYMBOLS), ("x", "b"))
        for spec in ("absent", "x=a|c", "", "x=", "=b", "x=b|", "x:y=b", "x,y=b"):
            with self.subTest(spec=spec), self.assertRaises(StepError):
                count.resolve(spec, self.SYMBOLS)

    def words(self, functions: dict[str, str], profile: str | None, folder: str) -> list[str]:
        base = Path(folder)
        return count.plugin_arguments(base / "p.so", self.SYMBOLS, functions, base / "out", profile, base / "syms")

    def test_words_for_the_plugin(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            words = self.words({count.LPI: count.LPI, "x": "b"}, "x", folder)
            self.assertEqual(words[0], f"{folder}/p.so")
            for word in ("lo=0x1000", "hi=0x4000", "vec=0x1800", "fn=gicv3_do_LPI:0x2000", "fn=x:0x2100", "profile=x",
                         "trip=el2-trip:gicv3_do_LPI"):  # fmt: skip
                self.assertIn(word, words)
            lines = (Path(folder) / "syms").read_text(encoding="utf-8").splitlines()
            self.assertIn("2100 40 b", lines)
            self.assertEqual(sum(int(line.split()[1], 16) for line in lines), 0x2000)

    def test_no_trip_without_the_function_that_makes_it_one(self) -> None:
        self.assertFalse([w for w in self.words({"x": "b"}, None, "/tmp") if w.startswith("trip=")])

    def test_a_comma_is_refused(self) -> None:
        with self.assertRaises(StepError):
            self.words({"x": "b"}, None, "/tmp/a,b")


class Packages(unittest.TestCase):
    def test_source_line_for_the_backports_only(self) -> None:
        text = (
            "deb [arch=amd64,arm64 signed-by=/k] http://mirror/debian bookworm main\n"
            "deb [arch=amd64 signed-by=/k] http://mirror/debian bookworm-backports main\n"
            "deb-src [signed-by=/k] http://mirror/debian trixie main\n"
        )
        more = build.add_source_lines(text)
        self.assertEqual(more, text + "deb-src [signed-by=/k] http://mirror/debian bookworm-backports main\n")
        self.assertEqual(build.add_source_lines(more), more)

    def test_source_line_without_options(self) -> None:
        text = "deb http://mirror/debian bookworm-backports main\n"
        self.assertEqual(build.add_source_lines(text), text + "deb-src http://mirror/debian bookworm-backports main\n")

    def test_tarball_of_the_very_version(self) -> None:
        sums = "\nnew 1 q_2.dsc\nabc 2 q_2.orig.tar.xz\ndef 3 q_2-1.debian.tar.xz"
        old = {"Version": "1", "Checksums-Sha256": "\nold 1 q_1.orig.tar.xz"}
        stanzas = [old, {"Version": "2", "Checksums-Sha256": sums}]
        self.assertEqual(build.orig_tarball(stanzas, "2"), ("q_2.orig.tar.xz", "abc"))
        with self.assertRaises(StepError) as caught:
            build.orig_tarball(stanzas, "3")
        self.assertIn("it has: 1, 2", caught.exception.message)


class Commands(unittest.TestCase):
    """Exit status and output; the boot itself is replaced."""

    def command(self, module: object, *argv: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["x", *argv]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = module.main()  # type: ignore[attr-defined]
        return status, out.getvalue(), err.getvalue()

    def count(self, lpi: tuple[int, int], *argv: str) -> tuple[int, str, str]:
        result = run(lpi=lpi, trip=(1130, 380))
        result["functions"] = {count.LPI: result["functions"]["lpi"], count.TRIP: result["functions"]["trip"]}
        for function in result["functions"].values():
            function["calls"] = 2018
        files = [w for name in ("xen-image", "xen-syms", "kernel", "initrd") for w in (f"--{name}", "f")]
        with mock.patch.object(count, "run_count", return_value=result):
            return self.command(count, *files, *argv)

    def test_check_decides_the_exit_status(self) -> None:
        self.assertEqual(self.count((290, 100), "--check")[0], 0)
        status, out, err = self.count((291, 100), "--check")
        self.assertEqual(status, 1)
        self.assertIn("291 instructions a call, 290 allowed", err)
        self.assertIn("limits: exceeded", out)
        self.assertEqual(self.count((291, 100))[0], 0)

    def test_baseline_is_printed_and_judged(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "c.json")
            self.assertEqual(self.count((250, 100), "--json", path)[0], 0)
            self.assertEqual(self.count((250, 100), "--baseline", path, "--check")[0], 0)
            status, out, err = self.count((251, 100), "--baseline", path, "--check")
            self.assertEqual(status, 1)
            self.assertIn("251 instructions a call, the baseline has 250", err)
            self.assertRegex(out, r"gicv3_do_LPI +250 +251 +1\.00")

    def test_compare(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            a, b = (str(Path(folder) / name) for name in ("a", "b"))
            self.count((250, 100), "--json", a)
            self.count((600, 100), "--json", b)
            self.assertEqual(self.command(compare, a, b)[0], 0)
            self.assertEqual(self.command(compare, a, b, "--check")[0], 1)
            self.assertEqual(self.command(compare, b, a, "--check")[0], 0)
            self.assertIn("Rust/C", self.command(compare, a, b)[1])

    def test_files_that_are_no_results(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x"
            for text in ("", "[]", "{}", json.dumps({"format": 99, "functions": {}})):
                path.write_text(text, encoding="utf-8")
                with self.subTest(text=text):
                    self.assertEqual(self.command(compare, str(path), str(path))[0], 1)

    def test_missing_files_are_named(self) -> None:
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(StepError) as caught:
            nowhere = Path(folder) / "nowhere"
            count.run_count(nowhere, nowhere, nowhere, nowhere, logs=Path(folder))
        self.assertIn("nowhere is missing", caught.exception.message)


class Machine(unittest.TestCase):
    def test_it_is_deterministic(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            path = Path(file.name)
            machine = count.CountingMachine(xen=path, kernel=path, initrd=path, plugin_args=["p", "a=1"])
            words = " ".join(machine.command(Path("errors")))
        for part in ("-smp 1 ", "-icount shift=0,sleep=off", "clock=vm", "dtb-randomness=off", "-plugin p,a=1",
                     "driver=null-co", "xenits.test=count nohlt"):  # fmt: skip
            self.assertIn(part, words)


if __name__ == "__main__":
    unittest.main()
