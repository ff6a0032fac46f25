# SPDX-License-Identifier: GPL-2.0-only
"""The other end of QEMU's ivshmem-doorbell devices: ``dom0/ivshmem/raiser.py``."""

from __future__ import annotations

import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .devices import IVSHMEM_VECTORS
from .errors import StepError
from .layout import REPO
from .processes import die_with_parent
from .qemu import Machine

RAISER = REPO / "dom0/ivshmem/raiser.py"
READY_S = 20.0


@contextmanager
def served(machine: Machine, logs: Path) -> Iterator[None]:
    """Serve the ivshmem devices of a machine while the body runs; nothing to do if it has none."""
    count = machine.devices.ivshmem
    if not count:
        yield
        return
    # Not among the logs: a socket's path may have 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="xenits-"))
    machine.ivshmem_sockets = [folder / f"ivshmem{i}" for i in range(count)]
    machine.qmp = folder / "qmp"
    log = logs / "raiser.log"
    argv = [sys.executable, "-B", str(RAISER), "--vectors", str(IVSHMEM_VECTORS), "--log", str(log)]
    for path in machine.ivshmem_sockets:
        argv += ["--socket", str(path)]
    argv += ["--qmp", str(machine.qmp)]
    for i in range(machine.devices.virtio_net):
        argv += ["--link", f"net{i}"]
    with open(logs / "raiser.err.log", "wb") as err:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, preexec_fn=die_with_parent
        )
    try:
        _wait_until_ready(process, logs / "raiser.err.log")
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.stdout is not None
    deadline = time.monotonic() + READY_S
    while (left := deadline - time.monotonic()) > 0:
        if select.select([process.stdout], [], [], left)[0]:
            line = process.stdout.readline()
            if line.strip() == b"ready":
                return
            if not line:
                break
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    raise StepError("the ivshmem server did not start", log=log, lines=said[-10:])
