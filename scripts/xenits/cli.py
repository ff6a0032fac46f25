# SPDX-License-Identifier: GPL-2.0-only
"""The command lines of ``scripts/run`` and ``scripts/test``."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from . import (
    boots,
    costs,
    coverage,
    flight_tests,
    fuzz,
    fvp_run,
    fvp_tests,
    fvp_wrapper,
    gates,
    guest_tests,
    host_tests,
    ivshmem,
    miri,
    packages,
    pipeline,
    qemu,
    report,
    suite,
    xen_ci,
)
from . import devices as devices_module
from .errors import StepError
from .layout import new_run_dir
from .steps import Steps

_ABOUT = """\
Build Xen with the GICv3 ITS component, boot Linux on it as Dom0 on QEMU,
exercise its PCI devices, and report the interrupts that arrived.

A first run installs what the host lacks, fetches and verifies Xen's source and
takes some minutes; later runs re-do only what changed. Everything that is
downloaded or built is in ${XDG_CACHE_HOME:-~/.cache}/xen-its; removing that
folder is a fresh start.
"""

_EXAMPLES = """\
examples:
  scripts/run                                the usual: Rust ITS, one NVMe, two CPUs
  scripts/run --its=c                        the same boot on upstream's C ITS
  scripts/run --devices nvme=4,queues=8,virtio-net=3 --smp 4
  scripts/run --shell                        look around in Dom0 yourself
  scripts/run --tree ~/src/xen --release     with your own Xen, upstream included
  scripts/run --build-only | tail -n 2       paths of the image and of its symbols
  scripts/run --platform fvp                 on Arm's Fast Model, which you have to have

exit status: 0 the boot passed, 1 it failed or a step did, 2 wrong options,
4 starved: there is no Fast Model to run on.
"""


_TEST_ABOUT = """\
Run the tests: formatting and lints, unit tests in Rust and Python, gates on the
sources and on what is linked into Xen, and boots of Dom0 on QEMU. Whatever is
missing on the host is installed. The last line is the count.
"""


def run_parser() -> argparse.ArgumentParser:
    """Options of ``scripts/run``."""
    parser = argparse.ArgumentParser(
        prog="scripts/run",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    xen = parser.add_argument_group("which Xen")
    xen.add_argument("--its", choices=["rust", "c"], default="rust", help="the ITS to build in (default: rust)")
    xen.add_argument(
        "--tree",
        type=Path,
        metavar="PATH",
        default=os.environ.get("XEN_TREE") or None,
        help="build your own Xen tree; it is copied, never changed (default: $XEN_TREE, else Debian's 4.20)",
    )
    xen.add_argument(
        "--config", type=Path, metavar="FRAGMENT", action="append", default=[], dest="fragments",
        help="Kconfig lines to add; may be repeated, the last one wins",
    )  # fmt: skip
    kind = xen.add_mutually_exclusive_group()
    kind.add_argument("--debug", dest="debug", action="store_true", default=True, help="a debug build (the default)")
    kind.add_argument("--release", dest="debug", action="store_false", help="a release build")
    box = parser.add_argument_group("which machine")
    box.add_argument(
        "--platform", choices=["qemu", "fvp"], default="qemu",
        help="QEMU (default), or Arm's FVP Base RevC, named by $FVP_MODEL or found in PATH",
    )  # fmt: skip
    box.add_argument(
        "--pta", choices=list(fvp_run.PTA), default="both",
        help="fvp: whether its ITS names redistributors by address; both boots twice (default: both)",
    )  # fmt: skip
    box.add_argument(
        "--boot-wrapper", type=Path, metavar="PROGRAM",
        help="fvp: boot-wrapper and not TF-A starts Xen; PROGRAM makes an image of it "
        f"(default: ${fvp_wrapper.VARIABLE}; see docs/fvp.md)",
    )  # fmt: skip
    box.add_argument("--gic", type=int, choices=[3, 4], default=3, help="version of the GIC (default: 3)")
    box.add_argument("--smp", type=int, default=2, metavar="N", help="CPUs, 1 to 64 (default: 2)")
    box.add_argument(
        "--devices", metavar="LIST",
        help="Dom0's PCI devices: nvme[=N][,queues=M],virtio-net=N,ivshmem=N,sata=N, or none (default: nvme=1)",
    )  # fmt: skip
    box.add_argument("--xen-args", default="", metavar="ARGS", help="append to Xen's command line")
    box.add_argument("--dom0-args", default="", metavar="ARGS", help="append to Dom0's kernel command line")
    what = parser.add_argument_group("what to do")
    what.add_argument(
        "--test",
        metavar="NAME[,OPT=VAL]",
        help="scenario that Dom0 runs: smoke, multi, affinity, rebind, hotplug, storm, livepatch, count or sata "
        "(default: smoke); fvp also takes guest[,CASES], the bare-metal guest (default: sata, then guest)",
    )
    what.add_argument("--shell", action="store_true", help="no test: Dom0's console on this terminal, ctrl-a x quits")
    what.add_argument(
        "--build-only", action="store_true",
        help="build, and print the paths of the Xen image and of its symbol file as the last two lines",
    )  # fmt: skip
    what.add_argument(
        "--timeout", type=float, metavar="S", help="stop a hanging boot (default: 120 s; with fvp 900 s)"
    )  # fmt: skip
    what.add_argument("--keep-logs", type=Path, metavar="DIR", help="copy all logs to DIR")
    return parser


def run_command(argv: list[str]) -> int:
    """``scripts/run``."""
    parser = run_parser()
    args = parser.parse_args(argv)
    if not 1 <= args.smp <= 64:
        parser.error("--smp takes 1 to 64")
    options = pipeline.Options(
        its=args.its,
        gic=args.gic,
        smp=args.smp,
        devices=args.devices or "nvme=1",
        test=args.test or "smoke",
        debug=args.debug,
        tree=args.tree,
        fragments=args.fragments,
        xen_args=shlex.split(args.xen_args),
        dom0_args=shlex.split(args.dom0_args),
        limit=args.timeout or (fvp_run.LIMIT_S if args.platform == "fvp" else 120.0),
    )
    devices_module.parse(options.devices)
    wrapper = None
    if args.platform == "fvp":
        other = {"--shell": args.shell, "--devices": args.devices, "--build-only": args.build_only}
        fvp_run.check_options(options, other)
        wrapper = fvp_wrapper.named(args.boot_wrapper) if args.boot_wrapper else fvp_wrapper.from_environment()
    logs = new_run_dir()
    try:
        if args.platform == "fvp":
            tests = [args.test] if args.test else fvp_run.TESTS[args.its]
            return fvp_run.command(options, tests, args.pta, logs, wrapper)
        if args.build_only:
            image = pipeline.build_xen(options, Steps(pipeline.BUILD_STEPS, logs), with_qemu=False)
            print(image.xen)
            print(image.syms)
            return 0
        if args.shell:
            options.test = "shell"
            steps = Steps(pipeline.BUILD_STEPS + pipeline.BOOT_STEPS - 1, logs)
            pipeline.build_xen(options, steps, with_qemu=True)
            machine = pipeline.machine(options, steps)
            print(
                "Dom0's console follows; ctrl-a x quits, six times ctrl-a switches to Xen's own and back.\n", flush=True
            )
            with ivshmem.served(machine, logs):
                return qemu.shell(machine, logs)
        boot = pipeline.run(options, logs)
        problems = boot.problems()
        text = report.render(boot, options.its, options.label(), problems)
        (logs / "report.log").write_text(text + "\n", encoding="utf-8")
        print(text)
        return 1 if problems else 0
    finally:
        if args.keep_logs:
            keep_logs(logs, args.keep_logs)
            for folder in sorted(p for p in logs.iterdir() if p.is_dir()):
                keep_logs(folder, args.keep_logs / folder.name)


def keep_logs(logs: Path, target: Path) -> None:
    """Copy the logs of a run, without the images that lie beside them."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(logs.iterdir()):
        if path.suffix in (".log", ".cmd", ".config", ".dts", ".json"):
            shutil.copy2(path, target / path.name)


