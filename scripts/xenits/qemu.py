# SPDX-License-Identifier: GPL-2.0-only
"""Boot Xen and Dom0 on QEMU, with a limit on time."""

from __future__ import annotations

import os
import re
import selectors
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from .console import Console
from .devices import Devices
from .errors import StepError
from .processes import die_with_parent

KERNEL_ADDRESS = 0x4900_0000
MEMORY = "2G"
COUNTED = {
    "multi": ("net", "ivshmem"),
    "affinity": ("ivshmem",),
    "rebind": ("ivshmem",),
    "hotplug": ("ivshmem",),
    "storm": ("ivshmem",),
    "sata": ("sata",),
}
"""Devices besides NVMe whose number a scenario wants to be told (see dom0/exerciser)."""

SERIAL = "serial.log"
GUEST_ERRORS = "guest-errors.log"
"""Files of a boot."""

GRACE = 3.0
"""Seconds that Xen gets for its register dump once it has crashed."""

LEAVING = 10.0
"""Seconds that QEMU gets to end after it has closed its output."""

BENIGN_GUEST_ERRORS: list[re.Pattern[str]] = [
    # None: Xen and Linux do nothing on this machine that QEMU finds fault with.
]


@dataclass
class Machine:
    """What to boot, and on what."""

    xen: Path
    kernel: Path
    initrd: Path
    devices: Devices
    gic: int = 3
    smp: int = 2
    test: str = "smoke"
    xen_args: list[str] = field(default_factory=list)
    dom0_args: list[str] = field(default_factory=list)
    ivshmem_sockets: list[Path] = field(default_factory=list)
    qmp: Path | None = None
    """A socket for QEMU's control protocol, for what changes links while Dom0 runs."""

    def xen_command_line(self) -> str:
        """Xen's command line; with many vCPUs its scheduler must not trap on every WFI."""
        # A release build would keep the counters to itself at its default level.
        words = ["dom0_mem=1G", "console=dtuart", "noreboot", "loglvl=all"]
        if self.smp >= 4:
            words += ["sched=null", "vwfi=native"]
        return " ".join(words + self.xen_args)

    def dom0_command_line(self) -> str:
        """Linux' command line, with the name of the scenario to run."""
        words = ["console=hvc0", "rdinit=/init"]
        if self.test:
            words.append(f"xenits.test={self.scenario()}")
        return " ".join(words + self.dom0_args)

    def scenario(self) -> str:
        """The scenario, told how many devices it must find unless its options say so already."""
        name, *options = self.test.split(",")
        if name in ("shell", "count"):
            return self.test
        given = {option.split("=", 1)[0] for option in options}
        devices = self.devices
        counts = {"nvme": devices.nvme, "net": devices.virtio_net, "ivshmem": devices.ivshmem, "sata": devices.sata}
        for option in ("nvme", *COUNTED.get(name, ())):
            if option not in given:
                options.append(f"{option}={counts[option]}")
        return ",".join([name, *options])

    def initrd_address(self) -> int:
        """After the kernel, with room for the part of it that is not in the file."""
        end = KERNEL_ADDRESS + self.kernel.stat().st_size + (32 << 20)
        return (end + (2 << 20) - 1) & ~((2 << 20) - 1)

    def command(self, guest_errors: Path) -> list[str]:
        """QEMU's command line, without what decides where the console goes."""
        return [
            "qemu-system-aarch64",
            "-M", f"virt,gic-version={self.gic},virtualization=on,its=on",
            "-cpu", "cortex-a57", "-smp", str(self.smp), "-m", MEMORY,
            "-display", "none", "-no-reboot", "-nic", "none", "-nodefaults",
            "-d", "guest_errors", "-D", str(guest_errors),
            "-kernel", str(self.xen), "-append", self.xen_command_line(),
            "-device", f"guest-loader,addr={KERNEL_ADDRESS:#x},kernel={_comma(self.kernel)},"
                       f"bootargs={_comma(self.dom0_command_line())}",
            "-device", f"guest-loader,addr={self.initrd_address():#x},initrd={_comma(self.initrd)}",
            *self.devices.arguments(self.ivshmem_sockets),
            *(["-qmp", f"unix:{self.qmp},server=on,wait=off"] if self.qmp else []),
        ]  # fmt: skip


