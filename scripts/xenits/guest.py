# SPDX-License-Identifier: GPL-2.0-only
"""Boots the bare-metal guest (rust/guest) on an ITS, and reads what it says.

It runs as Dom0's kernel on Xen with the Rust ITS and with upstream's C, and
natively on QEMU's own ITS. All that one ITS did is a `Column`.
"""

from __future__ import annotations

import re
import selectors
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import qemu, rust
from .console import Console
from .layout import REPO
from .processes import die_with_parent
from .shell import run

GUEST = REPO / "rust/guest"
COLUMNS = ("rust", "c", "native")

QUIET_LIMIT_S = 150.0
"""A boot that says nothing for so long hangs: the longest silence allowed is that of one case."""

MAX_BOOTS = 60
"""After a crash the cases behind the one that crashed get another boot, up to so many."""

FUTILE_BOOTS = 3
"""So many boots in a row that get to no case are enough."""


@dataclass(frozen=True)
class Machine:
    """What the guest is booted on. By default each vCPU has a CPU for itself."""

    cpus: int = 6
    gic: int = 3
    xen_args: tuple[str, ...] = ("sched=null", "vwfi=native")
    edus: int = 0
    """Devices that fire when the guest wants."""

    def describe(self) -> str:
        """In a few words."""
        return f"GICv{self.gic}, {self.cpus} CPU{'s' if self.cpus != 1 else ''}"


@dataclass
class Outcome:
    """What became of a case: ``ok``, ``skip``, ``FAIL``, ``CRASH`` or ``HANG``.

    ``ok*``: it is good in a boot for itself, but not behind the other cases.
    """

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
    gaps: dict[str, int] = field(default_factory=dict)
    """The longest time, in us, for which the heart of another CPU stood still in each case."""

    counters: dict[str, dict[str, str]] = field(default_factory=dict)
    """Xen's counters at the end of the last boot."""

    said: int = 0
    """Lines that Xen printed while cases ran, in the boot that had most of them."""

    version: str = ""
    boots: int = 0
    done: bool = False


@dataclass
class Serial:
    """Reads one boot's console: TAP among Xen's own lines."""

    plan: int | None = None
    results: list[tuple[int, str, Outcome]] = field(default_factory=list)
    started: tuple[int, str] | None = None
    notes: list[str] = field(default_factory=list)
    gaps: dict[str, int] = field(default_factory=dict)
    said: int = 0
    version: str = ""
    bail: str = ""
    done: bool = False
    xen: Console = field(default_factory=Console)

    def feed(self, raw: str) -> None:
        """Take one line."""
        line = raw.strip("\r\n")
        self.xen.feed(line)
        if match := re.fullmatch(r"1\.\.(\d+)", line):
            self.plan = int(match[1])
        elif line.startswith("(XEN)"):
            self.said += self.plan is not None
            if match := re.match(r"\(XEN\) Xen version (\S+)", line):
                self.version = match[1]
        elif match := re.fullmatch(r"# heartbeat (\S+): longest gap (\d+) us, .*", line):
            self.gaps[match[1]] = int(match[2])
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
    rust.ensure_targets([rust.XEN_TARGET], log)
    folder = rust.target_dir() / "guest"
    words = ["cargo", "build", "--locked", "--release", "--target", rust.XEN_TARGET]
    run(words, log, cwd=GUEST, env={"CARGO_TARGET_DIR": str(folder)}, what="the guest cannot be built")
    elf = folder / rust.XEN_TARGET / "release/its-guest"
    run(["aarch64-linux-gnu-objcopy", "-O", "binary", elf, target], log, what="no image can be made of the guest")


def command(column: str, guest: Path, xen: Path | None, bootargs: str, errors: Path, machine: Machine) -> list[str]:
    """QEMU's command line."""
    options = f"gic-version={machine.gic},its=on" + (",virtualization=on" if xen else "")
    argv = [
        "qemu-system-aarch64", "-M", f"virt,{options}", "-cpu", "cortex-a57", "-smp", str(machine.cpus),
        "-m", qemu.MEMORY, "-display", "none", "-no-reboot", "-nic", "none", "-nodefaults", "-serial", "stdio",
        "-monitor", "none", "-d", "guest_errors", "-D", str(errors),
        *["-device", "edu"] * machine.edus,
    ]  # fmt: skip
    if xen is None:
        return [*argv, "-kernel", str(guest), "-append", bootargs]
    # As in a release build: a debug build would print each line about a wrong command. The C
    # version prints even more, none of it rate-limited.
    level = "loglvl=all guest_loglvl=none/warning" if column == "rust" else "loglvl=error guest_loglvl=error"
    return [
        *argv, "-kernel", str(xen),
        "-append", " ".join(["dom0_mem=1G console=dtuart noreboot", level, *machine.xen_args]),
        "-device", f"guest-loader,addr={qemu.KERNEL_ADDRESS:#x},kernel={str(guest).replace(',', ',,')},"
                   f"bootargs={bootargs.replace(',', ',,')}",
    ]  # fmt: skip


