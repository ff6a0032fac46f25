# SPDX-License-Identifier: GPL-2.0-only
"""Tests that run on the host: formatting, lints, unit tests in Rust and in Python."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import rust
from .errors import StepError
from .layout import REPO
from .shell import captured, output, run
from .suite import Case, Context, Result

MANIFESTS = ("Cargo.toml", "dom0/exerciser/Cargo.toml")
"""The Cargo workspaces of the repository."""

PYTHON_TESTS = ("scripts/tests", "dom0/tests", "bench/tests")
"""Folders with unittest files."""

CARGO_LIMIT_S = 1800.0
PYTHON_LIMIT_S = 300.0
"""After that a test hangs; each is many times what it takes."""

DOM0_ONLY = {"dom0/exerciser/Cargo.toml"}
"""Workspaces for Linux, which are not checked for the hypervisor's target."""


def _env() -> dict[str, str]:
    return {"CARGO_TARGET_DIR": str(rust.target_dir()), "CARGO_TERM_COLOR": "never"}


def _cargo(context: Context, words: tuple[str, ...]) -> list[Result]:
    rust.ensure_component(words[0], context.log)
    run(["cargo", *words], context.log, cwd=REPO, env=_env(), what=f"cargo {words[0]} is not content")
    return [Result("cargo " + words[0])]


def hypervisor_packages(metadata: dict[str, object]) -> list[str]:
    """The packages that are linked into Xen: the static library, or all no_std ones while there is none."""
    packages: list[dict[str, object]] = metadata["packages"]  # type: ignore[assignment]
    static = [p["name"] for p in packages if any("staticlib" in t["crate_types"] for t in p["targets"])]  # type: ignore[attr-defined]
    if static:
        return sorted(map(str, static))
    bare = []
    for package in packages:
        for target in package["targets"]:  # type: ignore[attr-defined]
            if "lib" in target["kind"] and "no_std" in Path(target["src_path"]).read_text(encoding="utf-8"):
                bare.append(str(package["name"]))
    return sorted(bare)


def _clippy_xen(context: Context) -> list[Result]:
    rust.ensure_targets([rust.XEN_TARGET], context.log)
    text = output(["cargo", "metadata", "--no-deps", "--format-version", "1"], context.log, cwd=REPO)
    packages = hypervisor_packages(json.loads(text))
    if not packages:
        raise StepError("no package of the workspace is for the hypervisor")
    chosen = [word for p in packages for word in ("-p", p)]
    return _cargo(context, ("clippy", *chosen, "--target", rust.XEN_TARGET, "--", "-D", "warnings"))


_CARGO_LINE = re.compile(r"^test (\S.*?)(?: - should panic)? \.\.\. (ok|FAILED|ignored(?:, (.*))?)$")
_CARGO_RUNS = re.compile(r"^\s+(?:Running (?:unittests )?(\S+)|Doc-tests (\S+))")
_CARGO_TOTAL = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")


def parse_cargo_test(text: str, name_of_binary: str = "") -> list[Result]:
    """The single tests out of what ``cargo test`` printed; their names begin with where it says that they are."""
    results: list[Result] = []
    binary = name_of_binary
    counted = 0
    for line in text.splitlines():
        if match := _CARGO_RUNS.match(line):
            binary = name_of_binary or match[1] or f"doc {match[2]}"
        elif match := _CARGO_LINE.match(line):
            name = f"{binary}: {match[1]}"
            if match[2] == "ok":
                results.append(Result(name))
            elif match[2] == "FAILED":
                results.append(Result(name, problems=("failed: see the log",)))
            else:
                results.append(Result(name, skipped=match[3] or "marked #[ignore] without a reason"))
        elif match := _CARGO_TOTAL.match(line):
            counted += sum(int(match[i]) for i in (1, 2, 3))
    if counted != len(results):
        # Output of a test may have got into the line of its result.
        results.append(Result("count", problems=(f"cargo counted {counted} tests, but {len(results)} were read",)))
    return results


def _cargo_test(context: Context, manifest: str) -> list[Result]:
    rust.prepare(context.log)
    argv = ["cargo", "test", "--workspace", "--no-fail-fast", "--manifest-path", str(REPO / manifest)]
    folder = (REPO / manifest).parent
    code, text = captured(argv, context.log, cwd=folder, env=_env(), limit=CARGO_LIMIT_S)
    results = parse_cargo_test(text)
    if code != 0 and not any(r.failed for r in results):
        lines = [line for line in text.splitlines() if re.match(r"error|\s+-->", line)][:12]
        results.append(Result("cargo test", problems=("\n".join([f"ended with status {code}", *lines]),)))
    return results


THREADS = "rust/its-threads/Cargo.toml"
"""A workspace of its own: its-core with the atomics of a model checker."""

CHECKERS = ("loom", "shuttle")
"""The model checkers, each a feature of it."""

_ORDERS = re.compile(r"^threads: (.*): (\d+) orders \((.*)\)$", re.MULTILINE)


