# SPDX-License-Identifier: GPL-2.0-only
"""Python's formatter, linter and type checker; ``pyproject.toml`` has their settings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .tools import python_packages

REQUIREMENTS = [
    "ruff==0.17.6",
    "mypy==2.4.1", "ast-serialize==0.13.1", "librt==0.16.0", "mypy-extensions==1.2.0", "pathspec==1.1.1",
    "typing-extensions==4.16.0",
]  # fmt: skip

CHECKS = (
    ("ruff", "format", "--check", "--no-cache", "--output-format", "concise"),
    ("ruff", "check", "--no-cache", "--output-format", "concise"),
    ("mypy", "--no-error-summary", "--cache-dir", "/dev/null"),
)
"""Each as a module of Python's, and its arguments."""

SHOWN = 10
"""Lines of a report that are shown."""


def problems(repository: Path, log: Path) -> Iterable[str]:
    """What they find in a repository."""
    home = python_packages("python-gate", REQUIREMENTS, log)
    for words in CHECKS:
        done = subprocess.run(
            [sys.executable, "-B", "-m", *words],
            cwd=repository,
            env={"PATH": f"{home / 'bin'}", "PYTHONPATH": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
        said = (done.stdout + done.stderr).splitlines()
        with open(log, "a", encoding="utf-8") as out:
            print(f"$ {' '.join(words)}", *said, f"(exit status {done.returncode})", sep="\n", file=out)
        if done.returncode != 0:
            yield "\n".join([f"{' '.join(words[:2])} finds fault:", *said[:SHOWN]])
