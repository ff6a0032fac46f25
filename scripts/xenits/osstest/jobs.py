# SPDX-License-Identifier: GPL-2.0-only
"""The jobs by name, with the runvars that they are given.

What a test job boots and expects is what ``scripts/test`` boots and expects: the
tables are those of `boots` and `guest_tests`.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .. import boots, fvp_run, guest, guest_tests
from ..boots import BootTest, Expectation
from ..guest_tests import GuestTest
from ..pipeline import Options

PREFIX = "test-arm64-arm64-xl-its-"
XEN_JOBS = {"rust": "build-arm64-its-rust", "c": "build-arm64-its-c"}
PATIENCE = 4
"""So much longer than in ``scripts/test`` may a boot take: a flight has more than one at a time."""

LIVEPATCH = "build-arm64-its-rust-livepatch"
UPSTREAM = "build-arm64-its-rust-upstream"
SID_JOBS = {its: f"{name}-sid" for its, name in XEN_JOBS.items()}
"""Debian's development suite has another Xen than the stable one."""

DOM0_JOB = "build-arm64-pvops"
NEW_KERNEL_JOB = "build-arm64-pvops-bpo"
GUEST_JOB = "build-arm64-its-guest"
NEEDS = "buildjob"
"""How the names of runvars end whose values are jobs that must have passed."""


@dataclass(frozen=True)
class Spec:
    """A job that can be put into a flight."""

    name: str
    recipe: str
    runvars: Mapping[str, str]

    def needs(self) -> list[str]:
        """The jobs whose artefacts it takes."""
        return needed(self.runvars)


def needed(runvars: Mapping[str, str]) -> list[str]:
    """The jobs that runvars like ``xenbuildjob`` name."""
    return [value for name, value in runvars.items() if name.endswith(NEEDS)]


def _named(name: str) -> BootTest:
    return next(test for test in boots.C_BOOTS + boots.RUST_BOOTS if test.name == name)


def _guest(name: str) -> GuestTest:
    return next(test for test in guest_tests.TESTS if test.name == name)


DOM0_CASES: dict[str, BootTest] = {
    "boot": BootTest(
        "rust/boot",
        "Xen and Dom0 come up and power off, on one CPU",
        Options(smp=1, test="smoke,reads=10,pciadd=1"),
        (boots.vectors(2), *boots.HEALTHY),
    ),
    "nvme": _named("rust/nvme"),
    "multi": _named("rust/multi"),
    "smp": BootTest(
        "rust/smp",
        "each of 8 CPUs has vectors of two NVMe for itself",
        Options(smp=8, devices="nvme=2,queues=8", test="smoke,pciadd=1"),
        (boots.fired("nvme[01]q", 4000), boots.vectors(18), *boots.HEALTHY),
    ),
    "movi": _named("rust/affinity"),
    "hotplug": _named("rust/hotplug"),
    "unbind": _named("rust/rebind"),
    "storm": _named("rust/storm"),
    "release": _named("rust/nvme-release"),
    "livepatch": _named("rust/livepatch"),
    "cpus": BootTest(
        "rust/cpus",
        "each CPU has a vector for itself, on as many CPUs as a job says",
        Options(test="smoke,reads=500,pciadd=1"),
        (boots.fired("nvme0q", 500), boots.vectors(2), *boots.HEALTHY),
    ),
}  # fmt: skip
"""What Dom0 does, by the word in the job's name."""

CASES = tuple(case for case in DOM0_CASES if case != "cpus")
"""Those that have a job of their own name."""

GUEST_CASES: dict[str, GuestTest] = {
    "conformance": _guest("debug"),
    "hostile": _guest("shared-cpu"),
}
"""What the bare-metal guest does."""

C_EXPECT: dict[str, tuple[Expectation, ...]] = {
    "boot": (boots.vectors(2),),
    "nvme": _named("c/nvme").expect,
    "multi": _named("c/multi").expect,
    "smp": (boots.fired("nvme[01]q", 4000), boots.vectors(18)),
    "storm": (),
    "release": _named("c/nvme-release").expect,
}
"""What must be true on upstream's C besides Dom0's own checks: it keeps no counters."""

C_CASES = tuple(C_EXPECT)
"""What upstream's C can do. It was seen losing interrupts when CPUs go off and on and when vectors change CPUs, and
giving Linux one that it does not know when a driver goes."""

FVP_CASES: dict[str, tuple[str, int, bool]] = {
    # what runs, CPUs, a debug build
    "boot": ("sata", 1, True),
    "smp": ("sata", 8, True),
    "release": ("sata", 2, False),
    "conformance": ("guest", 4, True),
    "hostile": (f"guest,{guest_tests.HOSTILE}", 2, True),
}
"""What runs on Arm's models, which have neither NVMe nor ivshmem."""


