# SPDX-License-Identifier: GPL-2.0-only
"""The Rust toolchain: rustup is the user's, the release and its targets are ours to add."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from .errors import StepError
from .layout import REPO, cache_root, locked
from .shell import output, run

XEN_TARGET = "aarch64-unknown-none-softfloat"
DOM0_TARGET = "aarch64-unknown-linux-musl"
RELEASE = "1.95.0"
"""The release that is used whatever the user's default is: lints and costs are those of a release."""

NIGHTLY = "nightly"
"""The toolchain for what the stable one cannot do; only tests use it."""


def _release(log: Path) -> str:
    """That of the compiler that is used here; empty if there is none."""
    try:
        said = output(["rustc", "--version"], log, cwd=REPO)
    except StepError:
        return ""
    return said.removeprefix("rustc ").split(" ")[0]


def prepare(log: Path) -> None:
    """Have cargo in PATH, in the release that is ours; RUSTUP_TOOLCHAIN is the user's way to have another one."""
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
    if not shutil.which("rustup") and (cargo / "rustup").exists():
        # The shell did not read rustup's profile.
        os.environ["PATH"] = f"{cargo}:{os.environ['PATH']}"
    if not shutil.which("rustup") or "RUSTUP_TOOLCHAIN" in os.environ:
        return
    with locked("rustup"):
        if _release(log) == RELEASE:
            return
        listed = output(["rustup", "toolchain", "list"], log, cwd=REPO).splitlines()
        if not any(line.startswith(f"{RELEASE}-") for line in listed):
            print(f"installing Rust {RELEASE} beside what rustup has ...", file=sys.stderr, flush=True)
            words = ["--profile", "minimal", "--component", "rustfmt,clippy", "--no-self-update"]
            hint = "check that rustup can reach its server; or set RUSTUP_TOOLCHAIN to a release that you have."
            run(["rustup", "toolchain", "install", RELEASE, *words], log, what=f"no Rust {RELEASE}", hint=hint)
    os.environ["RUSTUP_TOOLCHAIN"] = RELEASE


def ensure_targets(targets: list[str], log: Path) -> list[str]:
    """Add the compilation targets that are missing; gives those that were added."""
    prepare(log)
    if not shutil.which("cargo"):
        raise StepError("cargo is not installed", hint="install Rust with rustup (https://rustup.rs).")
    if not shutil.which("rustup"):
        # A distribution's own toolchain: it either has the target or it does not.
        sysroot = Path(output(["rustc", "--print", "sysroot"], log).strip())
        lacking = [t for t in targets if not (sysroot / "lib/rustlib" / t).is_dir()]
        if lacking:
            raise StepError(
                f"this Rust has no target {' '.join(lacking)}, and there is no rustup to add it",
                hint="install Rust with rustup (https://rustup.rs).",
            )
        return []
    with locked("rustup"):
        have = output(["rustup", "target", "list", "--installed"], log, cwd=REPO).split()
        lacking = [t for t in targets if t not in have]
        for target in lacking:
            argv = ["rustup", "target", "add", target]
            try:
                run(argv, log, cwd=REPO)
            except StepError:
                run(argv, log, cwd=REPO, what=f"rustup cannot add {target} (tried twice)")
    return lacking


def ensure_component(command: str, log: Path) -> None:
    """Add the component of the toolchain that ``cargo fmt`` or ``cargo clippy`` is in, if it is missing."""
    prepare(log)
    try:
        output(["cargo", command, "--version"], log, cwd=REPO)
    except StepError:
        with locked("rustup"):
            component = {"fmt": "rustfmt"}.get(command, command)
            run(["rustup", "component", "add", component], log, cwd=REPO, what=f"cargo {command} cannot be had")


def ensure_nightly(components: tuple[str, ...], log: Path) -> None:
    """Add the nightly toolchain and these components of it, if they are missing.

    rustup takes the newest nightly that has all of them.
    """
    prepare(log)
    if not shutil.which("rustup"):
        raise StepError("this needs a nightly Rust, and there is no rustup", hint="install rustup (https://rustup.rs).")
    with locked("rustup"):
        try:
            listing = ["rustup", "component", "list", "--installed", "--toolchain", NIGHTLY]
            have = output(listing, log, cwd=REPO).split()
        except StepError:
            have = []
        if have and all(any(h == c or h.startswith(f"{c}-") for h in have) for c in components):
            return
        words = [word for component in components for word in ("--component", component)]
        argv = ["rustup", "toolchain", "install", NIGHTLY, "--profile", "minimal", "--no-self-update", *words]
        what = f"rustup cannot install a nightly Rust with {' and '.join(components)}"
        hint = "this test cannot run without it; try again when the machine has network, or a day later."
        run(argv, log, cwd=REPO, what=what, hint=hint)


def version(log: Path) -> str:
    """What the compiler says of itself: another compiler means another build."""
    prepare(log)
    return output(["rustc", "-vV"], log, cwd=REPO)


def target_dir() -> Path:
    """Where cargo builds for our tests; outside of the repository.

    Each checkout has its own: cargo was seen to run what another one had built,
    and programs remember where their sources were.
    """
    own = os.environ.get("CARGO_TARGET_DIR")
    checkout = hashlib.sha256(bytes(REPO)).hexdigest()[:12]
    return Path(own) if own else cache_root() / "target" / checkout
