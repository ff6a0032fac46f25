# SPDX-License-Identifier: GPL-2.0-only
"""``scripts/run --platform fvp``: boot on Arm's Fast Model what is booted on QEMU.

There are two boots for each thing to run, with GITS_TYPER.PTA off and on: QEMU has it off only.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import dom0, fvp, fvp_firmware, fvp_tree, guest, pipeline, qemu, report
from .console import Console
from .errors import StepError, UsageError
from .fvp_firmware import Firmware
from .fvp_wrapper import Wrapper
from .pipeline import Options
from .processes import die_with_parent
from .steps import Steps

DISK_BYTES = 64 << 20
LIMIT_S = 900.0
"""For a boot, if the user says nothing: a model takes many times as long as QEMU."""

END_S = 30.0
"""For the model to end once it has closed its console."""

GUEST = "guest"
"""The name of the test that is the bare-metal guest, in the place of Dom0's kernel."""

TESTS = {"rust": ("sata", GUEST), "c": ("sata",)}
"""What runs on each ITS if the user names no test: the guest's hostile cases end Xen with the C one."""

PTA = {"off": (False,), "on": (True,), "both": (False, True)}


@dataclass(frozen=True)
class Payload:
    """What Xen starts as Dom0."""

    kernel: Path
    bootargs: str
    initrd: Path | None = None
    xen_args: tuple[str, ...] = ()


def check_options(options: Options, other: Mapping[str, object]) -> None:
    """Options that mean something on QEMU only are mistakes here; `other` are those, with what was given."""
    if not 1 <= options.smp <= 2 * fvp.CLUSTER:
        raise UsageError(f"--smp takes 1 to {2 * fvp.CLUSTER} with --platform fvp")
    if options.gic != 3:
        raise UsageError("--gic 4 is not for --platform fvp")
    given = [name for name, value in other.items() if value]
    if given:
        raise UsageError(f"{' and '.join(given)}: not for --platform fvp")


def xen_command_line(options: Options, *more: str) -> str:
    """Xen's, as on QEMU; it leaves the SMMU to Dom0, whose memory is where Dom0 thinks that it is."""
    words = ["dom0_mem=1G", "console=dtuart", "noreboot", "loglvl=all", "iommu=no"]
    if options.smp >= 4:
        words += ["sched=null", "vwfi=native"]
    return " ".join([*words, *more, *options.xen_args])


def dom0_command_line(options: Options, test: str) -> str:
    """Linux', as on QEMU. There is no NVMe here; and only the Rust ITS takes PCI devices that are announced."""
    words = [test]
    for name, value in (("nvme", 0), ("pciadd", int(options.its == "rust"))):
        if f",{name}=" not in test:
            words.append(f"{name}={value}")
    return " ".join(["console=hvc0", "rdinit=/init", f"xenits.test={','.join(words)}", *options.dom0_args])


def after(address: int, path: Path) -> int:
    """Where there is room behind a kernel at `address`, with what is not in its file."""
    end = address + path.stat().st_size + (32 << 20)
    return (end + (2 << 20) - 1) & ~((2 << 20) - 1)


def prepare(
    options: Options, payload: Payload, xen: Path, firmware: Firmware | Wrapper, pta: bool, folder: Path, log: Path
) -> fvp.Machine:
    """Everything that a model needs for one boot, in `folder`."""
    kernel = fvp_tree.Module("kernel", fvp.KERNEL_ADDRESS, payload.kernel.stat().st_size, payload.bootargs)
    modules, data = [kernel], [(payload.kernel, kernel.address)]
    if payload.initrd:
        address = after(kernel.address, payload.kernel)
        modules.append(fvp_tree.Module("ramdisk", address, payload.initrd.stat().st_size))
        data.append((payload.initrd, address))
    bootargs = xen_command_line(options, *payload.xen_args)
    wrapped = isinstance(firmware, Wrapper)
    tree = fvp_tree.write(fvp_tree.Board(options.smp, bootargs, tuple(modules), wrapped), folder, log)
    starter: fvp.Flash | fvp.Application
    if isinstance(firmware, Wrapper):
        starter = fvp.Application(firmware.image(xen, tree, folder, log))
    else:
        starter = fvp.Flash(firmware.bl1, fvp_firmware.with_tree(firmware, tree, folder, log))
        data.append((xen, fvp.XEN_ADDRESS))
    disk, pci = folder / "disk.img", folder / "pci.json"
    with open(disk, "wb") as file:
        file.truncate(DISK_BYTES)
    pci.write_text(fvp.pci_devices(disk), encoding="utf-8")
    return fvp.Machine(
        cpus=options.smp,
        pta=pta,
        start=starter,
        data=tuple(data),
        pci=pci,
        uart1=folder / "uart1.log",
    )


