# SPDX-License-Identifier: GPL-2.0-only
"""The marks plugin: what it is told, and what it wrote."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench import repo  # noqa: F401
from bench.elfsyms import SymbolTable
from xenits.errors import StepError

COUNTS = (
    "insns", "mem", "trips", "atomics", "barriers", "locks", "bytes", "freed", "lines", "dirty", "shared", "guest",
)  # fmt: skip
"""What is counted; see the plugin."""

WITH_LINES = ("lines", "dirty", "shared", "guest")
"""Those of them that are counted on demand."""

LOCKS = ("_spin_lock", "_spin_lock_cb", "_spin_trylock", "_rspin_lock", "_rspin_trylock")
"""Functions that acquire a lock. Readers' and writers' locks are inlined: they show as atomics only."""

POINTS = ("xen_its_work", "vgic_its_let_irqs_in")
"""Where other work may go first. Softirqs, the scheduler among them, are looked for before each `xen_its_work`, and
after each `vgic_its_let_irqs_in`."""

OTHERS = ("do_softirq",)
"""The other work."""

ALLOCATOR = ("_xmalloc", "_xzalloc", "_xrealloc", "xfree", "xmem_pool_alloc", "xmem_pool_free", "xmem_pool_create")
"""Functions of the file that has Xen's small allocator."""

PAGE = 0x1000


@dataclass
class Op:
    """All calls of one operation."""

    number: int
    calls: int
    hold: int
    """The longest stretch of instructions without a preemption point."""
    samples: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """How many calls cost this."""

    def mode(self, what: str = "insns") -> int:
        """The most frequent cost; of several the lowest."""
        by_cost: Counter[int] = Counter()
        for calls, counts in self.samples:
            by_cost[counts[what]] += calls
        return min(by_cost.items(), key=lambda item: (-item[1], item[0]))[0]

    def usual(self) -> dict[str, int]:
        """All counts of a call whose instructions are at the mode."""
        insns = self.mode()
        _, counts = max((s for s in self.samples if s[1]["insns"] == insns), key=lambda s: s[0])
        return counts

    def sorted(self, what: str = "insns") -> list[int]:
        """The costs of all calls, the lowest first."""
        return sorted(counts[what] for calls, counts in self.samples for _ in range(calls))

    def total(self, what: str) -> int:
        """The cost of all calls together."""
        return sum(calls * counts[what] for calls, counts in self.samples)


@dataclass
class Output:
    """One boot."""

    totals: dict[str, int] = field(default_factory=dict)
    ops: dict[int, Op] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)
    """Of the operation that was profiled: instructions in all calls, by function."""


def arguments(
    plugin: Path,
    symbols: SymbolTable,
    out: Path,
    *,
    lines: bool = False,
    spans: dict[int, str] | None = None,
    profile: tuple[int, Path] | None = None,
) -> str:
    """The value of ``-plugin``.

    With `profile`, an operation is counted by function; the file is for its names. `spans` are functions whose calls
    are operations of these numbers, and come with a count of the memory that is given back.
    """
    low, high = symbols.address("_stext"), symbols.address("_end")
    vectors = symbols.address("hyp_traps_vector")
    words = [str(plugin), f"lo={low:#x}", f"hi={high:#x}", f"out={out}", f"vec={vectors:#x}"]
    if symbols.has("__bp_harden_hyp_vecs_start"):
        copies = (symbols.address(f"__bp_harden_hyp_vecs_{end}") for end in ("start", "end"))
        words.append("harden=" + ":".join(f"{a:#x}" for a in copies))
    words += [f"lock={symbols.address(name):#x}" for name in LOCKS if symbols.has(name)]
    words += [f"point={symbols.address(name):#x}" for name in POINTS if symbols.has(name)]
    words += [f"others={symbols.address(name):#x}" for name in OTHERS]
    words += [f"alloc={spec}" for spec in _allocators(symbols)]
    if spans:
        words += [f"span={number}:{symbols.address(name):#x}" for number, name in spans.items()]
        words += [f"free={symbols.address(name):#x}" for name in ("xfree", "free_xenheap_pages")]
    if lines:
        words.append("lines=1")
    if profile:
        number, path = profile
        pieces = symbols.ranges(low, symbols.address("_etext"))
        path.write_text("".join(f"{s.addr:x} {s.size:x} {s.name}\n" for s in pieces), encoding="utf-8")
        words += [f"profile={number}", f"syms={path}"]
    bad = [word for word in words if "," in word]
    if bad:
        raise StepError(f"QEMU cannot take a plugin argument with a comma in it: {bad[0]}")
    return ",".join(words)


def _allocators(symbols: SymbolTable) -> list[str]:
    """Small blocks by size, and pages by order, each only from outside the layers above."""
    # The compiler may split what `_xmalloc` and `_xzalloc` share off the former.
    small = next(name for name in ("_xmalloc.part.0", "_xmalloc") if symbols.has(name))
    inside = [s for s in symbols.symbols if s.name.partition(".part")[0] in ALLOCATOR]
    own = f"{min(s.addr for s in inside):#x}:{max(s.addr + s.size for s in inside):#x}"
    (pages,) = (s for s in symbols.symbols if s.name == "alloc_xenheap_pages")
    above = f"{pages.addr:#x}:{pages.addr + pages.size:#x}"
    return [
        f"0:1:{symbols.address(small):#x}",
        f"0:{PAGE:#x}:{pages.addr:#x}:{own}",
        f"1:{PAGE:#x}:{symbols.address('alloc_domheap_pages'):#x}:{above}",
    ]


def parse(text: str) -> Output:
    """Read the file that the plugin wrote. Raises `StepError` if it is cut short or inconsistent."""
    lines = text.splitlines()
    if lines and lines[0] != "marks 1":
        raise StepError("this is not the output of the marks plugin")
    if not lines or lines[-1] != "end":
        raise StepError("the marks plugin's output is cut short: QEMU did not end as it should")
    out = Output()
    for number, line in enumerate(lines[1:-1], 2):
        try:
            _parse_line(out, line.split())
        except (ValueError, KeyError):
            raise StepError(f"line {number} of the marks plugin's output makes no sense: {line!r}") from None
    for op in out.ops.values():
        if sum(calls for calls, _ in op.samples) != op.calls:
            raise StepError(f"operation {op.number}: its {op.calls} calls are not those that were counted")
    if out.totals.get("broken") or out.totals.get("open"):
        raise StepError("marks do not fit together: an operation began inside another, or one never ended")
    return out


def _parse_line(out: Output, words: list[str]) -> None:
    match words:
        case ["total", *rest]:
            out.totals = _numbers(rest)
        case ["op", number, *rest]:
            values = _numbers(rest)
            out.ops[int(number)] = Op(int(number), values["calls"], values["hold"])
        case ["sample", number, *rest]:
            values = _numbers(rest)
            out.ops[int(number)].samples.append((values["calls"], {name: values[name] for name in COUNTS}))
        case ["in", insns, name]:
            # Static functions of different files may share a name.
            out.functions[name] = out.functions.get(name, 0) + int(insns)
        case _:
            raise ValueError(words)


def _numbers(words: list[str]) -> dict[str, int]:
    return {key: int(value) for key, value in (word.split("=", 1) for word in words)}
