# SPDX-License-Identifier: GPL-2.0-only
"""boot-wrapper: the image that a program of the user's makes, here one that stands for it."""

import os
import struct
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from xenits import elf, fdt, fvp, fvp_tree, fvp_wrapper
from xenits.errors import StepError

FAKE = Path(__file__).resolve().parent / "fake_wrapper.py"

MODULE = fvp_tree.Module("kernel", fvp.KERNEL_ADDRESS, 4096, "console=hvc0")


def kernel(size=0x1000, needs=0x2000):
    """What looks like an arm64 kernel: its header says how much memory it needs."""
    header = struct.pack("<IIQQQ", 0, 0, 0, needs, 0)
    return header + bytes(range(1, 255)) + bytes(size - len(header) - 254)


class Images(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.log = self.folder / "log"
        self.xen = self.folder / "xen"
        self.xen.write_bytes(kernel())

    def image(self, wrong="", cpus=6, modules=(MODULE,)):
        board = fvp_tree.Board(cpus, "console=dtuart noreboot", modules, wrapped=True)
        self.tree = fvp_tree.write(board, self.folder, self.log)
        with mock.patch.dict(os.environ, {"FAKE_WRAPPER": wrong}):
            return fvp_wrapper.Wrapper(FAKE).image(self.xen, self.tree, self.folder, self.log)

    def refused(self, wrong):
        with self.assertRaises(StepError) as caught:
            self.image(wrong)
        return caught.exception

    def test_a_good_one(self):
        program = elf.program(self.image())
        self.assertEqual(program.entry, program.segments[0].address)
        self.assertEqual(program.segments[1].data, self.xen.read_bytes())
        (tree,) = fvp_wrapper.device_trees(program.segments[2].data)
        self.assertEqual(tree.node("/psci").strings("compatible"), ["arm,psci"])
        ours = fdt.parse(self.tree.read_bytes())
        self.assertEqual(tree.node("/chosen").children, ours.node("/chosen").children)
        self.assertEqual(tree.reserved, [fvp_tree.WRAPPER])

    def test_what_would_not_do_is_named(self):
        wanted = {
            "other-xen": [
                "Xen is not in it, or not the one that it was to be made of",
                "from 0x80200000 to 0x80201000 is something that is not from 0x80000000 to 0x80080000",
            ],
            "no-psci": ["the device tree has no PSCI: was boot-wrapper built without it?"],
            "a-module-more": ["the device tree has one module more, module@1"],
            "other-arguments": ["the device tree has lost /chosen/xen,xen-bootargs"],
            "far-code": ["from 0x80100000 to 0x80100100 is something that is not from 0x80000000 to 0x80080000"],
        }
        for wrong, found in wanted.items():
            with self.subTest(wrong):
                error = self.refused(wrong)
                self.assertRegex(error.message, "^the image that fake_wrapper.py made would not do$")
                self.assertEqual(error.lines, found)

    def test_a_program_that_fails_says_why(self):
        error = self.refused("fails")
        self.assertRegex(error.message, "makes no image of boot-wrapper's")
        self.assertIn("configure: error: cannot find the device tree compiler", "\n".join(error.lines))
        self.assertRegex(error.hint, "--boot-wrapper or BOOT_WRAPPER")

    def test_a_program_that_makes_nothing(self):
        self.assertRegex(self.refused("no-image").message, "was content, but there is no .*image.axf")

    def test_something_else_than_a_program(self):
        self.assertRegex(self.refused("no-elf").message, "is no 64-bit ELF program for arm64: wrong magic")

    def test_one_that_lacks_its_end(self):
        image = self.image()
        image.write_bytes(image.read_bytes()[:-1])
        with self.assertRaisesRegex(StepError, "it has been cut off"):
            elf.program(image)

    def test_what_xen_needs_behind_its_file_counts(self):
        # From where it stands to the tree there is room for 0x7e00000.
        for needs, found in ((0x7E0_0000, []), (0x7E0_0001, ["the tree begins at 0x88000000, in Xen"])):
            self.xen.write_bytes(kernel(needs=needs))
            with self.subTest(needs):
                if found:
                    self.assertEqual(self.refused("").lines, found)
                else:
                    self.image()

    def test_a_module_where_the_image_is(self):
        with self.assertRaises(StepError) as caught:
            self.image(modules=(fvp_tree.Module("kernel", 0x8800_0000, 4096),))
        self.assertEqual(len(caught.exception.lines), 1)
        self.assertRegex(caught.exception.lines[0], "begins at 0x88000000, in")


class Changes(unittest.TestCase):
    """What is done to a tree, without an image around it."""

    def setUp(self):
        self.ours, self.theirs = (self.tree() for _ in range(2))
        self.theirs.root.children["psci"] = fdt.Node({"compatible": b"arm,psci-0.2\0", "method": b"smc\0"})
        for name, node in self.theirs.node("/cpus").children.items():
            if name.startswith("cpu@"):
                node.properties["enable-method"] = b"psci\0"

    def tree(self):
        with tempfile.TemporaryDirectory() as name:
            board = fvp_tree.Board(2, "console=dtuart", (MODULE,), wrapped=True)
            return fdt.parse(fvp_tree.write(board, Path(name), Path(name, "log")).read_bytes())

    def found(self):
        return fvp_wrapper.changes(self.ours, self.theirs)

    def test_what_it_has_to_do(self):
        self.assertEqual(self.found(), [])

    def test_a_lost_node(self):
        del self.theirs.node("/interrupt-controller@2f000000").children["msi-controller@2f020000"]
        self.assertEqual(
            self.found(), ["the device tree has lost /interrupt-controller@2f000000/msi-controller@2f020000"]
        )

    def test_lost_reserved_memory(self):
        self.theirs.reserved.clear()
        self.assertEqual(self.found(), ["the device tree does not reserve boot-wrapper's own memory"])

    def test_an_initramfs_besides(self):
        self.theirs.node("/chosen").properties["linux,initrd-start"] = bytes(4)
        self.assertEqual(self.found(), ["the device tree has an initramfs besides those that are modules"])

    def test_how_cpus_start(self):
        psci = self.theirs.node("/psci").properties
        psci["compatible"] = b"arm,psci\0"
        self.assertEqual(self.found(), ["PSCI 0.1 has no cpu_on"])
        psci["cpu_on"] = bytes(4)
        self.assertEqual(self.found(), [])
        psci["method"] = b"hvc\0"
        self.theirs.node("/cpus/cpu@100").properties["enable-method"] = b"spin-table\0"
        self.assertEqual(self.found(), ["PSCI is not by SMC", "cpu@100 is not started by PSCI"])


if __name__ == "__main__":
    unittest.main()
