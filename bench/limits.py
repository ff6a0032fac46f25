# SPDX-License-Identifier: GPL-2.0-only
"""What the Rust ITS may cost at most: ``operations.json``, which ``scripts/bench --update`` writes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from bench import repo
from xenits.errors import StepError

LIMITS = repo.BENCH / "operations.json"
SLACK = 0.02
"""Another release of a compiler may need so much more."""

FLAT = ("INVALL,0-pending,1", "INVALL,0-pending,16", "lpi", "INV", "INT", "MOVI")
"""What must not cost more with many LPIs or devices than with few, by the last word of its name."""

SEARCH = 25
"""Instructions for twice as many devices: they are searched for, and what finds one grows with the logarithm."""

LONGER = {"hold/MAPD/N-events": 1.25, "grow/devices/N/MAPD": 4}
"""Instructions that a longest stretch may grow by, for each one more: an ITT of at most 65536 events is allocated and
zeroed in one go; the list of the arrays that hold the devices is copied when it becomes too short."""

_KINDS = {"insns": "instructions", "mem": "memory operations", "hold": "instructions without a preemption point"}


def of(figures: dict[str, Any]) -> dict[str, int]:
    """What of an operation's figures is limited."""
    return {"insns": figures["mode"]["insns"], "mem": figures["mode"]["mem"], "hold": figures["hold"]}


def write(measured: dict[str, Any], path: Path = LIMITS) -> None:
    """The figures become the limits."""
    lines = [f" {json.dumps(name)}: {json.dumps(of(figures))}" for name, figures in measured.items()]
    head = '{\n "SPDX-License-Identifier": "GPL-2.0-only",\n'
    path.write_text(head + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read(path: Path = LIMITS) -> dict[str, dict[str, int]]:
    """The limits by operation."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(limit) for name, limit in data.items() if not name.startswith("SPDX")}
    except (OSError, ValueError) as error:
        raise StepError(f"cannot read the limits: {error}", hint="scripts/bench --update writes them.") from None


def problems(measured: dict[str, Any], path: Path = LIMITS) -> list[str]:
    """What costs too much, one line each."""
    allowed = read(path)
    found = [f"{name}: it has a limit, but was not measured" for name in allowed if name not in measured]
    for name, figures in measured.items():
        limit = allowed.get(name)
        if limit is None:
            found.append(f"{name}: it has no limit; scripts/bench --update gives it one")
            continue
        for kind, value in of(figures).items():
            if value > limit[kind] * (1 + SLACK):
                found.append(f"{name}: {value} {_KINDS[kind]}, {limit[kind]} allowed")
        if figures["late"]:
            found.append(f"{name}: {figures['late']} times the store to GITS_CWRITER was over before the commands were")
    return found + growth(measured) + holds(measured)


def growth(measured: dict[str, Any]) -> list[str]:
    """What grows with the number of LPIs or devices, and must not."""
    series: dict[tuple[str, str], dict[int, int]] = {}
    for name, figures in measured.items():
        match name.split("/"):
            case ["grow", axis, size, operation] if operation in FLAT:
                series.setdefault((axis, operation), {})[int(size)] = figures["mode"]["insns"]
    found = []
    for (axis, operation), costs in series.items():
        few, many = min(costs), max(costs)
        searched = SEARCH * math.log2(many / few) if axis == "devices" else 0
        if costs[many] > costs[few] * (1 + SLACK) + searched:
            found.append(f"{operation}: {costs[many]} instructions with {many} {axis}, {costs[few]} with {few}")
    if not series:
        found.append("nothing was measured whose cost must not grow")
    return found


def holds(measured: dict[str, Any]) -> list[str]:
    """What holds a CPU for longer, the more is asked for, and must not: the largest size against the one before it."""
    series: dict[str, dict[int, int]] = {}
    for name, figures in measured.items():
        if match := re.fullmatch(r"(hold/[^/]+/|grow/devices/)(\d+)([^/]*|/MAPD)", name):
            start, size, rest = match.groups()
            series.setdefault(f"{start}N{rest}", {})[int(size)] = figures["hold"]
    found = []
    for operation, stretches in series.items():
        *_, before, most = [0, *sorted(stretches)]
        longer = LONGER.get(operation, 0) * (most - before)
        if before and stretches[most] > stretches[before] * 1.05 + longer:
            found.append(
                f"{operation}: {stretches[most]} instructions without a preemption point for {most}, "
                f"{stretches[before]} for {before}"
            )
    return found
