# SPDX-License-Identifier: GPL-2.0-only
"""``scripts/bench``: what the ITS costs in EL2, ours and upstream's C side by side, in counts that repeat."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from bench import boots, count, limits, marks, repo
from bench.page import SIDES, Page
from xenits import packages, pipeline, rust, xen_source
from xenits.errors import StepError
from xenits.guest import build_guest
from xenits.layout import new_run_dir
from xenits.shell import output
from xenits.steps import Steps

PAGE = repo.REPO / "docs/bench.md"
FIGURES = repo.REPO / "docs/bench/figures.json"


def build(its: str, logs: Path) -> boots.Xen:
    """A release build of Xen."""
    folder = logs / its
    folder.mkdir(exist_ok=True)
    options = pipeline.Options(its=its, debug=False, smp=1)
    built = pipeline.build_xen(options, Steps(pipeline.BUILD_STEPS, folder, quiet=True), with_qemu=True)
    return boots.Xen(its, folder / "xen", folder / "xen-syms", built.xen.parent)


def guest_image(logs: Path) -> Path:
    """The bare-metal guest."""
    log = logs / "guest-build.log"
    packages.install_host_packages(log, with_qemu=True)
    rust.ensure_targets([rust.XEN_TARGET], log)
    image = logs / "guest.img"
    build_guest(log, image)
    return image


def dom0(xen: boots.Xen, logs: Path) -> dict[str, Any]:
    """Count a whole boot of Dom0."""
    folder = logs / f"dom0-{xen.its}"
    folder.mkdir()
    options = pipeline.Options(its=xen.its, debug=False, smp=1)
    machine = pipeline.machine(options, Steps(pipeline.BOOT_STEPS, folder, quiet=True))
    counted = count.run_count(xen.image, xen.symbols, machine.kernel, machine.initrd, logs=folder)
    functions: dict[str, Any] = counted["functions"]
    return {name: {k: v for k, v in one.items() if k != "histogram"} for name, one in functions.items()}


def versions(log: Path) -> dict[str, str]:
    """What the figures were made with."""

    def first(*argv: str) -> str:
        return output(list(argv), log).partition("\n")[0]

    return {
        "xen": xen_source.pinned(log)[0].label,
        "gcc": first("aarch64-linux-gnu-gcc", "--version"),
        "rustc": first("rustc", "--version"),
        "qemu": first("qemu-system-aarch64", "--version"),
    }


EXTRAS = ("upstream", "dom0", "throughput")
"""What there is besides boots on the chosen sides."""

ROUNDS = 3
"""How often throughput is timed, C and Rust in turns."""


def measure(
    chosen: list[boots.Boot],
    sides: list[str],
    logs: Path,
    *,
    extras: tuple[str, ...] = (),
    profile: str = "",
    quiet: bool = False,
) -> dict[str, Any]:
    """Build what is needed, boot, and give all figures."""
    results: dict[str, Any] = {"date": datetime.date.today().isoformat()}
    once = ("upstream" in extras) + ("throughput" in extras)
    total = 1 + len(sides) * (1 + len(chosen) + ("dom0" in extras)) + once
    steps = Steps(total, logs, quiet=quiet)
    with steps.step("guest"):
        image = guest_image(logs)
    xens = {}
    for side in sides:
        with steps.step(f"Xen with the ITS in {side}"):
            xens[side] = build(side, logs)
        results[side] = {}
        for boot in chosen:
            with steps.step(f"{boot.name} on {side}") as step:
                measured, functions = boots.run(xens[side], image, boot, logs, profile)
                step.say(f"{len(measured)} operations")
            for op in measured:
                add(results[side], op)
            if side == "rust" and boot in boots.CHECKED:
                results.setdefault("checked", {}).update(dict.fromkeys(op.name for op in measured))
            if functions:
                results.setdefault("profile", {})[side] = functions
        if "dom0" in extras:
            with steps.step(f"boot of Dom0 on {side}"):
                results.setdefault("dom0", {})[side] = dom0(xens[side], logs)
    if "upstream" in extras:
        with steps.step("upstream without the series"):
            measured, _ = boots.run(build("upstream", logs), image, boots.OPERATIONS, logs)
            results["upstream"] = {op.name: op.json() for op in measured}
    if "throughput" in extras:
        with steps.step("throughput"):
            results["throughput"] = throughput(xens, image, logs)
    results["versions"] = versions(logs / "versions.log")
    return results


def add(results: dict[str, Any], op: boots.Measured) -> None:
    """An operation that was measured already, in another boot, only gets what was not counted there."""
    figures = op.json()
    known = results.setdefault(op.name, figures)
    if known is not figures:
        known["mode"] |= {kind: figures["mode"][kind] for kind in marks.WITH_LINES}


def throughput(xens: dict[str, boots.Xen], image: Path, logs: Path) -> dict[str, dict[str, list[float]]]:
    """LPIs a second by number of CPUs and side, in turns, as other programs on the machine disturb them all."""
    rates: dict[str, dict[str, list[float]]] = {str(n): {side: [] for side in xens} for n in boots.TIMED}
    for turn in range(ROUNDS):
        for cpus in boots.TIMED:
            for side, xen in xens.items():
                rates[str(cpus)][side].append(boots.lpis_per_second(xen, image, cpus, logs, str(turn)))
    return rates


def profile_table(functions: dict[str, float], most: int = 40) -> str:
    """Instructions by function in one call."""
    rows = sorted(functions.items(), key=lambda row: -row[1])
    lines = [f"{insns:10.1f}  {name}" for name, insns in rows[:most]]
    return "\n".join([*lines, f"{sum(functions.values()):10.1f}  all"])


INTRODUCTION = """\
<!-- SPDX-License-Identifier: GPL-2.0-only -->
# What the ITS costs

