# SPDX-License-Identifier: GPL-2.0-only
"""What must be true of the sources: licences, and where unsafe code is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .abi import rust_code

NO_HEADER = {".md", ".lock", ".json", ".patch", ".bin", ".xz"}
"""Kinds of files that carry no licence line: documents, generated ones, and those that cannot have remarks."""

LICENCE_LINE = b"SPDX-License-Identifier: GPL-2.0-only"

UNSAFE_CRATE = "xen-sys"
"""The one crate with unsafe code."""

ENTRY_CRATE = "xen-its"
"""The crate that needs ``#[unsafe(no_mangle)]``, and nothing else that is unsafe."""


def spdx(repo: Path, names: Iterable[str]) -> Iterable[str]:
    """Every source file names its licence in its first lines."""
    seen = 0
    for name in names:
        path = repo / name
        if not path.is_file() or path.suffix in NO_HEADER or path.name in ("LICENSE", "series"):
            continue
        seen += 1
        head = path.read_bytes()[:600]
        if b"\0" not in head and LICENCE_LINE not in head:
            yield f"{name} does not say {LICENCE_LINE.decode()} in its first lines"
    if not seen:
        yield "there are no source files"


COMPATIBLE = {
    "0BSD", "BSD-2-Clause", "BSD-3-Clause", "GPL-2.0-only", "GPL-2.0-or-later", "ISC", "MIT", "MIT-0", "Zlib",
}  # fmt: skip
"""Licences of code that may be part of Xen, which is GPL-2.0-only. Apache-2.0 is none of them."""


def compatible(expression: str) -> bool:
    """Whether an SPDX expression leaves a choice that `COMPATIBLE` has."""
    words = re.findall(r"[()]|[^\s()/]+|/", expression.replace("/", " OR "))

    def either(at: int) -> tuple[bool, int]:
        good, at = both(at)
        while at < len(words) and words[at] == "OR":
            other, at = both(at + 1)
            good = good or other
        return good, at

    def both(at: int) -> tuple[bool, int]:
        good, at = one(at)
        while at < len(words) and words[at] == "AND":
            other, at = one(at + 1)
            good = good and other
        return good, at

    def one(at: int) -> tuple[bool, int]:
        if at < len(words) and words[at] == "(":
            good, at = either(at + 1)
            return good and words[at : at + 1] == [")"], at + 1
        if at < len(words) and words[at] not in ("AND", "OR", ")"):
            if words[at + 1 : at + 2] == ["WITH"]:
                return False, at + 3
            return words[at] in COMPATIBLE, at + 1
        return False, at + 1

    good, end = either(0)
    return good and end == len(words)


def linked(metadata: Mapping[str, Any], top: str) -> list[Mapping[str, Any]]:
    """The packages whose code ends up in `top`: what macros need to run themselves is not among them."""
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}
    todo = [i for i, p in packages.items() if p["name"] == top]
    found: dict[str, Mapping[str, Any]] = {}
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = packages[name]
        if any("proc-macro" in t["kind"] for t in packages[name]["targets"]):
            continue
        for dependency in nodes[name]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                todo.append(dependency["pkg"])
    return list(found.values())


def licences(metadata: Mapping[str, Any], top: str) -> Iterable[str]:
    """What is linked into Xen has a licence that allows it."""
    packages = linked(metadata, top)
    if not packages:
        yield f"there is no package {top}"
    for package in packages:
        if not compatible(package["license"] or ""):
            said = package["license"] or "no licence"
            yield f"{package['name']} {package['version']} is linked into Xen and has: {said}"


_FORBID = re.compile(r"#!\[forbid\([^)]*\bunsafe_code\b[^)]*\)\]")
_UNSAFE = re.compile(r"\bunsafe\b(?!\(no_mangle\)\])")
_ROOTS = {"lib", "staticlib", "rlib", "bin", "proc-macro"}


def unsafe_code(metadata: Mapping[str, Any], repo: Path) -> Iterable[str]:
    """Unsafe code is in one crate only, and all others have the compiler see to that."""
    if UNSAFE_CRATE not in {p["name"] for p in metadata["packages"]}:
        yield f"there is no crate {UNSAFE_CRATE}"
    for package in metadata["packages"]:
        if package["name"] == UNSAFE_CRATE:
            continue
        for target in package["targets"]:
            root = Path(target["src_path"])
            if not _ROOTS.intersection(target["kind"]) or package["name"] == ENTRY_CRATE:
                continue
            if not _FORBID.search(rust_code(root.read_text(encoding="utf-8"))):
                yield f"{root.relative_to(repo)} has no #![forbid(unsafe_code)]"
        for path in sorted(Path(package["manifest_path"]).parent.rglob("*.rs")):
            code = rust_code(path.read_text(encoding="utf-8"))
            for number, line in enumerate(code.splitlines(), 1):
                if _UNSAFE.search(line) and not re.search(r"\bunsafe_code\b", line):
                    yield f"{path.relative_to(repo)}:{number}: unsafe code belongs in {UNSAFE_CRATE}: {line.strip()}"
