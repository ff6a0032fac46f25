# SPDX-License-Identifier: GPL-2.0-only
"""What a real osstest needs to run these jobs: recipes for its runner, wrappers for the steps, a flight.

Written anew into somebody's osstest each time, from the tables that our own runner uses.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..errors import StepError, UsageError
from . import flights, statuses
from .execute import PROGRAMS
from .home import HOME_VARIABLE
from .recipes import RECIPES, Step

RECIPES_FILE = "sg-run-job-adhoc"
"""osstest's ``sg-run-job`` reads it, if it is there."""

FLIGHT_FILE = "make-its-flight"
_MARK = "osstest/drop-in/install of xen-its"
_HEAD = f"# SPDX-License-Identifier: GPL-2.0-only\n# Made by {_MARK}; made anew each time.\n"


def _call(step: Step) -> str:
    """A step, with the status that the job has if it does not pass."""
    status = step.iffail
    # Words after the plus are arguments that are no part of the test's name.
    arguments = ["+", *step.arguments] if step.arguments else []
    words = ["." if status == statuses.FAIL else status, step.testid.replace("(1)", "(*)"), step.program, *arguments]
    return f"catching-otherwise {status} {{ run-ts {' '.join(words)} }}"


def recipe_text(name: str, steps: tuple[Step, ...]) -> str:
    """A recipe: it needs none of osstest's hosts, and its steps are called one after the other."""
    lines = [f"proc need-hosts/{name} {{}} {{ return {{}} }}", f"proc run-job/{name} {{}} {{", "    global ok"]
    for step in steps:
        if step.goes_on:
            # Those that look at a boot all do so, if there was one.
            if not any("set booted" in line for line in lines):
                lines.append("    set booted $ok")
            condition = "$booted"
        else:
            condition = "1" if step.always else "$ok"
        lines.append(f"    if {{{condition}}} {{ {_call(step)} }}")
    return "\n".join([*lines, "}"]) + "\n"


def recipes_text() -> str:
    """All recipes."""
    return _HEAD + "\n" + "\n".join(recipe_text(name, steps) for name, steps in RECIPES.items())


def wrapper_text(program: Path) -> str:
    """A step, which finds osstest's own database and logs in the folder that it is started in."""
    return f'#!/bin/sh\n{_HEAD}{HOME_VARIABLE}=$PWD exec {shlex.quote(str(program))} "$@"\n'


def flight_text(name: str) -> str:
    """A script that creates the jobs of one of our flights in one of osstest's."""
    lines = ["#!/bin/sh", _HEAD.rstrip(), "# Usage: ./make-its-flight FLIGHT", "set -e", "flight=${1:?which flight?}"]
    for spec in flights.FLIGHTS[name](""):
        runvars = [shlex.quote(f"{key}={value}") for key, value in spec.runvars.items()]
        lines.append(" ".join(['./cs-job-create "$flight"', spec.name, spec.recipe, *runvars]))
    return "\n".join(lines) + "\n"


def install(folder: Path, flight: str) -> list[Path]:
    """Write all files; gives their paths. Nothing of osstest's is changed."""
    if not (folder / "sg-run-job").exists():
        raise UsageError(f"{folder} is no osstest: it has no sg-run-job")
    programs = {step.program for steps in RECIPES.values() for step in steps}
    files = {RECIPES_FILE: recipes_text(), FLIGHT_FILE: flight_text(flight)}
    files |= {name: wrapper_text(PROGRAMS / name) for name in sorted(programs)}
    for name, text in files.items():
        path = folder / name
        if path.exists() and _MARK not in path.read_text(encoding="utf-8"):
            raise UsageError(f"{path} is there already, and not from here")
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644 if name == RECIPES_FILE else 0o755)
    return [folder / name for name in files]


def main(argv: list[str]) -> int:
    """``osstest/drop-in/install``."""
    parser = argparse.ArgumentParser(prog="osstest/drop-in/install", description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkout of osstest")
    parser.add_argument("--flight", choices=sorted(flights.FLIGHTS), default="full", help="which one (default: full)")
    args = parser.parse_args(argv)
    try:
        for path in install(args.folder.resolve(), args.flight):
            print(path)
    except StepError as error:
        print(error.render(), file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
