# SPDX-License-Identifier: GPL-2.0-only
"""What can be tested of ``--platform fvp`` by building, without a model; and a boot on one where there is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from . import fdt, fvp, fvp_bl31, fvp_firmware, fvp_run, fvp_tree, fvp_wrapper, guest, guest_tests
from .layout import REPO
from .osstest import jobs, schedule, statuses, step
from .osstest.execute import PROGRAMS
from .osstest.home import HOME_VARIABLE, Home
from .pipeline import Options
from .shell import captured, run
from .suite import Case, Context, Result

FAKE = REPO / "scripts/tests/fake_fvp.py"
"""A program that stands for the model."""

FAKE_WRAPPER = REPO / "scripts/tests/fake_wrapper.py"
"""A program that stands for one that makes an image of boot-wrapper's."""

LIMIT_S = 900.0

BOARD = fvp_tree.Board(2 * fvp.CLUSTER, "console=dtuart", (fvp_tree.Module("kernel", fvp.KERNEL_ADDRESS, 4096),))

SAME = {
    "/interrupt-controller@2f000000": ("compatible", "reg", "interrupts", "#interrupt-cells"),
    "/psci": ("compatible", "method", "max-pwr-lvl"),
    "/memory@80000000": ("device_type", "reg"),
    "/timer": ("compatible", "clock-frequency"),
}
"""What our device tree and TF-A's own of this board must agree on to the byte."""


def differences(ours: fdt.Tree, theirs: fdt.Tree) -> list[str]:
    """Facts about the board on which our tree and TF-A's do not agree."""
    found = []
    for path, names in SAME.items():
        for name in names:
            a, b = (tree.node(path).properties.get(name) for tree in (ours, theirs))
            if a != b or a is None:
                found.append(f"{path}: {name} is {a!r}, and {b!r} in TF-A's")
    # Interrupts of the timer: TF-A's name CPUs too, as it was with GICv2.
    mine, other = (tree.node("/timer").cells("interrupts") for tree in (ours, theirs))
    if [n & ~0xFF00 for n in other] != mine:
        found.append(f"/timer: interrupts are {mine}, and {other} in TF-A's")
    cpus = [[node.cells("reg") for name, node in tree.node("/cpus").children.items() if name.startswith("cpu@")]
            for tree in (ours, theirs)]  # fmt: skip
    if cpus[0] != cpus[1]:
        found.append(f"the CPUs are {cpus[0]}, and {cpus[1]} in TF-A's")
    # The ITS and the UARTs are behind a bus of theirs.
    its = theirs.node("/interrupt-controller@2f000000")
    bus = its.cells("ranges")[2]
    base, size = next(node.cells("reg") for node in its.children.values() if "msi-controller" in node.properties)
    mine = ours.node("/interrupt-controller@2f000000/msi-controller@2f020000").cells("reg")
    if mine != [0, bus + base, 0, size]:
        found.append(f"the ITS is at {mine}, and at {bus + base:#x} in TF-A's")
    for number in range(2):
        path = theirs.node("/aliases").strings(f"serial{number}")[0]
        (offset, _), (spi,) = theirs.node(path).cells("reg"), theirs.node(path).cells("interrupts")
        uart = ours.node(ours.node("/aliases").strings(f"serial{number}")[0])
        # The bus of the board's FPGA begins at 0x1c000000.
        if uart.cells("reg")[1] != 0x1C00_0000 + offset or uart.cells("interrupts")[1] != spi:
            found.append(f"serial{number} is {uart.cells('reg')}, and at {offset:#x} in TF-A's")
    return found


def _read_by_bl31(firmware: fvp_firmware.Firmware, tree: Path, context: Context) -> list[str]:
    """TF-A's own code finds in our tree what it finds in its own; and nothing is missing with fewer CPUs."""
    program = fvp_bl31.reader(firmware.source, context.logs, context.log)
    ours, theirs = (fvp_bl31.read(program, path, context.log) for path in (tree, firmware.tree))
    found = [] if ours == theirs else [f"BL31 finds\n{ours}and in TF-A's own tree\n{theirs}"]
    for cpus in (1, fvp.CLUSTER + 1):
        folder = context.logs / f"{cpus}-cpus"
        folder.mkdir()
        fewer = fvp_tree.write(replace(BOARD, cpus=cpus), folder, context.log)
        if f"cpus={cpus} " not in (text := fvp_bl31.read(program, fewer, context.log)):
            found.append(f"with {cpus} CPUs BL31 finds\n{text}")
    return found


