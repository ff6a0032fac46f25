# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig fragments: what is asked for, and whether it came true."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import StepError

_SET = re.compile(r"^CONFIG_(\w+)=(.*)$")
_UNSET = re.compile(r"^# CONFIG_(\w+) is not set$")


def parse(text: str, name: str = "") -> dict[str, str]:
    """Symbols (without ``CONFIG_``) and values of a fragment or a ``.config``; unset ones are ``n``."""
    found: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if match := _SET.match(line):
            found[match[1]] = match[2].strip()
        elif match := _UNSET.match(line):
            found[match[1]] = "n"
        elif line and not line.startswith("#") and name:
            raise StepError(
                f"{name}:{number}: not a Kconfig line: {line}",
                hint="write CONFIG_FOO=y or '# CONFIG_FOO is not set'.",
            )
    return found


def render(symbols: dict[str, str]) -> str:
    """A fragment with these symbols."""
    return "".join(
        f"# CONFIG_{name} is not set\n" if value == "n" else f"CONFIG_{name}={value}\n"
        for name, value in symbols.items()
    )


def wanted(its: str, debug: bool, fragments: list[Path]) -> dict[str, str]:
    """The symbols for a build: ours, then the user's fragments, of which the last one wins."""
    symbols = {
        "EXPERT": "y",
        "UNSUPPORTED": "y",
        "GICV3": "y",
        "HAS_ITS": "y",
        "ITS_RUST": "y" if its == "rust" else "n",
        "DEBUG": "y" if debug else "n",
    }
    for path in fragments:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise StepError(f"cannot read the fragment {path}: {error.strerror}") from None
        symbols.update(parse(text, str(path)))
    return symbols


def unmet(symbols: dict[str, str], config: str) -> list[str]:
    """Which of `symbols` the final ``.config`` does not have as they were asked for."""
    final = parse(config)
    lines = []
    for name, value in symbols.items():
        got = final.get(name, "n")
        if got != value:
            absent = name not in final
            state = "not in this configuration (unknown, or something it depends on is off)" if absent else got
            lines.append(f"CONFIG_{name}: asked for {value}, got {state}")
    return lines
