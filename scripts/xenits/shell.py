# SPDX-License-Identifier: GPL-2.0-only
"""Run programs with their output in a log."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import StepError

Command = Sequence[str | Path]
"""A program and its arguments."""

_TELLING = re.compile(
    r"\berror\b|\bE:|\bfatal\b|undefined reference|\*\*\*|No such file|FAILED|multiple definition|panicked",
    re.IGNORECASE,
)


def run(
    argv: Command,
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    what: str = "",
    hint: str = "",
) -> None:
    """Run `argv`, append its output to `log`, and raise `StepError` if it fails."""
    words = [str(a) for a in argv]
    with open(log, "a", encoding="utf-8") as out:
        print(f"$ {shlex.join(words)}" + (f"   (in {cwd})" if cwd else ""), file=out, flush=True)
        start = out.tell()
        try:
            code = subprocess.run(
                words,
                cwd=cwd,
                env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        except (FileNotFoundError, PermissionError):
            raise StepError(f"{words[0]} is not there to be run", log=log, hint=hint) from None
        print(f"(exit status {code})", file=out)
    if code != 0:
        raise StepError(
            what or f"{Path(words[0]).name} ended with status {code}",
            log=log,
            lines=telling_lines(log, start),
            hint=hint or "read the log; the command is its last line that starts with '$'.",
        )


def output(argv: Command, log: Path, *, cwd: Path | None = None, what: str = "", hint: str = "") -> str:
    """Run `argv` and give its standard output; what it says on standard error goes to `log`."""
    words = [str(a) for a in argv]
    with open(log, "a", encoding="utf-8") as err:
        print(f"$ {shlex.join(words)}", file=err, flush=True)
        start = err.tell()
        try:
            done = subprocess.run(
                words,
                cwd=cwd,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                check=False,
            )
        except (FileNotFoundError, PermissionError):
            raise StepError(f"{words[0]} is not there to be run", log=log, hint=hint) from None
        print(done.stdout, file=err)
    if done.returncode != 0:
        raise StepError(
            what or f"{Path(words[0]).name} ended with status {done.returncode}",
            log=log,
            lines=telling_lines(log, start),
            hint=hint,
        )
    return done.stdout


def telling_lines(log: Path, start: int = 0, most: int = 14) -> list[str]:
    """The part of a log (from byte `start` on) that best says why something failed."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    lines = [line.rstrip() for line in lines if line.strip()]
    telling = [i for i, line in enumerate(lines) if _TELLING.search(line)]
    if not telling:
        return lines[-most:]
    # Compilers explain themselves in the lines after the first error.
    first = max(0, telling[0] - 2)
    return lines[first : first + most]


def captured(argv: Command, log: Path, *, cwd: Path, env: Mapping[str, str], limit: float) -> tuple[int, str]:
    """Run `argv` into `log` and give its status and all that it said.

    After `limit` seconds it is stopped together with its children, which is an error.
    """
    words = [str(a) for a in argv]
    with open(log, "wb") as out:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise StepError(f"still running after {limit:.0f} s: stopped", log=log) from None
        finally:
            # The whole session: a test that hangs is a child of cargo's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, log.read_text(encoding="utf-8", errors="replace")