def _firmware(context: Context) -> list[Result]:
    firmware, _ = fvp_firmware.build(context.log)
    tree = fvp_tree.write(BOARD, context.logs, context.log)
    fip = fvp_firmware.with_tree(firmware, tree, context.logs, context.log)
    unpacked = context.logs / "unpacked"
    unpacked.mkdir()
    run([firmware.fiptool, "unpack", "--out", unpacked, fip], context.log)
    found = [f"the FIP has no {name}.bin" for name in ("tb-fw", "soc-fw") if not (unpacked / f"{name}.bin").exists()]
    if (unpacked / "hw-config.bin").read_bytes() != tree.read_bytes():
        found.append("the FIP has another device tree than ours")
    if (unpacked / "nt-fw.bin").exists():
        found.append("the FIP has a BL33, which TF-A would start in the place of Xen")
    facts = differences(fdt.parse(tree.read_bytes()), fdt.parse(firmware.tree.read_bytes()))
    read = _read_by_bl31(firmware, tree, context)
    return [
        Result("fvp/firmware", tuple(found)),
        Result("fvp/firmware/facts", tuple(facts)),
        Result("fvp/firmware/bl31", tuple(read)),
    ]


def run_it(context: Context, name: str, env: Mapping[str, str], *words: str) -> tuple[int, str]:
    """``scripts/run --platform fvp`` in a process of its own."""
    argv = [sys.executable, "-B", str(REPO / "scripts"), "run", "--platform", "fvp", *words]
    everything = {**os.environ, fvp.VARIABLE: str(FAKE), fvp_wrapper.VARIABLE: "", **env}
    return captured(argv, context.logs / f"{name}.log", cwd=REPO, env=everything, limit=LIMIT_S)


def _judge(name: str, code: int, said: str, wanted: int, *texts: str) -> Result:
    found = [] if code == wanted else [f"ended with status {code}, not {wanted}"]
    found += [f"it does not say '{text}'" for text in texts if text not in said]
    if wanted != 0 and "\nPASS" in said:
        found.append("it says PASS")
    return Result(f"fvp/whole/{name}", tuple(found))


def _whole(context: Context) -> Iterable[Result]:
    code, said = run_it(context, "good", {}, "--test", "sata")
    yield _judge("good", code, said, 0, "PASS sata with PTA off", "PASS sata with PTA on")
    # A long list of cases must not become the name of a file.
    code, said = run_it(context, "guest", {}, "--test", f"guest,{guest_tests.HOSTILE}", "--pta", "on")
    yield _judge("guest", code, said, 0, "15 of 15 cases are ok", f"PASS guest,{guest_tests.HOSTILE} with PTA on")
    torn = context.logs / "torn.txt"
    torn.write_text("TAP version 13\n1..2\n# start 1 a\nok 1 - a\n# start 2 b\n", encoding="utf-8")
    code, said = run_it(context, "guest-torn", {"FAKE_FVP_CONSOLE": str(torn)}, "--test", "guest", "--pta", "off")
    yield _judge("guest-torn", code, said, 1, "FAIL guest with PTA off", "b: HANG", "did not get to its end")
    console = context.logs / "bad.txt"
    console.write_text("XENITS: plan 1\nXENITS: not ok 1 sda-0-cpu0 0 interrupts\nXENITS: done\n", encoding="utf-8")
    code, said = run_it(context, "bad", {"FAKE_FVP_CONSOLE": str(console)}, "--test", "sata", "--pta", "on")
    yield _judge("bad", code, said, 1, "FAIL sata with PTA on", "check 1 sda-0-cpu0 failed: 0 interrupts")
    words = ("--test", "sata", "--pta", "off", "--timeout", "3")
    code, said = run_it(context, "hang", {"FAKE_FVP_THEN": "hang"}, *words)
    yield _judge("hang", code, said, 1, "FAIL sata with PTA off", "stopped by the watchdog")
    code, said = run_it(context, "unknown", {"FAKE_FVP_LACKS": "bp.secure_memory"})
    yield _judge("unknown", code, said, 1, "does not know 1 of the", "bp.secure_memory")
    code, said = run_it(context, "none", {"FVP_MODEL": "", "PATH": "/nonexistent"})
    yield _judge("none", code, said, fvp.Starved.status, "starved: there is no Fast Model", fvp.VARIABLE)


def _whole_wrapped(context: Context) -> Iterable[Result]:
    words = ("--boot-wrapper", str(FAKE_WRAPPER))
    code, said = run_it(context, "wrapped", {}, *words, "--smp", "6")
    tests = [f"PASS {test} with PTA {pta}" for test in fvp_run.TESTS["rust"] for pta in ("off", "on")]
    yield _judge("wrapped", code, said, 0, "FVP Base RevC with boot-wrapper, 6 CPUs", *tests)
    # The variable does what the option does; here the machine says nothing, and must be stopped.
    silent = context.logs / "silent.txt"
    silent.write_text("", encoding="utf-8")
    env = {fvp_wrapper.VARIABLE: str(FAKE_WRAPPER), "FAKE_FVP_CONSOLE": str(silent)}
    code, said = run_it(context, "wrapped-hang", env, "--test", "guest", "--pta", "off", "--timeout", "3")
    yield _judge("wrapped-hang", code, said, 1, "FAIL guest with PTA off", "the guest did not get to its end")
    code, said = run_it(context, "wrapped-no-psci", {"FAKE_WRAPPER": "no-psci"}, *words, "--test", "sata")
    yield _judge("wrapped-no-psci", code, said, 1, "would not do", "was boot-wrapper built without it?")
    code, said = run_it(context, "wrapped-fails", {"FAKE_WRAPPER": "fails"}, *words, "--test", "sata")
    yield _judge("wrapped-fails", code, said, 1, "cannot find the device tree compiler")


