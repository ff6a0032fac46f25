# SPDX-License-Identifier: GPL-2.0-only
"""Reads docs/promises.md, so that what it says of the tests stays true."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

COLUMN = "shown by"
"""The column of a table that names tests; everything in backticks there is the name of one."""

CANNOT = "cannot exist:"
"""How the cell of a fault begins that no test can show, with the reason after it."""

_NAME = re.compile(r"`([^`]+)`")
_RUST_TEST = re.compile(r"#\[test\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([a-z]+\))? )?fn (\w+)")
_GUEST_CASE = re.compile(r'(?:^\s*|\[|\), )\("([a-z0-9_-]+)", |^\s*"([a-z0-9_-]+)" => ', re.MULTILINE)
_PYTHON_TEST = re.compile(r"^    def (test_\w+)", re.MULTILINE)


def rust_tests(repo: Path, names: Iterable[str]) -> set[str]:
    """The test functions in the Rust files among `names`; a fuzz target is ``fuzz/`` and its name."""
    found: set[str] = set()
    for path in (Path(name) for name in names if name.endswith(".rs")):
        if path.parent.name == "fuzz_targets":
            found.add(f"fuzz/{path.stem}")
        found.update(_RUST_TEST.findall((repo / path).read_text(encoding="utf-8")))
    return found


def guest_cases(folder: Path) -> set[str]:
    """The names of the bare-metal guest's cases."""
    texts = (path.read_text(encoding="utf-8") for path in folder.rglob("*.rs"))
    return {match[1] or match[2] for text in texts for match in _GUEST_CASE.finditer(text)}


def python_tests(repo: Path, names: Iterable[str]) -> set[str]:
    """The test methods in the Python files among `names`."""
    paths = (repo / name for name in names if Path(name).name.startswith("test_") and name.endswith(".py"))
    return {n for path in paths for n in _PYTHON_TEST.findall(path.read_text(encoding="utf-8"))}


def rows(text: str) -> Iterable[tuple[str, str]]:
    """First cell and cell of `COLUMN` of each row, of all tables that have that column."""
    column = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            column = None
        elif column is None:
            column = cells.index(COLUMN) if COLUMN in cells else -1
        elif 0 <= column < len(cells) and not set(line) <= set("|-: "):
            yield cells[0], cells[column]


def problems(text: str, known: set[str], wanted: set[str]) -> Iterable[str]:
    """What is wrong with the tables of `text`: tests that are not `known`, and `wanted` ones that it leaves out."""
    named: set[str] = set()
    count = 0
    for first, cell in rows(text):
        count += 1
        names = set(_NAME.findall(cell))
        named |= names
        for name in sorted(names - known):
            yield f"'{first}' names the test {name}, which does not exist"
        if not names and not cell.startswith(CANNOT):
            yield f"'{first}' names no test, and does not say '{CANNOT} ...'"
    if not count:
        yield f"no table has a column '{COLUMN}'"
    for name in sorted(wanted - named):
        yield f"no row names the test {name}"
