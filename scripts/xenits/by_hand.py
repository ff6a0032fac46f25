# SPDX-License-Identifier: GPL-2.0-only
"""A build of Xen as the README tells to do it by hand, in the corners of what it promises.

A tree of its own, this repository at a path with spaces, LIVEPATCH, a release build,
no network for cargo, `make` twice and `make clean`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from . import packages, rust, xen_config, xen_source
from .elf import Elf
from .layout import REPO
from .shell import run


def build(folder: Path, log: Path) -> Iterable[str]:
    """Build in `folder`, and say what is not as promised."""
    packages.install_host_packages(log, False)
    rust.ensure_targets([rust.XEN_TARGET], log)
    source, _ = xen_source.pinned(log)
    patched, *_ = xen_source.patched(source, log)
    xen = folder / "xen"
    xen_source.sync(patched, folder, folder / "manifest")
    its = folder / "a path" / "xen its"
    its.parent.mkdir()
    its.symlink_to(REPO, target_is_directory=True)

    def make(*targets: str) -> None:
        run(
            [
                "make", "-C", str(xen), f"-j{os.cpu_count() or 1}", "XEN_TARGET_ARCH=arm64",
                "CROSS_COMPILE=aarch64-linux-gnu-", f"XEN_ITS_DIR={its}", "XEN_ITS_CARGO_FLAGS=--offline", *targets,
            ],
            log,
            what="Xen does not build by hand",
        )  # fmt: skip

    make("arm64_defconfig")
    config = xen / ".config"
    symbols = xen_config.wanted("rust", False, []) | {"LIVEPATCH": "y"}
    config.write_text(config.read_text(encoding="utf-8") + xen_config.render(symbols), encoding="utf-8")
    make("olddefconfig")
    yield from xen_config.unmet(symbols, config.read_text(encoding="utf-8"))

    make()
    yield from misplaced(Elf(xen / "xen-syms"))
    component = xen / "arch/arm/its-rs.o"
    first = component.stat().st_mtime_ns
    make()
    if component.stat().st_mtime_ns != first:
        yield "a second make, with nothing changed, makes its-rs.o anew"

    make("clean")
    yield from left_over(xen)
    shutil.rmtree(folder)


def misplaced(xen: Elf) -> Iterable[str]:
    """The component's functions lie where Xen maps code executable."""
    where = {symbol.name: symbol.value for symbol in xen.symbols}
    entries = {name: at for name, at in where.items() if name.startswith("xen_its_")}
    if len(entries) < 20:
        yield f"only {len(entries)} functions of the component's are in Xen"
    for name, at in sorted(entries.items()):
        if not where["_stext"] <= at < where["_etext"]:
            yield f"{name} is outside of Xen's text"


def left_over(xen: Path) -> Iterable[str]:
    """Products of the component's build that `make clean` has not removed."""
    for path in sorted(xen.rglob("*its-rs*")) + sorted(xen.rglob("xen_its.h")):
        if path.name != "its-rs.mk":
            yield f"make clean leaves {path.relative_to(xen)}"
