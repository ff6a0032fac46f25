# SPDX-License-Identifier: GPL-2.0-only
"""The two headers and the two sides of them, read as text.

What is read here is read a second time, apart from cbindgen and bindgen, so that a
mistake in how these are set up shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_PROTOTYPE = re.compile(r"\b(xen_its_\w+)\s*\(([^;{}]*?)\)\s*(?:__attribute__\s*\(\(\w+\)\)\s*)?;", re.DOTALL)


def functions(header: str) -> set[str]:
    """Names of the functions that a C header declares."""
    text = re.sub(r"^[ \t]*#[^\n]*$", "", _COMMENT.sub(" ", header), flags=re.MULTILINE)
    return {match[1] for match in _PROTOTYPE.finditer(text)}


_RUST_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(?P<h>#*)".*?"(?P=h)|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])\'""", re.DOTALL
)


def rust_code(text: str) -> str:
    """Rust without comments, and with all strings and characters empty; lines stay where they are."""

    def blank(match: re.Match[str]) -> str:
        first = match[0][:2]
        return ("" if first in ("//", "/*") else '""') + "\n" * match[0].count("\n")

    return _RUST_TOKEN.sub(blank, text)


@dataclass(frozen=True)
class Signature:
    """A function that Rust exports, in the types that C should see."""

    name: str
    result: str
    arguments: tuple[str, ...]

    def pointer(self, name: str) -> str:
        """Declare `name` as a pointer to such a function."""
        return f"{self.result} (*const {name})({', '.join(self.arguments) or 'void'})"


C_TYPES = {
    "": "void",
    "bool": "bool",
    "u8": "uint8_t",
    "u16": "uint16_t",
    "u32": "uint32_t",
    "u64": "uint64_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "usize": "size_t",
    "XenItsDomain": "struct xen_its_domain",
    "XenGuest": "struct domain *",
    "XenVcpu": "struct vcpu *",
    "VgicHeld": "struct vcpu *",
    "XenHostIts": "struct host_its *",
}
"""What an argument's type in Rust is in C."""


def c_type(rust: str, aliases: Mapping[str, str]) -> str:
    """The C type for a Rust type. Raises `KeyError` for one that is not known."""
    rust = rust.strip()
    rust = aliases.get(rust, rust)
    if match := re.fullmatch(r"Option<(&.*|Owned<.*>)>", rust):
        return c_type(match[1], aliases)
    if match := re.fullmatch(r"&\s*mut (.*)|Owned<(.*)>|\*mut (.*)", rust):
        return c_type(next(g for g in match.groups() if g), aliases) + " *"
    if match := re.fullmatch(r"&(?!mut\b)(.*)|\*const (.*)", rust):
        inner = c_type(match[1] or match[2], aliases)
        return inner + " const *" if inner.endswith("*") else f"const {inner} *"
    return C_TYPES[rust]


_EXPORT = re.compile(
    r'#\[unsafe\(no_mangle\)\]\s*(?:#\[[^\]]*\]\s*)*pub (?:unsafe )?extern "" fn (\w+)\s*'
    r"\(([^)]*)\)\s*(?:->\s*([^{]+?)\s*)?\{"
)


def exported(source: str) -> dict[str, Signature]:
    """The functions that a Rust file exports. Raises `KeyError` for a type that has no known C type."""
    code = rust_code(source)
    aliases = {m[1]: m[2].strip() for m in re.finditer(r"\btype (\w+) = ([^;]+);", code)}
    found = {}
    for match in _EXPORT.finditer(code):
        types = [a.split(":", 1)[1] for a in match[2].split(",") if a.strip()]
        arguments = tuple(c_type(t, aliases) for t in types)
        found[match[1]] = Signature(match[1], c_type(match[3] or "", aliases), arguments)
    return found


@dataclass(frozen=True)
class Layout:
    """Numbers that Rust takes for granted about C."""

    what: str
    expression: str
    value: int


def layouts(bindings: str) -> list[Layout]:
    """Sizes, alignments, offsets and constants in bindgen's output, as expressions for a C compiler."""
    flat = re.sub(r"\s+", "", bindings)
    found = []
    for match in re.finditer(r'"Sizeof(\w+)"\]\[[^;]*?-(\d+)usize\]', flat):
        found.append(Layout(f"size of {match[1]}", f"sizeof(struct {match[1]})", int(match[2])))
    for match in re.finditer(r'"Alignmentof(\w+)"\]\[[^;]*?-(\d+)usize\]', flat):
        found.append(Layout(f"alignment of {match[1]}", f"__alignof__(struct {match[1]})", int(match[2])))
    for match in re.finditer(r'"Offsetoffield:(\w+)::(\w+)"\]\[[^;]*?-(\d+)usize\]', flat):
        expression = f"__builtin_offsetof(struct {match[1]}, {match[2]})"
        found.append(Layout(f"offset of {match[1]}.{match[2]}", expression, int(match[3])))
    for match in re.finditer(r"^pub const (XEN_ITS_\w+): \w+ = (\d+);", bindings, re.MULTILINE):
        found.append(Layout(f"value of {match[1]}", match[1], int(match[2])))
    return found


def bound(bindings: str) -> set[str]:
    """Functions of C's that bindgen's output declares."""
    return set(re.findall(r"\bpub fn (xen_its_\w+)\(", bindings))


def probe(signatures: Mapping[str, Signature], numbers: list[Layout]) -> str:
    """A C file that compiles only if the headers say what Rust says."""
    lines = ['#include "xen_its.h"', '#include "xen_services.h"', ""]
    for index, name in enumerate(sorted(signatures)):
        lines.append(f"{signatures[name].pointer(f'probe_{index}')} = {name};")
    for number in numbers:
        text = f"{number.what}, which Rust has as {number.value}"
        lines.append(f'_Static_assert(({number.expression}) == {number.value}, "{text}");')
    return "\n".join(lines) + "\n"