def orders_note(text: str) -> str:
    """What was tried, out of what the scenarios printed: in how many orders, and which had the fewest."""
    orders = [(int(count), name, how) for name, count, how in _ORDERS.findall(text)]
    if not orders:
        raise StepError("no scenario said in how many orders it was tried")
    fewest, name, how = min(orders)
    total = sum(count for count, _, _ in orders)
    return f"{how}: {len(orders)} scenarios in {total} orders, at least {fewest} each ({name})"


def _threads(context: Context, checker: str) -> list[Result]:
    rust.prepare(context.log)
    argv = ["cargo", "test", "--no-fail-fast", "--manifest-path", str(REPO / THREADS), "--features", checker]
    argv += ["--", "--show-output"]
    code, text = captured(argv, context.log, cwd=REPO, env=_env(), limit=CARGO_LIMIT_S)
    results = parse_cargo_test(text)
    if code != 0:
        if not any(r.failed for r in results):
            results.append(Result("cargo test", problems=(f"ended with status {code}: see the log",)))
        return results
    return [*results[:-1], replace(results[-1], note=orders_note(text))]


def _threads_cases() -> Iterable[Case]:
    at = ("--manifest-path", str(REPO / THREADS))
    fmt = ("fmt", "--all", *at, "--", "--check")
    yield Case("rust/fmt/threads", "cargo fmt --check", partial(_cargo, words=fmt))
    for checker in CHECKERS:
        clippy = ("clippy", "--all-targets", *at, "--features", checker, "--", "-D", "warnings")
        yield Case(f"rust/clippy/threads-{checker}", "cargo clippy", partial(_cargo, words=clippy))
        about = f"what several CPUs do at once, in many orders: {checker}"
        yield Case(f"rust/threads/{checker}", about, partial(_threads, checker=checker))


def unittest_results(outcomes: dict[str, list[str]]) -> list[Result]:
    """The single tests out of what `unit_runner` wrote."""
    results = []
    for name, (outcome, reason) in outcomes.items():
        if outcome == "skipped":
            results.append(Result(name, skipped=reason))
        else:
            results.append(Result(name, problems=() if outcome == "ok" else (reason,)))
    return results


def _unittest(context: Context, folder: str) -> list[Result]:
    written = context.logs / "results.json"
    argv = [sys.executable, "-B", "-m", "xenits.unit_runner", str(REPO / folder), str(written)]
    env = {"PYTHONPATH": str(REPO / "scripts")}
    code, _ = captured(argv, context.log, cwd=REPO, env=env, limit=PYTHON_LIMIT_S)
    results = unittest_results(json.loads(written.read_text(encoding="utf-8"))) if written.exists() else []
    if code != 0 and not any(r.failed for r in results):
        results.append(Result("unittest", problems=(f"ended with status {code}: see the log",)))
    return results


def cases() -> Iterable[Case]:
    """All of them."""
    for manifest in MANIFESTS:
        if not (REPO / manifest).exists():
            continue
        place = manifest.removesuffix("Cargo.toml").rstrip("/").replace("/", "-") or "workspace"
        at = ("--manifest-path", str(REPO / manifest))
        fmt = ("fmt", "--all", *at, "--", "--check")
        yield Case(f"rust/fmt/{place}", "cargo fmt --check", partial(_cargo, words=fmt))
        clippy = ("clippy", "--workspace", "--all-targets", *at, "--", "-D", "warnings")
        yield Case(f"rust/clippy/{place}", "cargo clippy", partial(_cargo, words=clippy))
        if manifest not in DOM0_ONLY:
            yield Case(f"rust/clippy/{rust.XEN_TARGET}", "cargo clippy for what is linked into Xen", _clippy_xen)
        yield Case(f"rust/test/{place}", "cargo test", partial(_cargo_test, manifest=manifest))
    # The guest runs on bare metal only.
    guest = ("--manifest-path", str(REPO / "rust/guest/Cargo.toml"))
    fmt = ("fmt", "--all", *guest, "--", "--check")
    yield Case("rust/fmt/guest", "cargo fmt --check", partial(_cargo, words=fmt))
    for_guest = ("clippy", "--target", rust.XEN_TARGET, *guest, "--", "-D", "warnings")
    yield Case("rust/clippy/guest", "cargo clippy", partial(_cargo, words=for_guest))
    yield from _threads_cases()
    # The fuzz targets are linked by cargo-fuzz only.
    fuzz = ("--manifest-path", str(REPO / "rust/fuzz/Cargo.toml"))
    yield Case("rust/fmt/fuzz", "cargo fmt --check", partial(_cargo, words=("fmt", *fuzz, "--", "--check")))
    for_fuzz = ("clippy", *fuzz, "--", "-D", "warnings")
    yield Case("rust/clippy/fuzz", "cargo clippy", partial(_cargo, words=for_fuzz))
    for folder in PYTHON_TESTS:
        if (REPO / folder).is_dir():
            name = folder.removesuffix("/tests").replace("/", "-")
            yield Case(f"python/{name}", "unit tests in Python", partial(_unittest, folder=folder))
