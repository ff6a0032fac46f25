# SPDX-License-Identifier: GPL-2.0-only
"""Where the component's own functions are in Xen."""

from __future__ import annotations

import subprocess
import tempfile
import unittest
from pathlib import Path

from bench import component
from bench.elfsyms import Symbol, SymbolTable

SOURCE = """
        .macro func name, section
        .section .text.\\name, "ax"
        .globl \\name
        .type \\name, %function
\\name:
        .endm
        func _RNvCs1_4core4deep
        nop
        ret
        .size _RNvCs1_4core4deep, 8
        func xen_its_deliver
        b _RNvCs1_4core4deep
        .size xen_its_deliver, 4
        func xen_its_host_lpi
        ret
        .size xen_its_host_lpi, 4
"""


class Names(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tree = Path(folder.name)
        library = self.tree / component.LIBRARY
        library.parent.mkdir(parents=True)
        made = self.tree / "made.o"
        compiler = ["aarch64-linux-gnu-gcc", "-c", "-x", "assembler", "-o", str(made), "-"]
        subprocess.run(compiler, input=SOURCE, text=True, check=True)
        subprocess.run(["aarch64-linux-gnu-ar", "rc", str(library), str(made)], check=True)
        log = self.tree / "log"
        component.with_component(self.xen(0), self.tree, log)
        linked = SymbolTable.read(self.tree / "component.o")
        self.places = {s.name: s.addr for s in linked.symbols}

    def xen(self, host_lpi: int) -> SymbolTable:
        """A Xen that has the entries only, where the component's code begins at 0x1000."""
        places = getattr(self, "places", {component.ANCHOR: 0})
        entries = [(0x1000 + places[component.ANCHOR], component.ANCHOR), (host_lpi, "xen_its_host_lpi")]
        return SymbolTable(Path("xen-syms"), [Symbol(at, 4, name, True, True) for at, name in entries])

    def test_hidden_functions_get_their_names(self) -> None:
        xen = self.xen(0x1000 + self.places["xen_its_host_lpi"])
        found = component.with_component(xen, self.tree, self.tree / "log")
        deep = [s for s in found.symbols if "deep" in s.name]
        self.assertEqual([(s.addr, s.size) for s in deep], [(0x1000 + self.places["_RNvCs1_4core4deep"], 8)])
        self.assertEqual(len(found.symbols), 3)

    def test_another_build_is_not_taken_for_this_one(self) -> None:
        xen = self.xen(0x1004 + self.places["xen_its_host_lpi"])
        self.assertIs(component.with_component(xen, self.tree, self.tree / "log"), xen)

    def test_a_xen_without_the_component(self) -> None:
        xen = SymbolTable(Path("xen-syms"), [Symbol(0, 4, "other", True, True)])
        self.assertIs(component.with_component(xen, self.tree, self.tree / "log"), xen)


if __name__ == "__main__":
    unittest.main()
