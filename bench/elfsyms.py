# SPDX-License-Identifier: GPL-2.0-only
"""Symbols of a 64-bit little-endian ELF file, such as ``xen-syms``."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from bench import repo  # noqa: F401
from xenits.errors import StepError

_SHT_SYMTAB = 2
_SHF_EXECINSTR = 4
_STT_NOTYPE, _STT_FUNC = 0, 2
_SHN_LORESERVE = 0xFF00
# $x and $d mark code and data in Arm objects; .L names are the assembler's.
_MAPPING = re.compile(r"\$[xdat](\.|$)|\.L")


@dataclass(frozen=True)
class Symbol:
    """One symbol: its address, its size (0 if nobody said) and its name."""

    addr: int
    size: int
    name: str
    code: bool
    function: bool


class SymbolTable:
    """All symbols of one file."""

    def __init__(self, path: Path, symbols: list[Symbol]) -> None:
        self.path = path
        self.symbols = symbols

    @classmethod
    def read(cls, path: Path) -> SymbolTable:
        """Read the symbols of an ELF file. Raises `StepError` if it is none or has been stripped."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StepError(f"cannot read {path}: {error.strerror}") from None
        hint = "give Xen's symbol file, xen-syms, which the build leaves beside xen."
        try:
            return cls(path, _parse(data))
        except (struct.error, IndexError, ValueError) as error:
            raise StepError(f"{path} is no ELF file with symbols ({error})", hint=hint) from None

    def address(self, name: str) -> int:
        """Address of the symbol `name`. Raises `StepError` if there is none, or more than one."""
        found = {s.addr for s in self.symbols if s.name == name}
        if not found:
            raise StepError(f"{self.path} has no symbol {name}")
        if len(found) > 1:
            where = ", ".join(f"{a:#x}" for a in sorted(found))
            raise StepError(f"{self.path} has more than one {name}: {where}")
        return found.pop()

    def has(self, name: str) -> bool:
        """Whether there is a symbol `name`."""
        return any(s.name == name for s in self.symbols)

    def ranges(self, low: int, high: int) -> list[Symbol]:
        """Cut [low, high) into pieces, each of one function; what belongs to none has a piece as well.

        A symbol without a size reaches up to the next one. Of several symbols at one address, the
        biggest function wins.
        """
        by_addr: dict[int, Symbol] = {}
        for symbol in self.symbols:
            if not symbol.code or not low <= symbol.addr < high:
                continue
            other = by_addr.get(symbol.addr)
            if other is None or (symbol.function, symbol.size) > (other.function, other.size):
                by_addr[symbol.addr] = symbol
        starts = sorted(by_addr)
        pieces: list[Symbol] = []
        at = low
        for index, start in enumerate(starts):
            if start > at:
                pieces.append(_gap(at, start))
            symbol = by_addr[start]
            limit = starts[index + 1] if index + 1 < len(starts) else high
            end = min(start + symbol.size, limit) if symbol.size else limit
            pieces.append(Symbol(start, end - start, symbol.name, True, symbol.function))
            at = end
        if at < high:
            pieces.append(_gap(at, high))
        return pieces


def _gap(start: int, end: int) -> Symbol:
    return Symbol(start, end - start, f"[no-symbol-{start:#x}]", True, False)


def _parse(data: bytes) -> list[Symbol]:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    offset = struct.unpack_from("<Q", data, 0x28)[0]
    entry_size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * entry_size) for i in range(count)]
    symbols: list[Symbol] = []
    for section in sections:
        if section[1] != _SHT_SYMTAB:
            continue
        start, size, link = section[4], section[5], section[6]
        names = sections[link][4]
        for at in range(start, start + size, 24):
            name_at, info, _, index, addr, length = struct.unpack_from("<IBBHQQ", data, at)
            kind = info & 0xF
            if kind not in (_STT_NOTYPE, _STT_FUNC) or not 0 < index < _SHN_LORESERVE:
                continue
            name = data[names + name_at : data.index(b"\0", names + name_at)].decode("utf-8", "replace")
            if not name or _MAPPING.match(name):
                continue
            code = bool(sections[index][2] & _SHF_EXECINSTR)
            symbols.append(Symbol(addr, length, name, code, kind == _STT_FUNC))
    if not symbols:
        raise ValueError("it has been stripped")
    return symbols
