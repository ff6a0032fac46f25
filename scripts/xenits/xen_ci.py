# SPDX-License-Identifier: GPL-2.0-only
"""Runs the job that the series adds to Xen's own CI as GitLab would: the script, with the artefacts it expects.

Xen is what ``scripts/run`` builds. In place of the kernel and the Alpine root file system of Xen's
test artefacts there are Debian's kernel and a busybox, which does what Alpine would before the test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import cpio, dom0, pipeline, xen_source
from .console import Console
from .errors import StepError
from .pipeline import Options
from .shell import captured
from .steps import Steps
from .suite import Case, Context, Result

SCRIPT = "automation/scripts/qemu-smoke-dom0-its-arm64.sh"
LIMIT_S = 300.0

MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
"""What Debian's kernel has not built in, in the order in which to load it."""

_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod $module; done
for script in /etc/local.d/*.start; do $script; done
exec sh
"""


def rootfs(root: Path, folder: Path, log: Path) -> None:
    """Make ``binaries/rootfs.cpio.gz`` in `folder` from Debian's packages, unpacked at `root`."""
    top = folder / "root"
    for name in ("bin", "dev", "proc", "sys", "modules", "etc/local.d"):
        (top / name).mkdir(parents=True)
    busybox = next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists())
    shutil.copy2(busybox, top / "bin/busybox")
    (top / "init").write_text(_INIT, encoding="utf-8")
    (top / "init").chmod(0o755)
    for number, name in enumerate(MODULES):
        found = sorted((root / "lib/modules").rglob(f"{name}.ko"))
        if not found:
            raise StepError(f"Debian's kernel has no module {name}", log=log)
        shutil.copy2(found[0], top / f"modules/{number}-{name}.ko")
    cpio.pack(top, folder / "binaries/rootfs.cpio.gz", log)


@dataclass(frozen=True)
class Job:
    """A run of the script: on which Xen, with which words, and whether it is to pass."""

    name: str
    about: str
    options: Options
    variant: str = ""
    dom0_args: str = ""
    config: str = ""
    """What the build's configuration is made to say besides."""

    fails_with: str = ""
    """What a job that must not pass says."""


JOBS = [
    Job("c", "passes on the C ITS", Options(its="c")),
    Job("c-release", "passes on the C ITS, release build", Options(its="c", debug=False)),
    Job("rust", "passes on the Rust ITS", Options(), variant="rust"),
    Job("not-rust", "sees that it is not the Rust ITS", Options(its="c"), variant="rust", fails_with="grep -x"),
    Job(
        "refused", "sees that Xen refuses PCI devices", Options(its="c"), variant="rust",
        config="CONFIG_ITS_RUST=y\n", fails_with="its test failed: Xen refused a PCI device",
    ),
    Job(
        "no-lpis", "fails at once if there are no LPIs", Options(its="c"), dom0_args="pci=nomsi",
        fails_with="its test failed: 0 LPIs for 1000 reads",
    ),
]  # fmt: skip
"""The last three show that it can fail."""


def _prepare(job: Job, context: Context) -> Path:
    """A folder as GitLab would have it when the job starts."""
    built = context.logs / "build"
    built.mkdir()
    steps = Steps(pipeline.BUILD_STEPS, built, quiet=True)
    image = pipeline.build_xen(job.options, steps, with_qemu=True)
    payload, _ = dom0.build(context.log)
    folder = context.logs / "job"
    (folder / "binaries").mkdir(parents=True)
    source, _ = xen_source.pinned(context.log)
    tree, _, _, _ = xen_source.patched(source, context.log)
    shutil.copytree(tree / "automation", folder / "automation")
    shutil.copy2(built / "xen", folder / "binaries/xen")
    config = image.config.read_text(encoding="utf-8") + job.config
    (folder / "xen-config").write_text(config, encoding="utf-8")
    shutil.copy2(payload.kernel, folder / "binaries/Image")
    rootfs(payload.kernel.parents[1], folder, context.log)
    if job.dom0_args:
        script = folder / SCRIPT
        text = script.read_text(encoding="utf-8")
        changed = text.replace("bootargs=console=hvc0", f"bootargs=console=hvc0 {job.dom0_args}")
        if changed == text:
            raise StepError(f"{SCRIPT} has no kernel command line like console=hvc0")
        script.write_text(changed, encoding="utf-8")
    return folder


def problems(job: Job, code: int, said: str) -> list[str]:
    """What is wrong with how a job ended."""
    passed = "its rust test passed" if job.variant else "its test passed"
    lines = [line.strip() for line in said.splitlines()]
    if job.fails_with:
        found = [] if code else ["it passed"]
        return found + ([] if job.fails_with in said else [f"it does not say '{job.fails_with}'"])
    console = Console()
    for line in lines:
        console.feed(line)
    found = [f"ended with status {code}"] if code else []
    found += [] if passed in lines else [f"it does not say '{passed}'"]
    return found + [f"{what}: {line}" for what, line in console.crashes]


def _run(job: Job, context: Context) -> list[Result]:
    folder = _prepare(job, context)
    argv = [f"./{SCRIPT}", *([job.variant] if job.variant else [])]
    code, said = captured(argv, context.logs / "job.log", cwd=folder, env=dict(os.environ), limit=LIMIT_S)
    found = problems(job, code, said)
    if not found:
        # Images, of use only for looking into a failure.
        shutil.rmtree(folder)
    counted = [line.strip() for line in said.splitlines() if line.strip().endswith("reads")]
    return [Result(f"boot/xen-ci/{job.name}", tuple(found), remark=counted[-1] if counted else "")]


def cases() -> Iterable[Case]:
    """A case for each run."""
    for job in JOBS:
        yield Case(f"boot/xen-ci/{job.name}", f"{SCRIPT} {job.about}", partial(_run, job), quick=False)
