# SPDX-License-Identifier: GPL-2.0-only
"""Options, QEMU's command line, the watchdog and the report."""

import io
import os
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from xenits import cli, devices, qemu, report
from xenits.console import Console
from xenits.errors import StepError
from xenits.shell import captured, telling_lines
from xenits.steps import Steps


class DeviceLists(unittest.TestCase):
    def test_all_kinds(self):
        parsed = devices.parse("nvme=4,queues=8,virtio-net=3,ivshmem=2")
        self.assertEqual((parsed.nvme, parsed.queues, parsed.virtio_net, parsed.ivshmem), (4, 8, 3, 2))

    def test_a_name_alone_is_one(self):
        self.assertEqual(devices.parse("nvme").nvme, 1)

    def test_none(self):
        self.assertEqual(devices.parse("none"), devices.Devices())

    def test_mistakes(self):
        for text in ("nvm=1", "nvme=x", "nvme=-1", "nvme=1000", "queues=4"):
            with self.subTest(text), self.assertRaises(StepError) as caught:
                devices.parse(text)
            self.assertEqual(caught.exception.status, 2, "as --help says of wrong options")

    def test_arguments(self):
        args = " ".join(devices.parse("nvme=2,queues=8,virtio-net=1").arguments([Path("/s")]))
        self.assertIn("nvme,drive=disk1,serial=xenits1,max_ioqpairs=8,msix_qsize=9", args)
        self.assertIn("virtio-net-pci,netdev=net0,romfile=", args)
        self.assertIn("socket,path=/s,id=ivshmem0", args)

    def test_each_sata_disk_has_a_controller(self):
        parsed = devices.parse("sata=2")
        args = " ".join(parsed.arguments([]))
        self.assertIn("-device ich9-ahci,id=ahci1 -device ide-hd,drive=sata1,bus=ahci1.0", args)
        self.assertIn("node-name=sata1,", args)
        self.assertEqual(parsed.describe(), "2 SATA")


class CommandLine(unittest.TestCase):
    def machine(self, **options):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        kernel = Path(folder.name, "with,comma")
        kernel.write_bytes(b"\0" * 4096)
        options.setdefault("devices", devices.Devices(nvme=1))
        return qemu.Machine(Path("/xen"), kernel, Path("/initrd"), **options)

    def test_many_cpus_get_the_null_scheduler(self):
        self.assertNotIn("sched=null", self.machine(smp=2).xen_command_line())
        self.assertIn("sched=null vwfi=native", self.machine(smp=4).xen_command_line())

    def test_the_users_words_come_last(self):
        machine = self.machine(xen_args=["loglvl=all"], dom0_args=["quiet"], test="other,rate=5")
        self.assertTrue(machine.xen_command_line().endswith(" loglvl=all"))
        self.assertTrue(machine.dom0_command_line().endswith("xenits.test=other,rate=5,nvme=1 quiet"))

    def test_the_scenario_is_told_how_many_devices_there_are(self):
        four = devices.Devices(nvme=4, virtio_net=3, ivshmem=2)
        self.assertEqual(self.machine(devices=four, test="smoke,reads=9").scenario(), "smoke,reads=9,nvme=4")
        self.assertEqual(self.machine(devices=four, test="smoke,nvme=2").scenario(), "smoke,nvme=2")
        self.assertEqual(self.machine(devices=four, test="multi,net=1").scenario(), "multi,net=1,nvme=4,ivshmem=2")
        self.assertEqual(self.machine(devices=four, test="shell").scenario(), "shell")
        disk = devices.Devices(sata=1)
        self.assertEqual(self.machine(devices=disk, test="sata").scenario(), "sata,nvme=0,sata=1")

    def test_commas_are_doubled(self):
        command = " ".join(self.machine(test="smoke,n=1").command(Path("/errors")))
        self.assertIn("with,,comma", command)
        self.assertIn("xenits.test=smoke,,n=1,,nvme=1", command)

    def test_initrd_is_aligned_and_after_the_kernel(self):
        machine = self.machine()
        self.assertEqual(machine.initrd_address() % (2 << 20), 0)
        self.assertGreater(machine.initrd_address(), qemu.KERNEL_ADDRESS + 4096)

    def test_run_options(self):
        args = cli.run_parser().parse_args(["--release", "--config", "a", "--config", "b", "--smp", "8"])
        self.assertEqual((args.debug, [str(f) for f in args.fragments], args.smp), (False, ["a", "b"], 8))

    def test_help_names_every_option(self):
        text = cli.run_parser().format_help()
        for option in ("--its", "--gic", "--smp", "--devices", "--shell", "--tree", "--config", "--release", "--debug",
                       "--keep-logs", "--build-only", "--test", "--xen-args", "--dom0-args", "--timeout"):  # fmt: skip
            self.assertIn(option, text)


