# SPDX-License-Identifier: GPL-2.0-only
"""The short report at the end of a run."""

from __future__ import annotations

from .console import Console
from .qemu import Boot

ROWS = 24
"""Interrupts listed one by one; many more are summed up by name."""


def _table(rows: list[list[str]]) -> list[str]:
    """Rows in columns: the first two to the left, numbers to the right."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[i]) if i < 3 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def interrupts(console: Console) -> list[str]:
    """Interrupts per vector as Dom0 counted them."""
    if not console.interrupts:
        return ["  none reported"]
    cpus = max(len(i.counts) for i in console.interrupts)
    shown = console.interrupts
    lines = []
    if len(shown) > ROWS:
        busy = [i for i in shown if i.total]
        which = f"the {ROWS} busiest" if len(busy) > ROWS else "these"
        lines.append(f"  {len(shown)} vectors, {len(busy)} of them fired; {which}:")
        shown = sorted(busy, key=lambda i: -i.total)[:ROWS]
    head = ["irq", "source", "vector", *(f"cpu{n}" for n in range(cpus)), "total"]
    rows = [[i.irq, i.source, i.name, *map(str, i.counts), *[""] * (cpus - len(i.counts)), str(i.total)] for i in shown]
    total = sum(i.total for i in console.interrupts)
    lines += _table([head, *rows])
    lines.append(f"  sum over {len(console.interrupts)} vectors: {total}")
    return lines


def stats(console: Console, its: str) -> list[str]:
    """LPIs and commands as Xen's side counted them."""
    rows = [(k, v) for k, v in console.counters.items() if k.split()[0] != "device"]
    devices = [v for k, v in console.counters.items() if k.split()[0] == "device"]
    if not rows:
        return ["  the C version keeps no counters" if its == "c" else "  Xen printed no 'ITS: stats' line"]
    width = max(len(key) for key, _ in rows)
    lines = [f"  {key.ljust(width)}  " + "  ".join(f"{k}={v}" for k, v in values.items()) for key, values in rows]
    if devices:
        lines.append(
            f"  {len(devices)} devices with {sum(int(d.get('mapped', '0'), 0) for d in devices)} mapped events"
        )
    return lines


def telling_console(boot: Boot, before: int = 3, after: int = 14) -> list[str]:
    """The lines around the first crash, or the last ones if nothing crashed."""
    try:
        text = boot.serial.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.strip("\r") for line in text.splitlines() if line.strip()]
    if not boot.console.crashes:
        return lines[-8:]
    crash = boot.console.crashes[0][1]
    at = next((i for i, line in enumerate(lines) if line.strip() == crash), len(lines) - after)
    return lines[max(0, at - before) : at + after]


def render(boot: Boot, its: str, label: str, problems: list[str]) -> str:
    """All of the report; its last line is PASS or FAIL."""
    console = boot.console
    passed = sum(c.passed for c in console.checks)
    lines = [
        "",
        f"Dom0 on the {'Rust' if its == 'rust' else 'C'} ITS: {label}",
        f"  {boot.ended} after {boot.seconds:.1f} s",
        "",
        "Interrupts as Dom0 saw them:",
        *interrupts(console),
        "",
        "ITS as Xen counted it:",
        *stats(console, its),
        "",
        f"Checks in Dom0: {passed} of {console.plan if console.plan is not None else '?'} passed",
        *(f"  {'ok    ' if c.passed else 'not ok'} {c.name}  {c.detail}".rstrip() for c in console.checks),
        "",
    ]
    if problems:
        lines += ["FAIL"] + [f"  - {p}" for p in problems]
        lines += ["", "On the console:", *(f"  | {line}" for line in telling_console(boot))]
        lines.append(f"  serial log: {boot.serial}")
    else:
        lines.append("PASS")
    return "\n".join(lines)
