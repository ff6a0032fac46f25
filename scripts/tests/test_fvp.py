# SPDX-License-Identifier: GPL-2.0-only
"""The Fast Model: finding it, its parameters and command line, and a boot on a program that stands for it."""

import contextlib
import io
import json
import os
import struct
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from xenits import cli, fvp, fvp_run, fvp_wrapper, qemu
from xenits.errors import StepError, UsageError
from xenits.pipeline import Options

FAKE = Path(__file__).resolve().parent / "fake_fvp.py"
FAKE_WRAPPER = FAKE.with_name("fake_wrapper.py")

GOLDEN = """\
/model
-C cluster0.NUM_CORES=4
-C cluster1.NUM_CORES=2
-C pctl.startup=0.0.0.0
-C bp.secureflashloader.fname=/bl1
-C bp.flashloader0.fname=/fip
-C cache_state_modelled=0
-C bp.secure_memory=0
-C gic_distributor.ITS-count=1
-C gic_distributor.ITS-use-physical-target-addresses=1
-C gic_distributor.ITS-device-bits=17
-C gic_distributor.GITS_BASER0-type=1
-C gic_distributor.GITS_BASER1-type=4
-C gic_distributor.allow-LPIEN-clear=1
-C gic_distributor.GICR-clear-enable-supported=1
-C pci.hierarchy_file_name=/pci.json
-C bp.pl011_uart0.out_file=-
-C bp.pl011_uart0.unbuffered_output=1
-C bp.pl011_uart1.out_file=/uart1
-C bp.vis.disable_visualisation=1
-C bp.terminal_0.start_telnet=0
-C bp.terminal_1.start_telnet=0
-C bp.terminal_2.start_telnet=0
-C bp.terminal_3.start_telnet=0
-C bp.ve_sysregs.exit_on_shutdown=1
--data cluster0.cpu0=/xen@0x84000000
--data cluster0.cpu0=/Image@0x90000000
"""

FLASH = """\
-C pctl.startup=0.0.0.0
-C bp.secureflashloader.fname=/bl1
-C bp.flashloader0.fname=/fip
"""

WRAPPED = """\
-C pctl.startup=0.0.*.*,0.1.*.*
-C bp.refcounter.non_arch_start_at_default=1
"""

DATA = "--data cluster0.cpu0=/xen@0x84000000\n"

PROGRAMS = """\
-a cluster0.*=/image.axf
-a cluster1.*=/image.axf
"""


def machine(**other):
    options = {
        "cpus": 6, "pta": True, "start": fvp.Flash(Path("/bl1"), Path("/fip")), "pci": Path("/pci.json"),
        "uart1": Path("/uart1"), "data": ((Path("/xen"), fvp.XEN_ADDRESS), (Path("/Image"), fvp.KERNEL_ADDRESS)),
    }  # fmt: skip
    return fvp.Machine(**{**options, **other})


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def environment(self, **variables):
        patch = mock.patch.dict(os.environ, variables)
        patch.start()
        self.addCleanup(patch.stop)