def _comma(value: object) -> str:
    """A comma ends a property of QEMU's unless it is doubled."""
    return str(value).replace(",", ",,")


@dataclass
class Boot:
    """How a boot went."""

    console: Console
    seconds: float
    serial: Path
    guest_errors: list[str]
    ended: str
    """How it ended: ``powered off``, or what went wrong."""

    ended_well: bool = False

    def problems(self) -> list[str]:
        """Every reason to call this boot a failure."""
        found = self.console.problems()
        if not self.ended_well:
            found.insert(0, self.ended)
        if self.guest_errors:
            found.append(f"QEMU reports {len(self.guest_errors)} guest errors, the first: {self.guest_errors[0]}")
        return found


class QemuDied(StepError):
    """QEMU, or a model, itself ended, which says nothing of what ran in it."""


def describe(returncode: int, who: str = "QEMU") -> str:
    """How a program ended."""
    return f"{who} was killed by signal {-returncode}" if returncode < 0 else f"{who} ended with status {returncode}"


def stop(process: subprocess.Popen[bytes], patience: float) -> bool:
    """See to it that QEMU has ended. Tells whether it had to be stopped, after `patience` seconds."""
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def boot(machine: Machine, logs: Path, limit: float) -> Boot:
    """Boot and wait for the end: a power-off, a crash, or the limit in seconds."""
    serial = logs / SERIAL
    errors = logs / GUEST_ERRORS
    said = logs / "qemu.log"
    argv = [*machine.command(errors), "-serial", "stdio", "-monitor", "none"]
    (logs / "qemu.cmd").write_text(shlex.join(argv) + "\n", encoding="utf-8")
    console = Console()
    start = time.monotonic()
    ended, well = "", False
    with open(serial, "wb") as out, open(said, "wb") as err:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, preexec_fn=die_with_parent
            )
        except FileNotFoundError:
            raise StepError("qemu-system-aarch64 is not installed") from None
        patience = 0.0
        try:
            ended, well = watch(process, console, out, start, limit)
            patience = LEAVING if well else 0.0
        finally:
            stopped = stop(process, patience)
            assert process.stdout is not None
            process.stdout.close()
    if process.returncode != 0 and not stopped:
        text = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise QemuDied(describe(process.returncode), log=said, lines=text[-10:], hint=f"see {logs / 'qemu.cmd'}")
    return Boot(console, time.monotonic() - start, serial, read_guest_errors(errors), ended, well)


def watch(
    process: subprocess.Popen[bytes],
    console: Console,
    out: object,
    start: float,
    limit: float,
    who: str = "QEMU",
    powers_off: bool = True,
) -> tuple[str, bool]:
    """Read a machine's console from a program's standard output, until it ends; how it did, and whether well.

    A machine that cannot power itself off has ended when Xen has said its last words.
    """
    assert process.stdout is not None
    fd = process.stdout.fileno()
    deadline = start + limit
    rest = b""
    crashed = False
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                if crashed:
                    return f"{who} was stopped after a crash", False
                where = rest.decode("utf-8", "replace").strip() or "nothing"
                return f"still running after {limit:.0f} s: stopped by the watchdog (last seen: {where})", False
            if not selector.select(left):
                continue
            data = os.read(fd, 65536)
            if not data:
                return "powered off", True
            out.write(data)  # type: ignore[attr-defined]
            out.flush()  # type: ignore[attr-defined]
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                console.feed(line.decode("utf-8", "replace"))
            if console.halted and not powers_off:
                return "halted", True
            if console.crashes and not crashed:
                # With noreboot nothing more will come than a register dump.
                crashed = True
                deadline = min(deadline, time.monotonic() + GRACE)


def read_guest_errors(path: Path) -> list[str]:
    """Lines of QEMU's ``-d guest_errors`` that are not known to be harmless."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip() and not any(b.search(line) for b in BENIGN_GUEST_ERRORS)]


def shell(machine: Machine, logs: Path) -> int:
    """Give the terminal to the console; QEMU's own keys (ctrl-a x) end it."""
    argv = [*machine.command(logs / GUEST_ERRORS), "-serial", "mon:stdio"]
    (logs / "qemu.cmd").write_text(shlex.join(argv) + "\n", encoding="utf-8")
    return subprocess.run(argv, check=False, preexec_fn=die_with_parent).returncode
