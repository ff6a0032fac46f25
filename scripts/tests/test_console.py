# SPDX-License-Identifier: GPL-2.0-only
"""The console parser, on recorded text."""

import unittest

from xenits.console import Console, key_values

GOOD = """\
(XEN) Xen version 4.20.4-pre (root@) (aarch64-linux-gnu-gcc) debug=y
[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x411fd070]\r
XENITS: plan 2
XENITS: note reading 2000 blocks
XENITS: ok 1 nvme-read reads=2000 interrupts=2000
XENITS: ok 2 vectors\r
XENITS: irq 17 ITS-MSI/16384 nvme0q0 12 0
XENITS: irq 19 ITS-MSI/16386 nvme0q2 0 2001
(XEN) ITS: stats d0 lpis=3 commands=120
(XEN) [2026-01-01 00:00:01] ITS: state d0 devices=0x2
(XEN) ITS: commands d0 vits=0 MAPD=2 MAPTI=3 skipped=1
(XEN) ITS: commands d0 vits=1 MAPD=1 skipped=0
(XEN) ITS: host lpis=3 unclaimed=0
(XEN) ITS: host its=0 commands=40
(XEN) ITS: host its=1 commands=2
(XEN) ITS: d0v0 MAPTI: error 0x10a05
XENITS: done
(XEN) Hardware Dom0 halted: halting machine
"""

# As Xen 4.20 printed it when a guest's table was bad.
ABORT = """\
XENITS: plan 1
(XEN) Hypervisor data abort from el2: ESR 0x96000006
(XEN) Data Abort Trap. Syndrome=0x6
(XEN) Walking Hypervisor VA 0x8 on CPU1 via TTBR 0x0000000040fc1000
(XEN) CPU1: Unexpected Trap: Data Abort
(XEN) Xen call trace:
(XEN) Panic on CPU 1:
(XEN) Manual reset required ('noreboot' specified)
"""


def read(text):
    console = Console()
    for line in text.splitlines():
        console.feed(line)
    return console


class Reading(unittest.TestCase):
    def test_good_boot(self):
        console = read(GOOD)
        self.assertEqual(console.problems(), [])
        self.assertEqual(console.plan, 2)
        self.assertEqual([c.name for c in console.checks], ["nvme-read", "vectors"])
        self.assertEqual(console.checks[0].values, {"reads": "2000", "interrupts": "2000"})

    def test_interrupts(self):
        first, second = read(GOOD).interrupts
        self.assertEqual(
            (first.irq, first.source, first.name, first.counts), ("17", "ITS-MSI/16384", "nvme0q0", [12, 0])
        )
        self.assertEqual(second.total, 2001)

    def test_counters(self):
        console = read(GOOD)
        self.assertEqual(console.counters["stats d0"], {"lpis": "3", "commands": "120"})
        self.assertEqual(console.counters["commands d0 vits=0"], {"MAPD": "2", "MAPTI": "3", "skipped": "1"})
        self.assertEqual(len(console.counters), 7)

    def test_stat(self):
        console = read(GOOD)
        self.assertEqual([console.stat(k) for k in ("lpis", "devices", "none")], [3, 2, None])
        self.assertEqual([console.stat(k, "host") for k in ("lpis", "commands")], [3, 42])

    def test_the_last_dump_counts(self):
        self.assertEqual(read(GOOD + "(XEN) ITS: stats d0 lpis=9\n").stat("lpis"), 9)

    def test_last_words(self):
        for line, last in (
            ("(XEN) Hardware Dom0 halted: halting machine", True),
            ("(XEN) Hardware Dom0 shutdown: rebooting machine\r", True),
            ("[    2.849130] reboot: Power down", False),
            ("(XEN) Bringing up CPU1", False),
            ("XENITS: note (XEN) Hardware Dom0 halted: halting machine", False),
        ):
            with self.subTest(line):
                self.assertEqual(read(line).halted, last)

    def test_key_values_skip_other_words(self):
        self.assertEqual(key_values("a=1 and b=x=y"), {"a": "1", "b": "x=y"})


class Judging(unittest.TestCase):
    def problem(self, text, expression):
        self.assertRegex("\n".join(read(text).problems()), expression)

    def test_failed_check(self):
        self.problem(GOOD.replace("ok 2 vectors", "not ok 2 vectors 3 of 4"), "check 2 vectors failed: 3 of 4")

    def test_missing_check(self):
        self.problem(
            GOOD.replace("XENITS: ok 1 nvme-read reads=2000 interrupts=2000\n", ""), "1 of 2 checks never ran: 1"
        )

    def test_no_plan(self):
        self.problem(GOOD.replace("plan 2", "hello"), "no 'XENITS: plan'")

    def test_what_went_wrong_before_there_was_a_plan(self):
        self.problem(
            "XENITS: not ok 1 setup no NVMe\nXENITS: done\n", "check 1 setup failed: no NVMe\n.*no 'XENITS: plan'"
        )

    def test_empty_plan(self):
        self.problem("XENITS: plan 0\nXENITS: done\n", "no check in it")

    def test_not_done(self):
        self.problem(GOOD.replace("XENITS: done\n", ""), "did not get to the end")

    def test_a_check_twice(self):
        self.problem(GOOD.replace("ok 2", "ok 1"), "do not fit the plan")

    def test_garbled_line(self):
        self.problem(GOOD.replace("irq 17 ITS-MSI/16384", "irq 17"), "cannot be read")

    def test_data_abort(self):
        self.problem(ABORT, "a data abort in Xen")

    def test_each_kind_of_crash(self):
        for line in (
            "(XEN) Assertion 'x == y' failed at arch/arm/gic.c:42",
            "(XEN) Xen BUG at arch/arm/vgic.c:100",
            "(XEN) Panic on CPU 0:",
            "(XEN) Domain 0 crashed: rebooting machine in 5 seconds.",
            "[    1.5] Kernel panic - not syncing: VFS: Unable to mount root fs",
            "[    1.5] Internal error: Oops: 96000004 [#1] SMP",
            "[    1.5] Unable to handle kernel NULL pointer dereference at 0",
        ):
            with self.subTest(line):
                self.assertEqual(len(read(line).crashes), 1)

    def test_a_warning_does_not_end_a_boot_but_fails_it(self):
        console = read(GOOD.replace("XENITS: done", "(XEN) Xen WARN at arch/arm/vgic.c:100\nXENITS: done"))
        self.assertEqual(console.crashes, [])
        self.assertEqual(console.problems(), ["Xen warned: (XEN) Xen WARN at arch/arm/vgic.c:100"])

    def test_ordinary_lines_are_no_crash(self):
        self.assertEqual(read(GOOD).crashes, [])


if __name__ == "__main__":
    unittest.main()
