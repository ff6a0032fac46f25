# SPDX-License-Identifier: GPL-2.0-only
"""``scripts/conformance``: one guest on three ITSs, side by side.

Only ours must pass; how the others differ is explained by `KNOWN`.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import subprocess
import sys
import time
from pathlib import Path

from . import packages, pipeline, rust
from .errors import StepError
from .guest import COLUMNS, Column, Machine, Outcome, build_guest, failures, look_again, run_column
from .layout import new_run_dir
from .steps import Steps

WORDS = ("ok", "ok*", "skip", "FAIL", "CRASH", "HANG")
"""What may become of a case, in the order in which they are counted."""

TITLES = {"rust": "Xen+Rust", "c": "Xen+C", "native": "QEMU"}
"""What the page of docs/ calls the columns."""

NO_COMMANDS = "its GITS_CTLR write executes no commands; they wait for GITS_CWRITER"
PENDING_STAYS = "MOVI leaves an LPI that is pending where it is"
NO_VCPU = "INVALL of a collection that has no vCPU reads through a null pointer"
NOT_MAPPED = "CLEAR of an event that is not mapped takes an LPI that is not there off its queues"
FREED_DEVICE = "a device for which host LPIs do not suffice is freed, but left in a tree that the next MAPD searches"
ONLY_DEVICE = "QEMU's MAPD changes the device table only: what the device left pending stays so, without DISCARD"

KNOWN: list[tuple[str, str, str]] = [
    # (column, case, why)
    ("c", "baser-page-size-64k", "the C version resets Page_Size to 4 KB"),
    ("c", "typer-readonly", "the C version ends a write of 64 bits to GITS_TYPER in a data abort"),
    ("c", "enable-with-queued", NO_COMMANDS),
    ("c", "disabled-executes-nothing", NO_COMMANDS),
    ("c", "early-int-before-its-enabled", NO_COMMANDS),
    ("c", "disable-while-executing", NO_COMMANDS),
    ("c", "cwriter-halves", "it says that it is not quiescent while a disabled ITS has commands queued"),
    ("c", "early-int-before-cpu-on", "an LPI for a vCPU that is off is dropped; a redistributor keeps it"),
    ("c", "mapc-remap-routes", "each LPI keeps the vCPU that its collection had at MAPTI"),
    ("c", "mapc-procnum-oor", "a collection that was never mapped is vCPU 0's: a zero in the table means that"),
    ("c", "movi-routes", "until a vCPU that took an LPI next traps, the LPI comes there again, whatever MOVI says"),
    ("c", "movi-moves-pending", PENDING_STAYS),
    ("c", "disabled-pending-moves", PENDING_STAYS),
    ("c", "cpu-off-with-pending", PENDING_STAYS),
    ("c", "movall-*", "the C version ignores MOVALL"),
    ("c", "pending-table-ptz0", "the C version never reads the pending table"),
    ("c", "clear-drops-pending", "CLEAR leaves an LPI pending that is in a list register"),
    ("c", "clear-unmapped-event", NOT_MAPPED),
    ("c", "properties-scribbled", f"the properties are not to blame: {NOT_MAPPED}"),
    (
        "c",
        "itts-scribbled",
        "the ITT makes CLEAR take an event for mapped, and an LPI that is not there off its queues",
    ),
    ("c", "itt-reused", "MAPD V=0 leaves the ITT, by which INV takes an event of the next device for mapped"),
    ("c", "mapti-physicalid-spi", "it maps what is no LPI, and when that fires reads far beyond its array of SPIs"),
    ("c", "xen_its_c_3a_3_only_lpis", "INTID 0 is never unmapped; INVALL uses it when it was freed"),
    ("c", "xen_its_c_3a_4_highest_lpis", "it takes no INTID above the number of LPIs: the last 8192 are lost"),
    ("c", "invall-collection-oor", NO_VCPU),
    ("c", "each-opcode-all-ones", NO_VCPU),
    ("c", "rdbase-of-the-other-kind", NO_VCPU),
    ("c", "xen_its_c_3a_2_invall_unmapped", NO_VCPU),
    ("c", "fuzz-commands", NO_VCPU),
    ("c", "mapd-thousands", FREED_DEVICE),
    ("c", "quota-exhausted", FREED_DEVICE),
    ("c", "xen_its_c_3a_1_failed_map", FREED_DEVICE),
    ("c", "mapd-unmap-large", "it refuses MAPD of a device that is mapped, which keeps its events"),
    ("c", "tables-scribbled", "MAPD V=0 goes through as many events as the device table says, here 2^32, in one trap"),
    ("c", "invall-flood", "all these INVALLs are one trap, and each reads the properties of 2000 LPIs"),
    (
        "c",
        "fuzz-vcpus",
        "a write of GITS_CWRITER executes all that is queued, and all who write it wait: they get nowhere",
    ),
    ("c", "commands-write-over-tables", "INT follows a null link in a list of LPIs once tables are written over"),
    ("c", "xen_its_c_3a_6_itt_changed", "MAPTI initialises an LPI that is on a list, which then has no end"),
    ("native", "creadr-readonly", "QEMU lets GITS_CREADR be written"),
    ("native", "fuzz-commands", "QEMU lets GITS_CREADR be written, and the fuzzer does that"),
    ("native", "translater-by-cpu", "QEMU takes a CPU's write for a device's with DeviceID 0"),
    (
        "native",
        "tables-scribbled",
        "QEMU stalls the queue on a table entry that leads nowhere, as the architecture lets it",
    ),
    ("native", "mapd-unmap-large", ONLY_DEVICE),
    ("native", "xen_its_c_3a_7_unmap_in_flight", ONLY_DEVICE),
    ("native", "xen_its_c_3a_10_unmap_then_map", ONLY_DEVICE),
]


def known(column: str, case: str) -> str:
    """Why this case differs there; empty if nobody knows."""
    return next((why for c, pattern, why in KNOWN if c == column and fnmatch.fnmatchcase(case, pattern)), "")


def render(columns: list[Column]) -> str:
    """The columns side by side, and what is to be said of them."""
    order = max((c.order for c in columns), key=len, default=[])
    names = list(dict.fromkeys([*order, *(n for c in columns for n in c.order)]))
    width = max((len(n) for n in names), default=4)
    lines = [f"{'case'.ljust(width)}  " + "  ".join(c.name.ljust(6) for c in columns)]
    for name in names:
        words = [c.cases.get(name, Outcome("-")).word for c in columns]
        lines.append(f"{name.ljust(width)}  " + "  ".join(w.ljust(6) for w in words).rstrip())
    for column in columns:
        different = [(n, o) for n in names if (o := column.cases.get(n)) and o.word not in ("ok", "ok*", "skip")]
        words = [o.word for o in column.cases.values()]
        count = ", ".join(f"{words.count(w)} {w}" for w in WORDS if w in words)
        lines += ["", f"{column.name}: {count or 'nothing ran'}, of {column.plan} cases in {column.boots} boots"]
        lines += [f"  {note}" for note in column.notes]
        for name, outcome in different:
            why = known(column.name, name)
            lines.append(f"  {name}: {outcome.word} {outcome.why}")
            lines.append(f"    {'known: ' + why if why else 'nobody has looked into it yet'}")
    return "\n".join(lines)


def markdown(columns: list[Column], made_with: list[str]) -> str:
    """The same as a page of docs/."""
    names = list(dict.fromkeys(n for c in sorted(columns, key=lambda c: -len(c.order)) for n in c.order))
    lines = [
        "<!-- SPDX-License-Identifier: GPL-2.0-only -->",
        "# Conformance",
        "",
        "Made by `scripts/conformance --write`: one bare-metal guest (`rust/guest`) on Xen with the Rust ITS, on Xen",
        "with upstream's C, and natively on QEMU's own ITS. FAIL: something else was seen than should be. CRASH: the",
        (
            "hypervisor crashed, and the cases behind that one got another boot. HANG: the guest came to no end. "
            "ok\\*: good"
        ),
        "in a boot for itself, but ruined by what other cases left behind.",
        "",
        *[f"* {line}" for line in made_with],
        "",
        "| case | " + " | ".join(TITLES[c.name] for c in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name in names:
        words = [c.cases.get(name, Outcome("-")).word.replace("*", "\\*") for c in columns]
        lines.append(f"| {name} | {' | '.join(words)} |")
    for column in columns:
        words = [o.word for o in column.cases.values()]
        count = ", ".join(f"{words.count(w)} {w}" for w in WORDS if w in words)
        lines += [
            "",
            f"## {TITLES[column.name]}: {count}, in {column.boots} boot{'s' if column.boots != 1 else ''}",
            "",
        ]
        for name in names:
            outcome = column.cases.get(name)
            if outcome and outcome.word not in ("ok", "ok*", "skip"):
                why = known(column.name, name) or "nobody has looked into it yet"
                lines.append(f"* {name}: {outcome.word}: {outcome.why.rstrip('.')}. {why[:1].upper()}{why[1:]}.")
        if column.gaps:
            case, gap = max(column.gaps.items(), key=lambda item: item[1])
            median = sorted(column.gaps.values())[len(column.gaps) // 2]
            lines.append(
                f"* The heart of another vCPU stood still for {gap / 1000:.0f} ms at most, in {case}; "
                f"the median of {len(column.gaps)} cases is {median / 1000:.0f} ms."
            )
        lines += [f"* {note}" for note in column.notes if re.match(r"fuzz-\w+: (in all|its\.seed)", note)]
    return "\n".join(lines) + "\n"


def _made_with(args: argparse.Namespace, columns: list[Column], machine: Machine) -> list[str]:
    said = subprocess.run(["qemu-system-aarch64", "--version"], capture_output=True, text=True, check=False).stdout
    xen = next((c.version for c in columns if c.version), "none")
    return [
        time.strftime("%Y-%m-%d"),
        f"{said.splitlines()[0] if said else 'QEMU of unknown version'}, {machine.describe()}",
        f"Xen {xen}, {'release' if args.release else 'debug'} build",
        f"fuzzer: seeds {args.seed} to {args.seed + args.seeds - 1}, {args.fuzz} commands each",
    ]


def parser() -> argparse.ArgumentParser:
    """Options of ``scripts/conformance``."""
    made = argparse.ArgumentParser(
        prog="scripts/conformance",
        description="Run the bare-metal guest on Xen with the Rust ITS, with the C ITS, and on QEMU's own. "
        "Fails if ours is not right; how the others differ is only printed.",
    )
    made.add_argument("--only", choices=COLUMNS, action="append", help="only this one; may be repeated")
    made.add_argument("--release", action="store_true", help="release builds of Xen (default: debug)")
    made.add_argument("--tree", type=Path, metavar="PATH", help="build your own Xen tree (default: Debian's 4.20)")
    made.add_argument("--test", default="*", metavar="GLOB", help="only cases that match; several with commas")
    made.add_argument(
        "--seed", type=lambda t: int(t, 0), default=1, metavar="N", help="the fuzzer's first (default: 1)"
    )
    made.add_argument("--seeds", type=int, default=1, metavar="N", help="how many it uses (default: 1)")
    made.add_argument(
        "--fuzz", type=int, default=20_000, metavar="N", help="random commands with each seed (default: 20000)"
    )
    made.add_argument("--smp", type=int, default=Machine.cpus, metavar="N", help="CPUs (default: 6)")
    made.add_argument("--gic", type=int, choices=(3, 4), default=Machine.gic, help="the GIC (default: 3)")
    made.add_argument("--timeout", type=float, default=900, metavar="S", help="stop a boot after that (default: 900)")
    made.add_argument("--write", type=Path, metavar="FILE", help="also write the table as a page of docs/")
    return made


def main(argv: list[str]) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    chosen = args.only or list(COLUMNS)
    machine = Machine(cpus=args.smp, gic=args.gic)
    logs = new_run_dir("conformance")
    images: dict[str, Path] = {}
    for its in ("rust", "c"):
        if its in chosen:
            folder = logs / its
            folder.mkdir()
            options = pipeline.Options(its=its, debug=not args.release, tree=args.tree)
            pipeline.build_xen(options, Steps(pipeline.BUILD_STEPS, folder), with_qemu=True)
            images[its] = folder / "xen"
    steps = Steps(2 + len(chosen), logs)
    with steps.step("tools for the guest") as step:
        packages.install_host_packages(step.log, with_qemu=True)
        rust.ensure_targets([rust.XEN_TARGET], step.log)
    guest = logs / "guest.img"
    with steps.step("guest") as step:
        build_guest(step.log, guest)
    bootargs = f"its.seed={args.seed} its.seeds={args.seeds} its.fuzz={args.fuzz}"
    columns = []
    for name in COLUMNS:
        if name in chosen:
            with steps.step(f"cases on {name}") as step:
                xen, limit = images.get(name), args.timeout
                chosen_cases = f"{bootargs} its.test={args.test}"
                columns.append(run_column(name, guest, xen, chosen_cases, logs, limit, machine))
                if name != "rust":
                    look_again(columns[-1], guest, xen, bootargs, logs, limit, machine)
                step.say(f"{columns[-1].boots} boots")
    text = render(columns)
    (logs / "report.log").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nlogs: {logs}")
    if args.write:
        args.write.write_text(markdown(columns, _made_with(args, columns, machine)), encoding="utf-8")
    wrong = [why for c in columns if c.name == "rust" for why in failures(c)]
    # A guest that does nothing anywhere proves nothing.
    wrong += [f"{c.name}: no case ran" for c in columns if not c.cases]
    for why in wrong:
        print(f"failed: {why}")
    print("FAIL" if wrong else "PASS")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        sys.exit(main(sys.argv[1:]))
    except StepError as error:
        print(f"\n{error.render()}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
