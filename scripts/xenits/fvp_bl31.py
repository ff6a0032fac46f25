# SPDX-License-Identifier: GPL-2.0-only
"""Has TF-A's own code read a device tree: BL31 reads the one in the FIP, and panics if something is missing.

That code is compiled for the host, with a program around it and next to nothing of what it includes.
"""

from __future__ import annotations

from pathlib import Path

from .layout import REPO
from .shell import Command, output, run

PROGRAM = REPO / "scripts/tests/fvp_bl31.c"
STUBS = REPO / "scripts/tests/fvp_bl31.h"
"""Stands for all of `INCLUDED`."""

INCLUDED = (
    "common/debug.h",
    "common/uuid.h",
    "lib/fconf/fconf.h",
    "plat/arm/common/arm_def.h",
    "plat/common/platform.h",
    "services/rmm_core_manifest.h",
)

SOURCES = (
    "plat/arm/board/fvp/fconf/fconf_hw_config_getter.c",
    "common/fdt_wrappers.c",
    "lib/libfdt/fdt.c",
    "lib/libfdt/fdt_addresses.c",
    "lib/libfdt/fdt_ro.c",
    "lib/libfdt/fdt_wip.c",
)


def reader(source: Path, folder: Path, log: Path) -> Path:
    """Build the program in `folder`, from TF-A's source."""
    for name in INCLUDED:
        (folder / "stubs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "stubs" / name).write_text("", encoding="utf-8")
    places = (folder / "stubs", *(source / p for p in ("plat/arm/board/fvp/include", "include/lib/libfdt", "include")))
    program = folder / "bl31-reads"
    # What is not called is dropped, and what that calls is not needed.
    argv: Command = [
        "cc", "-O1", "-w", "-ffunction-sections", "-Wl,--gc-sections", "-include", STUBS,
        *(f"-I{place}" for place in places), "-o", program, PROGRAM, *(source / name for name in SOURCES),
    ]  # fmt: skip
    run(argv, log, what="TF-A's reader of device trees cannot be built for the host")
    return program


def read(program: Path, tree: Path, log: Path) -> str:
    """What TF-A finds in a device tree; an error if it complains of anything."""
    return output([program, tree], log, what=f"TF-A does not take the device tree {tree.name}")
