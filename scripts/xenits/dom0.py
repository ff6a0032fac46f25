# SPDX-License-Identifier: GPL-2.0-only
"""Dom0's kernel and initramfs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import StepError
from .layout import REPO, cache_root
from .shell import output


@dataclass(frozen=True)
class Payload:
    """What Xen boots as Dom0."""

    kernel: Path
    initrd: Path


FULL = "arm64"
"""The flavour of Debian's kernel that drives SATA."""


def build(log: Path, flavour: str = "cloud-arm64") -> tuple[Payload, bool]:
    """Kernel and initramfs by ``dom0/build.py``. The flag tells whether all was up to date."""
    said = output(
        [sys.executable, "-B", REPO / "dom0/build.py", "--cache", cache_root(), "--flavour", flavour],
        log,
        what="dom0/build.py failed",
        hint="the log has what it said; it can be run by itself too.",
    )
    paths = dict(line.split("=", 1) for line in said.splitlines() if line.startswith(("kernel=", "initrd=")))
    if set(paths) != {"kernel", "initrd"}:
        raise StepError("dom0/build.py did not name a kernel and an initramfs", log=log)
    steps = [line for line in said.splitlines() if line.startswith("dom0: ")]
    return Payload(Path(paths["kernel"]), Path(paths["initrd"])), all("up to date" in line for line in steps)
