# SPDX-License-Identifier: GPL-2.0-only
"""The tables of ``scripts/bench``, as Markdown, for a terminal and for ``docs/bench.md``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.chart import Line, chart
from bench.count import ADD, MMIO_WRITE

Figures = dict[str, Any]
"""What one operation cost, as `boots.Measured.json` has it."""

SIDES = ("c", "rust")
LABELS = {"c": "C", "rust": "Rust"}
CHARTS = {
    "lpis": ("mapped LPIs", ("INVALL,0-pending,1", "MAPTI", "INT", "lpi")),
    "devices": ("devices", ("MAPD", "MAPTI", "INT", "lpi")),
    "vcpus": ("vCPUs", ("MAPTI", "INT", "INVALL", "lpi")),
}
"""What a picture for each axis shows; the tables have more."""

BATCH = 16


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """A table, its first column to the left and the others to the right, lined up for a terminal as well.

    Without rows there is none.
    """
    every = [head, *rows]
    if len(every) == 1:
        return []
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if not i else ":") for i, w in enumerate(widths)) + "|"
    return [line(head), rule, *(line(row) for row in every[1:])]


def number(value: float | None) -> str:
    """With thousands apart; a dash for nothing."""
    return "-" if value is None else f"{value:,.0f}".replace(",", " ")


def decimal(value: float | None) -> str:
    """A whole number, or one place behind the point for a small one that is none."""
    return number(value) if value is None or value >= 1000 or value == int(value) else f"{value:.1f}"


def ratio(c: float | None, rust: float | None) -> str:
    """Rust's share of C's."""
    return f"{rust / c:.2f}" if c and rust is not None else "-"


class Page:
    """All figures, by operation and side."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results
        self.operations: dict[str, dict[str, Figures]] = {}
        for side in SIDES:
            for name, figures in results.get(side, {}).items():
                self.operations.setdefault(name, {})[side] = figures

    def names(self, prefix: str) -> list[str]:
        """Operations whose names begin so, in the order in which they were done."""
        return [name for name in self.operations if name.startswith(prefix)]

    def get(self, name: str, side: str, what: str = "insns") -> float | None:
        """One figure: a count at the mode, or one of the others."""
        figures = self.operations.get(name, {}).get(side)
        if figures is None:
            return None
        value: float = figures["mode"][what] if what in figures["mode"] else figures[what]
        return value

    def both(self, name: str, what: str = "insns") -> list[str]:
        """C's, Rust's, and the ratio."""
        c, rust = (self.get(name, side, what) for side in SIDES)
        return [number(c), number(rust), ratio(c, rust)]

    def plain(self, prefix: str, title: str) -> list[str]:
        """Instructions and memory operations of each operation whose name begins so."""
        head = [title, "C insns", "Rust insns", "Rust/C", "C mem", "Rust mem", "Rust/C"]
        rows = ([name.removeprefix(prefix), *self.both(name), *self.both(name, "mem")] for name in self.names(prefix))
        return table(head, rows)

    def upstream(self) -> list[str]:
        """Short paths, on which the series makes C faster as well."""
        titles = {"lpi": "LPI, ", "exit": "exit with ", "read": "read of ", "write": "write to "}
        rows = []
        for name, figures in self.results.get("upstream", {}).items():
            group, _, rest = name.partition("/")
            if group in titles:
                c, rust, _ = self.both(name)
                before = figures["mode"]["insns"]
                rows.append([titles[group] + rest, number(before), c, rust, ratio(before, self.get(name, "rust"))])
        return table(["", "upstream's C", "C with the series", "Rust", "Rust/upstream's"], rows)

    def further(self, name: str, side: str, what: str = "insns") -> float | None:
        """What a command costs that is not the first of its batch."""
        one, many = (self.get(f"command/{name}/{size}", side, what) for size in (1, BATCH))
        return None if one is None or many is None else (many - one) / (BATCH - 1)

    def commands(self) -> list[str]:
        """Each command, first and further in a batch."""
        names = [name.split("/")[1] for name in self.names("command/") if name.endswith(f"/{BATCH}")]
        columns = [f"{which} {place}" for place in ("first", "further") for which in ("C", "Rust", "Rust/C")]
        head = ["command", *columns, "C mem", "Rust mem", "C guest", "Rust guest"]
        rows = []
        for name in names:
            further = [self.further(name, side) for side in SIDES]
            memory = [self.further(name, side, "mem") for side in SIDES]
            guest = [self.further(name, side, "guest") for side in SIDES]
            cells = [*map(number, further), ratio(*further), *map(number, memory), *map(decimal, guest)]
            rows.append([name, *self.both(f"command/{name}/1"), *cells])
        return table(head, rows)

    def curves(self, axis: str) -> dict[tuple[str, str], dict[int, float]]:
        """Of each operation and side: instructions by the number of LPIs, devices or vCPUs."""
        found: dict[tuple[str, str], dict[int, float]] = {}
        for name in self.names(f"grow/{axis}/"):
            _, _, size, operation = name.split("/")
            # MAPTI of all that are new is no point of a curve.
            for side in SIDES if not operation.endswith("-more") else ():
                value = self.get(name, side)
                if value is not None:
                    found.setdefault((operation, side), {})[int(size)] = value
        return found

    def growth(self, axis: str) -> list[str]:
        """A row for each operation and side. C may have fewer LPIs at the end."""
        curves = self.curves(axis)
        sizes = sorted({size for curve in curves.values() for size in curve})
        rows = (
            [f"{operation} {LABELS[side]}", *(number(curve.get(size)) for size in sizes)]
            for (operation, side), curve in curves.items()
        )
        return table([axis, *(str(size) for size in sizes)], rows)

    def charts(self) -> dict[str, str]:
        """The same as pictures, by file name."""
        made = {}
        for axis, (title, operations) in CHARTS.items():
            curves = self.curves(axis)
            lines = [
                Line(f"{operation.partition(',')[0]}, {LABELS[side]}", n, side == "c", tuple(sorted(curve.items())))
                for n, operation in enumerate(operations)
                for side in SIDES
                if (curve := curves.get((operation, side)))
            ]
            if lines:
                above = f"Instructions in EL2 by the number of {title}"
                made[f"{axis}.svg"] = chart(above, title, "instructions", lines)
        return made

    def holds(self, most: int = 10) -> list[str]:
        """The longest stretches: of what is made to take long, and the longest of the rest."""
        every = [name for name in self.operations if any(self.get(name, side, "hold") for side in SIDES)]
        chosen = [name for name in every if name.startswith("hold/")]
        rest = sorted(set(every) - set(chosen), key=lambda name: (-(self.get(name, "rust", "hold") or 0), name))
        rows = ([name.removeprefix("hold/"), *self.both(name, "hold")] for name in [*chosen, *rest[:most]])
        return table(["longest stretch in", "C", "Rust", "Rust/C"], rows)

    def sharing(self) -> list[str]:
        """Locks, atomics, barriers and cache lines of LPIs."""
        head = ["operation", "side", "insns", "locks", "atomics", "barriers", "lines", "written", "shared by CPUs"]
        rows = []
        for name in self.names("lpi/"):
            for side in SIDES:
                if self.get(name, side) is None:
                    continue
                kinds = ("insns", "locks", "atomics", "barriers", "lines", "dirty", "shared")
                cells = [number(self.get(name, side, kind)) for kind in kinds]
                if not self.get(name, side, "lines"):
                    cells[4:] = ["-"] * 3
                rows.append([name.removeprefix("lpi/"), LABELS[side], *cells])
        return table(head, rows)

    def concurrency(self) -> list[str]:
        """What an LPI costs when each CPU has one at once."""
        kinds = ("insns", "locks", "atomics", "lines", "dirty", "shared")
        rows = []
        for name in self.names("concurrent/"):
            _, cpus, target = name.split("/")
            for side in SIDES:
                each = [(self.get(name, side, kind) or 0) / int(cpus) for kind in kinds]
                if any(each):
                    rows.append([f"{cpus} CPUs, {target}, {LABELS[side]}", *map(decimal, each)])
        return table(["for each LPI", "insns", "locks", "atomics", "lines", "written", "shared by CPUs"], rows)

    def throughput(self) -> list[str]:
        """Rust's LPIs in a second by C's."""
        rows = []
        for cpus, rates in self.results.get("throughput", {}).items():
            if set(rates) == set(SIDES):
                pairs = sorted(rust / c for c, rust in zip(rates["c"], rates["rust"], strict=True))
                rows.append([cpus, *(f"{pairs[n]:.2f}" for n in (0, len(pairs) // 2, -1))])
        return table(["throughput with CPUs", "least Rust/C", "median", "most"], rows)

    def kept(self, name: str, side: str, parts: int = 1) -> float | None:
        """Bytes that an operation leaves allocated, for each of its parts."""
        bytes_, freed = (self.get(name, side, what) for what in ("bytes", "freed"))
        return None if bytes_ is None or freed is None else (bytes_ - freed) / parts

    def memory(self) -> list[str]:
        """Bytes for each domain, vCPU, device, event and LPI, and the host's tables."""
        rows = []
        for what, prefix in (
            ("a domain's vGIC", "memory/domain"),
            ("a vCPU's vGIC", "memory/vcpu"),
            ("the first EnableLPIs", "memory/EnableLPIs/0"),
            ("each further vCPU's EnableLPIs", "memory/EnableLPIs/1"),
            ("a device with 32 events", "memory/devices/"),
            ("an event of a large device", "memory/events/"),
            ("a mapped LPI", "memory/lpis/"),
        ):
            for name in self.names(prefix):
                last = name.rpartition("/")[2]
                parts = int(last) if prefix.endswith("/") else 1
                c, rust = (self.kept(name, side, parts) for side in SIDES)
                rows.append([what, decimal(c), decimal(rust), ratio(c, rust)])
        rows += [[f"host, {bits} INTID bits", *self.host(bits)] for bits in (14, 16, 20)]
        return table(["bytes for", "C", "Rust", "Rust/C"], [row for row in rows if row[1:] != ["-"] * 3])

    def host(self, bits: int) -> list[str]:
        """The host's GIC and ITS with so many INTID bits; what no machine here has follows from two that it has."""
        sides: list[float | None] = []
        for side in SIDES:
            few, many = (self.kept(f"memory/host-tables/{n}-bits", side) for n in (14, 16))
            if few is None or many is None:
                sides.append(None)
                continue
            each = (many - few) / (2**16 - 2**14)
            sides.append(few + each * (2**bits - 2**14))
        return [number(sides[0]), number(sides[1]), ratio(*sides)]

    def dom0(self) -> list[str]:
        """A whole boot of Dom0 with an NVMe."""
        boots = self.results.get("dom0", {})
        if set(boots) != set(SIDES):
            return []
        rows = []
        for name in boots["rust"]:
            sides = [boots[side].get(name, {}) for side in SIDES]
            modes = [side.get("mode", {}).get("insns") for side in sides]
            totals = [side.get("total") for side in sides]
            calls = [number(side.get("calls")) for side in sides]
            rows.append(
                [name, *calls, number(modes[0]), number(modes[1]), ratio(*modes), *map(number, totals), ratio(*totals)]
            )
        both = [sum(boots[side].get(name, {}).get("total", 0) for name in (MMIO_WRITE, ADD)) for side in SIDES]
        rows.append([f"{MMIO_WRITE} + {ADD}", *["-"] * 5, *map(number, both), ratio(*both)])
        head = ["", "C calls", "Rust calls", "C one", "Rust one", "Rust/C", "C all", "Rust all", "Rust/C"]
        return table(head, rows)

    def sections(self) -> list[tuple[str, str, list[str]]]:
        """Title, explanation and table of each section that there are figures for."""
        every = [
            ("An LPI from a device", _LPI, self.plain("lpi/", "LPI")),
            ("A guest's exit", _EXIT, self.plain("exit/", "exit with")),
            ("Commands", _COMMANDS, self.commands()),
            ("Devices, and many commands", _DEVICES,
             [*self.plain("device/", "device"), "", *self.plain("command/MAPTI/", "MAPTI in a batch of")]),
            ("Registers", _REGISTERS, [*self.plain("read/", "read of"), "", *self.plain("write/", "write to")]),
            ("Upstream as it is", _UPSTREAM, self.upstream()),
            ("A boot of Dom0", _DOM0, self.dom0()),
            ("Growth with the number of mapped LPIs", _LPIS, self.growth("lpis")),
            ("Growth with the number of devices", _DEVICES_CURVE, self.growth("devices")),
            ("Growth with the number of vCPUs", _VCPUS_CURVE, self.growth("vcpus")),
            ("How long a trap holds a CPU", _HOLD, self.holds()),
            ("Locks, atomics and cache lines of an LPI", _SHARING, self.sharing()),
            ("Many CPUs at once", _CONCURRENCY, [*self.concurrency(), "", *self.throughput()]),
            ("Memory", _MEMORY, self.memory()),
        ]  # fmt: skip
        return [section for section in every if any(section[2])]

    def render(self, level: str = "##") -> str:
        """All sections."""
        lines: list[str] = []
        for title, about, rows in self.sections():
            lines += [f"{level} {title}", "", *([about, ""] if about else []), *rows, ""]
        return "\n".join(lines).rstrip() + "\n"


_LPI = """\
All that EL2 runs for one LPI that a device raises: from the guest's exception to the return to it, the interrupt's
entry and exit, and the exit's other work included. `other-cpu`: on two CPUs, until the other CPU's guest has it; which
CPU the host's LPI comes to depends on the event."""
_EXIT = "The shortest hypercall, with nothing in a list register, and with an LPI there that the guest has ended."
_COMMANDS = """\
From the store to GITS_CWRITER to the return to the guest. `further`: each but the first of a batch of sixteen. With
one or sixteen LPIs mapped. `error`: INV of an event that is not mapped, which is skipped. `late`: behind MAPC V=0 and
MOVALL, after which LPIs may be pending where they are not mapped. `mem` and `guest` are for a further one: memory
operations, and those among them that are on the guest's queue and tables (a pair of registers is one)."""
_DEVICES = "MAPD and MAPD V=0 with all their commands to the host's ITS, by number of events."
_REGISTERS = "The whole trip."
_UPSTREAM = """\
Everywhere else on this page, C is upstream's in a tree with the series: so the two differ in nothing but the ITS. But
one patch of the series makes each exit to a guest shorter, whichever ITS there is. Here is what upstream's C costs in
upstream's tree: instructions of the same paths, as above."""
_DOM0 = """\
With one NVMe and 2000 reads from it, from `bench/count.py`: what one call costs at the mode, and all calls of the boot.
`gicv3_do_LPI` is from the interrupt path's entry to its return; `its-mmio-write` has all commands of the boot in it.
`physdev-op`: the hypercalls that announce devices; `device-add`: the part of them that maps these on the host, which C
does when MAPD comes. So the last row has the devices' mapping for both."""
_LPIS = """\
![a picture of some of these](bench/lpis.svg)

`pending`: so many of them are pending when INVALL is executed, once or 16 times in a batch."""
_DEVICES_CURVE = "![a picture of some of these](bench/devices.svg)"
_VCPUS_CURVE = "![a picture of some of these](bench/vcpus.svg)"
_HOLD = """\
The longest stretch of instructions between a trap's entry, its end, and the points in it where softirqs and other vCPUs
may go first. First, as much as a guest can ask for at once, in sizes: what is bounded does not grow. Then the longest
of all other operations on this page."""
_SHARING = """\
`locks`: calls of spinlock functions. `atomics`: atomic read-modify-writes, those of inlined reader/writer locks
included. `lines`: distinct cache lines of 64 bytes that EL2 touches, `written` those of them that it writes, and
`shared by CPUs` those that one CPU writes and another touches (on two CPUs only)."""
_CONCURRENCY = """\
Each CPU has a device that fires at the same time, and the vCPU on it or the first one of all gets the LPI: counts of
all CPUs together, divided by their number. Turns are taken by one thread of QEMU's, so nobody waits for a lock.
`throughput`: the same by the clock, each CPU firing again when it has taken its LPI. It is a ratio because machines
differ, and a rough one because QEMU's own locks weigh more than either version."""
_MEMORY = """\
What is left allocated, as requested from Xen's allocators, pages as a whole. `a domain's vGIC` and `a vCPU's vGIC`: all
that `domain_vgic_init` and `vcpu_vgic_init` allocate. C has 60 bytes for each LPI in those of its device's events.
`host`: `gicv3_init`, the host ITS's tables included; with 20 bits, which QEMU has not, as it follows from 14 and 16."""
