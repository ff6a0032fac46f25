# SPDX-License-Identifier: GPL-2.0-only
"""Flights for ``scripts/test``: the small one, and one where things go wrong on purpose."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .osstest import flights, history, jobs, processes, statuses, text
from .osstest.execute import PROGRAMS, Runner
from .osstest.home import Home
from .osstest.jobs import PREFIX, Spec
from .osstest.schedule import Flight, create, drop_builds
from .qemu import SERIAL
from .suite import Case, Context, Result

CASE = "boot"
"""The job that things are done to."""


def _quiet(_job: str, _status: str, _remark: str) -> None:
    """Nobody watches."""


def _fly(home: Home, branch: str, specs: list[Spec]) -> int:
    flight = create(home.database, branch, specs)
    Flight(Runner(home), flight, _quiet).run()
    return flight


def _problems(home: Home, flight: int, job: str) -> list[str]:
    """What went wrong in a job: the end of each log that tells of it."""
    found = []
    for step in home.database.steps(flight, job):
        if step.status != statuses.PASS:
            log = home.step_log(flight, job, step.stepno, step.step)
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
            found.append("\n".join([f"{step.testid}: {step.status}", *said]))
    return found


def _smoke(context: Context) -> Iterable[Result]:
    home = Home(context.logs / "home")
    flight = _fly(home, "smoke", flights.smoke(""))
    for job in home.database.jobs(flight):
        seconds = home.database.runvars(flight, job.job).get("boot_seconds", "")
        problems = _problems(home, flight, job.job) or ([] if job.status == statuses.PASS else [job.status])
        yield Result(f"flight/smoke/{job.job}", tuple(problems), remark=f"{seconds} s" if seconds else "")
    drop_builds(home, flight)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong on purpose, and what must come of it."""

    name: str
    status: str
    testid: str
    log: str
    """An expression that the log of that step must match."""

    options: tuple[tuple[str, object], ...] = ()
    """Changes to what is booted."""

    program: tuple[str, str] = ("", "")
    """A step, and the shell script that takes its place; ``{real}`` there is the step's own program."""

    during: Callable[[Path], None] | None = None
    """Runs beside the job, and gets the folder of its logs."""


def _kill_qemu(logs: Path) -> None:
    """Kill it once Xen has begun to speak."""
    for _ in range(1200):
        time.sleep(0.1)
        serial = logs / SERIAL
        if serial.exists() and serial.stat().st_size:
            for process in processes.at(logs):
                if "qemu-system" in process.words[0]:
                    os.kill(process.pid, signal.SIGKILL)
                    return


FULL_DISK = "ln -s /dev/full {logs}/" + SERIAL + "; exec {real}"
"""What is written to that device meets a full disk."""

NO_QEMU = """
mkdir -p {scratch}/bin {scratch}/cache
for tool in dpkg env sh; do ln -sf "$(command -v $tool)" {scratch}/bin; done
printf '#!/bin/sh\\ncase "$*" in *" install "*) echo "E: no such package" >&2; exit 100; esac\\n' >{scratch}/bin/apt-get
chmod +x {scratch}/bin/apt-get
PATH={scratch}/bin XDG_CACHE_HOME={scratch}/cache exec {python} -B {real}
"""
"""A machine without QEMU and with an apt-get that cannot install it."""

FAULTS = [
    Fault("crash", statuses.FAIL, "xen-boot", r"Xen panicked: \(XEN\) Panic on CPU", (("xen_args", ["dom0_mem=8M"]),)),
    Fault(
        "hang", statuses.FAIL, "xen-boot", "never began its checks: still running after 12 s: stopped by the watchdog",
        (("dom0_args", ["rdinit=/bin/sh"]), ("limit", 12.0)),
    ),
    Fault("killed", statuses.BROKEN, "xen-boot", "QEMU was killed by signal 9", during=_kill_qemu),
    Fault("full-disk", statuses.BROKEN, "xen-boot", "the disk is full", program=("ts-its-xen-boot", FULL_DISK)),
    Fault(
        "no-qemu", statuses.BROKEN, "host-install", "cannot install .*qemu-system-arm",
        program=("ts-its-host-install", NO_QEMU),
    ),
]  # fmt: skip


def _programs(fault: Fault, folder: Path, logs: Path) -> Path:
    """The steps' programs, with the one that the fault replaces."""
    folder.mkdir(parents=True)
    for path in PROGRAMS.glob("ts-*"):
        (folder / path.name).symlink_to(path)
    name, script = fault.program
    if name:
        words = {"real": PROGRAMS / name, "logs": logs, "scratch": folder / "scratch", "python": sys.executable}
        target = folder / name
        target.unlink()
        target.write_text("#!/bin/sh\n" + script.format_map({k: shlex.quote(str(v)) for k, v in words.items()}))
        target.chmod(0o755)
    return folder


def _plant(fault: Fault, home: Home, built: int, folder: Path) -> list[str]:
    """Run the job with a fault; gives what is wrong with what became of it."""
    changes: dict[str, Any] = dict(fault.options)
    spec = jobs.dom0_job(CASE, "", **changes)
    # The builds of the flight that passed.
    runvars = {k: f"{built}.{v}" if k.endswith(jobs.NEEDS) else v for k, v in spec.runvars.items()}
    flight = create(home.database, "planted", [replace(spec, runvars=runvars)])
    logs = home.job_logs(flight, spec.name)
    runner = Runner(home, programs=_programs(fault, folder, logs))
    beside = threading.Thread(target=fault.during, args=(logs,)) if fault.during else None
    if beside:
        beside.start()
    status = runner.run(flight, spec.name)
    if beside:
        beside.join()
    problems = [] if status == fault.status else [f"the job is {status}, not {fault.status}"]
    failed = [step for step in home.database.steps(flight, spec.name) if step.status != statuses.PASS]
    if [step.testid for step in failed] != [fault.testid]:
        problems.append(f"these steps did not pass: {[step.testid for step in failed]}")
    for step in failed:
        said = home.step_log(flight, spec.name, step.stepno, step.step).read_text(encoding="utf-8", errors="replace")
        if step.testid == fault.testid and not re.search(fault.log, said):
            problems.append(f"the log of {step.testid} says nothing like '{fault.log}':\n{said[-600:]}")
    problems += [f"still running: {process.words}" for process in processes.at(home.folder)]
    expected = f"{fault.status:<8} {history.REGRESSION} {built}"
    if not any(fault.testid in line and expected in line for line in text.render(home, flight, built).splitlines()):
        problems.append("the report does not say that it is a regression")
    return problems


def _planted(context: Context) -> Iterable[Result]:
    home = Home(context.logs / "home")
    name = PREFIX + CASE
    built = _fly(home, "planted", flights.with_needs([name], jobs.all_jobs()))
    sound = _problems(home, built, name)
    yield Result("flight/planted/none", tuple(sound))
    if not sound:
        for fault in FAULTS:
            problems = _plant(fault, home, built, context.logs / fault.name)
            yield Result(f"flight/planted/{fault.name}", tuple(problems))
    drop_builds(home, built)


def cases() -> Iterable[Case]:
    """Both."""
    about = f"osstest/run flight smoke: {', '.join(flights.SMOKE)}"
    yield Case("flight/smoke", about, _smoke, quick=False)
    about = f"what goes wrong on purpose ends in the right status: {', '.join(fault.name for fault in FAULTS)}"
    yield Case("flight/planted", about, _planted, quick=False)
