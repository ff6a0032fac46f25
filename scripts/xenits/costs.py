# SPDX-License-Identifier: GPL-2.0-only
"""What LPIs and other operations cost in EL2: instructions, counted by ``bench/`` in boots that repeat themselves."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable
from typing import Any

from . import pipeline
from .layout import REPO
from .steps import Steps
from .suite import Case, Context, Result
from .xen_source import XEN_SERIES, patch_files

NAMES = {"c": "C", "rust": "Rust"}


def _bench(module: str) -> Any:
    """A module of the package beside ``scripts/``."""
    if str(REPO) not in sys.path:
        sys.path.append(str(REPO))
    return importlib.import_module(f"bench.{module}")


def _count(its: str, context: Context) -> dict[str, Any]:
    logs = context.logs / its
    logs.mkdir(exist_ok=True)
    options = pipeline.Options(its=its, debug=False, smp=1)
    steps = Steps(pipeline.BUILD_STEPS + pipeline.BOOT_STEPS, logs, quiet=True)
    pipeline.build_xen(options, steps, with_qemu=True)
    machine = pipeline.machine(options, steps)
    result: dict[str, Any] = _bench("count").run_count(
        logs / "xen", logs / "xen-syms", machine.kernel, machine.initrd, logs=logs
    )
    (logs / "counted.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _lpi(context: Context) -> list[Result]:
    """Both versions as release builds on one vCPU; Rust must stay within the limits and below C."""
    c, rust = (_count(its, context) for its in ("c", "rust"))
    table: str = _bench("results").compare(c, rust, (NAMES["c"], NAMES["rust"]))
    context.log.write_text(table + "\n", encoding="utf-8")
    problems: list[str] = _bench("count").judge(rust, build="release", baseline=c)
    return [Result("cost/lpi", problems=tuple(problems), note=table)]


def _operations(context: Context) -> list[Result]:
    """What ``scripts/bench --check`` does: each operation of the Rust ITS stays within its limits."""
    main, limits = _bench("main"), _bench("limits")
    results: dict[str, Any] = main.measure(list(_bench("boots").CHECKED), ["rust"], context.logs, quiet=True)
    measured = results["rust"]
    (context.logs / "figures.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    context.log.write_text(_bench("page").Page(results).render(), encoding="utf-8")
    problems: list[str] = limits.problems(measured)
    return [Result("cost/operations", problems=tuple(problems), remark=f"{len(measured)} operations")]


def cases() -> Iterable[Case]:
    """They need the series that brings the Rust ITS."""
    if patch_files(XEN_SERIES):
        about = "instructions of each operation in EL2, against their limits"
        yield Case("cost/operations", about, _operations, quick=False)
        yield Case("cost/lpi", "instructions per LPI in EL2, the C version's and the Rust version's", _lpi, quick=False)