def start(argv: list[str], folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a model; what it says on standard error goes to a log."""
    (folder / "fvp.cmd").write_text(shlex.join(argv) + "\n", encoding="utf-8")
    said = folder / "fvp.log"
    with open(said, "wb") as err:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, preexec_fn=die_with_parent, cwd=folder
        )
    return process, said


def boot(argv: list[str], folder: Path, limit: float, powers_off: bool) -> qemu.Boot:
    """Boot Dom0 and wait for the end: a power-off, a crash, or the limit in seconds.

    If the firmware knows no power-off, Xen's last words are the end, and the model is stopped.
    """
    console = Console()
    serial = folder / "serial.log"
    began = time.monotonic()
    process, said = start(argv, folder)
    patience = 0.0
    try:
        with open(serial, "wb") as out:
            ended, well = qemu.watch(process, console, out, began, limit, "the model", powers_off)
        patience = END_S if well and (powers_off or not console.halted) else 0.0
    finally:
        stopped = qemu.stop(process, patience)
        assert process.stdout is not None
        process.stdout.close()
    if stopped and patience:
        raise StepError("the model closed its console and does not end")
    if process.returncode != 0 and not stopped:
        ended, well = qemu.describe(process.returncode, "the model"), False
        # No more than the model itself can be said to be at fault then.
        if console.plan is None or process.returncode == -signal.SIGKILL:
            text = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise qemu.QemuDied(ended, log=said, lines=text[-10:], hint=f"see {folder / 'fvp.cmd'}")
    return qemu.Boot(console, time.monotonic() - began, serial, [], ended, well)


def boot_guest(argv: list[str], folder: Path, limit: float, powers_off: bool) -> guest.Column:
    """Boot the bare-metal guest; all that it said."""
    column = guest.Column("rust")
    serial, ended = guest.boot(argv, folder, "fvp", limit, limit, "the model", powers_off)
    guest.add(column, serial)
    column.boots = 1
    column.done = not ended and serial.done and not serial.bail
    if serial.started:
        number, case = serial.started
        column.cases[case] = guest.Outcome("CRASH" if serial.xen.crashes else "HANG", ended)
        column.problems.append(f"it got to case {number} only: {case}")
    return column


def guest_report(column: guest.Column, label: str, found: list[str]) -> str:
    """What the bare-metal guest found; the last line is PASS or FAIL, as in a report of Dom0's."""
    good = sum(outcome.word == "ok" for outcome in column.cases.values())
    skipped = sum(outcome.word == "skip" for outcome in column.cases.values())
    lines = [
        "",
        f"The bare-metal guest: {label}",
        f"  {good} of {column.plan} cases are ok, {skipped} were skipped",
        "",
    ]
    return "\n".join(lines + (["FAIL", *(f"  - {why}" for why in found)] if found else ["PASS"]))


@dataclass(frozen=True)
class Run:
    """One boot: what is tested, and on which of the two ITSes."""

    test: str
    pta: bool

    def name(self) -> str:
        """In a few words."""
        return f"{self.test} with PTA {'on' if self.pta else 'off'}"

    def folder(self) -> str:
        """The name of the folder for its logs."""
        return f"{self.test.split(',')[0]}-pta-{'on' if self.pta else 'off'}"

    def is_guest(self) -> bool:
        """Whether it is the bare-metal guest that is booted."""
        return self.test.split(",")[0] == GUEST

    def payload(self, options: Options, folder: Path, log: Path) -> Payload:
        """What Xen is to start; made now, if need be."""
        if not self.is_guest():
            made, _ = dom0.build(log, dom0.FULL)
            return Payload(made.kernel, dom0_command_line(options, self.test), made.initrd)
        image = folder / "guest.img"
        guest.build_guest(log, image)
        pattern = self.test.partition(",")[2] or "*"
        bootargs = f"its.test={pattern} its.seed=1 its.seeds=1 its.fuzz=2000 its.from=1"
        # A debug build would print each line about a wrong command; and each vCPU has a CPU for itself.
        more = ("guest_loglvl=none/warning", *(() if options.smp >= 4 else ("sched=null", "vwfi=native")))
        return Payload(image, bootargs, xen_args=more)

    def boot(self, options: Options, machine: fvp.Machine, model: Path, folder: Path) -> tuple[list[str], str]:
        """Boot; the reasons to call it a failure, and a report."""
        argv, powers_off = machine.command(model), machine.start.powers_off
        kind = "debug" if options.debug else "release"
        label = f"{kind} build, FVP Base RevC with {machine.start.name}, {options.smp} CPUs, test {self.name()}"
        if self.is_guest():
            column = boot_guest(argv, folder, options.limit, powers_off)
            found = guest.failures(column)
            return found, guest_report(column, label, found)
        done = boot(argv, folder, options.limit, powers_off)
        return done.problems(), report.render(done, options.its, label, done.problems())


def run_one(
    run: Run, options: Options, xen: Path, firmware: Firmware | Wrapper, model: Path, steps: Steps
) -> list[str]:
    """Make everything for one boot, boot, print the report; the reasons to call it a failure."""
    folder = steps.logs / run.folder()
    folder.mkdir()
    with steps.step(f"boot {run.folder()}") as step:
        payload = run.payload(options, folder, step.log)
        machine = prepare(options, payload, xen, firmware, run.pta, folder, step.log)
        found, text = run.boot(options, machine, model, folder)
        step.say("see the report" if found else "powered off" if machine.start.powers_off else "halted")
    (folder / "report.log").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)
    if not found:
        # Large, and of use only for looking into a failure.
        for name in ("disk.img", "guest.img", "image.axf"):
            (folder / name).unlink(missing_ok=True)
    return found


