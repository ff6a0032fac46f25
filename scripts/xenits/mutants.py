# SPDX-License-Identifier: GPL-2.0-only
"""``scripts/mutants``: small changes of the core that no test notices.

cargo-mutants changes one thing at a time (an operator, a result, a function's
body) and runs the tests. Each change that survives is a line of
``docs/mutants.md`` with the reason why it does not matter, or lacks a test.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from . import rust
from .errors import StepError
from .layout import REPO, locked, new_run_dir
from .shell import Command, captured
from .tools import cargo_tool

TOOL = ("cargo-mutants", "cargo-mutants", "27.1.0")
"""Package, program, version."""

PACKAGES = {"its-arch": (), "its-core": ("--lib", "--test", "behaviour", "--test", "inside")}
"""What is changed, and which tests have to notice; each package's own."""

KNOWN = Path("docs/mutants.md")

LIMIT_S = 24 * 3600.0
"""After that it hangs."""

TEST_LIMIT_S = 40
"""A mutant whose tests take longer goes round for ever, which is noticed too: they take about 4 s."""

STOP_AT_ONCE = ("-Z", "unstable-options", "--fail-fast")
"""For the tests: the first that fails is enough. A stable toolchain takes it with RUSTC_BOOTSTRAP."""

_ABOUT = """\
Change the core in small ways, one at a time, and run its tests: a change that
no test notices is one that a test is missing for, or that does not matter.
docs/mutants.md lists those that do not matter, with reasons; any other is
printed, and the exit status is 1. It takes hours, so scripts/test leaves it out.
"""


def anywhere(mutant: str) -> str:
    """A mutant's name without its line and column, which change with every commit."""
    return re.sub(r"^([^:]+):\d+:\d+: ", r"\1: ", mutant)


def known(text: str) -> Counter[str]:
    """The table of `KNOWN`: file, change, how many times, and why."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        match = re.match(r"\| `([^`]+)` \| `` (.+?) `` \| (\d+) \| (.*\S) \|$", line)
        if match:
            found[f"rust/{match[1]}: {match[2]}".replace("\\|", "|")] += int(match[3])
        elif line.startswith("| `"):
            raise StepError(f"{KNOWN}: not a row of its table: {line}")
    return found


def report(missed: Iterable[str], listed: Counter[str], looked_at: Iterable[str]) -> tuple[list[str], list[str]]:
    """Mutants that survive and are not listed, and lines of the list that are none any more.

    `looked_at` are the files that were changed: nothing is known of the others.
    """
    survivors = Counter(anywhere(mutant) for mutant in missed)
    files = set(looked_at)
    new = sorted((survivors - listed).elements())
    gone = sorted(name for name in (listed - survivors) if name.split(": ")[0] in files)
    return new, gone


def _run(tool: Path, package: str, files: list[str], folder: Path) -> tuple[list[str], list[str]]:
    """Survivors of a package, and the files that were changed."""
    chosen = [word for name in files for word in ("--file", name)]
    argv: Command = [
        tool, "mutants", "--package", package, *chosen, "--no-shuffle", "--colors", "never", "--output", folder,
        "--timeout", str(TEST_LIMIT_S), "--", *PACKAGES[package], "--", *STOP_AT_ONCE,
    ]  # fmt: skip
    env = {
        "CARGO_TARGET_DIR": str(rust.target_dir() / "mutants"),
        "CARGO_PROFILE_DEV_DEBUG": "0",
        "RUSTC_BOOTSTRAP": "1",
    }
    log = folder.with_suffix(".log")
    code, text = captured(argv, log, cwd=REPO, env=env, limit=LIMIT_S)
    lines = text.strip().splitlines()
    # 2: some survive, 3: some went round for ever.
    if code not in (0, 2, 3) or not lines:
        raise StepError(f"cargo mutants ended with status {code}", log=log, lines=lines[-8:])
    print(f"{package}: {lines[-1]}", flush=True)
    out = folder / "mutants.out"
    every = json.loads((out / "mutants.json").read_text(encoding="utf-8"))
    return (out / "missed.txt").read_text(encoding="utf-8").splitlines(), [mutant["file"] for mutant in every]


def main(argv: list[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="scripts/mutants", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="only these, e.g. rust/its-core/src/slots.rs")
    files: list[str] = parser.parse_args(argv).files
    logs = new_run_dir("mutants")
    print(f"logs in {logs}", flush=True)
    with locked("tools"):
        tool = cargo_tool(*TOOL, logs / "tools.log")
    listed = known((REPO / KNOWN).read_text(encoding="utf-8"))
    missed: list[str] = []
    looked_at: list[str] = []
    for package in PACKAGES:
        own = [name for name in files if name.startswith(f"rust/{package}/")]
        if own or not files:
            survivors, changed = _run(tool, package, own, logs / package)
            missed += survivors
            looked_at += changed
    if not looked_at:
        raise StepError("nothing was changed: no such file in its-arch or its-core")
    new, gone = report(missed, listed, looked_at)
    for name in gone:
        print(f"no longer survives; take it out of {KNOWN}: {name}")
    for name in new:
        print(f"survives: {name}")
    print(f"{len(missed)} survive, {len(new)} of them not in {KNOWN}")
    return 1 if new else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StepError as error:
        print(f"\n{error.render()}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
