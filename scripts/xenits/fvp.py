# SPDX-License-Identifier: GPL-2.0-only
"""Arm's Fast Model FVP Base RevC: where it is, the parameters that we set, and its command line.

It is a program that its user has, or has not: without one a run is `Starved`, which is neither
passed nor failed. A model that does not know one of the parameters is another one than we think,
so each is looked up in what ``--list-params`` prints before anything is built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import StepError, UsageError

PROGRAM = "FVP_Base_RevC-2xAEMvA"
VARIABLE = "FVP_MODEL"
LIST_LIMIT_S = 120.0

CLUSTER = 4
"""CPUs in each of its two clusters."""

XEN_ADDRESS = 0x8400_0000
KERNEL_ADDRESS = 0x9000_0000
"""Beyond what boot-wrapper puts into memory, which has places of its own for Xen and the device tree."""

_PARAMETER = re.compile(r"^([A-Za-z_][\w.-]*\.[\w.-]+|[A-Za-z_][\w-]*)=")


class Starved(StepError):
    """What a run needs is not here, and cannot be fetched: it says nothing of what was to be tested."""

    status = 4


def clusters(cpus: int) -> tuple[int, int]:
    """How many CPUs are in each cluster."""
    first = min(cpus, CLUSTER)
    return first, cpus - first


@dataclass(frozen=True)
class Flash:
    """TF-A in flash. It starts what is in memory on one CPU, which asks for the others, and can switch off."""

    bl1: Path
    fip: Path

    name = "TF-A"
    powers_off = True

    def parameters(self, _cpus: int) -> dict[str, str]:
        """The parameters for this."""
        return {
            "pctl.startup": "0.0.0.0",
            "bp.secureflashloader.fname": str(self.bl1),
            "bp.flashloader0.fname": str(self.fip),
        }

    def arguments(self, _cpus: int) -> list[str]:
        """The arguments for this."""
        return []


@dataclass(frozen=True)
class Application:
    """An image of boot-wrapper's, in which all CPUs start. It can start CPUs when asked, but not switch off."""

    image: Path

    name = "boot-wrapper"
    powers_off = False

    def parameters(self, cpus: int) -> dict[str, str]:
        """The parameters for this."""
        return {
            # By their affinities, from the highest level down.
            "pctl.startup": ",".join(f"0.{n}.*.*" for n, count in enumerate(clusters(cpus)) if count),
            # It leaves the system counter as it is, which is off by default.
            "bp.refcounter.non_arch_start_at_default": "1",
        }

    def arguments(self, cpus: int) -> list[str]:
        """The arguments for this."""
        used = [n for n, count in enumerate(clusters(cpus)) if count]
        return [word for n in used for word in ("-a", f"cluster{n}.*={self.image}")]


@dataclass(frozen=True)
class Machine:
    """What the model is to be, how it starts, and what is in its memory."""

    cpus: int
    pta: bool
    """GITS_TYPER.PTA: the ITS names redistributors by their address."""

    start: Flash | Application
    data: tuple[tuple[Path, int], ...]
    """Files, and where they are put in its memory before it starts."""

    pci: Path
    """The file that says which PCI devices there are."""

    uart1: Path
    """Where the second serial line goes, on which the firmware talks at run time."""

    def parameters(self) -> dict[str, str]:
        """The parameters to be set; the rest is left at what the model has by default."""
        return {
            **{f"cluster{n}.NUM_CORES": str(count) for n, count in enumerate(clusters(self.cpus))},
            **self.start.parameters(self.cpus),
            "cache_state_modelled": "0",
            # All memory is for both worlds: nobody needs to be kept out.
            "bp.secure_memory": "0",
            # One ITS with Linux' and Xen's order of tables, whose device IDs go beyond a PCI requester's
            # 16 bits: the SMMU has one of its own.
            "gic_distributor.ITS-count": "1",
            "gic_distributor.ITS-use-physical-target-addresses": str(int(self.pta)),
            "gic_distributor.ITS-device-bits": "17",
            "gic_distributor.GITS_BASER0-type": "1",
            "gic_distributor.GITS_BASER1-type": "4",
            # EnableLPIs can be taken back, so that a CPU can come up again.
            "gic_distributor.allow-LPIEN-clear": "1",
            "gic_distributor.GICR-clear-enable-supported": "1",
            "pci.hierarchy_file_name": str(self.pci),
            # The console comes on standard output, no window opens, and the model ends when its machine goes off.
            "bp.pl011_uart0.out_file": "-",
            "bp.pl011_uart0.unbuffered_output": "1",
            "bp.pl011_uart1.out_file": str(self.uart1),
            "bp.vis.disable_visualisation": "1",
            **{f"bp.terminal_{n}.start_telnet": "0" for n in range(4)},
            "bp.ve_sysregs.exit_on_shutdown": "1",
        }

    def command(self, model: Path) -> list[str]:
        """The model's command line."""
        argv = [str(model)]
        for name, value in self.parameters().items():
            argv += ["-C", f"{name}={value}"]
        argv += self.start.arguments(self.cpus)
        for path, address in self.data:
            argv += ["--data", f"cluster0.cpu0={path}@{address:#x}"]
        return argv


def find() -> Path:
    """The user's model."""
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file() or not os.access(path, os.X_OK):
            raise UsageError(f"{VARIABLE} is {named}, which is no program", hint=f"set it to the path of {PROGRAM}.")
        return path.resolve()
    found = shutil.which(PROGRAM)
    if not found:
        raise Starved(
            f"starved: there is no Fast Model: {PROGRAM} is not in PATH, and {VARIABLE} is not set",
            hint=f"install Arm's FVP Base RevC and set {VARIABLE} to its program, or put that in PATH.",
        )
    return Path(found).resolve()


def parse_parameters(text: str) -> set[str]:
    """The names of the parameters that ``--list-params`` printed."""
    return {match[1] for line in text.splitlines() if (match := _PARAMETER.match(line.strip()))}


def known_parameters(model: Path, log: Path) -> set[str]:
    """The names of all parameters that a model has."""
    argv = [str(model), "--list-params"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
            timeout=LIST_LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StepError(f"{model.name} --list-params did not end in {LIST_LIMIT_S:.0f} s") from None
    except OSError as error:
        raise StepError(f"{model} cannot be run: {error.strerror}") from None
    with open(log, "a", encoding="utf-8") as out:
        print(f"$ {' '.join(argv)}\n{done.stdout}{done.stderr}", file=out)
    names = parse_parameters(done.stdout)
    if done.returncode != 0 or not names:
        raise StepError(
            f"{model.name} --list-params ended with status {done.returncode} and named {len(names)} parameters",
            log=log,
            lines=(done.stderr or done.stdout).strip().splitlines()[-10:],
            hint="a licence that the model does not find is what this often means.",
        )
    return names


def check_parameters(wanted: dict[str, str], known: set[str], model: Path, log: Path) -> None:
    """Every parameter that we set is one of the model's."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise StepError(
            f"{model.name} does not know {len(unknown)} of the {len(wanted)} parameters that are needed",
            log=log,
            lines=unknown,
            hint=f"is it {PROGRAM}? The log has the parameters that it knows.",
        )


def pci_devices(disk: Path) -> str:
    """The model's PCI devices, in its own language: an AHCI controller, which has one MSI-X vector."""
    ahci = {
        "device": 1,
        "function": 0,
        "image_path": str(disk),
        # Integrated into the root complex: there is no port between it and the bus.
        "express_capability_device_type": 9,
    }
    return json.dumps({"ahci/ahci0": ahci}, indent=4) + "\n"
