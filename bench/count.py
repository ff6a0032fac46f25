#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Count the instructions that Xen spends on an interrupt, in a boot that repeats itself.

Boots Xen and Dom0 on an emulated machine with one CPU whose clock counts instructions, lets
Dom0 read 2000 blocks from an NVMe, and follows single calls of Xen's functions with a QEMU plugin.
Beside the functions there is `el2-trip`: all that the hypervisor runs between
a guest's exception and the return to a guest when one LPI is handled in between.

What is judged is the mode, the cost that most of the calls have; it is the
same in every run. Sums differ a little, because QEMU's disk answers from a thread of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Run as a program: the modules beside this file are the package `bench`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import repo, results  # noqa: E402, I001
from bench.elfsyms import SymbolTable  # noqa: E402
from bench.plugin.build import build_plugin  # noqa: E402
from xenits.devices import Devices  # noqa: E402
from xenits.errors import StepError  # noqa: E402
from xenits.layout import new_run_dir  # noqa: E402
from xenits.qemu import Machine, boot  # noqa: E402

LPI = "gicv3_do_LPI"
TRIP = "el2-trip"
MMIO_WRITE, HYPERCALL, ADD = "its-mmio-write", "physdev-op", "device-add"
DEFAULT_FUNCTIONS = [LPI, f"{MMIO_WRITE}=vgic_v3_its_mmio_write|xen_its_mmio_write", f"{HYPERCALL}=do_arm_physdev_op"]
"""The interrupt path's entry has one name in both builds; the handler of register writes has two."""

RUST_FUNCTIONS = [f"{ADD}=xen_its_device_add"]
"""Part of the hypercall; there is no such thing in C, which maps a device when the guest's MAPD comes."""

LIMITS = repo.BENCH / "limits.json"
HANG = 600.0
"""Seconds until a boot that does not end is stopped; it takes about five."""


@dataclass
class CountingMachine(Machine):
    """The machine of the other tests, made deterministic."""

    smp: int = 1
    test: str = "count"
    devices: Devices = field(default_factory=lambda: Devices(nvme=1))
    plugin_args: list[str] = field(default_factory=list)

    def dom0_command_line(self) -> str:
        """Linux must not wait for interrupts: an idle CPU lets the clock jump ahead of the disk's thread."""
        return super().dom0_command_line() + " nohlt"

    def command(self, guest_errors: Path) -> list[str]:
        """Time is instructions executed, and nothing is random."""
        return [
            *super().command(guest_errors),
            "-M", "dtb-randomness=off",
            "-icount", "shift=0,sleep=off",
            "-rtc", "base=2026-01-01,clock=vm",
            "-plugin", ",".join(self.plugin_args),
        ]  # fmt: skip


def resolve(spec: str, symbols: SymbolTable) -> tuple[str, str]:
    """Label and symbol of a function given as ``SYMBOL`` or ``LABEL=SYMBOL|SYMBOL...``."""
    label, equals, names = spec.partition("=")
    choices = (names if equals else label).split("|")
    if not label or not all(choices) or any(c in label for c in ",: \t"):
        raise StepError(f"'{spec}' is no function", hint="write SYMBOL or LABEL=SYMBOL|SYMBOL...")
    for name in choices:
        if symbols.has(name):
            return label, name
    raise StepError(
        f"{symbols.path} has none of: {', '.join(choices)}",
        hint="is this the symbol file of a Xen with CONFIG_HAS_ITS?",
    )


def default_functions(symbols: SymbolTable) -> list[str]:
    """What is counted if nobody says what."""
    return DEFAULT_FUNCTIONS + [spec for spec in RUST_FUNCTIONS if symbols.has(spec.partition("=")[2])]


def plugin_arguments(
    plugin: Path, symbols: SymbolTable, functions: dict[str, str], out: Path, profile: str | None, syms: Path
) -> list[str]:
    """The plugin and its arguments, as words that `-plugin` takes with commas between."""
    low, high = symbols.address("_stext"), symbols.address("_end")
    words = [
        str(plugin), f"lo={low:#x}", f"hi={high:#x}", f"out={out}", f"vec={symbols.address('hyp_traps_vector'):#x}",
    ]  # fmt: skip
    if symbols.has("__bp_harden_hyp_vecs_start"):
        copies = (symbols.address(f"__bp_harden_hyp_vecs_{end}") for end in ("start", "end"))
        words.append("harden=" + ":".join(f"{a:#x}" for a in copies))
    words += [f"fn={label}:{symbols.address(name):#x}" for label, name in functions.items()]
    if LPI in functions:
        words.append(f"trip={TRIP}:{LPI}")
    if profile:
        pieces = symbols.ranges(low, symbols.address("_etext"))
        syms.write_text("".join(f"{s.addr:x} {s.size:x} {s.name}\n" for s in pieces), encoding="utf-8")
        words += [f"profile={profile}", f"syms={syms}"]
    bad = [word for word in words if "," in word]
    if bad:
        raise StepError(f"QEMU cannot take a plugin argument with a comma in it: {bad[0]}")
    return words


