# SPDX-License-Identifier: GPL-2.0-only
"""Where things are: the repository, and the cache outside of it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import StepError

REPO = Path(__file__).resolve().parents[2]
"""Root of this repository."""

RUNS_KEPT = 40
"""Folders of logs kept in the cache; older ones are removed."""


def cache_root() -> Path:
    """The cache, as XDG has it; created if missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    root = Path(base) / "xen-its"
    if any(c.isspace() for c in str(root)):
        raise StepError(
            f"the cache's path has a space in it: {root}",
            hint="Xen's own makefiles cannot build in such a place: set XDG_CACHE_HOME to another.",
        )
    root.mkdir(parents=True, exist_ok=True)
    return root


def new_run_dir(name: str = "run") -> Path:
    """A fresh folder for the logs of one run; the oldest ones are dropped."""
    runs = cache_root() / "logs"
    runs.mkdir(exist_ok=True)
    for old in sorted(runs.iterdir(), key=lambda p: p.stat().st_mtime)[:-RUNS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    slug = "".join(c if c.isalnum() else "-" for c in name)
    for serial in range(1000):
        path = runs / f"{stamp}-{slug}-{os.getpid()}.{serial}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise StepError(f"cannot make a folder for logs in {runs}")


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name` of the cache, so that two runs at once do not build the same thing."""
    locks = cache_root() / "locks"
    locks.mkdir(exist_ok=True)
    with open(locks / name, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Stamp:
    """Remembers the inputs that something in the cache was made from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def matches(self, inputs: object) -> bool:
        """Whether the last `write` had these very inputs."""
        try:
            return self.path.read_text(encoding="utf-8") == _canonical(inputs)
        except FileNotFoundError:
            return False

    def clear(self) -> None:
        """Forget: the thing is about to be made anew, and that may fail half way."""
        self.path.unlink(missing_ok=True)

    def write(self, inputs: object) -> None:
        """The thing now exists, made from these inputs."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(_canonical(inputs), encoding="utf-8")


def _canonical(inputs: object) -> str:
    return json.dumps(inputs, sort_keys=True, indent=1) + "\n"


def digest(text: str | bytes) -> str:
    """A short name for a content."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:16]


def digest_files(paths: Iterable[Path], base: Path) -> str:
    """A short name for the names and contents of files below `base`."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(str(path.relative_to(base)).encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def files_below(top: Path, skip: frozenset[str] = frozenset({"target", ".git", "__pycache__"})) -> list[Path]:
    """All regular files below `top` (or `top` itself), without the folders named in `skip`."""
    if top.is_file():
        return [top]
    found: list[Path] = []
    for folder, dirs, names in os.walk(top):
        dirs[:] = sorted(d for d in dirs if d not in skip)
        found += [Path(folder) / n for n in names if (Path(folder) / n).is_file()]
    return sorted(found)
