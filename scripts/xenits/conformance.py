# SPDX-License-Identifier: GPL-2.0-only
"""``scripts/conformance``: one guest on three ITSs, side by side.

The guest (rust/guest) runs as Dom0's kernel on Xen with the Rust ITS and with
upstream's C, and natively on QEMU's own ITS. Only ours must pass; how the others
differ is explained by `KNOWN`.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import packages, pipeline, qemu, rust
from .console import Console
from .errors import StepError
from .layout import REPO, new_run_dir
from .processes import die_with_parent
from .shell import run
from .steps import Steps
from .suite import Case, Context, Result

GUEST = REPO / "rust/guest"
COLUMNS = ("rust", "c", "native")
CPUS = 4
QUIET_LIMIT_S = 150.0
"""A boot that says nothing for so long hangs: the longest silence allowed is that of one case."""

TESTED_FUZZ = 2000
"""Random commands for each run that ``scripts/test`` makes."""

TESTED_LIMIT_S = 600.0
"""After that such a run hangs."""

MAX_BOOTS = 12
"""After a crash the cases behind the one that crashed get another boot, up to so many."""

KNOWN: list[tuple[str, str, str]] = [
    # (column, case, why)
    ("c", "baser-page-size-64k", "the C version resets Page_Size to 4 KB"),
    ("c", "typer-readonly", "the C version ends a write of 64 bits to GITS_TYPER in a data abort"),
    ("c", "enable-with-queued", "its GITS_CTLR write executes no commands; they wait for GITS_CWRITER"),
    ("c", "disabled-executes-nothing", "its GITS_CTLR write executes no commands; they wait for GITS_CWRITER"),
    ("c", "cwriter-halves", "it says that it is not quiescent while a disabled ITS has commands queued"),
    ("c", "mapc-remap-routes", "each LPI keeps the vCPU that its collection had at MAPTI"),
    ("c", "movi-moves-pending", "MOVI leaves an LPI that is pending where it is"),
    ("c", "disabled-pending-moves", "MOVI leaves an LPI that is pending where it is"),
    ("c", "movall-*", "the C version ignores MOVALL"),
    ("c", "pending-table-ptz0", "the C version never reads the pending table"),
    ("native", "creadr-readonly", "QEMU lets GITS_CREADR be written"),
    ("native", "translater-by-cpu", "QEMU takes a CPU's write for a device's with DeviceID 0"),
    ("native", "tables-scribbled", "QEMU stalls the queue on a table entry that leads nowhere, as the architecture lets it"),
]


@dataclass
class Outcome:
    """What became of a case: ``ok``, ``skip``, ``FAIL``, ``CRASH`` or ``HANG``."""

    word: str
    why: str = ""


@dataclass
class Column:
    """All that one ITS did."""

    name: str
    plan: int = 0
    cases: dict[str, Outcome] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    boots: int = 0
    done: bool = False


@dataclass
class Serial:
    """Reads one boot's console: TAP among Xen's own lines."""

    plan: int | None = None
    results: list[tuple[int, str, Outcome]] = field(default_factory=list)
    started: tuple[int, str] | None = None
    notes: list[str] = field(default_factory=list)
    bail: str = ""
    done: bool = False
    xen: Console = field(default_factory=Console)

    def feed(self, raw: str) -> None:
        """Take one line."""
        line = raw.strip("\r\n")
        self.xen.feed(line)
        if match := re.fullmatch(r"1\.\.(\d+)", line):
            self.plan = int(match[1])
        elif match := re.fullmatch(r"# start (\d+) (\S+)", line):
            self.started = (int(match[1]), match[2])
        elif match := re.fullmatch(r"(not )?ok (\d+) - (\S+)(?: # (.*))?", line):
            why = match[4] or ""
            word = "FAIL" if match[1] else "skip" if why.startswith("SKIP") else "ok"
            self.results.append((int(match[2]), match[3], Outcome(word, why.removeprefix("SKIP "))))
            self.started = None
        elif line.startswith("# "):
            self.notes.append(line[2:])
        elif line.startswith("Bail out!"):
            self.bail = line.removeprefix("Bail out! ")
        elif line == "XENITS-GUEST: done":
            self.done = True


def build_guest(log: Path, target: Path) -> None:
    """The guest as a kernel image at `target`."""
    folder = rust.target_dir() / "guest"
    words = ["cargo", "build", "--locked", "--release", "--target", rust.XEN_TARGET]
    run(words, log, cwd=GUEST, env={"CARGO_TARGET_DIR": str(folder)}, what="the guest cannot be built")
    elf = folder / rust.XEN_TARGET / "release/its-guest"
    run(["aarch64-linux-gnu-objcopy", "-O", "binary", elf, target], log, what="no image can be made of the guest")


def command(column: str, guest: Path, xen: Path | None, bootargs: str, errors: Path) -> list[str]:
    """QEMU's command line."""
    options = "gic-version=3,its=on" + (",virtualization=on" if xen else "")
    argv = [
        "qemu-system-aarch64", "-M", f"virt,{options}", "-cpu", "cortex-a57", "-smp", str(CPUS), "-m", qemu.MEMORY,
        "-display", "none", "-no-reboot", "-nic", "none", "-nodefaults", "-serial", "stdio", "-monitor", "none",
        "-d", "guest_errors", "-D", str(errors),
    ]  # fmt: skip
    if xen is None:
        return [*argv, "-kernel", str(guest), "-append", bootargs]
    # The C version says something on each wrong command, which takes longer than the command.
    level = "loglvl=all" if column == "rust" else "loglvl=error guest_loglvl=error"
    return [
        *argv, "-kernel", str(xen),
        "-append", f"dom0_mem=1G console=dtuart noreboot sched=null vwfi=native {level}",
        "-device", f"guest-loader,addr={qemu.KERNEL_ADDRESS:#x},kernel={str(guest).replace(',', ',,')},"
                   f"bootargs={bootargs.replace(',', ',,')}",
    ]  # fmt: skip


