# SPDX-License-Identifier: GPL-2.0-only
"""Dom0's kernel and initramfs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import StepError
from .layout import REPO, cache_root, locked
from .packages import Apt
from .shell import output, run


@dataclass(frozen=True)
class Payload:
    """What Xen boots as Dom0."""

    kernel: Path
    initrd: Path


def build(log: Path) -> tuple[Payload, bool]:
    """Kernel and initramfs by ``dom0/build.py``. The flag tells whether all was up to date."""
    if os.environ.get("XENITS_STOPGAP"):
        return _stopgap(log)
    said = output(
        [sys.executable, "-B", REPO / "dom0/build.py", "--cache", cache_root()],
        log,
        what="dom0/build.py failed",
        hint="the log has what it said; it can be run by itself too.",
    )
    paths = dict(line.split("=", 1) for line in said.splitlines() if line.startswith(("kernel=", "initrd=")))
    if set(paths) != {"kernel", "initrd"}:
        raise StepError("dom0/build.py did not name a kernel and an initramfs", log=log)
    steps = [line for line in said.splitlines() if line.startswith("dom0: ")]
    return Payload(Path(paths["kernel"]), Path(paths["initrd"])), all("up to date" in line for line in steps)


_INIT = """#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
echo "XENITS: plan 1"
if dd if=/dev/nvme0n1 of=/dev/null bs=4096 count=2000 iflag=direct; then
    echo "XENITS: ok 1 nvme-read"
else
    echo "XENITS: not ok 1 nvme-read dd failed"
fi
grep -E 'CPU0|ITS-' /proc/interrupts
grep ITS- /proc/interrupts | while read -r irq count0 count1 chip hwirq edge name; do
    echo "XENITS: irq ${irq%:} $chip/$hwirq $name $count0 $count1"
done
echo "XENITS: done"
poweroff -f
"""


def _stopgap(log: Path) -> tuple[Payload, bool]:
    top = cache_root() / "stopgap"
    top.mkdir(exist_ok=True)
    out = top / "initrd.gz"
    root, unpacked = top / "root", top / "packages"
    with locked("apt"):
        apt = Apt(log)
        package = apt.dependency("linux-image-cloud-arm64:arm64", r"linux-image-[\w.+-]+")
        for deb in (apt.download(f"{package}:arm64"), apt.download("busybox-static:arm64")):
            run(["dpkg-deb", "-x", deb, unpacked], log)
    (root / "bin").mkdir(parents=True, exist_ok=True)
    run(["cp", unpacked / "bin/busybox", root / "bin/busybox"], log)
    (root / "init").write_text(_INIT, encoding="utf-8")
    (root / "init").chmod(0o755)
    run(["sh", "-ec", 'cd "$1"; find . | cpio -o -H newc | gzip -9 >"$2"', "sh", root, out], log)
    return Payload(next(unpacked.glob("boot/vmlinuz-*")), out), False