class CommandLine(unittest.TestCase):
    def lines(self, target):
        argv = target.command(Path("/model"))
        lines = [argv[0]] + [f"{option} {value}" for option, value in zip(argv[1::2], argv[2::2], strict=True)]
        return "\n".join(lines) + "\n"

    def test_golden(self):
        self.assertEqual(self.lines(machine()), GOLDEN)

    def test_golden_with_boot_wrapper(self):
        wrapped = machine(start=fvp.Application(Path("/image.axf")), data=((Path("/Image"), fvp.KERNEL_ADDRESS),))
        self.assertEqual(self.lines(wrapped), GOLDEN.replace(FLASH, WRAPPED).replace(DATA, PROGRAMS))

    def test_boot_wrapper_in_one_cluster(self):
        lines = self.lines(machine(cpus=4, start=fvp.Application(Path("/image.axf"))))
        self.assertIn("-C pctl.startup=0.0.*.*\n", lines)
        self.assertNotIn("cluster1.*", lines)

    def test_clusters(self):
        for cpus, clusters in ((1, ("1", "0")), (4, ("4", "0")), (5, ("4", "1")), (8, ("4", "4"))):
            wanted = machine(cpus=cpus).parameters()
            self.assertEqual((wanted["cluster0.NUM_CORES"], wanted["cluster1.NUM_CORES"]), clusters)

    def test_pta(self):
        name = "gic_distributor.ITS-use-physical-target-addresses"
        self.assertEqual([machine(pta=pta).parameters()[name] for pta in (False, True)], ["0", "1"])

    def test_pci_devices(self):
        (name, ahci), *others = json.loads(fvp.pci_devices(Path("/disk"))).items()
        self.assertEqual((name, ahci["image_path"], others), ("ahci/ahci0", "/disk", []))

    def test_xen(self):
        self.assertNotIn("sched", fvp_run.xen_command_line(Options(smp=2)))
        line = fvp_run.xen_command_line(Options(smp=4, xen_args=["its-events=9"]))
        self.assertEqual(
            line, "dom0_mem=1G console=dtuart noreboot loglvl=all iommu=no sched=null vwfi=native its-events=9"
        )

    def test_dom0(self):
        line = fvp_run.dom0_command_line(Options(dom0_args=["quiet"]), "sata,reads=9")
        self.assertEqual(line, "console=hvc0 rdinit=/init xenits.test=sata,reads=9,nvme=0,pciadd=1 quiet")
        self.assertIn("pciadd=0", fvp_run.dom0_command_line(Options(its="c"), "sata"))
        self.assertIn("=sata,nvme=2,pciadd=1", fvp_run.dom0_command_line(Options(), "sata,nvme=2"))


class Model(WithFolder):
    def test_none_is_starved(self):
        self.environment(PATH=str(self.folder))
        os.environ.pop(fvp.VARIABLE, None)
        with self.assertRaises(fvp.Starved) as caught:
            fvp.find()
        self.assertEqual(caught.exception.status, 4)
        self.assertRegex(caught.exception.render(), r"^starved: .*FVP_Base_RevC-2xAEMvA.*FVP_MODEL")

    def test_found_in_path(self):
        program = self.folder / fvp.PROGRAM
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        self.environment(PATH=str(self.folder))
        os.environ.pop(fvp.VARIABLE, None)
        self.assertEqual(fvp.find(), program.resolve())

    def test_named(self):
        self.environment(FVP_MODEL=str(FAKE))
        self.assertEqual(fvp.find(), FAKE)

    def test_named_wrongly_is_a_mistake(self):
        (self.folder / "data").write_text("")
        for name in ("nothing", "data"):
            self.environment(FVP_MODEL=str(self.folder / name))
            with self.subTest(name), self.assertRaises(UsageError):
                fvp.find()

    def test_parameters_as_it_prints_them(self):
        text = (
            "# Parameters:\n# instance.parameter=value       #(type, mode) default\n#------\n"
            "bp.pl011_uart0.out_file=          # (string, init-time) default = '' : use '-' for a=b\n"
            "gic_distributor.GITS_BASER0-type=0x1  # (int) default = '0x0'\nhas-gicv4.1=0 # (bool)\nInfo: what=else\n"
        )
        names = {"bp.pl011_uart0.out_file", "gic_distributor.GITS_BASER0-type", "has-gicv4.1"}
        self.assertEqual(fvp.parse_parameters(text), names)

    def test_all_known(self):
        names = fvp.known_parameters(FAKE, self.folder / "log")
        for start in (machine().start, fvp.Application(Path("/image.axf"))):
            fvp.check_parameters(machine(start=start).parameters(), names, FAKE, self.folder / "log")

    def test_unknown_ones_are_named(self):
        self.environment(FAKE_FVP_LACKS="gic_distributor.ITS-count")
        names = fvp.known_parameters(FAKE, self.folder / "log")
        with self.assertRaisesRegex(StepError, "does not know 1 of the 24 parameters") as caught:
            fvp.check_parameters(machine().parameters(), names, FAKE, self.folder / "log")
        self.assertEqual(caught.exception.lines, ["gic_distributor.ITS-count"])

    def test_unknown_ones_of_boot_wrapper(self):
        self.environment(FAKE_FVP_LACKS="bp.refcounter.non_arch_start_at_default")
        names = fvp.known_parameters(FAKE, self.folder / "log")
        fvp.check_parameters(machine().parameters(), names, FAKE, self.folder / "log")
        wanted = machine(start=fvp.Application(Path("/image.axf"))).parameters()
        with self.assertRaisesRegex(StepError, "does not know 1 of the 23 parameters"):
            fvp.check_parameters(wanted, names, FAKE, self.folder / "log")

    def test_a_program_that_lists_nothing(self):
        with self.assertRaisesRegex(StepError, "named 0 parameters"):
            fvp.known_parameters(Path("/bin/true"), self.folder / "log")