def test_parser() -> argparse.ArgumentParser:
    """Options of ``scripts/test``."""
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description=_TEST_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="print the names of the tests and run none")
    parser.add_argument("--filter", default="", metavar="RE", help="only tests whose name matches, e.g. '^boot/rust'")
    parser.add_argument("--quick", action="store_true", help="only what needs no build of Xen and no boot")
    parser.add_argument("--keep-logs", type=Path, metavar="DIR", help="copy all logs to DIR")
    return parser


def all_cases() -> list[suite.Case]:
    """Everything that ``scripts/test`` runs, in order."""
    modules = (host_tests, miri, coverage, fuzz, gates, boots, xen_ci, guest_tests, flight_tests, fvp_tests, costs)
    return [case for module in modules for case in module.cases()]


def test_command(argv: list[str]) -> int:
    """``scripts/test``."""
    args = test_parser().parse_args(argv)
    chosen = suite.choose(all_cases(), args.filter, args.quick)
    if not chosen:
        raise StepError(f"no test matches '{args.filter}'", hint="scripts/test --list names them all.")
    if args.list:
        width = max(len(c.name) for c in chosen)
        for case in chosen:
            print(f"{case.name.ljust(width)}  {case.about}")
        return 0
    logs = new_run_dir("test")
    print(f"{len(chosen)} tests; logs in {logs}", flush=True)
    start = time.monotonic()
    try:
        with Steps(1, logs).step("host packages") as step:
            installed = packages.install_host_packages(step.log, with_qemu=not args.quick)
            step.say("installed " + " ".join(installed)) if installed else step.up_to_date()
        print(flush=True)
        tally = suite.run(chosen, logs, sys.stdout)
    finally:
        if args.keep_logs:
            for folder in sorted(p for p in logs.iterdir() if p.is_dir()):
                keep_logs(folder, args.keep_logs / folder.name)
    print(f"\n{time.monotonic() - start:.0f} s")
    for name in tally.failures[:50]:
        print(f"failed: {name}")
    print(tally.closing_line())
    return 1 if tally.failed else 0


def main(argv: list[str]) -> int:
    """Entry point: the first word is the command."""
    commands = {"run": run_command, "test": test_command}
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        return commands[argv[0]](argv[1:])
    except StepError as error:
        print(f"\n{error.render()}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
