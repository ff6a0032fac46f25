# SPDX-License-Identifier: GPL-2.0-only
"""Read what the fncount plugin wrote, reduce it, compare and judge it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from bench import repo  # noqa: F401
from xenits.errors import StepError

FORMAT = 1
"""Version of the JSON that `bench/count.py` writes."""


@dataclass
class FunctionCounts:
    """All calls of one function."""

    name: str
    total: int
    """Instructions in all of its calls."""
    lost: int
    """Calls that never returned."""
    sequence: str
    """Hash over the costs of all calls in their order: equal if and only if every call cost the same."""
    histogram: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(instructions, memory operations) of a call: how many calls were so."""

    @property
    def calls(self) -> int:
        """How many calls returned."""
        return self.histogram.total()

    def mode(self) -> tuple[int, int, int]:
        """The most frequent cost: instructions, memory operations, and the number of calls.

        Calls are told apart by their instructions; the memory operations are those that most of
        these calls had. Where two costs are as frequent, the cheaper one counts.
        """
        by_insns: Counter[int] = Counter()
        for (insns, _), calls in self.histogram.items():
            by_insns[insns] += calls
        insns, calls = min(by_insns.items(), key=lambda item: (-item[1], item[0]))
        memory = {mem: n for (i, mem), n in self.histogram.items() if i == insns}
        return insns, min(memory.items(), key=lambda item: (-item[1], item[0]))[0], calls

    def median(self) -> int:
        """The lower median of the instructions of a call."""
        rank = (self.calls + 1) // 2
        for (insns, _), calls in sorted(self.histogram.items()):
            rank -= calls
            if rank <= 0:
                return insns
        raise ValueError(f"{self.name} was never called")

    def reduce(self) -> dict[str, Any]:
        """The JSON form; a function that was never called has neither mode nor median."""
        out: dict[str, Any] = {
            "calls": self.calls, "lost": self.lost, "total": self.total, "sequence": self.sequence,
            "histogram": [[i, m, n] for (i, m), n in sorted(self.histogram.items())],
        }  # fmt: skip
        if self.calls:
            insns, mem, calls = self.mode()
            out["mode"] = {"insns": insns, "mem": mem, "calls": calls, "share": round(calls / self.calls, 4)}
            out["min"] = min(i for i, _ in self.histogram)
            out["median"] = self.median()
            out["max"] = max(i for i, _ in self.histogram)
        return out


@dataclass
class ProfileGroup:
    """The calls of the profiled function that cost the same number of instructions."""

    insns: int
    calls: int
    functions: dict[str, tuple[int, int]]
    """Name: instructions and entries, over all of these calls."""


@dataclass
class PluginOutput:
    """One run."""

    totals: dict[str, int]
    functions: dict[str, FunctionCounts]
    profiled: str | None
    ungrouped: int
    groups: list[ProfileGroup]


def parse(text: str) -> PluginOutput:
    """Read the file that the plugin wrote. Raises `StepError` if it is cut short or inconsistent."""
    lines = text.splitlines()
    if lines and lines[0] != "fncount 1":
        raise StepError("this is not the output of the fncount plugin")
    if not lines or lines[-1] != "end":
        raise StepError("the fncount plugin's output is cut short: QEMU did not end as it should")
    out = PluginOutput({}, {}, None, 0, [])
    for number, line in enumerate(lines[1:-1], 2):
        try:
            _parse_line(out, line.split())
        except (ValueError, KeyError, IndexError):
            raise StepError(f"line {number} of the fncount plugin's output makes no sense: {line!r}") from None
    _check(out)
    return out


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def _parse_line(out: PluginOutput, words: list[str]) -> None:
    match words:
        case ["total", *rest]:
            out.totals = {key: int(value) for key, value in _pairs(rest).items()}
        case ["fn", name, *rest]:
            pairs = _pairs(rest)
            out.functions[name] = FunctionCounts(name, int(pairs["total"]), int(pairs["lost"]), pairs["sequence"])
        case ["hist", name, insns, mem, calls]:
            out.functions[name].histogram[int(insns), int(mem)] += int(calls)
        case ["profile", name, *rest]:
            out.profiled = name
            out.ungrouped = int(_pairs(rest)["ungrouped"])
        case ["group", insns, *rest]:
            out.groups.append(ProfileGroup(int(insns), int(_pairs(rest)["calls"]), {}))
        case ["in", insns, entries, name]:
            # Static functions of different files may share a name.
            have = out.groups[-1].functions.get(name, (0, 0))
            out.groups[-1].functions[name] = (have[0] + int(insns), have[1] + int(entries))
        case _:
            raise ValueError(words)


def _check(out: PluginOutput) -> None:
    """The plugin counts some things twice, in different ways: they must agree."""
    if out.totals["overflows"]:
        raise StepError(f"{out.totals['overflows']} calls were nested deeper than the plugin can follow")
    for function in out.functions.values():
        total = sum(insns * calls for (insns, _), calls in function.histogram.items())
        if total != function.total:
            raise StepError(f"{function.name}: its calls sum up to {total} instructions, not {function.total}")
    for group in out.groups:
        total = sum(insns for insns, _ in group.functions.values())
        if total != group.insns * group.calls:
            raise StepError(
                f"profile of {out.profiled}: {group.calls} calls of {group.insns} instructions each, "
                f"but its functions sum up to {total}"
            )


