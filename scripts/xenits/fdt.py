# SPDX-License-Identifier: GPL-2.0-only
"""Reads a flattened device tree, to look at what was made."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .errors import StepError

_MAGIC = 0xD00DFEED
_BEGIN, _END, _PROPERTY, _NOP, _DONE = 1, 2, 3, 4, 9


@dataclass
class Node:
    """A node: its properties as bytes, its children by name."""

    properties: dict[str, bytes] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)

    def cells(self, name: str) -> list[int]:
        """A property as 32-bit numbers."""
        data = self.properties[name]
        return list(struct.unpack(f">{len(data) // 4}I", data))

    def strings(self, name: str) -> list[str]:
        """A property as strings."""
        return self.properties[name].decode().rstrip("\0").split("\0")


@dataclass
class Tree:
    """A whole tree, and the memory that is reserved beside it."""

    root: Node
    reserved: list[tuple[int, int]]

    def node(self, path: str) -> Node:
        """A node by its path."""
        here = self.root
        for name in path.strip("/").split("/"):
            if name:
                here = here.children[name]
        return here

    def by_phandle(self, phandle: int) -> str:
        """The path of the node with this phandle."""
        work = [("", self.root)]
        while work:
            path, node = work.pop()
            if "phandle" in node.properties and node.cells("phandle") == [phandle]:
                return path
            work += [(f"{path}/{name}", child) for name, child in node.children.items()]
        raise KeyError(phandle)


def parse(data: bytes) -> Tree:
    """A tree out of a ``.dtb`` file."""
    if len(data) < 40 or struct.unpack_from(">I", data)[0] != _MAGIC:
        raise StepError("this is no flattened device tree")
    _, _, structure, strings, reservations = struct.unpack_from(">5I", data)
    reserved = []
    while any(entry := struct.unpack_from(">2Q", data, reservations)):
        reserved.append((entry[0], entry[1]))
        reservations += 16
    top = Node()
    stack = [top]
    at = structure
    while True:
        (token,) = struct.unpack_from(">I", data, at)
        at += 4
        if token == _BEGIN:
            end = data.index(b"\0", at)
            node = Node()
            stack[-1].children[data[at:end].decode()] = node
            stack.append(node)
            at = (end + 4) & ~3
        elif token == _PROPERTY:
            length, name = struct.unpack_from(">2I", data, at)
            begin = strings + name
            stack[-1].properties[data[begin : data.index(b"\0", begin)].decode()] = data[at + 8 : at + 8 + length]
            at = (at + 8 + length + 3) & ~3
        elif token == _END:
            stack.pop()
        elif token == _DONE:
            return Tree(top.children[""], reserved)
        elif token != _NOP:
            raise StepError(f"odd token {token:#x} in a device tree")