def boot(
    argv: list[str],
    logs: Path,
    name: str,
    limit: float,
    quiet: float = QUIET_LIMIT_S,
    who: str = "QEMU",
    powers_off: bool = True,
) -> tuple[Serial, str]:
    """Boot once; what was said, and how it ended (empty if well)."""
    (logs / f"{name}.cmd").write_text(shlex.join(argv) + "\n", encoding="utf-8")
    serial = Serial()
    with open(logs / f"{name}.serial.log", "wb") as out, open(logs / f"{name}.qemu.log", "wb") as err:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, preexec_fn=die_with_parent
        )
        assert process.stdout is not None
        patience = 0.0
        try:
            ended = _watch(process.stdout, serial, out, limit, quiet, powers_off)
            patience = qemu.LEAVING if not ended and (powers_off or not serial.xen.halted) else 0.0
        finally:
            stopped = qemu.stop(process, patience)
            process.stdout.close()
    if process.returncode != 0 and not stopped:
        ended = qemu.describe(process.returncode, who)
        if process.returncode == -signal.SIGKILL:
            # Nothing that a guest does has that outcome: somebody else did it, or the kernel had no memory left.
            raise qemu.QemuDied(ended, log=logs / f"{name}.qemu.log")
    return serial, ended


def _watch(pipe: object, serial: Serial, out: object, limit: float, quiet: float, powers_off: bool) -> str:
    rest = b""
    end = time.monotonic() + limit
    crashed = False
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
        while True:
            wait = min(qemu.GRACE if crashed else quiet, end - time.monotonic())
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
            if serial.xen.halted and not powers_off:
                return "crashed" if crashed else ""


def run_column(
    name: str,
    guest: Path,
    xen: Path | None,
    bootargs: str,
    logs: Path,
    limit: float,
    machine: Machine | None = None,
    suffix: str = "",
) -> Column:
    """All cases on one ITS, with a new boot behind each crash."""
    column = Column(name)
    first, futile = 1, 0
    while not column.done and column.boots < MAX_BOOTS and futile < FUTILE_BOOTS:
        column.boots += 1
        label = f"{name}{suffix}-{column.boots}"
        errors = logs / f"{label}.guest-errors.log"
        argv = command(name, guest, xen, f"{bootargs} its.from={first}", errors, machine or Machine())
        serial, ended = boot(argv, logs, label, limit)
        add(column, serial)
        if name == "rust" and (found := qemu.read_guest_errors(errors)):
            column.problems.append(f"QEMU reports {len(found)} guest errors, the first: {found[0]}")
        if not ended and serial.done and not serial.bail:
            column.done = True
            break
        why = serial.bail or (serial.xen.crashes[0][0] if serial.xen.crashes else ended or "ended early")
        if serial.started:
            number, case = serial.started
            column.cases[case] = Outcome("HANG" if "hangs" in ended else "CRASH", why)
            column.order.append(case)
            first, futile = number + 1, 0
        else:
            # Between two cases, or before the first.
            column.problems.append(f"boot {column.boots}: {why}, and not in a case")
            if serial.results:
                first, futile = serial.results[-1][0] + 1, 0
            else:
                futile += 1
        column.done = 0 < column.plan < first
    return column


def look_again(
    column: Column, guest: Path, xen: Path | None, bootargs: str, logs: Path, limit: float, machine: Machine
) -> None:
    """Give each case that went wrong a boot for itself: what others leave behind may have been its ruin."""
    for case, before in [(c, o) for c, o in column.cases.items() if o.word in ("FAIL", "CRASH", "HANG")]:
        alone = run_column(column.name, guest, xen, f"{bootargs} its.test={case}", logs, limit, machine, f"-{case}")
        column.boots += alone.boots
        after = alone.cases.get(case)
        if after and after.word == "ok":
            column.cases[case] = Outcome("ok*", f"{before.word} behind other cases: {before.why}")
        elif after:
            column.cases[case] = after


def add(column: Column, serial: Serial) -> None:
    """What one boot had to say."""
    column.plan = max(column.plan, serial.plan or 0)
    column.notes += serial.notes
    column.gaps |= serial.gaps
    column.counters = serial.xen.counters
    column.said = max(column.said, serial.said)
    column.version = column.version or serial.version
    for _, case, outcome in serial.results:
        column.cases[case] = outcome
        column.order.append(case)
    column.problems += [f"{what}: {line}" for what, line in serial.xen.crashes[:2]]
    column.problems += [f"Xen warned: {line}" for line in serial.xen.warnings[:2]]


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
