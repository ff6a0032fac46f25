# SPDX-License-Identifier: GPL-2.0-only
"""Looks for programs that run on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A program that runs."""

    pid: int
    words: tuple[str, ...]


OURS = ("qemu-", "FVP_", "python")
"""How the names of programs begin that a step starts; a pager on one of its logs is none."""


def at(folder: Path) -> list[Process]:
    """Programs of ours that work with files in `folder`, going by their command lines, but for the one that asks."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if Path(words[0]).name.startswith(OURS) and any(f"{folder}/" in word for word in words):
            found.append(Process(int(entry.name), tuple(word for word in words if word)))
    return found
