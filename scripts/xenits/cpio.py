# SPDX-License-Identifier: GPL-2.0-only
"""Folders as archives that a kernel unpacks as its first root, or on top of that."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

from .errors import StepError


def pack(top: Path, target: Path, log: Path) -> None:
    """Write all that is below `top` to `target`, gzip'd, owned by root."""
    names = [".", *sorted(str(path.relative_to(top)) for path in top.rglob("*"))]
    argv = ["cpio", "-R", "0:0", "-H", "newc", "-o"]
    with open(log, "ab") as said:
        done = subprocess.run(
            argv, cwd=top, input="\n".join(names).encode(), stdout=subprocess.PIPE, stderr=said, check=False
        )
    if done.returncode != 0:
        raise StepError(f"cpio could not pack {top}", log=log)
    target.write_bytes(gzip.compress(done.stdout, mtime=0))