def boot(argv: list[str], logs: Path, name: str, limit: float) -> tuple[Serial, str]:
    """Boot once; what was said, and how it ended (empty if well)."""
    (logs / f"{name}.cmd").write_text(shlex.join(argv) + "\n", encoding="utf-8")
    serial = Serial()
    with open(logs / f"{name}.serial.log", "wb") as out, open(logs / f"{name}.qemu.log", "wb") as err:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, preexec_fn=die_with_parent
        )
        assert process.stdout is not None
        try:
            ended = _watch(process.stdout, serial, out, limit)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
    if process.returncode not in (0, -signal.SIGKILL):
        ended = f"QEMU ended with status {process.returncode}"
    return serial, ended


def _watch(pipe: object, serial: Serial, out: object, limit: float) -> str:
    rest = b""
    end = time.monotonic() + limit
    crashed = False
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
        while True:
            wait = min(qemu.GRACE if crashed else QUIET_LIMIT_S, end - time.monotonic())
            if wait <= 0 or not selector.select(wait):
                return "crashed" if crashed else "hangs: stopped by the watchdog"
            data = pipe.read1(65536)  # type: ignore[attr-defined]
            if not data:
                return "crashed" if crashed else ""
            out.write(data)  # type: ignore[attr-defined]
            out.flush()  # type: ignore[attr-defined]
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                serial.feed(line.decode("utf-8", "replace"))
            crashed = crashed or bool(serial.xen.crashes)


def run_column(name: str, guest: Path, xen: Path | None, bootargs: str, logs: Path, limit: float) -> Column:
    """All cases on one ITS, with a new boot behind each crash."""
    column = Column(name)
    first = 1
    while column.boots < MAX_BOOTS:
        column.boots += 1
        label = f"{name}-{column.boots}"
        errors = logs / f"{label}.guest-errors.log"
        argv = command(name, guest, xen, f"{bootargs} its.from={first}", errors)
        serial, ended = boot(argv, logs, label, limit)
        column.plan = max(column.plan, serial.plan or 0)
        column.notes += serial.notes
        for _, case, outcome in serial.results:
            column.cases[case] = outcome
            column.order.append(case)
        well = not ended and serial.done and not serial.bail
        column.problems += [f"{what}: {line}" for what, line in serial.xen.crashes[:2]]
        column.problems += [f"Xen warned: {line}" for line in serial.xen.warnings[:2]]
        if name == "rust" and (found := qemu.read_guest_errors(errors)):
            column.problems.append(f"QEMU reports {len(found)} guest errors, the first: {found[0]}")
        if well:
            column.done = True
            break
        why = serial.bail or (serial.xen.crashes[0][0] if serial.xen.crashes else ended or "ended early")
        if not serial.started:
            column.problems.append(f"boot {column.boots}: {why}, and not in a case")
            break
        number, case = serial.started
        column.cases[case] = Outcome("HANG" if "hangs" in ended else "CRASH", why)
        column.order.append(case)
        first = number + 1
        if first > column.plan:
            column.done = True
            break
    return column


def known(column: str, case: str) -> str:
    """Why this case differs there; empty if nobody knows."""
    return next((why for c, pattern, why in KNOWN if c == column and fnmatch.fnmatchcase(case, pattern)), "")


