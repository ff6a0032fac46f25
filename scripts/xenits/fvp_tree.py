# SPDX-License-Identifier: GPL-2.0-only
"""The device tree of FVP Base RevC for Xen, or for a kernel without it.

It has what Xen, Dom0 and the firmware look at, and nothing of the rest of the board. TF-A's BL31 reads the
UART, the timer's clock, the clusters and the memory from it; the rest it passes on. boot-wrapper takes the
UART, the GIC, the CPUs and the beginning of memory from it when it is built, and adds how CPUs are started.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from . import fdt
from .errors import StepError
from .fvp import CLUSTER
from .shell import run

MOST_BYTES = 0x4000
"""What TF-A has room for on this board."""

PLACE = 0x8200_0000
"""Where TF-A puts the tree for whom it starts."""

MEMORY = ((0x8000_0000, 0x7F00_0000), (0x8_8000_0000, 0x8000_0000))
"""Its banks, without the end of the first, which TF-A has for itself."""

WRAPPER = (0x8000_0000, 0x8_0000)
"""Where boot-wrapper is, and how much it has there at most, when something else was started: nobody else's."""

SPI, PPI = 0, 1
EDGE, HIGH, LOW = 1, 4, 8
"""Kinds and triggers of interrupts, as the GIC's binding has them."""


@dataclass(frozen=True)
class Module:
    """A file in memory that Xen is told of."""

    kind: str
    address: int
    size: int
    bootargs: str = ""


@dataclass(frozen=True)
class Board:
    """What differs from one tree to another."""

    cpus: int
    bootargs: str
    """For what the firmware starts: Xen, if there are modules, or else a kernel."""

    modules: tuple[Module, ...] = ()
    wrapped: bool = False
    """Whether it is for boot-wrapper, and not for TF-A."""


def _pair(number: int) -> str:
    return f"{number >> 32:#x} {number & 0xFFFF_FFFF:#x}"


def _reg(*ranges: tuple[int, int]) -> str:
    return "reg = " + ", ".join(f"<{_pair(start)} {_pair(size)}>" for start, size in ranges) + ";"


def _node(name: str, *body: str) -> str:
    inner = "\n".join("\t" + line if line else line for text in body for line in text.splitlines())
    return f"{name} {{\n{inner}\n}};"


