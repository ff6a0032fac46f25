#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Stands for a user's program that makes an image of boot-wrapper's, in tests. Nothing runs what it makes.

``FAKE_WRAPPER`` names what it does wrong: see `MISTAKES`.
"""

import os
import struct
import subprocess
import sys
from pathlib import Path

CODE, XEN, TREE = 0x8000_0000, 0x8020_0000, 0x8800_0000

MISTAKES = ("other-xen", "no-psci", "a-module-more", "other-arguments", "far-code", "no-image", "no-elf", "fails")


def changed(tree: bytes, wrong: str) -> bytes:
    """The tree with what boot-wrapper adds."""

    def fdtput(*words: str) -> None:
        subprocess.run(["fdtput", *words], check=True)

    path = Path("changed.dtb")
    path.write_bytes(tree)
    if wrong != "no-psci":
        fdtput("-c", path, "/psci")
        for name, value in (("compatible", "arm,psci"), ("method", "smc")):
            fdtput("-t", "s", path, "/psci", name, value)
        fdtput("-t", "x", path, "/psci", "cpu_on", "c4000003")
        names = subprocess.run(["fdtget", "-l", path, "/cpus"], check=True, capture_output=True, text=True).stdout
        for name in names.split():
            if name.startswith("cpu@"):
                fdtput("-t", "s", path, f"/cpus/{name}", "enable-method", "psci")
    if wrong == "a-module-more":
        fdtput("-c", path, "/chosen/module@1")
    fdtput("-t", "s", path, "/chosen", "bootargs", "console=ttyAMA0")
    if wrong == "other-arguments":
        fdtput("-t", "s", path, "/chosen", "xen,xen-bootargs", "console=dtuart")
    data = path.read_bytes()
    path.unlink()
    return data


def program(*segments: tuple[int, bytes]) -> bytes:
    """An ELF file that starts where its first segment is."""
    header, entry = 64, 56
    at = header + entry * len(segments)
    heads = b""
    for address, data in segments:
        heads += struct.pack("<IIQQQQQQ", 1, 7, at, address, address, len(data), len(data), 8)
        at += len(data)
    magic = b"\x7fELF\x02\x01\x01" + bytes(9)
    sizes = (header, entry, len(segments), 64, 0, 0)
    first = struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, segments[0][0], header, 0, 0, *sizes)
    return magic + first + heads + b"".join(data for _, data in segments)


def main() -> None:
    """Make the image, or not."""
    xen, tree, image = map(Path, sys.argv[1:])
    wrong = os.environ.get("FAKE_WRAPPER", "")
    assert wrong in ("", *MISTAKES)
    if wrong == "fails":
        sys.exit("configure: error: cannot find the device tree compiler")
    if wrong == "no-image":
        return
    if wrong == "no-elf":
        image.write_bytes(b"MZ" * 100)
        return
    hypervisor = xen.read_bytes()
    if wrong == "other-xen":
        hypervisor = hypervisor[:-1] + bytes([hypervisor[-1] ^ 1])
    code = (CODE + (0x10_0000 if wrong == "far-code" else 0), bytes(0x100))
    image.write_bytes(program(code, (XEN, hypervisor), (TREE, changed(tree.read_bytes(), wrong))))


if __name__ == "__main__":
    main()