def run_count(
    xen_image: Path,
    xen_syms: Path,
    kernel: Path,
    initrd: Path,
    *,
    functions: list[str] | None = None,
    profile: str | None = None,
    gic: int = 3,
    xen_args: list[str] | None = None,
    dom0_args: list[str] | None = None,
    logs: Path | None = None,
    limit: float = HANG,
) -> dict[str, Any]:
    """Boot once and count; gives what ``--json`` writes.

    `functions` are as `resolve` takes them; `profile` is the label of one of them. Everything that is written goes
    below `logs`. Raises `StepError` if the boot, or any check that Dom0 makes in it, fails.
    """
    logs = logs or new_run_dir("count")
    logs.mkdir(parents=True, exist_ok=True)
    for path in (xen_image, xen_syms, kernel, initrd):
        if not path.is_file():
            raise StepError(f"{path} is missing", hint="scripts/run --release --build-only builds Xen and Dom0.")
    symbols = SymbolTable.read(xen_syms)
    chosen = dict(resolve(spec, symbols) for spec in functions or default_functions(symbols))
    known = [*chosen, *([TRIP] if LPI in chosen else [])]
    if profile and profile not in known:
        raise StepError(f"--profile {profile}: it is none of what is counted ({', '.join(known)})")
    plugin = build_plugin(logs / "plugin.log")
    out = (logs / "fncount.txt").resolve()
    out.unlink(missing_ok=True)
    machine = CountingMachine(
        xen=xen_image, kernel=kernel, initrd=initrd, gic=gic, xen_args=xen_args or [], dom0_args=dom0_args or [],
        plugin_args=plugin_arguments(plugin, symbols, chosen, out, profile, (logs / "syms.txt").resolve()),
    )  # fmt: skip
    booted = boot(machine, logs, limit)
    problems = booted.problems()
    if problems:
        raise StepError("the boot to count in failed", log=booted.serial, lines=problems)
    if not out.exists():
        raise StepError("the plugin left no result", log=logs / "qemu.log", hint="see qemu.cmd beside that log.")
    counted = results.parse(out.read_text(encoding="utf-8"))
    return {
        "format": results.FORMAT,
        "xen": {"image": str(xen_image), "sha256": _sha256(xen_image)},
        "dom0": {"kernel": kernel.name, "initrd_sha256": _sha256(initrd)},
        "gic": gic,
        "qemu": _qemu_version(),
        "symbols": chosen,
        "totals": counted.totals,
        "functions": {name: function.reduce() for name, function in counted.functions.items()},
        "profile": results.profile_at_mode(counted),
        "logs": str(logs),
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _qemu_version() -> str:
    said = subprocess.run(["qemu-system-aarch64", "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0]


def load_limits(build: str, path: Path = LIMITS) -> dict[str, Any]:
    """The limits for a ``release`` or ``debug`` build of Xen."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return dict(data[build])
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"{path} has no limits for a {build} build ({error!r})") from None


def load_result(path: Path) -> dict[str, Any]:
    """What an earlier run wrote with ``--json``."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StepError(f"cannot read {path}: {error}") from None
    if not isinstance(data, dict) or data.get("format") != results.FORMAT or "functions" not in data:
        raise StepError(f"{path} was not written by bench/count.py --json, or by another version of it")
    return data


def judge(
    result: dict[str, Any], *, build: str | None = "release", baseline: dict[str, Any] | None = None
) -> list[str]:
    """Why `result` is not good enough, one sentence each.

    With `build`, by ``bench/limits.json``; with `baseline` (of a run of the C version), because
    an LPI costs more than there.
    """
    errors = results.limit_errors(result, load_limits(build)) if build else []
    if baseline is not None:
        errors += results.relative_errors(result, baseline, [LPI, TRIP])
    return errors


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/count.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--xen-image", type=Path, required=True, metavar="XEN", help="Xen's image")
    add("--xen-syms", type=Path, required=True, metavar="XEN-SYMS", help="its symbol file")
    add("--kernel", type=Path, required=True, help="Dom0's kernel")
    add("--initrd", type=Path, required=True, help="Dom0's initramfs, with the scenario `count`")
    add("--function", action="append", metavar="[LABEL=]SYMBOL[|SYMBOL]", dest="functions",
        help=f"count the calls of this function; may be repeated. Default: {' '.join(DEFAULT_FUNCTIONS)}")  # fmt: skip
    add("--profile", metavar="LABEL",
        help=f"also say where the instructions inside one call of this function, or {TRIP}, go")  # fmt: skip
    add("--gic", type=int, choices=(3, 4), default=3, help="version of the interrupt controller (default: 3)")
    add("--json", type=Path, metavar="OUT", help="write the results to this file")
    add("--baseline", type=Path, metavar="JSON", help="print this earlier run (of the C version) beside this one")
    add("--check", action="store_true", help="fail if bench/limits.json's limits, or the baseline, are exceeded")
    add("--build", choices=("release", "debug"), default="release", help="how Xen was built, for --check")
    add("--logs", type=Path, metavar="DIR", help="where the logs go (default: a new folder in the cache)")
    add("--xen-arg", action="append", default=[], metavar="WORD", help="one more word for Xen's command line")
    add("--dom0-arg", action="append", default=[], metavar="WORD", help="one more word for Linux' command line")
    return parser.parse_args()


def main() -> int:
    """The command."""
    args = _arguments()
    try:
        baseline = load_result(args.baseline) if args.baseline else None
        result = run_count(
            args.xen_image, args.xen_syms, args.kernel, args.initrd, functions=args.functions, profile=args.profile,
            gic=args.gic, xen_args=args.xen_arg, dom0_args=args.dom0_arg, logs=args.logs,
        )  # fmt: skip
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(results.render(result))
        if baseline is not None:
            print("\n" + results.compare(baseline, result, ("baseline", "this")))
        errors = judge(result, build=args.build, baseline=baseline) if args.check else []
    except StepError as error:
        print(f"bench/count.py: {error.render()}", file=sys.stderr)
        return 1
    for reason in errors:
        print(f"bench/count.py: {reason}", file=sys.stderr)
    if args.check:
        print("limits: " + ("exceeded" if errors else "kept"))
    return 1 if errors else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
