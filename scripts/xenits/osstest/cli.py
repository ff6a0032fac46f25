# SPDX-License-Identifier: GPL-2.0-only
"""The command line of ``osstest/run``."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StepError, UsageError
from . import flights, jobs, statuses, text
from .execute import Runner
from .home import Home
from .jobs import Spec
from .publish import publish
from .schedule import Flight, create, drop_old_builds, queue_lost_builds

_ABOUT = """\
Run flights of integration jobs on this machine: builds of Xen, and boots of them
on QEMU. What a flight has done is kept, so that the next one can be compared.
"""

_EXAMPLES = """\
examples:
  osstest/run flight smoke                        some minutes: builds, a boot, NVMe, a hostile guest
  osstest/run flight full                         all jobs but the weekly ones
  osstest/run flight weekly                       hours of storms, random commands, unbind and bind
  osstest/run flight --resume                     go on with the last flight, which was interrupted
  osstest/run job test-arm64-arm64-xl-its-multi   one job, and the builds that it needs
  osstest/run list                                jobs, and the flights that have run
  osstest/run report 7 --against 5                what became of flight 7, compared with 5

exit status: 0 all jobs passed (or are starved), 1 some did not, 2 wrong options, 130 interrupted.
"""


def some(word: str) -> int:
    """A number that is more than nothing."""
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is none")
    return number


def parser() -> argparse.ArgumentParser:
    """Options of ``osstest/run``."""
    made = argparse.ArgumentParser(
        prog="osstest/run", description=_ABOUT, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--home", type=Path, metavar="DIR", help="where flights are kept (default: in the cache)")
    commands = made.add_subparsers(dest="command", required=True)
    flight = commands.add_parser("flight", help="run a flight")
    flight.add_argument("name", nargs="?", choices=sorted(flights.FLIGHTS), help="which one")
    flight.add_argument(
        "--resume", nargs="?", type=int, const=0, metavar="N", help="go on with flight N (default: the last one)"
    )
    job = commands.add_parser("job", help="run one job, as a flight with the builds that it needs")
    job.add_argument("name", help="its name; osstest/run list has them")
    for command in (flight, job):
        command.add_argument("--cores", type=some, metavar="N", help="CPUs to use (default: all)")
        command.add_argument(
            "--tree", default=os.environ.get("XEN_TREE", ""), metavar="PATH",
            help=f"your own Xen, for {jobs.UPSTREAM} (default: $XEN_TREE)",
        )  # fmt: skip
    commands.add_parser("list", help="the jobs and flights that there are")
    report = commands.add_parser("report", help="what became of a flight: as text, JUnit XML and a page")
    report.add_argument("flight", nargs="?", type=int, help="which one (default: the last)")
    report.add_argument("--against", type=int, metavar="N", help="the flight to compare with (default: the one before)")
    return made


def last_flight(home: Home, wanted: int | None) -> int:
    """The flight that is meant."""
    known = [flight.flight for flight in home.database.flights()]
    if not known:
        raise UsageError("no flight has run yet", hint="osstest/run flight smoke")
    if wanted and wanted not in known:
        raise UsageError(f"there is no flight {wanted}", hint="osstest/run list names them.")
    return wanted or known[-1]


class Progress:
    """Prints a line whenever a job begins or ends; on a terminal also what runs now."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.over = 0
        self.flight: Flight | None = None

    def __call__(self, job: str, status: str, remark: str) -> None:
        terminal = sys.stdout.isatty()
        if job and (status != statuses.RUNNING or not terminal):
            self.over += status != statuses.RUNNING
            clear = "\r\033[K" if terminal else ""
            counted = f"[{self.over}/{self.total}]"
            print(
                f"{clear}{time.strftime('%H:%M:%S')} {counted:>8} {job:<44} {status:<8} {remark}".rstrip(), flush=True
            )
        if terminal and self.flight:
            now = ", ".join(f"{name} {seconds:.0f}s" for name, seconds in self.flight.running().items())
            print(f"\r\033[K{now}"[: shutil.get_terminal_size().columns], end="", flush=True)


