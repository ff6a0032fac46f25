# SPDX-License-Identifier: GPL-2.0-only
"""A boot of Dom0, kept for the steps that look at it after the one that made it."""

from __future__ import annotations

import json
from pathlib import Path

from .. import qemu
from ..console import Console
from . import statuses
from .statuses import Verdict

FILE = "boot.json"


def write(boot: qemu.Boot, logs: Path) -> None:
    """Keep what the serial log does not say."""
    kept = {"seconds": boot.seconds, "ended": boot.ended, "ended_well": boot.ended_well}
    (logs / FILE).write_text(json.dumps(kept) + "\n", encoding="utf-8")


def read(logs: Path) -> qemu.Boot:
    """The boot whose logs these are."""
    try:
        kept = json.loads((logs / FILE).read_text(encoding="utf-8"))
        lines = (logs / qemu.SERIAL).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError as error:
        raise Verdict(statuses.BROKEN, f"there is no boot to look at: {error}") from None
    console = Console()
    for line in lines:
        console.feed(line)
    guest_errors = qemu.read_guest_errors(logs / qemu.GUEST_ERRORS)
    return qemu.Boot(console, kept["seconds"], logs / qemu.SERIAL, guest_errors, kept["ended"], kept["ended_well"])