def profile_at_mode(out: PluginOutput) -> dict[str, Any] | None:
    """Where the instructions of the profiled function's most frequent path go, per call."""
    if out.profiled is None or not out.functions[out.profiled].calls:
        return None
    insns = out.functions[out.profiled].mode()[0]
    group = next((g for g in out.groups if g.insns == insns), None)
    if group is None:
        raise StepError(f"the profile of {out.profiled} lacks its most frequent path, {insns} instructions")
    rows: list[dict[str, Any]] = [
        {"name": name, "insns": spent / group.calls, "calls": entries / group.calls}
        for name, (spent, entries) in group.functions.items()
    ]
    rows.sort(key=lambda row: (-row["insns"], row["name"]))
    return {"function": out.profiled, "insns": insns, "samples": group.calls, "functions": rows}


def table(rows: list[list[str]]) -> str:
    """Lines up `rows` in columns, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def render(result: dict[str, Any]) -> str:
    """The results of one run as a table."""
    rows = [["function", "calls", "mode", "share", "mem ops", "min", "median", "max"]]
    for name, function in result["functions"].items():
        if not function["calls"]:
            rows.append([name, "0"] + ["-"] * 6)
            continue
        mode = function["mode"]
        rows.append(
            [
                name,
                str(function["calls"]),
                str(mode["insns"]),
                f"{mode['share']:.1%}",
                str(mode["mem"]),
                str(function["min"]),
                str(function["median"]),
                str(function["max"]),
            ]
        )
    out = table(rows)
    if result.get("profile"):
        out += "\n\n" + render_profile(result["profile"])
    return out


def render_profile(profile: dict[str, Any]) -> str:
    """Instructions by function inside one call."""
    rows = [[f"inside one {profile['function']}", "instructions", "%", "calls"]]
    for row in profile["functions"]:
        rows.append(
            [row["name"], f"{row['insns']:.1f}", f"{row['insns'] / profile['insns']:.1%}", f"{row['calls']:.2f}"]
        )
    rows.append([f"all ({profile['samples']} like this)", f"{profile['insns']:.1f}", "100.0%", ""])
    return table(rows)


def compare(left: dict[str, Any], right: dict[str, Any], names: tuple[str, str] = ("C", "Rust")) -> str:
    """Two runs side by side: one call at the mode, and all calls of the boot together."""
    a, b = names
    every = list(dict.fromkeys([*left["functions"], *right["functions"]]))
    sides = [{name: side["functions"].get(name, {}) for name in every} for side in (left, right)]
    one = [["one call, at the mode", f"{a} insns", f"{b} insns", f"{b}/{a}", f"{a} mem", f"{b} mem", f"{b}/{a}"]]
    everything = [["all calls of the boot", f"{a} calls", f"{b} calls", "", f"{a} insns", f"{b} insns", f"{b}/{a}"]]
    for name in every:
        modes = [side[name].get("mode", {}) for side in sides]
        one.append([name, *_pair(modes, "insns"), *_pair(modes, "mem")])
        calls = [side[name] for side in sides]
        everything.append([name, *_pair(calls, "calls")[:2], "", *_pair(calls, "total")])
    return table(one) + "\n\n" + table(everything)


def _pair(sides: list[dict[str, Any]], key: str) -> list[str]:
    """Two numbers and their ratio; a dash for what is not there."""
    left, right = (side.get(key) for side in sides)
    ratio = f"{right / left:.2f}" if left and right is not None else "-"
    return ["-" if left is None else str(left), "-" if right is None else str(right), ratio]


def limit_errors(result: dict[str, Any], limits: dict[str, Any]) -> list[str]:
    """What in `result` breaks `limits`, one sentence each.

    `limits` maps a function to any of ``insns`` and ``mem`` (at most that many at the mode), ``calls``
    (at least so many), and ``share`` (the mode is that of at least this part of the calls).
    """
    errors = []
    for name, limit in limits.items():
        unknown = set(limit) - {"insns", "mem", "calls", "share"}
        if unknown:
            raise StepError(f"limits for {name}: nobody knows what {', '.join(sorted(unknown))} means")
        function = result["functions"].get(name)
        if function is None or not function["calls"]:
            errors.append(f"{name}: it has a limit, but no call of it was counted")
            continue
        mode = function["mode"]
        for key, what in (("insns", "instructions"), ("mem", "memory operations")):
            if key in limit and mode[key] > limit[key]:
                errors.append(f"{name}: {mode[key]} {what} a call, {limit[key]} allowed")
        if function["calls"] < limit.get("calls", 1):
            errors.append(f"{name}: only {function['calls']} calls counted, at least {limit['calls']} expected")
        if mode["share"] < limit.get("share", 0):
            errors.append(
                f"{name}: only {mode['share']:.1%} of the calls are at the mode, at least {limit['share']:.0%} "
                "expected: the figure is not repeatable"
            )
        if function["lost"]:
            errors.append(f"{name}: {function['lost']} calls never returned")
    return errors


def relative_errors(result: dict[str, Any], baseline: dict[str, Any], names: list[str]) -> list[str]:
    """Where `result` is costlier at the mode than `baseline`, for the functions in `names`."""
    errors = []
    for name in names:
        modes: dict[str, Any] = defaultdict(dict)
        for side, run in (("new", result), ("base", baseline)):
            function = run["functions"].get(name, {})
            if "mode" not in function:
                errors.append(f"{name}: not counted in {'this run' if side == 'new' else 'the baseline'}")
                break
            modes[side] = function["mode"]
        else:
            if modes["new"]["insns"] > modes["base"]["insns"]:
                errors.append(
                    f"{name}: {modes['new']['insns']} instructions a call, the baseline has {modes['base']['insns']}"
                )
    return errors