class Options_(unittest.TestCase):
    def test_what_is_for_qemu_only(self):
        for argv in (["--gic", "4"], ["--shell"], ["--devices", "nvme=1"], ["--smp", "9"], ["--build-only"]):
            with self.subTest(argv), self.assertRaises(UsageError):
                cli.run_command(["--platform", "fvp", *argv])

    def test_a_boot_wrapper_that_is_no_program(self):
        for name in ("/nonexistent", "/etc/passwd", "/tmp"):
            with self.subTest(name), self.assertRaisesRegex(UsageError, f"BOOT_WRAPPER is {name}, which is no prog"):
                cli.run_command(["--platform", "fvp", "--boot-wrapper", name])

    def test_no_model_ends_with_4_before_anything_else(self):
        said = io.StringIO()
        with (
            mock.patch.dict(os.environ, {"PATH": "/nowhere", "FVP_MODEL": ""}),
            mock.patch.object(fvp_run.pipeline, "build_xen", side_effect=AssertionError),
            contextlib.redirect_stderr(said),
        ):
            code = self.main()
        self.assertEqual((code, said.getvalue().strip()[:9]), (4, "starved: "))

    def main(self):
        class Out(io.StringIO):
            def reconfigure(self, **_):
                pass

        with (
            tempfile.TemporaryDirectory() as cache,
            mock.patch.dict(os.environ, {"XDG_CACHE_HOME": cache}),
            contextlib.redirect_stdout(Out()),
        ):
            return cli.main(["run", "--platform", "fvp"])