NO_WRAPPER = f"{fvp_wrapper.VARIABLE} is not set, which names a program that makes an image of boot-wrapper's"


def _job(context: Context) -> Iterable[Result]:
    home = Home(context.logs / "home")
    spec = jobs.fvp_job("boot")
    flight = schedule.create(home.database, "fvp", [spec])
    bad = context.logs / "bad.txt"
    bad.write_text("XENITS: plan 1\nXENITS: not ok 1 sda-0-cpu0 0 interrupts\nXENITS: done\n", encoding="utf-8")
    wanted: dict[str, tuple[str, dict[str, str]]] = {
        "good": (statuses.PASS, {}),
        "wrapped": (statuses.PASS, {fvp_wrapper.VARIABLE: str(FAKE_WRAPPER)}),
        "bad": (statuses.FAIL, {"FAKE_FVP_CONSOLE": str(bad)}),
        "killed": (statuses.BROKEN, {"FAKE_FVP_THEN": "killed"}),
        "unknown": (statuses.BROKEN, {"FAKE_FVP_LACKS": "bp.secure_memory"}),
        "none": (statuses.STARVED, {fvp.VARIABLE: "", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}),
    }
    for name, (status, env) in wanted.items():
        everything = {
            **os.environ, fvp.VARIABLE: str(FAKE), fvp_wrapper.VARIABLE: "", HOME_VARIABLE: str(home.folder),
            step.FLIGHT_VARIABLE: str(flight), step.JOB_VARIABLE: spec.name, **env,
        }  # fmt: skip
        argv = [PROGRAMS / "ts-its-fvp"]
        code, said = captured(argv, context.logs / f"{name}.log", cwd=REPO, env=everything, limit=LIMIT_S)
        found = statuses.of_exit_status(code, statuses.FAIL)
        problems = [] if found == status else [f"it is {found}, not {status}"]
        if f"\n{status}" not in f"\n{said}":
            problems.append(f"it does not say '{status}'")
        yield Result(f"fvp/job/{name}", tuple(problems))


def _images(context: Context) -> Iterable[Result]:
    name = "fvp/boot-wrapper"
    wrapper = fvp_wrapper.from_environment()
    if wrapper is None:
        yield Result(name, skipped=NO_WRAPPER)
        return
    # Stands for Xen: boot-wrapper looks at no more than the header of an arm64 kernel.
    kernel = context.logs / "guest.img"
    guest.build_guest(context.log, kernel)
    for cpus in (1, fvp.CLUSTER, 2 * fvp.CLUSTER):
        folder = context.logs / f"{cpus}-cpus"
        folder.mkdir()
        tree = fvp_tree.write(replace(BOARD, cpus=cpus, wrapped=True), folder, context.log)
        wrapper.image(kernel, tree, folder, context.log)
        yield Result(f"{name}/{cpus}-cpus")


def _model(context: Context) -> list[Result]:
    return [_on_a_model("fvp/model", None, context.logs)]


def _model_wrapped(context: Context) -> list[Result]:
    name = "fvp/model-boot-wrapper"
    wrapper = fvp_wrapper.from_environment()
    return [_on_a_model(name, wrapper, context.logs) if wrapper else Result(name, skipped=NO_WRAPPER)]


def _on_a_model(name: str, wrapper: fvp_wrapper.Wrapper | None, logs: Path) -> Result:
    try:
        model = fvp.find()
    except fvp.Starved as error:
        return Result(name, skipped=error.message)
    if model == FAKE:
        return Result(name, (f"{model} is no model, but stands for one in tests",))
    options = Options(smp=4, limit=fvp_run.LIMIT_S)
    code = fvp_run.command(options, fvp_run.TESTS[options.its], "both", logs, wrapper)
    return Result(name, () if code == 0 else (f"ended with status {code}: see its report above",))


def cases() -> Iterable[Case]:
    """All of them."""
    about = "TF-A is built, its FIP has our device tree, which BL31's code can read, and it agrees with TF-A's own"
    yield Case("fvp/firmware", about, _firmware, quick=False)
    about = "scripts/run --platform fvp on a program that stands for the model: good, bad, hanging, another, none"
    yield Case("fvp/whole", about, _whole, quick=False)
    about = "the same with boot-wrapper in the place of TF-A, and a program that stands for the user's"
    yield Case("fvp/whole-boot-wrapper", about, _whole_wrapped, quick=False)
    yield Case("fvp/job", "a job's step on that program: each outcome is the right status", _job, quick=False)
    about = f"images of boot-wrapper's have in them what is needed, if {fvp_wrapper.VARIABLE} names who makes them"
    yield Case("fvp/boot-wrapper", about, _images, quick=False)
    yield Case("fvp/model", "the same on a real model, if there is one", _model, quick=False)
    about = "the same on a real model with boot-wrapper, if there are both"
    yield Case("fvp/model-boot-wrapper", about, _model_wrapped, quick=False)