def expectations(runvars: Mapping[str, str]) -> list[Expectation]:
    """What must be true of a boot of Dom0 besides its own checks, and leaks."""
    if runvars["its"] == "c":
        return list(C_EXPECT[runvars["its_case"]])
    return [e for e in DOM0_CASES[runvars["its_case"]].expect if e is not boots.balanced]


UPSTREAM_CASES = ("boot", "nvme", "multi", "unbind")
"""What Dom0 does on the user's own tree, and on Debian's other Xen."""


def dom0_runvars(case: str, options: Options) -> dict[str, str]:
    """What a boot of Dom0 is given."""
    return {
        "arch": "arm64",
        "its": options.its,
        "its_case": case,
        "its_test": options.test,
        "debug_xen": str(options.debug).lower(),
        "gic": str(options.gic),
        "smp": str(options.smp),
        "devices": options.devices,
        "xen_args": shlex.join(options.xen_args),
        "dom0_args": shlex.join(options.dom0_args),
        "limit": f"{options.limit:.0f}",
        "xenbuildjob": LIVEPATCH if options.livepatch else XEN_JOBS[options.its],
        "kernelbuildjob": DOM0_JOB,
    }


def options(runvars: Mapping[str, str]) -> Options:
    """The other way round."""
    return Options(
        its=runvars["its"],
        gic=int(runvars["gic"]),
        smp=int(runvars["smp"]),
        devices=runvars["devices"],
        test=runvars["its_test"],
        debug=runvars["debug_xen"] == "true",
        xen_args=shlex.split(runvars["xen_args"]),
        dom0_args=shlex.split(runvars["dom0_args"]),
        limit=float(runvars["limit"]),
    )


def guest_runvars(case: str, test: GuestTest) -> dict[str, str]:
    """What a boot of the bare-metal guest is given."""
    return {
        "arch": "arm64",
        "its": "rust",
        "its_case": case,
        "guest_tests": shlex.join(test.tests),
        "guest_fuzz": str(test.fuzz),
        "guest_seed": str(test.seed),
        "guest_seeds": str(test.seeds),
        "limit": f"{test.limit:.0f}",
        "debug_xen": str(test.debug).lower(),
        "gic": str(test.machine.gic),
        "smp": str(test.machine.cpus),
        "xen_args": shlex.join(test.machine.xen_args),
        "xenbuildjob": XEN_JOBS["rust"],
        "guestbuildjob": GUEST_JOB,
    }


def guest_test(runvars: Mapping[str, str]) -> GuestTest:
    """The other way round."""
    return GuestTest(
        runvars["its_case"],
        "",
        debug=runvars["debug_xen"] == "true",
        machine=guest.Machine(int(runvars["smp"]), int(runvars["gic"]), tuple(shlex.split(runvars["xen_args"]))),
        tests=tuple(shlex.split(runvars["guest_tests"])),
        fuzz=int(runvars["guest_fuzz"]),
        seed=int(runvars["guest_seed"]),
        seeds=int(runvars["guest_seeds"]),
        limit=float(runvars["limit"]),
    )


def dom0_job(case: str, suffix: str = "", *, built: Mapping[str, str] | None = None, **changes: object) -> Spec:
    """A test job of Dom0's; `changes` are to its `Options`, and `built` names other build jobs than the usual ones."""
    chosen = replace(DOM0_CASES[case].options, **changes)  # type: ignore[arg-type]
    if "limit" not in changes:
        limit = chosen.limit * PATIENCE
        # Dom0 has a limit of its own, and says more than a watchdog can when it gets there.
        chosen = replace(chosen, limit=limit, test=f"{chosen.test},timeout={limit * 0.9:.0f}")
    if chosen.its == "c":
        # Upstream refuses what Linux announces.
        chosen = replace(chosen, test=chosen.test.replace(",pciadd=1", ""))
    recipe = "test-its-dom0" if chosen.its == "rust" else "test-its-dom0-c"
    return Spec(PREFIX + case + suffix, recipe, {**dom0_runvars(case, chosen), **(built or {})})


def guest_job(
    case: str, suffix: str = "", *, gic: int | None = None, built: Mapping[str, str] | None = None, **changes: object
) -> Spec:
    """A test job of the bare-metal guest's; `built` as for Dom0."""
    test = replace(GUEST_CASES[case], **changes)  # type: ignore[arg-type]
    if gic is not None:
        test = replace(test, machine=replace(test.machine, gic=gic))
    return Spec(PREFIX + case + suffix, "test-its-guest", {**guest_runvars(case, test), **(built or {})})


WEEKLY_SMP = (1, 2, 3, 4, 6, 8, 12, 16)
LONG_LIMIT_S = 4 * 3600.0