class Watchdog(unittest.TestCase):
    """`qemu.boot` with another program in QEMU's place."""

    def boot(self, program, limit=20.0, errors=""):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        logs = Path(folder.name)
        (logs / "guest-errors.log").write_text(errors)
        machine = mock.Mock()
        machine.command.return_value = [sys.executable, "-c", program]
        return qemu.boot(machine, logs, limit)

    GOOD = "print('XENITS: plan 1'); print('XENITS: ok 1 a'); print('XENITS: done')"

    def test_good(self):
        boot = self.boot(self.GOOD)
        self.assertEqual(boot.problems(), [])
        self.assertIn("XENITS: done", boot.serial.read_text())

    def test_guest_error(self):
        boot = self.boot(self.GOOD, errors="ITS: bad command\n")
        self.assertRegex(boot.problems()[0], "1 guest errors, the first: ITS: bad command")

    def test_hang(self):
        boot = self.boot(
            self.GOOD + "; import sys, time; sys.stdout.write('login:'); sys.stdout.flush(); time.sleep(60)", limit=1.5
        )
        self.assertLess(boot.seconds, 30)
        self.assertRegex(boot.problems()[0], r"stopped by the watchdog \(last seen: login:\)")

    def test_a_crash_ends_the_wait(self):
        with mock.patch.object(qemu, "GRACE", 0.2):
            boot = self.boot("print('(XEN) Panic on CPU 0:', flush=True); import time; time.sleep(60)", limit=50)
        self.assertLess(boot.seconds, 40)
        self.assertRegex("\n".join(boot.problems()), "Xen panicked")

    def test_qemu_itself_fails(self):
        with self.assertRaisesRegex(StepError, "QEMU ended with status 3") as caught:
            self.boot("import sys; print('no such device', file=sys.stderr); sys.exit(3)")
        self.assertEqual(caught.exception.lines, ["no such device"])

    def test_benign_errors_are_left_out(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("known: thing\nother\n\n")
            file.flush()
            import re

            with mock.patch.object(qemu, "BENIGN_GUEST_ERRORS", [re.compile("^known:")]):
                self.assertEqual(qemu.read_guest_errors(Path(file.name)), ["other"])


class Reports(unittest.TestCase):
    def boot(self, *lines):
        console = Console()
        for line in lines:
            console.feed(line)
        return qemu.Boot(console, 5.0, Path("/serial.log"), [], "powered off", ended_well=True)

    def test_pass(self):
        boot = self.boot(
            "XENITS: plan 1", "XENITS: ok 1 nvme-read n=2000", "XENITS: irq 17 ITS-MSI/1 nvme0q0 1 2",
            "(XEN) ITS: stats d0 lpis=3", "XENITS: done",
        )  # fmt: skip
        text = report.render(boot, "rust", "label", boot.problems())
        self.assertRegex(text, r"17 +ITS-MSI/1 +nvme0q0 +1 +2 +3\n")
        self.assertIn("  stats d0  lpis=3", text)
        self.assertTrue(text.endswith("\nPASS"))

    def test_fail_gives_the_reasons(self):
        boot = self.boot("XENITS: plan 1", "XENITS: not ok 1 nvme-read timeout")
        text = report.render(boot, "c", "label", boot.problems())
        self.assertIn("\nFAIL\n  - check 1 nvme-read failed: timeout\n", text)
        self.assertNotIn("PASS", text)

    def test_many_vectors_are_cut_to_the_busiest(self):
        lines = [f"XENITS: irq {n} ITS-MSI/{n} v{n} {n}" for n in range(100)]
        text = "\n".join(report.interrupts(self.boot(*lines).console))
        self.assertIn("100 vectors, 99 of them fired", text)
        self.assertIn("v99", text)
        self.assertNotIn("v12 ", text)


class StepLines(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.logs = Path(folder.name)
        self.out = io.StringIO()

    def test_progress(self):
        steps = Steps(2, self.logs, self.out)
        with steps.step("build Xen") as step:
            step.say("3 files")
        with steps.step("boot") as step:
            step.up_to_date()
        self.assertRegex(
            self.out.getvalue(), r"\[1/2\] build Xen \.\.\. ok \d+\.\ds  \(3 files\)\n\[2/2\] boot \.\.\. up to date "
        )

    def test_a_failure_names_step_log_and_lines(self):
        steps = Steps(3, self.logs, self.out)
        with self.assertRaises(StepError) as caught, steps.step("build Xen") as step:
            step.log.write_text("text")
            raise StepError("broken", lines=["the line"], hint="mend it")
        text = caught.exception.render()
        for part in ("step 1/3 (build Xen) failed: broken", "| the line", "1-build-xen.log", "what to do: mend it"):
            self.assertIn(part, text)
        self.assertIn("[1/3] build Xen ... FAILED", self.out.getvalue())

    def test_telling_lines_begin_at_the_first_error(self):
        log = self.logs / "log"
        log.write_text("\n".join([*(f"CC {n}.o" for n in range(50)), "a.c:3: error: no", "note", *["make: x"] * 40]))
        lines = telling_lines(log)
        self.assertEqual(lines[:4], ["CC 48.o", "CC 49.o", "a.c:3: error: no", "note"])
        self.assertLess(len(lines), 20)


class Programs(unittest.TestCase):
    def captured(self, program, limit=20.0):
        with tempfile.TemporaryDirectory() as name:
            argv = [sys.executable, "-c", program]
            return captured(argv, Path(name, "log"), cwd=Path(name), env={"A": "b"}, limit=limit)

    def test_output_and_status(self):
        program = "import os, sys; print(os.environ['A'], flush=True); sys.exit('told to stderr')"
        self.assertEqual(self.captured(program), (1, "b\ntold to stderr\n"))

    def test_a_hanging_grandchild_is_stopped_too(self):
        program = "import subprocess; print('x', flush=True); subprocess.run(['sleep', '1000'])"
        start = time.monotonic()
        with self.assertRaisesRegex(StepError, "still running after 1 s"):
            self.captured(program, limit=1)
        self.assertLess(time.monotonic() - start, 60)


class Logs(unittest.TestCase):
    def test_keep_logs_leaves_images_out(self):
        with tempfile.TemporaryDirectory() as name:
            source, target = Path(name, "logs"), Path(name, "kept")
            source.mkdir()
            for file in ("serial.log", "qemu.cmd", "xen", "xen.config"):
                (source / file).write_text(file)
            cli.keep_logs(source, target)
            self.assertEqual(sorted(os.listdir(target)), ["qemu.cmd", "serial.log", "xen.config"])


if __name__ == "__main__":
    unittest.main()