class Boots(WithFolder):
    """`fvp_run.boot` on the program that stands for the model."""

    GOOD = "(XEN) Xen version 4.20\nXENITS: plan 1\nXENITS: ok 1 a\nXENITS: done\n"

    def boot(self, text=GOOD, limit=20.0, wrapped=False, how=fvp_run.boot, **changes):
        console = self.folder / "console"
        console.write_text(text)
        self.environment(FAKE_FVP_CONSOLE=str(console))
        for name in ("bl1", "xen", "kernel"):
            # Zeroes where a kernel says how much memory it needs.
            (self.folder / name).write_bytes(b"x" * 16 + bytes(8) + b"x" * 76)
        disk, pci = self.folder / "disk", self.folder / "pci"
        disk.write_bytes(b"\0" * 512)
        pci.write_text(fvp.pci_devices(disk))
        module = fvp_run.fvp_tree.Module("kernel", fvp.KERNEL_ADDRESS, 100, "console=hvc0")
        board = fvp_run.fvp_tree.Board(2, "console=dtuart", (module,), wrapped)
        tree = fvp_run.fvp_tree.write(board, self.folder, self.folder / "dtc.log")
        # What a FIP has besides: settings of TF-A's, which are device trees too.
        other = struct.pack(">10I", 0xD00DFEED, 40, *[0] * 8)
        (self.folder / "fip").write_bytes(b"fip" + other + tree.read_bytes() + other)
        data = [(self.folder / "kernel", fvp.KERNEL_ADDRESS)]
        if wrapped:
            start = fvp.Application(
                fvp_wrapper.Wrapper(FAKE_WRAPPER).image(self.folder / "xen", tree, self.folder, self.folder / "log")
            )
        else:
            start = fvp.Flash(self.folder / "bl1", self.folder / "fip")
            data.append((self.folder / "xen", fvp.XEN_ADDRESS))
        options = {"cpus": 2, "start": start, "pci": pci, "data": tuple(data)}
        target = machine(**{**options, "uart1": self.folder / "uart1", **changes})
        return how(target.command(FAKE), self.folder, limit, start.powers_off)

    def test_good(self):
        boot = self.boot()
        self.assertEqual(boot.problems(), [])
        self.assertEqual(boot.serial.read_text(), self.GOOD)

    def test_a_failed_check(self):
        self.assertRegex(self.boot(self.GOOD.replace("ok", "not ok")).problems()[0], "check 1 a failed")

    def test_a_hang(self):
        self.environment(FAKE_FVP_THEN="hang")
        boot = self.boot(limit=3.0)
        self.assertLess(boot.seconds, 30)
        self.assertRegex(boot.problems()[0], "still running after 3 s: stopped by the watchdog")

    HALTED = "(XEN) Hardware Dom0 halted: halting machine\n"

    def test_without_a_power_off_the_last_words_are_the_end(self):
        boot = self.boot(self.GOOD + self.HALTED, limit=60.0, wrapped=True)
        self.assertLess(boot.seconds, 30)
        self.assertEqual((boot.ended, boot.problems()), ("halted", []))
        self.assertEqual(boot.serial.read_text(), self.GOOD + self.HALTED)

    def test_without_a_power_off_the_last_words_are_not_enough(self):
        boot = self.boot(self.GOOD.replace("ok", "not ok") + self.HALTED, wrapped=True)
        self.assertRegex(boot.problems()[0], "check 1 a failed")

    def test_without_a_power_off_nor_last_words(self):
        boot = self.boot(limit=3.0, wrapped=True)
        self.assertRegex(boot.problems()[0], "still running after 3 s: stopped by the watchdog")

    def test_with_a_power_off_the_last_words_are_not_the_end(self):
        self.environment(FAKE_FVP_THEN="hang")
        boot = self.boot(self.GOOD + self.HALTED, limit=3.0)
        self.assertRegex(boot.problems()[0], "still running after 3 s: stopped by the watchdog")

    def test_boot_wrapper_that_not_all_cpus_start_in(self):
        with self.assertRaisesRegex(StepError, "the model ended with status 1") as caught:
            self.boot(wrapped=True, cpus=5)
        self.assertEqual(caught.exception.lines, ["Error: there are not as many CPUs as in the device tree"])

    def test_a_crash_ends_the_wait(self):
        self.environment(FAKE_FVP_THEN="hang")
        with mock.patch.object(qemu, "GRACE", 0.2):
            boot = self.boot("(XEN) Panic on CPU 0:\n", limit=60.0)
        self.assertLess(boot.seconds, 50)
        self.assertRegex("\n".join(boot.problems()), "the model was stopped after a crash(.|\n)*Xen panicked")

    def test_a_status_behind_a_good_console_is_not_good(self):
        self.environment(FAKE_FVP_THEN="134")
        self.assertEqual(self.boot().problems(), ["the model ended with status 134"])

    def test_a_model_that_somebody_killed_is_not_good(self):
        self.environment(FAKE_FVP_THEN="killed")
        with self.assertRaisesRegex(StepError, "the model was killed by signal 9"):
            self.boot()

    def test_a_model_that_does_not_end(self):
        self.environment(FAKE_FVP_THEN="closed")
        for wrapped in (False, True):
            with (
                self.subTest(wrapped=wrapped),
                mock.patch.object(fvp_run, "END_S", 0.5),
                self.assertRaisesRegex(StepError, "does not end"),
            ):
                self.boot(wrapped=wrapped)

    def test_a_model_that_dies_has_the_time_to(self):
        self.environment(FAKE_FVP_THEN="dies")
        for wrapped in (False, True):
            with self.subTest(wrapped=wrapped):
                self.assertEqual(self.boot(wrapped=wrapped).problems(), ["the model ended with status 3"])
                column = self.boot("TAP version 13\n1..1\n# start 1 a\n", wrapped=wrapped, how=fvp_run.boot_guest)
                self.assertEqual(column.cases["a"].why, "the model ended with status 3")

    def test_a_model_that_does_not_start(self):
        with self.assertRaisesRegex(StepError, "the model ended with status 1") as caught:
            self.boot(cpus=3)
        self.assertEqual(caught.exception.lines, ["Error: there are not as many CPUs as in the device tree"])


if __name__ == "__main__":
    unittest.main()
