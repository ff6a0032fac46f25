# SPDX-License-Identifier: GPL-2.0-only
"""Gates: properties of the repository and of what is linked into Xen.

A gate is a function with the decorator `gate`. It gets a `Gate`, looks at whatever
it wants to, and returns the reasons why it is not content: none means it passed.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from . import pipeline
from .layout import REPO, files_below
from .shell import output
from .steps import Steps
from .suite import Case, Context, Result
from .xen_build import Image


@dataclass
class Gate:
    """What a gate works with."""

    context: Context

    def output(self, *argv: str) -> str:
        """Standard output of a program, run in the repository; a failure fails the gate."""
        return output(list(argv), self.context.log, cwd=REPO)

    def xen(self, its: str = "rust", debug: bool = True, config: str = "") -> Image:
        """A Xen built as ``scripts/run --build-only`` does, with Kconfig lines added."""
        options = pipeline.Options(its=its, debug=debug)
        if config:
            fragment = self.context.logs / "fragment.config"
            fragment.write_text(config, encoding="utf-8")
            options.fragments = [fragment]
        return pipeline.build_xen(options, Steps(pipeline.BUILD_STEPS, self.context.logs, quiet=True), with_qemu=False)


Check = Callable[[Gate], Iterable[str]]
_GATES: list[Case] = []


def gate(name: str, about: str, quick: bool = True) -> Callable[[Check], Check]:
    """Register a gate; `quick` is false for one that needs a build of Xen."""

    def register(check: Check) -> Check:
        def case(context: Context) -> list[Result]:
            return [Result(f"gate/{name}", problems=tuple(check(Gate(context))))]

        _GATES.append(Case(f"gate/{name}", about, functools.wraps(check)(case), quick))
        return check

    return register


def cases() -> Iterable[Case]:
    """All gates, in the order in which they are written below."""
    return list(_GATES)


def repository_files() -> list[Path]:
    """The files of the repository: what git tracks, or all there are where git cannot tell."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return files_below(REPO)
    return [path for name in done.stdout.decode().split("\0") if name and (path := REPO / name).is_file()]


_NO_HEADER = {".md", ".lock", ".json", ".txt", ".patch"}
"""Text and generated files, which carry no licence line of their own."""


@gate("spdx", "every source file names its licence in its first lines")
def spdx(gate: Gate) -> Iterable[str]:
    """Looks at every file that is not ignored; see `repository_files`."""
    for path in repository_files():
        name = path.relative_to(REPO)
        if path.suffix in _NO_HEADER or path.name in ("LICENSE", "series"):
            continue
        head = path.read_bytes()[:600]
        if b"\0" not in head and b"SPDX-License-Identifier: GPL-2.0-only" not in head:
            yield f"{name} has no SPDX-License-Identifier: GPL-2.0-only"