@contextmanager
def held(home: Home, flight: int) -> Iterator[None]:
    """No two runners run one flight."""
    with open(home.folder / f"flight-{flight}.lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"somebody else runs flight {flight}") from None
        yield


def _interrupt(number: int, _frame: object) -> None:
    # Once is enough: what follows ends whatever runs.
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def fly(home: Home, flight: int, cores: int | None) -> int:
    """Run what is unfinished of a flight, and report."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with held(home, flight):
        unfinished = [job for job in home.database.jobs(flight) if job.status in statuses.UNFINISHED]
        print(f"flight {flight}: {len(unfinished)} jobs; logs in {home.flight_logs(flight)}", flush=True)
        progress = Progress(len(unfinished))
        progress.flight = Flight(Runner(home), flight, progress, cores)
        try:
            outcome = progress.flight.run()
        except KeyboardInterrupt:
            print(f"\nstopped; to go on: osstest/run flight --resume {flight}", file=sys.stderr)
            outcome = {}
        show(home, flight, None)
    if not outcome:
        return 130
    return 1 if any(status in statuses.BAD for status in outcome.values()) else 0


def show(home: Home, flight: int, against: int | None) -> None:
    """Print the report, and write it in all its forms."""
    print(f"\n{text.render(home, flight, against)}\n", flush=True)
    try:
        for path in publish(home, flight, against):
            print(path)
    except StepError as error:
        print(f"not all reports could be written: {error.render()}", file=sys.stderr)


def start(home: Home, branch: str, blessing: str, specs: list[Spec], cores: int | None) -> int:
    """Run a new flight."""
    drop_old_builds(home)
    return fly(home, create(home.database, branch, specs, blessing), cores)


def flight_command(home: Home, args: argparse.Namespace) -> int:
    """``osstest/run flight``."""
    if args.resume is not None:
        if args.name:
            raise UsageError(
                f"either a new flight {args.name}, or --resume",
                hint="osstest/run list has the numbers; --resume N goes on with that one.",
            )
        flight = last_flight(home, args.resume)
        queue_lost_builds(home, flight)
        return fly(home, flight, args.cores)
    if not args.name:
        raise UsageError("which flight?", hint=f"one of {', '.join(sorted(flights.FLIGHTS))}, or --resume")
    return start(home, args.name, "real", flights.FLIGHTS[args.name](args.tree), args.cores)


def job_command(home: Home, args: argparse.Namespace) -> int:
    """``osstest/run job``."""
    specs = flights.with_needs([args.name], jobs.all_jobs(args.tree))
    return start(home, "adhoc", "play", specs, args.cores)


def list_command(home: Home, _args: argparse.Namespace) -> int:
    """``osstest/run list``."""
    for name, specs in flights.FLIGHTS.items():
        print(f"flight {name}: {len(specs(''))} jobs")
    print("\njobs, and their recipes:")
    for spec in jobs.all_jobs().values():
        print(f" {spec.name:<{text.WIDTH}} {spec.recipe}")
    print("\nflights that have run:")
    for flight in home.database.flights():
        status = [job.status for job in home.database.jobs(flight.flight)]
        counted = ", ".join(f"{status.count(word)} {word}" for word in dict.fromkeys(status))
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(flight.started))
        print(f" {flight.flight:>4} {started} {flight.branch:<8} {counted}")
    return 0


def report_command(home: Home, args: argparse.Namespace) -> int:
    """``osstest/run report``."""
    flight = last_flight(home, args.flight)
    against = last_flight(home, args.against) if args.against else None
    if against == flight:
        raise UsageError(f"flight {flight} cannot be compared with itself")
    show(home, flight, against)
    return 0


COMMANDS = {"flight": flight_command, "job": job_command, "list": list_command, "report": report_command}


def main(argv: list[str]) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    try:
        return COMMANDS[args.command](Home(args.home), args)
    except StepError as error:
        print(error.render(), file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (sqlite3.Error, OSError) as error:
        print(f"what the flight does cannot be written down: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