def build_firmware(steps: Steps) -> Firmware:
    """TF-A, as a step."""
    with steps.step("firmware") as step:
        firmware, had = fvp_firmware.build(step.log)
        if had:
            step.up_to_date()
    return firmware


def command(options: Options, tests: Sequence[str], pta: str, logs: Path, wrapper: Wrapper | None) -> int:
    """All of ``scripts/run --platform fvp``."""
    model = fvp.find()
    runs = [Run(test, on) for test in tests for on in PTA[pta]]
    steps = Steps(pipeline.BUILD_STEPS + (1 if wrapper else 2) + len(runs), logs)
    with steps.step("Fast Model") as step:
        names = fvp.known_parameters(model, step.log)
        starter = fvp.Application(Path()) if wrapper else fvp.Flash(Path(), Path())
        wanted = fvp.Machine(1, False, starter, (), Path(), Path()).parameters()
        fvp.check_parameters(wanted, names, model, step.log)
        step.say(f"{model}; it knows all {len(wanted)} parameters that are needed")
    pipeline.build_xen(options, steps, with_qemu=True)
    firmware = wrapper or build_firmware(steps)
    outcomes = {run: run_one(run, options, logs / "xen", firmware, model, steps) for run in runs}
    print()
    for run, found in outcomes.items():
        print(f"{'FAIL' if found else 'PASS'} {run.name()}")
    if any(outcomes.values()):
        return 1
    (logs / "xen-syms").unlink(missing_ok=True)
    return 0