def mpidr(cpu: int) -> int:
    """Affinities of a CPU: this board counts cores at level 1 and clusters at level 2."""
    return (cpu // CLUSTER) << 16 | (cpu % CLUSTER) << 8


def _cpus(count: int, *start: str) -> str:
    nodes = [
        _node(
            f"cpu{n}: cpu@{mpidr(n):x}",
            'device_type = "cpu";',
            'compatible = "arm,armv8";',
            f"reg = <{_pair(mpidr(n))}>;",
            *start,
        )
        for n in range(count)
    ]
    clusters = [
        _node(
            f"cluster{first // CLUSTER}",
            *(_node(f"core{n - first}", f"cpu = <&cpu{n}>;") for n in range(first, min(first + CLUSTER, count))),
        )
        for first in range(0, count, CLUSTER)
    ]
    return _node("cpus", "#address-cells = <2>;", "#size-cells = <0>;", _node("cpu-map", *clusters), *nodes)


def _gic() -> str:
    its = _node(
        "its: msi-controller@2f020000",
        'compatible = "arm,gic-v3-its";',
        "msi-controller;",
        "#msi-cells = <1>;",
        _reg((0x2F02_0000, 0x2_0000)),
    )
    return _node(
        "gic: interrupt-controller@2f000000",
        'compatible = "arm,gic-v3";',
        "interrupt-controller;",
        "#interrupt-cells = <3>;",
        "#address-cells = <2>;",
        "#size-cells = <2>;",
        "ranges;",
        # Distributor and redistributors; then the memory-mapped CPU interfaces for a GICv2 guest.
        _reg(
            (0x2F00_0000, 0x1_0000),
            (0x2F10_0000, 0x20_0000),
            (0x2C00_0000, 0x2000),
            (0x2C01_0000, 0x2000),
            (0x2C02_F000, 0x2000),
        ),
        f"interrupts = <{PPI} 9 {HIGH}>;",
        its,
    )


def _uart(number: int) -> str:
    base = 0x1C09_0000 + 0x1_0000 * number
    return _node(
        f"serial@{base:x}",
        'compatible = "arm,pl011", "arm,primecell";',
        _reg((base, 0x1000)),
        f"interrupts = <{SPI} {5 + number} {HIGH}>;",
        "clocks = <&clock24>, <&clock24>;",
        'clock-names = "uartclk", "apb_pclk";',
    )


def _pci() -> str:
    pins = ", ".join(f"<0 0 0 {pin} &gic 0 0 {SPI} {167 + pin} {HIGH}>" for pin in range(1, 5))
    return _node(
        "pci@40000000",
        'compatible = "pci-host-ecam-generic";',
        'device_type = "pci";',
        "#address-cells = <3>;",
        "#size-cells = <2>;",
        "#interrupt-cells = <1>;",
        _reg((0x4000_0000, 0x1000_0000)),
        "bus-range = <0 1>;",
        # One window for non-prefetchable memory.
        "ranges = <0x02000000 0 0x50000000 0 0x50000000 0 0x10000000>;",
        "interrupt-map-mask = <0 0 0 7>;",
        f"interrupt-map = {pins};",
        "msi-map = <0 &its 0 0x10000>;",
        "iommu-map = <0 &smmu 0 0x10000>;",
        "dma-coherent;",
    )


def _smmu() -> str:
    lines = {"eventq": 74, "gerror": 79, "priq": 75, "cmdq-sync": 77}
    return _node(
        "smmu: iommu@2b400000",
        'compatible = "arm,smmu-v3";',
        _reg((0x2B40_0000, 0x10_0000)),
        "interrupts = " + ", ".join(f"<{SPI} {spi} {EDGE}>" for spi in lines.values()) + ";",
        "interrupt-names = " + ", ".join(f'"{name}"' for name in lines) + ";",
        "#iommu-cells = <1>;",
        # A device ID beyond those of PCI's.
        "msi-parent = <&its 0x10000>;",
        "dma-coherent;",
    )


def _chosen(board: Board) -> str:
    name = "xen,xen-bootargs" if board.modules else "bootargs"
    modules = [
        _node(
            f"module@{module.address:x}",
            f'compatible = "multiboot,{module.kind}", "multiboot,module";',
            _reg((module.address, module.size)),
            *([f"bootargs = {json.dumps(module.bootargs)};"] if module.bootargs else []),
        )
        for module in board.modules
    ]
    return _node(
        "chosen",
        "#address-cells = <2>;",
        "#size-cells = <2>;",
        'stdout-path = "serial0:115200n8";',
        f"{name} = {json.dumps(board.bootargs)};",
        *modules,
    )


_PSCI = _node("psci", 'compatible = "arm,psci-1.0", "arm,psci-0.2";', 'method = "smc";', "max-pwr-lvl = <2>;")


def source(board: Board) -> str:
    """The tree as text."""
    timer = ", ".join(f"<{PPI} {ppi} {LOW}>" for ppi in (13, 14, 11, 10))
    root = _node(
        "/",
        'model = "FVP Base RevC";',
        'compatible = "arm,fvp-base-revc", "arm,vexpress";',
        "interrupt-parent = <&gic>;",
        "#address-cells = <2>;",
        "#size-cells = <2>;",
        _chosen(board),
        _node("aliases", 'serial0 = "/serial@1c090000";', 'serial1 = "/serial@1c0a0000";'),
        *([] if board.wrapped else [_PSCI]),
        _cpus(board.cpus, *([] if board.wrapped else ['enable-method = "psci";'])),
        _node("memory@80000000", 'device_type = "memory";', _reg(*MEMORY)),
        # The clock is that which TF-A sets up.
        _node(
            "timer", 'compatible = "arm,armv8-timer";', f"interrupts = {timer};", "clock-frequency = <100000000>;"
        ),
        _node(
            "clock24: clock24", 'compatible = "fixed-clock";', "#clock-cells = <0>;", "clock-frequency = <24000000>;",
        ),
        _gic(),
        _uart(0),
        _uart(1),
        _pci(),
        _smmu(),
    )  # fmt: skip
    start, size = WRAPPER
    reserved = f"/memreserve/ {start:#x} {size:#x};\n" if board.wrapped else ""
    return f"/dts-v1/;\n{reserved}\n{root}\n"


def write(board: Board, folder: Path, log: Path) -> Path:
    """Compile the tree into `folder`."""
    text, binary = folder / "fvp.dts", folder / "fvp.dtb"
    text.write_text(source(board), encoding="utf-8")
    run(["dtc", "-I", "dts", "-O", "dtb", "-o", binary, text], log, what="dtc does not take the device tree")
    found = problems(binary.read_bytes(), board.wrapped)
    if found:
        raise StepError("the device tree is not sound", log=log, lines=found)
    return binary


def problems(data: bytes, wrapped: bool = False) -> list[str]:
    """What is wrong with where things are: too large a tree, or modules that do not fit side by side."""
    tree = fdt.parse(data)
    if wrapped:
        # Where it puts the tree is seen in what it made.
        return clashes(modules(tree) + reserved(tree))
    found = [] if len(data) <= MOST_BYTES else [f"it has {len(data)} bytes, and TF-A takes {MOST_BYTES}"]
    return found + clashes([*modules(tree), (PLACE, PLACE + MOST_BYTES, "the tree")])


Span = tuple[int, int, str]
"""From where to where in memory, and what is there."""


def modules(tree: fdt.Tree) -> list[Span]:
    """The modules that a tree tells of."""
    found = []
    for name, node in tree.node("/chosen").children.items():
        high, low, size_high, size = node.cells("reg")
        start = high << 32 | low
        found.append((start, start + (size_high << 32 | size), name))
    return found


def reserved(tree: fdt.Tree) -> list[Span]:
    """The memory that a tree says is somebody's."""
    return [(start, start + size, "reserved memory") for start, size in tree.reserved]


def clashes(used: list[Span]) -> list[str]:
    """What does not fit side by side, or is outside of memory."""
    found = []
    used = sorted(used)
    for (_, end, before), (start, _, name) in pairwise(used):
        if start < end:
            found.append(f"{name} begins at {start:#x}, in {before}")
    for start, end, name in used:
        if not any(base <= start and end <= base + size for base, size in MEMORY):
            found.append(f"{name} from {start:#x} to {end:#x} is not in memory")
    return found
