# SPDX-License-Identifier: GPL-2.0-only
"""The device tree for the Fast Model, as the compiler made it, and what reads it."""

import subprocess
import tempfile
import unittest
from pathlib import Path

from xenits import fdt, fvp, fvp_tree
from xenits.errors import StepError

KERNEL = fvp_tree.Module("kernel", fvp.KERNEL_ADDRESS, 0x200_0000, 'console=hvc0 a="b"')
RAMDISK = fvp_tree.Module("ramdisk", 0x9400_0000, 0x10_0000)


def compiled(board):
    done = subprocess.run(
        ["dtc", "-I", "dts", "-O", "dtb"], input=fvp_tree.source(board).encode(), capture_output=True, check=True
    )
    return done.stdout, done.stderr.decode()


class TheTree(unittest.TestCase):
    def setUp(self):
        data, self.said = compiled(fvp_tree.Board(6, "console=dtuart", (KERNEL, RAMDISK)))
        self.data = data
        self.tree = fdt.parse(data)

    def points_to(self, cell):
        return self.tree.by_phandle(cell)

    def test_the_compiler_has_nothing_to_say(self):
        self.assertEqual(self.said, "")

    def test_gic_and_its(self):
        gic = self.tree.node("/interrupt-controller@2f000000")
        self.assertEqual(gic.strings("compatible"), ["arm,gic-v3"])
        self.assertEqual(gic.cells("reg")[:8], [0, 0x2F000000, 0, 0x10000, 0, 0x2F100000, 0, 0x200000])
        its = gic.children["msi-controller@2f020000"]
        self.assertEqual(its.strings("compatible"), ["arm,gic-v3-its"])
        self.assertEqual(its.cells("reg"), [0, 0x2F020000, 0, 0x20000])
        self.assertEqual(its.cells("#msi-cells"), [1])
        self.assertIn("msi-controller", its.properties)
        self.assertEqual(gic.properties["ranges"], b"")
        self.assertEqual(self.points_to(self.tree.root.cells("interrupt-parent")[0]), "/interrupt-controller@2f000000")

    def test_pci(self):
        pci = self.tree.node("/pci@40000000")
        self.assertEqual(pci.cells("reg"), [0, 0x40000000, 0, 0x10000000])
        self.assertEqual(pci.cells("ranges"), [0x02000000, 0, 0x50000000, 0, 0x50000000, 0, 0x10000000])
        for name, target in (("msi-map", "msi-controller@2f020000"), ("iommu-map", "iommu@2b400000")):
            first, phandle, base, count = pci.cells(name)
            self.assertEqual((first, base, count), (0, 0, 0x10000))
            self.assertEqual(self.points_to(phandle).rsplit("/")[-1], target)
        pins = pci.cells("interrupt-map")
        entries = [pins[i : i + 10] for i in range(0, len(pins), 10)]
        self.assertEqual([(e[3], e[7:]) for e in entries], [(n, [0, 167 + n, 4]) for n in range(1, 5)])
        self.assertTrue(all(self.points_to(e[4]) == "/interrupt-controller@2f000000" for e in entries))

    def test_smmu(self):
        smmu = self.tree.node("/iommu@2b400000")
        self.assertEqual(smmu.strings("compatible"), ["arm,smmu-v3"])
        cells = smmu.cells("interrupts")
        lines = dict(zip(smmu.strings("interrupt-names"), (cells[i : i + 3] for i in range(0, 12, 3)), strict=True))
        self.assertEqual(
            lines, {"eventq": [0, 74, 1], "gerror": [0, 79, 1], "priq": [0, 75, 1], "cmdq-sync": [0, 77, 1]}
        )
        phandle, device = smmu.cells("msi-parent")
        self.assertEqual(self.points_to(phandle).rsplit("/")[-1], "msi-controller@2f020000")
        bits = int(fvp.Machine(1, False, fvp.Application(Path()), (), Path(), Path()).parameters()[
            "gic_distributor.ITS-device-bits"])  # fmt: skip
        self.assertLess(device, 1 << bits, "the ITS has no such device ID")

    def test_cpus(self):
        cpus = self.tree.node("/cpus")
        nodes = [node for name, node in cpus.children.items() if name.startswith("cpu@")]
        self.assertEqual([n.cells("reg")[1] for n in nodes], [0, 0x100, 0x200, 0x300, 0x10000, 0x10100])
        clusters = cpus.children["cpu-map"].children
        self.assertEqual([len(c.children) for c in clusters.values()], [4, 2])
        targets = [self.points_to(core.cells("cpu")[0]) for c in clusters.values() for core in c.children.values()]
        self.assertEqual(targets, [f"/cpus/cpu@{n.cells('reg')[1]:x}" for n in nodes])

    def test_modules(self):
        chosen = self.tree.node("/chosen")
        self.assertEqual(chosen.strings("xen,xen-bootargs"), ["console=dtuart"])
        self.assertEqual(chosen.strings("stdout-path"), ["serial0:115200n8"])
        self.assertEqual(self.tree.node("/aliases").strings("serial0"), ["/serial@1c090000"])
        kernel, ramdisk = chosen.children["module@90000000"], chosen.children["module@94000000"]
        self.assertEqual(kernel.strings("compatible"), ["multiboot,kernel", "multiboot,module"])
        self.assertEqual(kernel.strings("bootargs"), ['console=hvc0 a="b"'])
        self.assertEqual(kernel.cells("reg"), [0, 0x90000000, 0, 0x2000000])
        self.assertEqual(ramdisk.strings("compatible"), ["multiboot,ramdisk", "multiboot,module"])
        self.assertNotIn("bootargs", ramdisk.properties)

    def test_what_tf_a_reads(self):
        self.assertIn("arm,psci-1.0", self.tree.node("/psci").strings("compatible"))
        self.assertEqual(self.tree.node("/timer").cells("clock-frequency"), [100_000_000])
        uart = self.tree.node(self.tree.node("/aliases").strings("serial1")[0])
        clock = self.tree.node(self.points_to(uart.cells("clocks")[0]))
        self.assertEqual(clock.cells("clock-frequency"), [24_000_000])
        # One or two banks, in one node.
        self.assertIn(len(self.tree.node("/memory@80000000").cells("reg")), (4, 8))


