#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Stands for Arm's Fast Model in tests: it lists parameters, takes a command line apart as the model would, and
prints a console that was recorded on QEMU, of Dom0 or of the bare-metal guest, to where the model would print it.

``FAKE_FVP_CONSOLE`` names another recording, ``FAKE_FVP_LACKS`` a parameter that this model has not, and
``FAKE_FVP_THEN`` says what comes after the console: ``hang``, ``closed`` (it hangs with its console closed),
``dies`` (it ends with status 3 a while after it has closed its console), ``killed``, or a status to end with. A
machine that boot-wrapper started cannot power itself off, and hangs.
"""

import json
import os
import re
import signal
import struct
import sys
import time
from itertools import pairwise
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from xenits import elf, fdt, fvp_wrapper  # noqa: E402

PARAMETERS = """\
bp.flashloader0.fname=                                # (string, init-time) default = ''       : Filename
bp.pl011_uart0.out_file=                              # (string, init-time) default = ''       : Output file
bp.pl011_uart0.unbuffered_output=0                    # (bool  , init-time) default = '0'      : Unbuffered output
bp.pl011_uart1.out_file=                              # (string, init-time) default = ''       : Output file
bp.refcounter.non_arch_start_at_default=0             # (bool  , init-time) default = '0'      : Starts by itself
bp.secure_memory=1                                    # (bool  , init-time) default = '1'      : Secure memory
bp.secureflashloader.fname=                           # (string, init-time) default = ''       : Filename
bp.terminal_0.start_telnet=1                          # (bool  , init-time) default = '1'      : Start telnet
bp.terminal_1.start_telnet=1                          # (bool  , init-time) default = '1'      : Start telnet
bp.terminal_2.start_telnet=1                          # (bool  , init-time) default = '1'      : Start telnet
bp.terminal_3.start_telnet=1                          # (bool  , init-time) default = '1'      : Start telnet
bp.ve_sysregs.exit_on_shutdown=0                      # (bool  , init-time) default = '0'      : SYS_CFG shutdown
bp.vis.disable_visualisation=0                        # (bool  , init-time) default = '0'      : Visualisation
cache_state_modelled=1                                # (bool  , run-time ) default = '1'      : Cache state
cluster0.NUM_CORES=4                                  # (int   , init-time) default = '0x4'    : Cores : [0x0..0x4]
cluster0.cpu0.RVBAR=0                                 # (int   , init-time) default = '0x0'    : Reset vector
cluster1.NUM_CORES=4                                  # (int   , init-time) default = '0x4'    : Cores : [0x0..0x4]
gic_distributor.GICR-clear-enable-supported=0         # (bool  , init-time) default = '0'      : GICR_CTLR.CES
gic_distributor.GITS_BASER0-type=0                    # (int   , init-time) default = '0x0'    : Type : [0x0..0x7]
gic_distributor.GITS_BASER1-type=0                    # (int   , init-time) default = '0x0'    : Type : [0x0..0x7]
gic_distributor.ITS-count=0                           # (int   , init-time) default = '0x0'    : ITSes : [0x0..0x4]
gic_distributor.ITS-device-bits=16                    # (int   , init-time) default = '0x10'   : Bits : [0x1..0x20]
gic_distributor.ITS-use-physical-target-addresses=1   # (bool  , init-time) default = '1'      : GITS_TYPER.PTA
gic_distributor.allow-LPIEN-clear=0                   # (bool  , init-time) default = '0'      : EnableLPIs
pci.hierarchy_file_name=                              # (string, init-time) default = ''       : Hierarchy
pctl.startup=0.0.0.0                                  # (string, init-time) default = ''       : Who starts
"""

RECORDED = """\
Xen 4.20.4-pre
(XEN) Xen version 4.20.4-pre debug=y
(XEN) GICv3: using at most 57344 LPIs on the host.
(XEN) GICv3: Found ITS @0x8080000
XENITS: info scenario=sata kernel=6.1.0-56-arm64 cpus=2 xen=yes
XENITS: plan 4
XENITS: ok 1 sda-0-cpu0 reads=500 irqs=500 irq=17 hwirq=16384 cpu=0 ms=16814
XENITS: ok 2 sda-1-cpu1 reads=500 irqs=500 irq=17 hwirq=16384 cpu=1 ms=26299
XENITS: ok 3 sda-2-cpu0 reads=500 irqs=500 irq=17 hwirq=16384 cpu=0 ms=8141
XENITS: ok 4 kernel-log lines=289 ms=424
XENITS: irq 17 ITS-MSI/16384 ahci[0000:00:01.0] 1006 501
XENITS: info xen-key=L when=end
(XEN) ITS: 'L' pressed
(XEN) ITS: host lpis=32 unclaimed=0
(XEN) ITS: host its=0 commands=39 outstanding=0 abandoned=0
(XEN) ITS: device d0 vits=0 devid=0x8 events=32 guest_bits=1 mapped=1 announced
(XEN) ITS: vcpu d0v0 raised=1006 done=996 slots=0 waiting=0 disabled=0
(XEN) ITS: vcpu d0v1 raised=501 done=393 slots=0 waiting=0 disabled=0
(XEN) ITS: commands d0 vits=0 MOVI=2 SYNC=7 MAPD=1 MAPC=2 MAPTI=1 INVALL=2 skipped=0
(XEN) ITS: stats d0 lpis=1507 queued=1389 merged=118 disabled=0 waited=0 done=1389 evicted=0 unrouted=0 storms=0 commands=15 skipped=0
(XEN) ITS: state d0 devices=1 events=32 mapped=1 slots=0 waiting=0 dormant=0 masked=0 id_bits=16 table_bytes=6784 property_holes=0
XENITS: info failures=0
XENITS: done
[   88.777420] reboot: Power down
(XEN) Hardware Dom0 halted: halting machine
"""

GUEST = """\
Xen 4.20.4-pre
(XEN) Xen version 4.20.4-pre debug=y
(XEN) GICv3: Found ITS @0x8080000
TAP version 13
1..15
# 2 CPUs, under Xen
# start 1 int-while-disabled
ok 1 - int-while-disabled
# start 2 int-on-each-cpu
ok 2 - int-on-each-cpu
# start 3 int-twice-is-one
ok 3 - int-twice-is-one
# start 4 int-while-taken-comes-again
ok 4 - int-while-taken-comes-again
# start 5 movi-routes
ok 5 - movi-routes
# start 6 movi-moves-pending
ok 6 - movi-moves-pending
# start 7 movi-unmapped-device
ok 7 - movi-unmapped-device
# start 8 movi-unmapped-event
ok 8 - movi-unmapped-event
# start 9 movi-id-oor
ok 9 - movi-id-oor
# start 10 movi-unmapped-collection
ok 10 - movi-unmapped-collection
# start 11 movi-collection-oor
ok 11 - movi-collection-oor
# start 12 int-unmapped-device
ok 12 - int-unmapped-device
# start 13 int-unmapped-event
ok 13 - int-unmapped-event
# start 14 int-id-oor
ok 14 - int-id-oor
# start 15 movi-storm
# movi-storm: 2714 LPIs taken here, 1476 there
# heartbeat movi-storm: longest gap 43197 us, 91866 beats in 2047 ms
ok 15 - movi-storm
XENITS-GUEST: done
(XEN) Hardware Dom0 halted: halting machine
"""


def parameters() -> str:
    """What it has, without what a test takes away."""
    lacks = os.environ.get("FAKE_FVP_LACKS", " ")
    return "".join(line for line in PARAMETERS.splitlines(True) if not line.startswith(lacks + "="))


def take_apart(argv: list[str]) -> tuple[dict[str, str], list[tuple[Path, int]], dict[str, Path]]:
    """The parameters, files and programs of a command line; a mistake ends this program, as it would the model."""
    known = dict(re.findall(r"^([^=]+)=(\S*)", parameters(), re.MULTILINE))
    given: dict[str, str] = {}
    data = []
    programs = {}
    for option, value in zip(argv[::2], argv[1::2], strict=True):
        if option == "-C":
            name, _, text = value.partition("=")
            if name not in known:
                sys.exit(f"Error: parameter '{name}' not found")
            given[name] = text
        elif option == "--data":
            match = re.fullmatch(r"cluster0\.cpu0=(.+)@(0x[0-9a-f]+)", value)
            if not match:
                sys.exit(f"Error: cannot load '{value}'")
            data.append((Path(match[1]), int(match[2], 16)))
        elif option == "-a":
            match = re.fullmatch(r"(cluster[01])\.\*=(.+)", value)
            if not match:
                sys.exit(f"Error: cannot start '{value}'")
            programs[match[1]] = Path(match[2])
        else:
            sys.exit(f"Error: no option '{option}'")
    return {**known, **given}, data, programs


def in_flash(given: dict[str, str]) -> fdt.Tree:
    """The device tree that the firmware passes on, which starts on one CPU."""
    if given["pctl.startup"] != "0.0.0.0":
        sys.exit("Error: more CPUs start than the firmware expects")
    if not Path(given["bp.secureflashloader.fname"]).stat().st_size:
        sys.exit("Error: there is no BL1")
    return fdt.parse(find_tree(Path(given["bp.flashloader0.fname"]).read_bytes()))


def in_program(given: dict[str, str], programs: dict[str, Path]) -> tuple[fdt.Tree, list[tuple[int, int]]]:
    """The device tree that boot-wrapper passes on, and what is loaded. All CPUs must start in it, with a clock."""
    used = [n for n in (0, 1) if int(given[f"cluster{n}.NUM_CORES"])]
    if sorted(programs) != [f"cluster{n}" for n in used] or len(set(programs.values())) != 1:
        sys.exit("Error: not all CPUs have the same program")
    if given["pctl.startup"].split(",") != [f"0.{n}.*.*" for n in used]:
        sys.exit("Error: not all CPUs start")
    if given["bp.refcounter.non_arch_start_at_default"] != "1":
        sys.exit("Error: time stands still")
    segments = elf.program(programs["cluster0"]).segments
    (tree,) = [tree for segment in segments for tree in fvp_wrapper.device_trees(segment.data)]
    return tree, [(segment.address, segment.address + segment.size) for segment in segments]


def look(given: dict[str, str], data: list[tuple[Path, int]], programs: dict[str, Path]) -> str:
    """Whether the machine could start: its firmware, its PCI devices, its memory. What its console would say."""
    tree, spans = in_program(given, programs) if programs else (in_flash(given), [])
    chosen = tree.node("/chosen")
    if "xen,xen-bootargs" not in chosen.properties:
        sys.exit("Error: the device tree is not one for Xen")
    loaded = {(address >> 32, address & 0xFFFFFFFF, 0, path.stat().st_size) for path, address in data}
    if any(tuple(module.cells("reg")) not in loaded for module in chosen.children.values()):
        sys.exit("Error: a module of the device tree is not in memory")
    cpus = sum(name.startswith("cpu@") for name in tree.node("/cpus").children)
    if int(given["cluster0.NUM_CORES"]) + int(given["cluster1.NUM_CORES"]) != cpus:
        sys.exit("Error: there are not as many CPUs as in the device tree")
    arguments = [module.properties.get("bootargs", b"") for module in chosen.children.values()]
    (ahci,) = json.loads(Path(given["pci.hierarchy_file_name"]).read_text(encoding="utf-8")).values()
    spans = sorted(spans + [(address, address + path.stat().st_size) for path, address in data])
    if not Path(ahci["image_path"]).stat().st_size:
        sys.exit("Error: the disk is empty")
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        sys.exit("Error: files overlap in memory")
    return GUEST if any(text.startswith(b"its.test=") for text in arguments) else RECORDED


def find_tree(fip: bytes) -> bytes:
    """The largest device tree in a FIP: the others are TF-A's own settings."""
    found = b""
    at = fip.find(b"\xd0\x0d\xfe\xed")
    while at >= 0:
        (size,) = struct.unpack_from(">I", fip, at + 4)
        found = max(found, fip[at : at + size], key=len)
        at = fip.find(b"\xd0\x0d\xfe\xed", at + 4)
    return found


def main() -> int:
    """List parameters, or run."""
    if sys.argv[1:] == ["--list-params"]:
        print("# Parameters:\n# instance.parameter=value       #(type, mode) default = 'def value' : description")
        print("#" + "-" * 78 + "\n" + parameters() + "#" + "-" * 78)
        return 0
    given, data, programs = take_apart(sys.argv[1:])
    recorded = look(given, data, programs)
    named = os.environ.get("FAKE_FVP_CONSOLE")
    text = Path(named).read_text(encoding="utf-8") if named else recorded
    if given["bp.pl011_uart0.out_file"] == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        Path(given["bp.pl011_uart0.out_file"]).write_text(text, encoding="utf-8")
    then = os.environ.get("FAKE_FVP_THEN", "hang" if programs else "0")
    if then in ("closed", "dies"):
        os.close(1)
    if then == "dies":
        time.sleep(1.0)
        os._exit(3)
    if then in ("hang", "closed"):
        time.sleep(3600)
    if then == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(then)


if __name__ == "__main__":
    sys.exit(main())
