# SPDX-License-Identifier: GPL-2.0-only
"""Host tests under Miri, which finds undefined behaviour, data races and leaks.

All that Miri looks for takes unsafe code, and that is in xen-sys only: its tests
run the whole component through the C ABI, and every run of ``scripts/test`` has
them under Miri. The compiler keeps unsafe code out of the other crates, and one of
the core's own tests takes seconds to a minute there, so that all but a few of them
are in ``scripts/miri`` only.

A process runs one test after the other, so the tests of a binary are dealt out
to several processes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import rust, suite
from .errors import StepError
from .host_tests import parse_cargo_test
from .layout import REPO, new_run_dir
from .shell import captured, output
from .suite import Case, Context, Result

COMPONENTS = ("miri", "rust-src")
"""What the toolchain needs besides the compiler."""

FLAGS = "-Zmiri-strict-provenance"
"""For MIRIFLAGS. Isolation stays on: no test needs the world outside, and time is what the interpreter counts."""

SAFE = "-Zmiri-disable-stacked-borrows"
"""Besides, for a program without unsafe code: only such code can get the aliasing of references wrong, and to look
for that takes almost half of the time."""

LEAKS = "-Zmiri-ignore-leaks"
"""Besides, for all tests of such a program: a machine that one of them drops as it is leaves the ITTs that the host ITS
still uses, on purpose; what a domain leaves when it is destroyed the testkit counts by itself."""

ALWAYS = "^(?!its-core (inside|behaviour: (?!happy::)))"
"""What ``scripts/test`` runs: of the core's own tests, what a guest does every day; and all others."""

FORBID_UNSAFE = ("its-arch", "its-core", "its-testkit")
"""Packages whose code and tests have none."""

PER_PROCESS = 16
"""Tests of one process: the interpreter needs some seconds to start."""

LIMIT_S = 3600.0
"""After that a process hangs; it is many times what one takes, on a busy machine too."""


@dataclass(frozen=True)
class Binary:
    """Tests that are one program."""

    package: str
    target: tuple[str, ...]
    may_leak: bool = False

    @property
    def name(self) -> str:
        """As results show it."""
        return f"{self.package} {self.target[-1].lstrip('-')}"

    @property
    def flags(self) -> str:
        """For MIRIFLAGS."""
        if self.package not in FORBID_UNSAFE:
            return FLAGS
        return f"{FLAGS} {SAFE} {LEAKS}" if self.may_leak else f"{FLAGS} {SAFE}"

    def argv(self, *arguments: str) -> list[str]:
        """Run it with these arguments."""
        cargo = ["cargo", f"+{rust.NIGHTLY}", "miri", "test", "-p", self.package, *self.target]
        return [*cargo, "--", *arguments]


def binaries(metadata: dict[str, Any], *, may_leak: bool = False) -> list[Binary]:
    """The test programs of the workspace; documentation has no code that could be run."""
    found = []
    for package in metadata["packages"]:
        for target in package["targets"]:
            if target["test"] and target["kind"] == ["test"]:
                found.append(Binary(package["name"], ("--test", target["name"]), may_leak))
            elif target["test"] and "lib" in target["kind"]:
                found.append(Binary(package["name"], ("--lib",), may_leak))
    return found


def deal(names: list[str], most: int) -> list[list[str]]:
    """Hand `names` out to processes of `most` at most. Neighbours, which take about the same time, go apart."""
    processes = -(-len(names) // most)
    return [names[n::processes] for n in range(processes)]


def _env(binary: Binary) -> dict[str, str]:
    return {"CARGO_TARGET_DIR": str(rust.target_dir()), "CARGO_TERM_COLOR": "never", "MIRIFLAGS": binary.flags}


def listed(binary: Binary, log: Path) -> list[str]:
    """The names of its tests; builds it."""
    code, text = captured(binary.argv("--list"), log, cwd=REPO, env=_env(binary), limit=LIMIT_S)
    names = re.findall(r"^(\S+): test$", text, re.MULTILINE)
    counted = re.search(r"^(\d+) tests?, \d+ benchmarks?$", text, re.MULTILINE)
    if code != 0 or not counted or int(counted[1]) != len(names):
        raise StepError(f"cannot list the tests of {binary.name}", log=log)
    return sorted(names)


def run(binary: Binary, names: list[str], log: Path) -> Iterator[Result]:
    """Run tests in one process; when Miri stops at one of them, run the others in another."""
    attempt = 0
    while names:
        own = log.with_suffix(f".{attempt}.log") if attempt else log
        argv = binary.argv("--exact", "--test-threads=1", *names)
        try:
            code, text = captured(argv, own, cwd=REPO, env=_env(binary), limit=LIMIT_S)
        except StepError as error:
            code, text = -1, f"{own.read_text(encoding='utf-8', errors='replace')}\nerror: {error.message}\n"
        # Without the count: a process that was stopped does not get to it.
        done = [r for r in parse_cargo_test(text, binary.name) if r.name != "count"]
        yield from done
        names = [name for name in names if f"{binary.name}: {name}" not in {r.name for r in done}]
        if names:
            yield Result(f"{binary.name}: {names[0]}", problems=(_why(text, code),))
            names = names[1:]
        elif code != 0 and not any(r.failed for r in done):
            # At the end of all tests: a leak.
            yield Result(f"{binary.name}: the end", problems=(_why(text, code),))
        attempt += 1


def _why(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if re.match(r"(.*\.\.\. )?error\b|\s+-->", line)]
    return "\n".join(lines[:6]) or f"ended with status {code}: see the log"


def test(context: Context, pattern: str = ALWAYS) -> Iterable[Result]:
    """Of what ``cargo test`` runs on the host for the workspace, the tests that match."""
    rust.ensure_nightly(COMPONENTS, context.log)
    found: dict[str, Any] = json.loads(
        output(["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"], context.log, cwd=REPO)
    )
    work: list[tuple[Binary, list[str], Path]] = []
    for binary in binaries(found, may_leak=pattern != ALWAYS):
        slug = binary.name.replace(" ", "-")
        names = [n for n in listed(binary, context.logs / f"{slug}.log") if re.search(pattern, f"{binary.name}: {n}")]
        for number, some in enumerate(deal(names, PER_PROCESS)):
            work.append((binary, some, context.logs / f"{slug}-{number}.log"))
    since = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lists = pool.map(lambda job: list(run(*job)), work)
        results = [result for one in lists for result in one]
    with open(context.log, "a", encoding="utf-8") as log:
        print(f"{len(results)} tests in {len(work)} processes: {time.monotonic() - since:.0f} s", file=log)
    return results


def cases() -> Iterable[Case]:
    """One: the results are those of the single tests."""
    yield Case("rust/miri", "the unsafe code, and the core through the C ABI, under Miri", test, quick=False)


def main(argv: list[str]) -> int:
    """``scripts/miri``."""
    parser = argparse.ArgumentParser(
        prog="scripts/miri", description="Run the host tests under Miri: all of them, which takes an hour."
    )
    parser.add_argument("pattern", nargs="?", default="", metavar="RE", help="only those whose name matches")
    pattern = parser.parse_args(argv).pattern
    logs = new_run_dir("miri")
    print(f"logs in {logs}", flush=True)
    every = Case("miri", "", lambda context: test(context, pattern))
    tally = suite.run([every], logs, sys.stdout)
    print(tally.closing_line())
    return 1 if tally.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StepError as error:
        print(f"\n{error.render()}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