Made on {date} by `scripts/bench --update`, with release builds of one tree and the same flags for both.

* {xen}
* {gcc}
* {rustc}
* {qemu}

Counts of instructions (`insns`) and memory operations (`mem`; a pair of registers is one, a store-exclusive two) that
EL2 executes, under QEMU with a clock that counts instructions: each run gives the same. They are those of the call
that is the most frequent of its kind. Instructions are not cycles: caches, barriers and the trap itself are not in
them. All figures, with minima and maxima: [figures.json](bench/figures.json).

"""


def document(results: dict[str, Any]) -> str:
    """The page in docs/."""
    return INTRODUCTION.format(date=results["date"], **results["versions"]) + Page(results).render()


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    names = ", ".join(boot.name for boot in boots.ALL)
    made.add_argument("--check", action="store_true", help="only compare the Rust ITS with the committed limits")
    made.add_argument("--update", action="store_true", help="write docs/bench.md and the limits anew")
    made.add_argument("--only", choices=SIDES, action="append", help="only this ITS; may be repeated")
    every = f"{names}, {', '.join(EXTRAS)}"
    made.add_argument("--boot", action="append", metavar="NAME", help=f"only this one: {every}; may be repeated")
    made.add_argument("--profile", default="", metavar="OPERATION", help="with one --boot: where its instructions go")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return made


def main(argv: list[str]) -> int:
    """Entry point."""
    options = parser()
    args = options.parse_args(argv)
    known = {boot.name: boot for boot in boots.ALL}
    wanted = args.boot or [*known, *EXTRAS]
    chosen = list(boots.CHECKED) if args.check else [known[name] for name in wanted if name in known]
    unknown = set(wanted) - {*known, *EXTRAS}
    if unknown:
        options.error(f"no boot is called {', '.join(sorted(unknown))}")
    if args.update and (args.check or args.only or args.boot):
        options.error("--update takes all boots, on both")
    sides = ["rust"] if args.check else args.only or list(SIDES)
    logs = new_run_dir("bench")
    extras = () if args.check else tuple(name for name in EXTRAS if name in wanted)
    results = measure(chosen, sides, logs, extras=extras, profile=args.profile)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if args.check:
        found = limits.problems(results["rust"])
        print("\n".join(f"failed: {line}" for line in found) or "within the limits")
        return 1 if found else 0
    print("\n" + Page(results).render())
    for side, functions in results.get("profile", {}).items():
        print(f"instructions in one {args.profile}, {side}:\n{profile_table(functions)}\n")
    if args.update:
        FIGURES.parent.mkdir(exist_ok=True)
        PAGE.write_text(document(results), encoding="utf-8")
        licence = {"SPDX-License-Identifier": "GPL-2.0-only"}
        FIGURES.write_text(json.dumps(licence | results, indent=1) + "\n", encoding="utf-8")
        for name, picture in Page(results).charts().items():
            (FIGURES.parent / name).write_text(picture, encoding="utf-8")
        limits.write({name: results["rust"][name] for name in results["checked"]})
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        sys.exit(main(sys.argv[1:]))
    except StepError as error:
        print(f"\n{error.render()}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
