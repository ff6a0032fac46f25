# SPDX-License-Identifier: GPL-2.0-only
"""Fuzzing of its-core: the corpus replayed and some time of fuzzing as tests, and ``scripts/fuzz`` for longer.

The targets are built without a sanitizer, and so by the Rust that builds all else: coverage alone needs no nightly
one. The code under test has no unsafe code, and with ASan a run takes four times as long.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tarfile
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

from . import rust
from .errors import StepError
from .layout import REPO, locked, new_run_dir
from .shell import captured, run
from .suite import Case, Context, Result
from .tools import cargo_tool

CARGO_FUZZ = ("cargo-fuzz", "cargo-fuzz", "0.13.2")
"""Package, program, version."""

FOLDER = REPO / "rust/fuzz"
TARGETS = ("guest", "model", "host", "decode")

SECONDS = 30
RUNS = 1_000_000
"""What the tests fuzz each target for: whichever ends first."""

GRACE_S = 120.0
"""What a run may take longer than it was told to: the start, and the last input."""
REPLAY_LIMIT_S = 600.0
INPUT_LIMIT_S = 25
"""A single input that takes longer is reported as a hang."""

MOST_BYTES = 4096
"""Of one input."""


@cache
def build(log: Path) -> Path:
    """Build all targets, once for all cases; gives the folder of the programs."""
    rust.prepare(log)
    with locked("tools"):
        tool = cargo_tool(*CARGO_FUZZ, log)
    target = rust.target_dir() / "fuzz"
    host = re.search(r"^host: (\S+)$", rust.version(log), re.MULTILINE)
    if not host:
        raise StepError("rustc -vV does not name its host", log=log)
    argv = [
        tool, "fuzz", "build", "--sanitizer", "none", "--release", "--target", host[1],
        "--fuzz-dir", str(FOLDER), "--target-dir", str(target),
    ]  # fmt: skip
    run(argv, log, cwd=REPO, what="the fuzz targets cannot be built")
    return target / host[1] / "release"


def unfinished(text: str, code: int) -> list[str]:
    """Why a run of libFuzzer was not content: what it said, shortened; empty if it was."""
    if code == 0 and re.search(r"^Done \d+ runs|^Executed ", text, re.MULTILINE):
        return []
    telling = re.compile(
        r"panicked at|^assertion|^\s+(left|right):|^SUMMARY|ERROR: libFuzzer|Test unit written|^host ITS"
    )
    lines = text.splitlines()
    found = [line.strip() for line in lines if telling.search(line)]
    for at, line in enumerate(lines):
        if "panicked at" in line and at + 1 < len(lines) and lines[at + 1].strip() not in found:
            found.insert(found.index(line.strip()) + 1, lines[at + 1].strip())
    return [f"ended with status {code}", *found[:12]]


_FIGURES = re.compile(r"^#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+.*?exec/s: (\d+)", re.MULTILINE)


def figures(text: str) -> str:
    """Inputs, edges and speed, as of the last line that has them."""
    found = _FIGURES.findall(text)
    if not found:
        return ""
    runs, edges, features, corpus, speed = found[-1]
    return f"{runs} runs, {speed}/s, {edges} edges, {features} features, corpus {corpus}"


def archive(target: str) -> Path:
    """The corpus of a target in the repository: hundreds of small inputs, in one file."""
    return FOLDER / "corpus" / f"{target}.tar.xz"


def unpack(target: str, folder: Path) -> list[Path]:
    """The folders with the inputs of a target that are in the repository; the corpus is unpacked into `folder`."""
    folder.mkdir(parents=True)
    if archive(target).exists():
        with tarfile.open(archive(target)) as tar:
            for member in tar:
                # Only files, and only here: Debian 12's Python cannot make extractall() see to that.
                content = tar.extractfile(member)
                if content is None or "/" in member.name:
                    raise StepError(f"{archive(target)} has {member.name}, which is no file of a corpus")
                (folder / member.name).write_bytes(content.read())
    regressions = FOLDER / "regressions" / target
    return [folder, regressions] if regressions.is_dir() else [folder]


def pack(target: str, folder: Path) -> None:
    """Make the files in `folder` the corpus of a target, in the same way whoever does it."""
    archive(target).parent.mkdir(exist_ok=True)
    with tarfile.open(archive(target), "w:xz", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            info = tarfile.TarInfo(path.name)
            info.size = path.stat().st_size
            with open(path, "rb") as file:
                tar.addfile(info, file)


def replay(context: Context, target: str) -> list[Result]:
    """Run each input of the repository once."""
    name = f"fuzz/{target}/replay"
    built = build(context.logs.parent / "fuzz-build.log")
    folders = unpack(target, context.logs / "inputs")
    files = sorted(str(path) for folder in folders for path in folder.iterdir())
    if not files:
        return [Result(name, problems=("there is no input to replay",))]
    argv = [str(built / target), f"-timeout={INPUT_LIMIT_S}", "-rss_limit_mb=1024", *files]
    artifacts = f"-artifact_prefix={context.logs}/"
    code, text = captured([*argv, artifacts], context.log, cwd=REPO, env={}, limit=REPLAY_LIMIT_S)
    problems = unfinished(text, code)
    if (ran := text.count("\nExecuted ")) != len(files) and not problems:
        problems = [f"{len(files)} inputs, but {ran} were run"]
    return [Result(name, tuple(problems), remark=f"{len(files)} inputs")]


def fuzz(log: Path, target: str, built: Path, work: Path, seconds: int, runs: int = -1) -> tuple[list[str], str]:
    """Fuzz a target, and keep new inputs in `work`; gives the problems and the figures."""
    work.mkdir(parents=True, exist_ok=True)
    argv = [
        str(built / target), f"-max_total_time={seconds}", f"-runs={runs}", f"-max_len={MOST_BYTES}",
        f"-timeout={INPUT_LIMIT_S}", "-rss_limit_mb=2048", f"-artifact_prefix={log.parent}/",
        str(work), *map(str, unpack(target, log.parent / f"inputs-{target}")),
    ]  # fmt: skip
    code, text = captured(argv, log, cwd=REPO, env={}, limit=seconds + GRACE_S)
    return unfinished(text, code), figures(text)


def fuzz_case(context: Context, target: str) -> list[Result]:
    """Fuzz a target for a bounded time, from what is in the repository."""
    built = build(context.logs.parent / "fuzz-build.log")
    problems, said = fuzz(context.log, target, built, context.logs / "corpus", SECONDS, RUNS)
    return [Result(f"fuzz/{target}/run", tuple(problems), remark=said)]


def cases() -> Iterable[Case]:
    """Two for each target."""
    for target in TARGETS:
        yield Case(f"fuzz/{target}/replay", "the inputs in rust/fuzz", partial(replay, target=target), quick=False)
        about = f"{SECONDS} s of fuzzing, or {RUNS} runs"
        yield Case(f"fuzz/{target}/run", about, partial(fuzz_case, target=target), quick=False)


_ABOUT = """\
Fuzz its-core. Starts from the inputs in rust/fuzz/corpus and those of earlier runs,
which are kept in the cache; an input that fails is named, and belongs into
rust/fuzz/regressions/<target> once the fault is mended. With XEN_ITS_TRACE=1 a
target says what it does: scripts/fuzz --input FILE guest
"""


def parser() -> argparse.ArgumentParser:
    """Options of ``scripts/fuzz``."""
    made = argparse.ArgumentParser(
        prog="scripts/fuzz", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seconds", type=int, default=600, metavar="N", help="for each target (default: 600)")
    made.add_argument("--input", type=Path, metavar="FILE", help="run this one input, and no others")
    made.add_argument(
        "--minimise", action="store_true",
        help="write the smallest corpus that covers all that is covered now to rust/fuzz/corpus",
    )  # fmt: skip
    made.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="target", help=" ".join(TARGETS))
    return made


def minimise(log: Path, target: str, built: Path, work: Path) -> str:
    """Make the corpus in the repository the smallest that covers as much as it and `work` do."""
    fresh = log.parent / f"minimal-{target}"
    fresh.mkdir()
    # Edges alone: how often each was taken makes for ten times as many inputs. Short ones come first.
    argv = [str(built / target), "-merge=1", "-use_counters=0", f"-max_len={MOST_BYTES}", str(fresh)]
    known = unpack(target, log.parent / f"inputs-{target}")
    run([*argv, *map(str, known), str(work)], log, cwd=REPO, what="the corpus cannot be minimised")
    pack(target, fresh)
    return f"{len(list(fresh.iterdir()))} inputs, {archive(target).stat().st_size} bytes packed"


def main(argv: list[str]) -> int:
    """``scripts/fuzz``."""
    args = parser().parse_args(argv)
    targets = args.targets or list(TARGETS)
    logs = new_run_dir("fuzz")
    built = build(logs / "build.log")
    if args.input:
        if len(targets) != 1:
            parser().error("--input takes one target")
        os.execv(built / targets[0], [targets[0], str(args.input)])
    failed = 0
    for target in targets:
        work = rust.target_dir() / "fuzz-corpus" / target
        if args.minimise:
            work.mkdir(parents=True, exist_ok=True)
            print(f"{target}: {minimise(logs / f'{target}.log', target, built, work)}")
            continue
        print(f"{target}: {args.seconds} s ...", flush=True)
        problems, said = fuzz(logs / f"{target}.log", target, built, work, args.seconds)
        print("\n".join([f"{target}: {'FAILED' if problems else 'ok'}, {said}", *problems]), flush=True)
        failed += bool(problems)
    print(f"logs, and inputs that failed: {logs}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StepError as error:
        print(f"\n{error.render()}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
