# SPDX-License-Identifier: GPL-2.0-only
"""TF-A for FVP Base RevC, from Debian's source package: BL1, and a FIP with BL2, BL31 and a device tree.

Xen, or a kernel, is in memory already when BL31 starts it. The device tree goes into the FIP, in the
place of TF-A's own: what BL31 hands over is a copy of that one.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import fvp
from .errors import StepError
from .layout import Stamp, cache_root, locked
from .packages import Apt
from .shell import Command, output, run
from .xen_source import upstream_tarball

PACKAGE = "arm-trusted-firmware"
VERSION = "2.12."
"""The builds are known to be good with these versions, Debian 13's."""

OPENSSL = Path("/usr/include/openssl/sha.h")
OPENSSL_PACKAGE = "libssl-dev"
"""TF-A's fiptool needs it."""

OPTIONS = {
    "PLAT": "fvp",
    "DEBUG": "1",
    "CROSS_COMPILE": "aarch64-linux-gnu-",
    "FVP_USE_GIC_DRIVER": "FVP_GICV3",
    # What BL31 starts gets the device tree's address in x0, as an arm64 image expects it.
    "ARM_LINUX_KERNEL_AS_BL33": "1",
    "PRELOADED_BL33_BASE": f"{fvp.XEN_ADDRESS:#x}",
    # The one for this board, whose CPUs are numbered from level 1 of their affinity on.
    "FVP_HW_CONFIG_DTS": "fdts/fvp-base-gicv3-psci-1t.dts",
}
TARGETS = ("bl1", "bl2", "bl31", "fip")

LIMIT_S = 900
"""It takes 12 s on a quiet machine."""


@dataclass(frozen=True)
class Firmware:
    """What was built, and from where. `tree` is TF-A's own device tree of the board."""

    source: Path

    bl1: Path
    fip: Path
    fiptool: Path
    tree: Path

    def complete(self) -> bool:
        """Whether all of it is there."""
        return all(path.exists() for path in (self.bl1, self.fip, self.fiptool, self.tree))


def _source(log: Path) -> Path:
    """TF-A's source, unpacked in the cache."""
    src = cache_root() / "src"
    src.mkdir(exist_ok=True)
    stamp = Stamp(src / "tf-a.stamp")
    for tree in sorted(src.glob("tf-a-*")):
        if tree.is_dir() and stamp.matches(tree.name):
            return tree
    apt = Apt(log)
    stanzas = [s for s in apt.source_stanzas(PACKAGE) if s["Version"].startswith(VERSION)]
    if not stanzas:
        raise StepError(f"Debian's index has no {PACKAGE} {VERSION}*", log=log)
    tarball = upstream_tarball(apt, stanzas[0])
    tree = src / f"tf-a-{stanzas[0]['Version']}"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    argv: Command = ["tar", "-C", tree, "--strip-components=1", "-xf", tarball]
    run(argv, log, what=f"cannot unpack {tarball}", hint=f"remove {tarball}, run again.")
    stamp.write(tree.name)
    return tree


def build(log: Path) -> tuple[Firmware, bool]:
    """Build it. The flag tells whether it was up to date."""
    with locked("tf-a"):
        tree = _source(log)
        out = cache_root() / "build/tf-a"
        made = out / "fvp/debug"
        firmware = Firmware(
            tree,
            made / "bl1.bin",
            made / "fip.bin",
            tree / "tools/fiptool/fiptool",
            made / "fdts/fvp-base-gicv3-psci-1t.dtb",
        )
        inputs = {"tree": tree.name, "options": OPTIONS, "cc": output(["aarch64-linux-gnu-gcc", "--version"], log)}
        stamp = Stamp(out / "build.stamp")
        if stamp.matches(inputs) and firmware.complete():
            return firmware, True
        if not OPENSSL.exists():
            with locked("apt"):
                Apt(log).install([OPENSSL_PACKAGE])
        stamp.clear()
        shutil.rmtree(out, ignore_errors=True)
        words = [f"BUILD_BASE={out}", *(f"{name}={value}" for name, value in OPTIONS.items())]
        make = ["make", "-C", str(tree), f"-j{os.cpu_count() or 1}"]
        argv: Command = ["timeout", str(LIMIT_S), *make, *words, *TARGETS]
        run(argv, log, what="TF-A does not build", hint="the first error in the log is the one to look at.")
        if not firmware.complete():
            raise StepError("make was content, but not all of TF-A is there", log=log)
        stamp.write(inputs)
        return firmware, False


def with_tree(firmware: Firmware, tree: Path, folder: Path, log: Path) -> Path:
    """A copy of the FIP in `folder` that has this device tree."""
    fip = Path(shutil.copy2(firmware.fip, folder / "fip.bin"))
    run([firmware.fiptool, "update", "--hw-config", tree, fip], log, what="the device tree cannot be put into the FIP")
    return fip
