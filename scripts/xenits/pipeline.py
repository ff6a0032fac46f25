# SPDX-License-Identifier: GPL-2.0-only
"""All of a run, from an empty cache to a judged boot. Both commands go through here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from . import devices as devices_module
from . import dom0, ivshmem, livepatch, packages, qemu, rust, xen_source
from .errors import StepError
from .layout import locked
from .steps import Steps
from .xen_build import Image, Variant, XenBuild

BUILD_STEPS = 6
BOOT_STEPS = 2


@dataclass
class Options:
    """What a user can choose; the defaults are those of ``scripts/run``."""

    its: str = "rust"
    """`rust`, `c`, or `upstream`: C in a tree without our series."""

    gic: int = 3
    smp: int = 2
    devices: str = "nvme=1"
    test: str = "smoke"
    debug: bool = True
    tree: Path | None = None
    suite: str = packages.XEN_SUITE
    """Debian's suite that Xen is from, if it is not the user's own tree."""

    fragments: list[Path] = field(default_factory=list)
    xen_args: list[str] = field(default_factory=list)
    dom0_args: list[str] = field(default_factory=list)
    limit: float = 120.0

    @property
    def livepatch(self) -> bool:
        """Whether Xen can be live-patched, and Dom0 has payloads for it."""
        return self.test.split(",")[0] == livepatch.SCENARIO

    def label(self) -> str:
        """One line on what is booted."""
        kind = "debug" if self.debug else "release"
        devices = devices_module.parse(self.devices).describe()
        return f"{kind} build, GICv{self.gic}, {self.smp} CPUs, {devices}, test {self.test}"


def build_xen(options: Options, steps: Steps, with_qemu: bool) -> Image:
    """The first steps: everything up to an image of Xen."""
    with steps.step("host packages") as step:
        installed = packages.install_host_packages(step.log, with_qemu)
        step.say("installed " + " ".join(installed)) if installed else step.up_to_date()
    with steps.step("Rust targets") as step:
        targets = [rust.XEN_TARGET] if options.its == "rust" else []
        targets += [rust.DOM0_TARGET] if with_qemu else []
        added = rust.ensure_targets(targets, step.log) if targets else []
        step.say("added " + " ".join(added)) if added else step.up_to_date()
    with steps.step("Xen source") as step:
        if options.tree:
            source = xen_source.own_tree(options.tree, step.log)
            step.say(source.label)
        else:
            source, had = xen_source.pinned(step.log, options.suite)
            step.up_to_date(source.label) if had else step.say(f"{source.label}, SHA256 verified")
    with steps.step("Xen patches") as step:
        if options.its == "rust" and not xen_source.patch_files(xen_source.tree_version(source.path)):
            raise StepError("xen-patches/ has no patches, and the Rust ITS comes with them", hint="run with --its=c.")
        tree, key, remark, had = xen_source.patched(source, step.log, series=options.its != "upstream")
        step.up_to_date(remark) if had else step.say(remark)
    fragments = [livepatch.FRAGMENT] if options.livepatch else []
    variant = Variant(options.its, options.debug, (*fragments, *options.fragments), source.place())
    build = XenBuild(variant, tree, key)
    with locked(f"build-{build.folder.name}"):
        with steps.step("configure Xen") as step:
            if build.configure(step.log):
                step.up_to_date()
        with steps.step("build Xen") as step:
            image, had = build.build(step.log)
            if had:
                step.up_to_date()
            # A copy, because another run may build anew while this one boots.
            for path in (image.xen, image.syms, image.config):
                shutil.copy2(path, steps.logs / path.name.replace(".config", "xen.config"))
            if options.livepatch:
                livepatch.build(build, steps.logs, step.log)
    return image


def machine(options: Options, steps: Steps) -> qemu.Machine:
    """The steps between the image of Xen and the boot."""
    with steps.step("Dom0 kernel and initramfs") as step:
        flavour = (dom0.FULL,) if devices_module.parse(options.devices).sata else ()
        payload, had = dom0.build(step.log, *flavour)
        if had:
            step.up_to_date()
        with locked("dom0"):
            # As with Xen: another run may make it anew.
            initrd = Path(shutil.copy2(payload.initrd, steps.logs / "initrd.gz"))
        if options.livepatch:
            livepatch.append(initrd, steps.logs / livepatch.ARCHIVE)
    return qemu.Machine(
        xen=steps.logs / "xen",
        kernel=payload.kernel,
        initrd=initrd,
        devices=devices_module.parse(options.devices),
        gic=options.gic,
        smp=options.smp,
        test=options.test,
        xen_args=options.xen_args,
        dom0_args=options.dom0_args,
    )


def run(options: Options, logs: Path, quiet: bool = False) -> qemu.Boot:
    """Build and boot. A boot that went wrong is a result, all else a `StepError`."""
    devices_module.parse(options.devices)
    steps = Steps(BUILD_STEPS + BOOT_STEPS, logs, quiet=quiet)
    build_xen(options, steps, with_qemu=True)
    target = machine(options, steps)
    with steps.step("boot Dom0") as step, ivshmem.served(target, logs):
        boot = qemu.boot(target, logs, options.limit)
        if boot.problems():
            step.say("see the report")
        else:
            step.say(boot.ended)
            # Large, and of use only for looking into a failure.
            for name in ("xen-syms", "initrd.gz"):
                (logs / name).unlink()
    return boot
