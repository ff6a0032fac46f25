# SPDX-License-Identifier: GPL-2.0-only
"""Live patches for a Xen that was built here, and how they get into Dom0.

Three payloads go into Dom0's folder ``/livepatch``: one of Xen's own tests, the same made for another Xen, and
ours (``dom0/livepatch``), which reaches into the ITS.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from . import cpio
from .elf import Elf, Symbol
from .errors import StepError
from .layout import REPO
from .shell import run
from .xen_build import XenBuild

SOURCE = REPO / "dom0/livepatch"
FRAGMENT = SOURCE / "xen.config"

SCENARIO = "livepatch"
"""What Dom0 does with them."""

HELLO = "xen_hello_world"
"""A payload of Xen's own: it replaces what says the extra version."""

OTHER = "other_xen"
"""The same, but for a Xen with another build id."""

CALLS = "its_calls"
"""Ours."""

COUNTED = ("gicv3_do_LPI", "xen_its_host_lpi", "xen_its_deliver", "xen_its_svc_vgic_lock_in_irq")
"""What our payload counts the calls of, which each LPI goes through: C, Rust that it calls, and C that Rust calls."""

REPLACED = "xen_its_host_dump"
"""The function in Rust that our payload has another one for."""

ARCHIVE = "livepatch.cpio.gz"
"""All payloads, to be put behind an initramfs."""

_OBJCOPY = "aarch64-linux-gnu-objcopy"
_NOTE = ".note.gnu.build-id"
BUILD_ID_BYTES = 20
"""The end of that note."""


def build(xen: XenBuild, folder: Path, log: Path) -> Path:
    """Make the payloads for a Xen that is built, in `folder`; gives an archive to put behind Dom0's initramfs."""
    root = folder / "livepatch"
    shutil.rmtree(root, ignore_errors=True)
    top = root / "livepatch"
    top.mkdir(parents=True)
    hello = _xens_own(xen, log)
    shutil.copy2(hello, top / hello.name)
    note = _section(xen.work / "xen/xen-syms", _NOTE, folder, log)
    (top / f"{OTHER}.livepatch").write_bytes(for_another_xen(hello.read_bytes(), note))
    _ours(xen, top / f"{CALLS}.livepatch", note, folder, log)
    archive = folder / ARCHIVE
    cpio.pack(root, archive, log)
    return archive


def for_another_xen(payload: bytes, note: bytes) -> bytes:
    """A payload as if it were for a Xen with another build id than the one in this note of Xen's."""
    id_ = note[-BUILD_ID_BYTES:]
    # All of the payload's references to Xen have it.
    if len(id_) != BUILD_ID_BYTES or payload.count(id_) < 2:
        raise StepError("a live patch does not name the Xen that it was made for")
    return payload.replace(id_, bytes(byte ^ 0xFF for byte in id_))


def append(initrd: Path, archive: Path) -> None:
    """Put the payloads into an initramfs: the kernel unpacks one archive after the other."""
    with open(initrd, "ab") as out:
        out.write(archive.read_bytes())


def _xens_own(xen: XenBuild, log: Path) -> Path:
    folder = xen.work / "xen/test/livepatch"
    for name in ("config.h", "expect_config.h"):
        # Xen's makefile does not make them anew for another xen-syms.
        (folder / name).unlink(missing_ok=True)
    run(xen.make("tests"), log, what="Xen's own live patches do not build")
    return folder / f"{HELLO}.livepatch"


def _section(file: Path, name: str, folder: Path, log: Path) -> bytes:
    raw = folder / "section.bin"
    run([_OBJCOPY, "-O", "binary", f"--only-section={name}", file, raw], log)
    data = raw.read_bytes()
    raw.unlink()
    return data


def _ours(xen: XenBuild, target: Path, note: bytes, folder: Path, log: Path) -> None:
    place = xen.work / "xen/test/its"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(SOURCE, place)
    (place / "xen_funcs.h").write_text(xen_functions(Elf(xen.work / "xen/xen-syms")), encoding="utf-8")
    objects = [place / "its_calls_func.o", place / "its_calls.o"]
    run(xen.make("test/its/its_calls_func.o"), log, what=f"{CALLS} does not build")
    (place / "our_funcs.h").write_text(our_functions(Elf(objects[0])), encoding="utf-8")
    run(xen.make("test/its/its_calls.o"), log, what=f"{CALLS} does not build")
    raw = folder / "note.bin"
    raw.write_bytes(note)
    merged = folder / "its_calls.o"
    run(["aarch64-linux-gnu-ld", "-r", "--build-id=sha1", "-o", merged, *objects], log)
    # What the payload goes on top of, and which Xen it is for: the same, as it is the first one.
    sections = [
        word
        for name in (".livepatch.depends", ".livepatch.xen_depends")
        for word in ("--add-section", f"{name}={raw}", "--set-section-flags", f"{name}=alloc,readonly")
    ]
    run([_OBJCOPY, *sections, "--set-section-flags", ".livepatch.funcs=alloc,readonly", merged, target], log)
    raw.unlink()
    merged.unlink()


def xen_functions(syms: Elf) -> str:
    """``xen_funcs.h``: the functions as they are in a Xen."""
    found = _functions(syms, (*COUNTED, REPLACED))
    counted = [f"X({name}, {first_instruction(syms, found[name]):#010x}, {found[name].size})" for name in COUNTED]
    return f"#define COUNTED(X) {' '.join(counted)}\n#define HOST_DUMP_SIZE {found[REPLACED].size}\n"


def our_functions(made: Elf) -> str:
    """``our_funcs.h``: sizes of the functions in the object that take their place."""
    counter = f"counted_{COUNTED[0]}"
    found = _functions(made, (counter, "dump_calls"))
    return f"#define COUNTER_SIZE {found[counter].size}\n#define DUMP_CALLS_SIZE {found['dump_calls'].size}\n"


def _functions(file: Elf, names: tuple[str, ...]) -> dict[str, Symbol]:
    found = {s.name: s for s in file.symbols if s.function and not s.undefined and s.name in names}
    for name in names:
        if name not in found:
            raise StepError(f"{file.path} has no function {name}")
    return found


def first_instruction(file: Elf, function: Symbol) -> int:
    """The first instruction of a function; an error if it means another thing elsewhere."""
    word: int = struct.unpack_from("<I", file.content(function))[0]
    if not movable(word):
        raise StepError(
            f"{function.name} begins with {word:#010x}, which must stay where it is",
            hint="count the calls of another function (COUNTED in scripts/xenits/livepatch.py).",
        )
    return word


def movable(word: int) -> bool:
    """Whether an instruction does the same wherever it is: it neither branches nor takes an address from where it is.

    Encodings are from the main table of the A64 instruction set (Arm ARM, C4.1).
    """
    hint = word & 0xFFFFF01F == 0xD503201F
    system_register = word & 0xFFD00000 == 0xD5100000
    if hint or system_register:
        # BTI, PACIASP, MRS and the like are among the branches.
        return True
    branch_or_system = word >> 26 & 0b111 == 0b101
    address = word >> 24 & 0b11111 == 0b10000
    literal = word >> 27 & 0b111 == 0b011 and word >> 24 & 0b11 == 0b00
    return not (branch_or_system or address or literal)