def failures(column: Column) -> list[str]:
    """Why ours is not right; empty if it is."""
    found = [f"{case}: {o.word} {o.why}" for case, o in column.cases.items() if o.word not in ("ok", "skip")]
    found += column.problems
    if column.plan == 0:
        found.append("no case ran")
    elif len(column.cases) != column.plan:
        found.append(f"{column.plan - len(column.cases)} of {column.plan} cases did not run")
    if not column.done:
        found.append("the guest did not get to its end")
    return found


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
        different = [(n, o) for n in names if (o := column.cases.get(n)) and o.word not in ("ok", "skip")]
        words = [o.word for o in column.cases.values()]
        count = ", ".join(f"{words.count(w)} {w}" for w in ("ok", "skip", "FAIL", "CRASH", "HANG") if w in words)
        lines += ["", f"{column.name}: {count or 'nothing ran'}, of {column.plan} cases in {column.boots} boots"]
        lines += [f"  {note}" for note in column.notes]
        for name, outcome in different:
            why = known(column.name, name)
            lines.append(f"  {name}: {outcome.word} {outcome.why}")
            lines.append(f"    {'known: ' + why if why else 'nobody has looked into it yet'}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Options of ``scripts/conformance``."""
    made = argparse.ArgumentParser(
        prog="scripts/conformance",
        description="Run the bare-metal guest on Xen with the Rust ITS, with the C ITS, and on QEMU's own. "
        "Fails if ours is not right; how the others differ is only printed.",
    )
    made.add_argument("--only", choices=COLUMNS, action="append", help="only this one; may be repeated")
    made.add_argument("--release", action="store_true", help="release builds of Xen (default: debug)")
    made.add_argument("--test", default="*", metavar="GLOB", help="only cases that match; several with commas")
    made.add_argument("--seed", type=lambda t: int(t, 0), default=1, metavar="N", help="of the fuzzer (default: 1)")
    made.add_argument("--fuzz", type=int, default=100_000, metavar="N", help="random commands (default: 100000)")
    made.add_argument("--timeout", type=float, default=600, metavar="S", help="stop a boot after that (default: 600)")
    return made


def _tested(context: Context, debug: bool) -> list[Result]:
    """All cases on ours, one result each."""
    folder = context.logs / "xen-build"
    folder.mkdir()
    pipeline.build_xen(pipeline.Options(debug=debug), Steps(pipeline.BUILD_STEPS, folder, quiet=True), with_qemu=True)
    guest = context.logs / "guest.img"
    build_guest(context.log, guest)
    bootargs = f"its.test=* its.seed=1 its.fuzz={TESTED_FUZZ}"
    column = run_column("rust", guest, folder / "xen", bootargs, context.logs, TESTED_LIMIT_S)
    (context.logs / "report.log").write_text(render([column]) + "\n", encoding="utf-8")
    name = f"guest/rust/{'debug' if debug else 'release'}"
    results = [
        Result(
            f"{name}/{case}",
            problems=() if o.word in ("ok", "skip") else (f"{o.word} {o.why}",),
            skipped=(o.why or "the guest says so") if o.word == "skip" else "",
        )
        for case, o in column.cases.items()
    ]
    whole = [why for why in failures(column) if why.partition(":")[0] not in column.cases]
    note = "\n".join(note for note in column.notes if "gap" in note)
    return [*results, Result(name, problems=tuple(whole), remark=f"{len(column.cases)} cases", note=note)]


def cases() -> Iterable[Case]:
    """The guest on ours, for ``scripts/test``."""
    for debug in (True, False):
        kind = "debug" if debug else "release"
        about = f"the bare-metal guest drives the Rust ITS ({kind} build)"
        yield Case(f"guest/rust/{kind}", about, partial(_tested, debug=debug), quick=False)


def main(argv: list[str]) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    chosen = args.only or list(COLUMNS)
    logs = new_run_dir("conformance")
    images: dict[str, Path] = {}
    for its in ("rust", "c"):
        if its in chosen:
            folder = logs / its
            folder.mkdir()
            options = pipeline.Options(its=its, debug=not args.release)
            pipeline.build_xen(options, Steps(pipeline.BUILD_STEPS, folder), with_qemu=True)
            images[its] = folder / "xen"
    steps = Steps(2 + len(chosen), logs)
    with steps.step("tools for the guest") as step:
        packages.install_host_packages(step.log, with_qemu=True)
        rust.ensure_targets([rust.XEN_TARGET], step.log)
    guest = logs / "guest.img"
    with steps.step("guest") as step:
        build_guest(step.log, guest)
    bootargs = f"its.test={args.test} its.seed={args.seed} its.fuzz={args.fuzz}"
    columns = []
    for name in COLUMNS:
        if name in chosen:
            with steps.step(f"cases on {name}") as step:
                columns.append(run_column(name, guest, images.get(name), bootargs, logs, args.timeout))
                step.say(f"{columns[-1].boots} boots")
    text = render(columns)
    (logs / "report.log").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nlogs: {logs}")
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