class ForBootWrapper(unittest.TestCase):
    def setUp(self):
        self.data, self.said = compiled(fvp_tree.Board(2, "console=dtuart", (KERNEL,), wrapped=True))
        self.tree = fdt.parse(self.data)

    def test_the_compiler_has_nothing_to_say(self):
        self.assertEqual(self.said, "")

    def test_it_is_the_same_but_for_how_cpus_start_and_where_the_firmware_is(self):
        other = fdt.parse(compiled(fvp_tree.Board(2, "console=dtuart", (KERNEL,)))[0])
        self.assertEqual((self.tree.reserved, other.reserved), ([fvp_tree.WRAPPER], []))
        del other.root.children["psci"]
        for node in other.node("/cpus").children.values():
            node.properties.pop("enable-method", None)
        self.assertEqual(self.tree.root, other.root)

    def test_its_memory_is_no_place_for_a_module(self):
        module = fvp_tree.Module("kernel", 0x8007_F000, 0x2000)
        found = fvp_tree.problems(compiled(fvp_tree.Board(2, "x", (module,), wrapped=True))[0], wrapped=True)
        self.assertEqual(found, ["module@8007f000 begins at 0x8007f000, in reserved memory"])


class Places(unittest.TestCase):
    def problems(self, *modules):
        return fvp_tree.problems(compiled(fvp_tree.Board(2, "x", modules))[0])

    def test_sound(self):
        self.assertEqual(self.problems(KERNEL, RAMDISK), [])

    def test_modules_that_overlap(self):
        found = self.problems(KERNEL, fvp_tree.Module("ramdisk", 0x9100_0000, 4096))
        self.assertEqual(found, ["module@91000000 begins at 0x91000000, in module@90000000"])

    def test_a_module_on_the_tree(self):
        found = self.problems(fvp_tree.Module("kernel", fvp_tree.PLACE + 0x1000, 4096))
        self.assertEqual(found, ["module@82001000 begins at 0x82001000, in the tree"])

    def test_a_module_outside_of_memory(self):
        # The end of the first bank is TF-A's.
        found = self.problems(fvp_tree.Module("kernel", 0xFEFF_F000, 0x2000))
        self.assertEqual(found, ["module@fefff000 from 0xfefff000 to 0xff001000 is not in memory"])

    def test_too_large_for_tf_a(self):
        found = self.problems(fvp_tree.Module("kernel", fvp.KERNEL_ADDRESS, 4096, "x" * fvp_tree.MOST_BYTES))
        self.assertRegex(found[0], "^it has [0-9]+ bytes, and TF-A takes 16384$")

    def test_write_refuses_such_a_tree(self):
        with tempfile.TemporaryDirectory() as name, self.assertRaisesRegex(StepError, "not sound"):
            board = fvp_tree.Board(2, "x", (KERNEL, fvp_tree.Module("ramdisk", 0x9100_0000, 4096)))
            fvp_tree.write(board, Path(name), Path(name, "log"))


class Reader(unittest.TestCase):
    def parsed(self, text):
        done = subprocess.run(["dtc", "-I", "dts", "-O", "dtb"], input=text.encode(), capture_output=True, check=True)
        return fdt.parse(done.stdout)

    def test_all_there_is(self):
        tree = self.parsed(
            '/dts-v1/; /memreserve/ 0x180000000 0x1000;/ { a = <1 2>; e; r = <&l>; l: n@1 { s = "x", "y"; m { }; }; };'
        )
        self.assertEqual(tree.reserved, [(0x1_8000_0000, 0x1000)])
        self.assertEqual((tree.root.cells("a"), tree.root.properties["e"]), ([1, 2], b""))
        self.assertEqual(tree.node("/n@1").strings("s"), ["x", "y"])
        self.assertEqual(tree.by_phandle(tree.root.cells("r")[0]), "/n@1")
        self.assertEqual(list(tree.node("n@1").children), ["m"])
        with self.assertRaises(KeyError):
            tree.by_phandle(77)

    def test_something_else(self):
        with self.assertRaises(StepError):
            fdt.parse(b"\x7fELF" + b"\0" * 100)


if __name__ == "__main__":
    unittest.main()
