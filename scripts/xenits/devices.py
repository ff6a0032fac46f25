# SPDX-License-Identifier: GPL-2.0-only
"""The devices that Dom0 gets, as ``--devices`` names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError

NVME_BYTES = 64 << 20
IVSHMEM_VECTORS = 128
MOST = 16


@dataclass
class Devices:
    """How many of each, and the queues that each NVMe controller offers."""

    nvme: int = 0
    queues: int = 0
    virtio_net: int = 0
    ivshmem: int = 0
    sata: int = 0

    def describe(self) -> str:
        """For a line of the report."""
        words = []
        if self.nvme:
            words.append(f"{self.nvme} NVMe" + (f" ({self.queues} queues)" if self.queues else ""))
        if self.virtio_net:
            words.append(f"{self.virtio_net} virtio-net")
        if self.ivshmem:
            words.append(f"{self.ivshmem} ivshmem")
        if self.sata:
            words.append(f"{self.sata} SATA")
        return ", ".join(words) or "no devices"

    def arguments(self, ivshmem_sockets: list[Path]) -> list[str]:
        """The devices as arguments of QEMU's."""
        args: list[str] = []
        for i in range(self.nvme):
            queues = f",max_ioqpairs={self.queues},msix_qsize={self.queues + 1}" if self.queues else ""
            # A null device reads as zeroes at once: no file, and nothing but interrupts to wait for.
            args += ["-blockdev", f"driver=null-co,node-name=disk{i},size={NVME_BYTES},read-zeroes=on"]
            args += ["-device", f"nvme,drive=disk{i},serial=xenits{i}{queues}"]
        for i in range(self.virtio_net):
            # All on one hub, so that they can talk to one another; without a boot ROM, which is in another package.
            args += ["-netdev", f"hubport,id=net{i},hubid=0", "-device", f"virtio-net-pci,netdev=net{i},romfile="]
        for i in range(self.sata):
            args += ["-blockdev", f"driver=null-co,node-name=sata{i},size={NVME_BYTES},read-zeroes=on"]
            args += ["-device", f"ich9-ahci,id=ahci{i}", "-device", f"ide-hd,drive=sata{i},bus=ahci{i}.0"]
        for i, socket in enumerate(ivshmem_sockets):
            args += ["-chardev", f"socket,path={socket},id=ivshmem{i}"]
            args += ["-device", f"ivshmem-doorbell,vectors={IVSHMEM_VECTORS},chardev=ivshmem{i}"]
        return args


def parse(text: str) -> Devices:
    """Parse ``nvme[=N][,queues=M],virtio-net=N,ivshmem=N,sata=N`` (``none`` for no device at all)."""
    devices = Devices()
    if text.strip() in ("", "none"):
        return devices
    names = {"nvme": "nvme", "queues": "queues", "virtio-net": "virtio_net", "ivshmem": "ivshmem", "sata": "sata"}
    for item in text.split(","):
        name, _, value = item.strip().partition("=")
        if name not in names:
            raise UsageError(f"--devices: no device '{name}'", hint=f"known are {', '.join(names)}.")
        try:
            count = int(value) if value else 1
        except ValueError:
            raise UsageError(f"--devices: '{value}' is no number of {name}") from None
        if not 0 <= count <= (64 if name == "queues" else MOST):
            raise UsageError(f"--devices: {count} is too many {name}")
        setattr(devices, names[name], count)
    if devices.queues and not devices.nvme:
        raise UsageError("--devices: queues=M belongs to nvme", hint="for example --devices nvme=4,queues=64")
    return devices
