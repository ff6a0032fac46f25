# SPDX-License-Identifier: GPL-2.0-only
"""What is in a 64-bit little-endian ELF file: sections, symbols and relocations; or what is loaded of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from .errors import StepError

EM_AARCH64 = 183
ET_EXEC = 2
PT_LOAD = 1
SHT_SYMTAB = 2
SHT_RELA = 4
SHF_WRITE = 1
SHF_ALLOC = 2
SHF_EXECINSTR = 4

_STB_LOCAL = 0
_STT_FUNC = 2
_STT_SECTION = 3
_SHN_UNDEF = 0
_SHN_LORESERVE = 0xFF00


@dataclass(frozen=True)
class Section:
    """A section: its ``SHT_*`` type, its ``SHF_*`` flags, and its size in bytes."""

    name: str
    type: int
    flags: int
    size: int


@dataclass(frozen=True)
class Symbol:
    """A symbol. `section` is the index of its section: 0 if it is undefined."""

    name: str
    local: bool
    function: bool
    section: int
    value: int
    size: int

    @property
    def undefined(self) -> bool:
        """Whether it comes from elsewhere."""
        return self.section == _SHN_UNDEF


@dataclass(frozen=True)
class Relocation:
    """A place that is filled in when linking: section index and offset of the place, and the symbol."""

    section: int
    offset: int
    symbol: str


@dataclass(frozen=True)
class Segment:
    """Bytes that are loaded to an address, and how many there are with the zeroes behind them."""

    address: int
    data: bytes
    size: int


@dataclass(frozen=True)
class Program:
    """A program for a machine without an operating system: where it starts, and what is in memory then."""

    entry: int
    segments: tuple[Segment, ...]


def program(path: Path) -> Program:
    """An arm64 program that needs not to be moved."""
    try:
        data = path.read_bytes()
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("wrong magic")
        kind, machine, _, entry, table = struct.unpack_from("<HHIQQ", data, 0x10)
        if (kind, machine) != (ET_EXEC, EM_AARCH64):
            raise ValueError(f"type {kind} for machine {machine}")
        size, count = struct.unpack_from("<HH", data, 0x36)
        segments = []
        for at in range(table, table + size * count, size):
            kind, _, place, _, address, stored, loaded, _ = struct.unpack_from("<IIQQQQQQ", data, at)
            if kind == PT_LOAD:
                if place + stored > len(data):
                    raise ValueError("it has been cut off")
                segments.append(Segment(address, data[place : place + stored], loaded))
    except OSError as error:
        raise StepError(f"cannot read {path}: {error.strerror}") from None
    except (struct.error, ValueError) as error:
        raise StepError(f"{path} is no 64-bit ELF program for arm64: {error}") from None
    return Program(entry, tuple(segments))


class Elf:
    """One file. Raises `StepError` if it is no such file or was stripped of its symbols."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StepError(f"cannot read {path}: {error.strerror}") from None
        try:
            self._parse(data)
        except (struct.error, IndexError, ValueError) as error:
            raise StepError(f"{path} is no 64-bit ELF file with symbols: {error}") from None

    def _parse(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("wrong magic")
        start = struct.unpack_from("<Q", data, 0x28)[0]
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        heads = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]

        def text(table: int, at: int) -> str:
            begin = heads[table][4] + at
            return data[begin : data.index(b"\0", begin)].decode("utf-8", "replace")

        self.sections = [Section(text(names, h[0]), h[1], h[2], h[5]) for h in heads]
        # Where the bytes of each are: its address (0 in an object), and its place in the file.
        self._places = [(h[3], h[4]) for h in heads]
        self.symbols: list[Symbol] = []
        for head in heads:
            if head[1] == SHT_SYMTAB:
                for at in range(head[4], head[4] + head[5], 24):
                    name, info, _, section, value, length = struct.unpack_from("<IBBHQQ", data, at)
                    shown = text(head[6], name)
                    if info & 0xF == _STT_SECTION and section < _SHN_LORESERVE:
                        shown = self.sections[section].name
                    symbol = Symbol(shown, info >> 4 == _STB_LOCAL, info & 0xF == _STT_FUNC, section, value, length)
                    self.symbols.append(symbol)
        if not self.symbols:
            raise ValueError("it has been stripped")
        # Rust refers to its own functions by section and offset.
        starts = {(s.section, s.value): s.name for s in self.symbols if s.function and not s.undefined}
        self.relocations: list[Relocation] = []
        for head in heads:
            if head[1] == SHT_RELA:
                for at in range(head[4], head[4] + head[5], 24):
                    offset, info, addend = struct.unpack_from("<QQq", data, at)
                    symbol = self.symbols[info >> 32]
                    name = starts.get((symbol.section, symbol.value + addend), symbol.name)
                    self.relocations.append(Relocation(head[7], offset, name))

    def exports(self) -> set[str]:
        """Names that other objects can link to."""
        return {s.name for s in self.symbols if not s.local and not s.undefined}

    def imports(self) -> set[str]:
        """Names that other objects must have."""
        return {s.name for s in self.symbols if s.undefined and s.name}

    def content(self, symbol: Symbol) -> bytes:
        """The bytes of a function, or of an object that is not in a section of zeroes."""
        address, place = self._places[symbol.section]
        start = place + symbol.value - address
        return self.path.read_bytes()[start : start + symbol.size]

    def function_at(self, section: int, offset: int) -> str:
        """The function that an offset is in; empty if that is not known."""
        for symbol in self.symbols:
            if symbol.function and symbol.section == section and 0 <= offset - symbol.value < symbol.size:
                return symbol.name
        return ""
