# SPDX-License-Identifier: GPL-2.0-only
"""Names for the component's own functions: Xen's build strips them, so link the component once more and keep them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bench import repo
from bench.elfsyms import Symbol, SymbolTable
from xenits.shell import run

LINK = repo.REPO / "rust/xen-its/link"
LIBRARY = "arch/arm/its-rs.cargo/aarch64-unknown-none-softfloat/release/libxen_its.a"
ANCHOR = "xen_its_deliver"
"""A function that both have."""


def with_component(symbols: SymbolTable, tree: Path, log: Path) -> SymbolTable:
    """The symbols of a Xen that was built in `tree`, with those of the component if it is in there."""
    if not symbols.has(ANCHOR) or not (tree / LIBRARY).is_file():
        return symbols
    linked = log.parent / "component.o"
    exports = [
        word
        for line in (LINK / "exports.txt").read_text(encoding="utf-8").splitlines()
        for word in line.partition("#")[0].split()
    ]
    wanted = [word for name in exports for word in ("-u", name)]
    words = ["aarch64-linux-gnu-ld", "-r", "--gc-sections", *wanted, "-T", str(LINK / "merge.ld"), "-o", str(linked)]
    run([*words, str(tree / LIBRARY)], log, what="the component cannot be linked again")
    component = SymbolTable.read(linked)
    moved = symbols.address(ANCHOR) - component.address(ANCHOR)
    entries = [s for s in component.symbols if s.name.startswith("xen_its_")]
    # A build of another revision may lie in the tree.
    if any(not symbols.has(s.name) or symbols.address(s.name) != s.addr + moved for s in entries):
        return symbols
    names = _demangled([s.name for s in component.symbols])
    more = [
        Symbol(s.addr + moved, s.size, name, s.code, s.function)
        for s, name in zip(component.symbols, names, strict=True)
        if s.function and not symbols.has(s.name)
    ]
    return SymbolTable(symbols.path, [*symbols.symbols, *more])


def _demangled(names: list[str]) -> list[str]:
    """As Rust writes them, without spaces."""
    try:
        done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return names
    # Each name ends in a hash of what it was made from.
    return [re.sub(r"::h[0-9a-f]{16}$", "", line).replace(" ", "") for line in done.stdout.splitlines()]
