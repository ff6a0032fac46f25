# SPDX-License-Identifier: GPL-2.0-only
"""Programs and Python packages from registries, in the cache.

Who calls holds the lock ``tools``, but for `python_packages`, which takes it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from . import packages, rust
from .errors import StepError
from .layout import Stamp, cache_root, locked
from .shell import Command, run


def cargo_tool(package: str, program: str, version: str, log: Path) -> Path:
    """Have `program` of a package in the cache, in this version; gives its path."""
    home = cache_root() / "tools"
    path = home / "bin" / program
    if _says(path) != f"{program} {version}":
        rust.prepare(log)
        print(f"installing {package} {version} into {home} ...", file=sys.stderr, flush=True)
        home.mkdir(parents=True, exist_ok=True)
        argv: Command = ["cargo", "install", "--locked", "--force", "--debug", "--root", home, f"{package}@{version}"]
        # A debug build takes a third of the time. Not in the repository: its settings are for other targets.
        twice(argv, home, f"cannot install {package} {version}", log)
    return path


def _says(program: Path) -> str:
    # Cargo's own subcommands want to be called as cargo calls them.
    subcommand = [program.name.removeprefix("cargo-")] if program.name.startswith("cargo-") else []
    argv = [str(program), *subcommand, "--version"]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def python_packages(name: str, requirements: list[str], log: Path) -> Path:
    """Have these Python packages in a folder of the cache that has this name; gives the folder."""
    home = cache_root() / "tools" / name
    stamp = Stamp(home.with_suffix(".stamp"))
    inputs = [*requirements, sys.version]
    with locked("tools"):
        if not home.is_dir() or not stamp.matches(inputs):
            stamp.clear()
            pip_install(home, requirements, log)
            stamp.write(inputs)
    return home


def pip_install(home: Path, requirements: list[str], log: Path) -> None:
    """Have `home` hold these Python packages and what they need, and nothing else."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
        with locked("apt"):
            packages.Apt(log).install(["python3-pip"])
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    quiet = ["--disable-pip-version-check", "--no-cache-dir", "--root-user-action", "ignore"]
    argv: Command = [*pip, "install", *quiet, "--target", home, "--only-binary", ":all:", *requirements]
    twice(argv, home, f"cannot install {' '.join(requirements)}", log)


def twice(argv: Command, cwd: Path, what: str, log: Path) -> None:
    """Run what downloads something, and once more if it fails."""
    try:
        run(argv, log, cwd=cwd)
    except StepError:
        hint = "check that the package registries can be reached, then run the same command again."
        run(argv, log, cwd=cwd, what=f"{what} (tried twice)", hint=hint)
