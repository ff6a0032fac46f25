# SPDX-License-Identifier: GPL-2.0-only
"""The judgements on a build by hand, shown something bad."""

import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

from xenits import by_hand
from xenits.elf import Elf, Symbol


def xen(**functions: int) -> Elf:
    """An image with these functions, whose text is from 100 to 200."""
    names = {f"xen_its_{n}": 150 for n in range(20)} | {"_stext": 100, "_etext": 200} | functions
    symbols = [Symbol(name, False, True, 1, value, 4) for name, value in names.items()]
    return SimpleNamespace(symbols=symbols)  # type: ignore[return-value]


class Misplaced(unittest.TestCase):
    def test_all_in_text(self) -> None:
        self.assertEqual(list(by_hand.misplaced(xen())), [])

    def test_an_orphan_after_the_text(self) -> None:
        self.assertEqual(list(by_hand.misplaced(xen(xen_its_dump=200))), ["xen_its_dump is outside of Xen's text"])

    def test_no_component(self) -> None:
        bare = SimpleNamespace(symbols=[s for s in xen().symbols if not s.name.startswith("xen_its_")])
        self.assertIn("only 0 functions", next(iter(by_hand.misplaced(bare))))  # type: ignore[arg-type]


class LeftOver(unittest.TestCase):
    def test_products_are_found_and_sources_are_not(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "its-rs.mk").touch()
            self.assertEqual(list(by_hand.left_over(folder)), [])
            (folder / ".its-rs.o.tmp").touch()
            (folder / "xen_its.h").touch()
            self.assertEqual(len(list(by_hand.left_over(folder))), 2)
