# SPDX-License-Identifier: GPL-2.0-only
"""boot-wrapper in the place of TF-A: an image that a program of the user's makes, and what has to be in it.

boot-wrapper is a few lines that run before a kernel: they leave EL3, start the other CPUs when asked, and know
no power-off. It is no package of Debian's, and how it is built is its user's business: their program is given
Xen and our device tree, and makes one ELF file of both. Dom0's kernel is put into memory beside that.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from . import elf, fdt
from .errors import StepError, UsageError
from .fvp_tree import WRAPPER, Span, clashes, modules, reserved
from .shell import Command, run

VARIABLE = "BOOT_WRAPPER"

LIMIT_S = 300
"""For the user's program. boot-wrapper is compiled in a second."""

_FDT_MAGIC = b"\xd0\x0d\xfe\xed"


@dataclass(frozen=True)
class Wrapper:
    """The user's program: it is called with Xen, a device tree and the image to be made, a path for each."""

    program: Path

    def image(self, xen: Path, tree: Path, folder: Path, log: Path) -> Path:
        """Have an image made in `folder`; an error if it would not start Xen with this tree."""
        made = folder / "image.axf"
        argv: Command = ["timeout", str(LIMIT_S), self.program, xen, tree, made]
        run(
            argv, log, cwd=folder, what=f"{self.program.name} makes no image of boot-wrapper's",
            hint=f"what it said is in the log; it is the program that you named with --boot-wrapper or {VARIABLE}.",
        )  # fmt: skip
        if not made.exists():
            raise StepError(f"{self.program.name} was content, but there is no {made}", log=log)
        found = problems(made, xen, fdt.parse(tree.read_bytes()))
        if found:
            raise StepError(
                f"the image that {self.program.name} made would not do", log=log, lines=found,
                hint="docs/fvp.md says what has to be in it.",
            )  # fmt: skip
        return made


def named(program: Path) -> Wrapper:
    """The user's program, if it is one."""
    path = program.expanduser()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UsageError(
            f"--boot-wrapper or {VARIABLE} is {program}, which is no program",
            hint="it takes a program that makes an image of boot-wrapper's: docs/fvp.md says how it is called.",
        )
    return Wrapper(path.resolve())


def from_environment() -> Wrapper | None:
    """The program that the variable names, if it is set."""
    program = os.environ.get(VARIABLE)
    return named(Path(program)) if program else None


def problems(image: Path, xen: Path, ours: fdt.Tree) -> list[str]:
    """Why an image does not start this Xen with our device tree; empty if it does."""
    program = elf.program(image)
    hypervisor = xen.read_bytes()
    rest: list[elf.Segment] = []
    used: list[Span] = []
    trees: list[fdt.Tree] = []
    found = []
    for segment in program.segments:
        end = segment.address + segment.size
        if (at := segment.data.find(hypervisor)) >= 0:
            # Behind its file Xen has memory that begins as zeroes.
            start = segment.address + at
            used.append((segment.address, max(end, start + _image_size(hypervisor)), "Xen"))
        elif inside := device_trees(segment.data):
            trees += inside
            used.append((segment.address, end, "the tree"))
        else:
            rest.append(segment)
    if not any(name == "Xen" for *_, name in used):
        found.append("Xen is not in it, or not the one that it was to be made of")
    low, high = WRAPPER[0], sum(WRAPPER)
    if not any(segment.address <= program.entry < segment.address + segment.size for segment in rest):
        found.append(f"it begins at {program.entry:#x}, where there is no code of boot-wrapper's")
    for segment in rest:
        if not low <= segment.address <= segment.address + segment.size <= high:
            end = segment.address + segment.size
            found.append(f"from {segment.address:#x} to {end:#x} is something that is not from {low:#x} to {high:#x}")
    if len(trees) != 1:
        return [*found, f"it has {len(trees)} device trees"]
    return found + clashes(used + modules(ours) + reserved(ours)) + changes(ours, trees[0])


def _image_size(kernel: bytes) -> int:
    """What an arm64 kernel says it needs."""
    (size,) = struct.unpack_from("<Q", kernel, 0x10)
    return int(size)


def device_trees(data: bytes) -> list[fdt.Tree]:
    """The device trees in a piece of memory, as far as they are of use to a kernel."""
    found = []
    at = data.find(_FDT_MAGIC)
    while at >= 0:
        try:
            tree = fdt.parse(data[at:])
        except (StepError, struct.error, ValueError, KeyError, IndexError):
            tree = None
        if tree and "chosen" in tree.root.children:
            found.append(tree)
        at = data.find(_FDT_MAGIC, at + 4)
    return found


def changes(ours: fdt.Tree, theirs: fdt.Tree) -> list[str]:
    """What boot-wrapper may not do to our device tree, and what it has to."""
    found = [f"the device tree has lost {what}" for what in _lost("", ours.root, theirs.root)]
    if any(entry not in theirs.reserved for entry in ours.reserved):
        found.append("the device tree does not reserve boot-wrapper's own memory")
    mine, chosen = ours.node("/chosen").children, theirs.node("/chosen")
    found += [f"the device tree has one module more, {name}" for name in chosen.children if name not in mine]
    if "linux,initrd-start" in chosen.properties:
        found.append("the device tree has an initramfs besides those that are modules")
    return found + _how_cpus_start(theirs)


def _lost(path: str, ours: fdt.Node, theirs: fdt.Node) -> list[str]:
    found = [f"{path}/{name}" for name, value in ours.properties.items() if theirs.properties.get(name) != value]
    for name, child in ours.children.items():
        if name in theirs.children:
            found += _lost(f"{path}/{name}", child, theirs.children[name])
        else:
            found.append(f"{path}/{name}")
    return found


def _how_cpus_start(tree: fdt.Tree) -> list[str]:
    """PSCI by SMC, in a version that Xen knows. Our tree says nothing of it: boot-wrapper's can do less than TF-A's."""
    psci = tree.root.children.get("psci")
    if psci is None:
        return ["the device tree has no PSCI: was boot-wrapper built without it?"]
    found = [] if psci.properties.get("method") == b"smc\0" else ["PSCI is not by SMC"]
    if psci.properties.get("compatible") == b"arm,psci\0" and "cpu_on" not in psci.properties:
        found.append("PSCI 0.1 has no cpu_on")
    for name, node in tree.node("/cpus").children.items():
        if name.startswith("cpu@") and node.properties.get("enable-method") != b"psci\0":
            found.append(f"{name} is not started by PSCI")
    return found