WEEKLY_DOM0 = {
    "movi": "affinity,changes=20000,late=0,timeout=14000,pciadd=1",
    "hotplug": "hotplug,cycles=60,timeout=14000,pciadd=1",
    "unbind": "rebind,count=2000,rescans=200,timeout=14000,pciadd=1",
    "storm": "storm,rounds=200000,timeout=14000,pciadd=1",
}
"""The same as the cases of these names, for hours."""

WEEKLY_SEEDS = 20
WEEKLY_COMMANDS = 100_000
"""Random commands with each seed."""


def fuzz_job(kind: str) -> Spec:
    """Random commands from seeds that are others each week; the runvars say which."""
    first = int(time.strftime("%G%V")) * 100 + (50 if kind == "release" else 0)
    test = GuestTest(
        "fuzz",
        "",
        debug=kind == "debug",
        machine=guest.Machine(cpus=4),
        tests=("fuzz-*",),
        fuzz=WEEKLY_COMMANDS,
        seed=first,
        seeds=WEEKLY_SEEDS,
        limit=LONG_LIMIT_S,
    )
    return Spec(f"{PREFIX}fuzz-{kind}-long", "test-its-guest", guest_runvars("fuzz", test))


def fvp_job(case: str) -> Spec:
    """A test job on one of Arm's models."""
    test, smp, debug = FVP_CASES[case]
    runvars = {
        "arch": "arm64",
        "its": "rust",
        "its_case": case,
        "its_test": test,
        "debug_xen": str(debug).lower(),
        "smp": str(smp),
        "fvp_pta": "both",
        "xenbuildjob": XEN_JOBS["rust"],
    }
    return Spec(f"{PREFIX}{case}-fvp", "test-its-fvp", runvars)


def fvp_options(runvars: Mapping[str, str]) -> Options:
    """What is built and booted for it."""
    return Options(
        its=runvars["its"],
        smp=int(runvars["smp"]),
        debug=runvars["debug_xen"] == "true",
        limit=fvp_run.LIMIT_S,
    )


def build_jobs(tree: str = "") -> list[Spec]:
    """The build jobs; `tree` is the user's own Xen, if there is one."""
    made = [Spec(name, "build-its", {"arch": "arm64", "its": its}) for its, name in XEN_JOBS.items()]
    made.append(Spec(LIVEPATCH, "build-its", {"arch": "arm64", "its": "rust", "livepatch_xen": "true"}))
    for its, name in SID_JOBS.items():
        made.append(Spec(name, "build-its", {"arch": "arm64", "its": its, "suite_xen": "sid"}))
    made.append(Spec(UPSTREAM, "build-its", {"arch": "arm64", "its": "rust", "tree_xen": tree}))
    made.append(Spec(DOM0_JOB, "build-dom0", {"arch": "arm64", "kernelkind": "cloud-arm64"}))
    made.append(Spec(NEW_KERNEL_JOB, "build-dom0", {"arch": "arm64", "kernelkind": "cloud-arm64-bpo"}))
    made.append(Spec(GUEST_JOB, "build-its-guest", {"arch": "arm64"}))
    return made


def all_jobs(tree: str = "") -> dict[str, Spec]:
    """Every job that has a name of its own."""
    made = build_jobs(tree)
    made += [dom0_job(case) for case in CASES] + [guest_job(case) for case in GUEST_CASES]
    made += [dom0_job(case, "-gic4", gic=4) for case in CASES]
    made += [guest_job(case, "-gic4", gic=4) for case in GUEST_CASES]
    made += [dom0_job(case, "-c", its="c") for case in C_CASES]
    made += [dom0_job(case, "-gic4-c", its="c", gic=4) for case in C_CASES]
    made += [dom0_job(case, "-bpo", built={"kernelbuildjob": NEW_KERNEL_JOB}) for case in CASES]
    made += [dom0_job(case, "-sid", built={"xenbuildjob": SID_JOBS["rust"]}) for case in UPSTREAM_CASES]
    with_c = {"xenbuildjob": SID_JOBS["c"]}
    made += [dom0_job(case, "-sid-c", its="c", built=with_c) for case in UPSTREAM_CASES if case in C_CASES]
    made.append(guest_job("conformance", "-sid", built={"xenbuildjob": SID_JOBS["rust"]}))
    made += [fvp_job(case) for case in FVP_CASES]
    if tree:
        made += [dom0_job(case, "-upstream", built={"xenbuildjob": UPSTREAM}) for case in UPSTREAM_CASES]
    made += [dom0_job("cpus", f"-smp{smp}", smp=smp) for smp in WEEKLY_SMP]
    made += [dom0_job(case, "-long", test=test, limit=LONG_LIMIT_S) for case, test in WEEKLY_DOM0.items()]
    made += [fuzz_job(kind) for kind in ("debug", "release")]
    return {spec.name: spec for spec in made}
