# SPDX-License-Identifier: GPL-2.0-only
"""The component as one object, and what must be true of it before Xen links it.

Xen's own build makes that object in its-rs.mk, which the patch series adds. `prelink`
makes it in the same way but without Xen, so that a mistake shows within seconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Set
from pathlib import Path

from . import rust
from .elf import SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, Elf
from .layout import REPO
from .shell import run

LINK = Path("rust/xen-its/link")
"""Linker script and list of exports, in the repository."""

FROM_XEN_LIB = frozenset({"memcpy", "memmove", "memset", "memcmp"})
"""Functions that compilers call on their own, and that Xen has. The object may have its own, for Xen's to replace."""

PANIC_SERVICE = "xen_its_svc_panic"

LONGEST_NAME = 126
"""Xen keeps 127 bytes for the name of a symbol and does not check (KSYM_NAME_LEN)."""


def read_list(path: Path) -> set[str]:
    """A list of symbols, one a line; ``#`` starts a remark."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def prelink(folder: Path, log: Path) -> Path:
    """Build the library and make the object from it, in `folder`."""
    rust.ensure_targets([rust.XEN_TARGET], log)
    target = rust.target_dir()
    argv = ["cargo", "build", "--release", "--locked", "-p", "xen-its", "--target", rust.XEN_TARGET]
    run([*argv, "--target-dir", target], log, cwd=REPO, what="the component does not build for Xen")
    exports = REPO / LINK / "exports.txt"
    roots = [word for name in sorted(read_list(exports)) for word in ("-u", name)]
    linked, out = folder / "its-rs.linked.o", folder / "its-rs.o"
    library = target / rust.XEN_TARGET / "release/libxen_its.a"
    script = REPO / LINK / "merge.ld"
    run(["aarch64-linux-gnu-ld", "-r", "--gc-sections", *roots, "-T", script, "-o", linked, library], log)
    run(["aarch64-linux-gnu-objcopy", "--strip-debug", f"--keep-global-symbols={exports}", linked, out], log)
    return out


def _differ(have: Set[str], want: Set[str], extra: str, lacking: str) -> Iterable[str]:
    if more := sorted(have - want):
        yield f"{extra}: {' '.join(more)}"
    if less := sorted(want - have):
        yield f"{lacking}: {' '.join(less)}"


def exports(elf: Elf, listed: Set[str], declared: Set[str]) -> Iterable[str]:
    """Exported are the functions of the header, and nothing else; the linker's list says the same."""
    if not declared:
        yield "include/xen_its.h declares no function"
    yield from _differ(
        elf.exports() - FROM_XEN_LIB, declared, "exported, but not declared in include/xen_its.h",
        "declared in include/xen_its.h, but not exported",
    )  # fmt: skip
    yield from _differ(
        listed, declared, "in exports.txt, but not declared in include/xen_its.h",
        "declared in include/xen_its.h, but not in exports.txt",
    )  # fmt: skip


def imports(elf: Elf, services: Set[str]) -> Iterable[str]:
    """Used of Xen are services, and what compilers call on their own."""
    if not elf.imports() & services:
        yield "the object uses no service of include/xen_services.h: is it the right one?"
    for name in sorted(elf.imports() - services - FROM_XEN_LIB):
        where = ", ".join(users(elf, name)) or "nobody that could be named"
        yield f"needs {name}, which include/xen_services.h does not declare; used by {where}"


def users(elf: Elf, name: str) -> list[str]:
    """Functions that refer to a symbol."""
    found = (elf.function_at(r.section, r.offset) for r in elf.relocations if r.symbol == name)
    return sorted({f for f in found if f})


_PANIC = re.compile(r"panicking|panic_|_panic$|unwrap_failed|expect_failed|rust_begin_unwind|_fail17h[0-9a-f]{16}E$")


def panics(elf: Elf) -> Iterable[str]:
    """Nothing can panic: every panic ends in the panic handler, and that in a service of Xen's."""
    names = {s.name for s in elf.symbols} | {r.symbol for r in elf.relocations}
    for name in sorted(n for n in names if _PANIC.search(n)):
        where = ", ".join(users(elf, name)) or "nobody that could be named"
        what = "the panic handler is linked in" if name == PANIC_SERVICE else f"{name} is linked in"
        yield f"{what}; used by {where}"


_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(\S+)(?:\t(.*))?$")
_NO_OPERAND = re.compile(r"//.*|#-?[0-9a-fx.]+|\b[0-9a-f]+ <[^>]*>|<[^>]*>|\b0x[0-9a-f]+")
_VECTOR = re.compile(r"\b(?:[vzqdshb](?:[12]?\d|3[01])(?:\.\d*[bhsdq])?|p(?:1[0-5]|\d)|fpcr|fpsr)\b")
_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")


def vectors(disassembly: str) -> Iterable[str]:
    """No floating-point or vector register is used: Xen does not save those of the guest for itself."""
    function = "?"
    hits: Counter[str] = Counter()
    first: dict[str, str] = {}
    seen = 0
    for line in disassembly.splitlines():
        if match := _FUNCTION.match(line):
            function = match[1]
        elif match := _INSTRUCTION.match(line):
            seen += 1
            if _VECTOR.search(_NO_OPERAND.sub("", match[3] or "")):
                hits[function] += 1
                first.setdefault(function, f"{match[2]} {match[3]}")
    if not seen:
        yield "objdump shows no instruction at all"
    for name, count in hits.items():
        yield f"{name} has {count} instructions with floating-point or vector registers, such as: {first[name]}"


def names(elf: Elf) -> Iterable[str]:
    """No name overflows what Xen has for one."""
    for name in sorted({s.name for s in elf.symbols} - {s.name for s in elf.sections}):
        if len(name) > LONGEST_NAME:
            yield f"a symbol has {len(name)} characters, Xen takes {LONGEST_NAME}: {name}"


_LOADED = {
    ".text": SHF_EXECINSTR,
    ".rodata": 0,
    ".data": SHF_WRITE,
    ".data.rel.ro": SHF_WRITE,
    ".bss": SHF_WRITE,
}
"""Sections that xen.lds.S collects whatever Xen's configuration is, and what they may be besides readable."""

_NOT_LOADED = re.compile(r"|\.(symtab|strtab|shstrtab|comment)|\.rela\..*|\.note\..*|\.debug_.*")


def sections(elf: Elf) -> Iterable[str]:
    """Only sections that Xen's linker script knows; no code that can be written, no data that can be run."""
    if not any(s.name == ".text" and s.size for s in elf.sections):
        yield "there is no code in .text"
    for section in elf.sections:
        if section.flags & SHF_ALLOC:
            allowed = _LOADED.get(section.name)
            flags = section.flags & (SHF_WRITE | SHF_EXECINSTR)
            if allowed is None:
                yield f"section {section.name} ({section.size} bytes) is none that xen.lds.S collects: see merge.ld"
            elif flags & ~allowed:
                kind = "written" if flags & ~allowed & SHF_WRITE else "executed"
                yield f"section {section.name} can be {kind}"
        elif not _NOT_LOADED.fullmatch(section.name):
            yield f"section {section.name} is not expected"
