# SPDX-License-Identifier: GPL-2.0-only
"""The runner of the bare-metal guest, on recorded text."""

import re
import unittest
import unittest.mock
from pathlib import Path

from xenits import conformance, guest, guest_tests, layout
from xenits.conformance import render
from xenits.guest import Column, Machine, Outcome, Serial, command, failures

GOOD = """\
(XEN) Xen version 4.20.4-pre
TAP version 13
1..3
# 4 CPUs, under Xen
# start 1 iidr-readonly
ok 1 - iidr-readonly\r
# start 2 disabled-until-invlpir
ok 2 - disabled-until-invlpir # SKIP the redistributor has no GICR_INV*
# start 3 movi-routes
not ok 3 - movi-routes # the LPI is taken: 0x3ff, not 0x20d0
XENITS-GUEST: done
"""


def read(text: str) -> Serial:
    """A console that said this."""
    serial = Serial()
    for line in text.splitlines():
        serial.feed(line)
    return serial


def column(**cases: str) -> Column:
    """Ours, with these results."""
    return Column("rust", plan=len(cases), cases={k: Outcome(v) for k, v in cases.items()}, done=True)


class Reading(unittest.TestCase):
    """What the guest says."""

    def test_each_kind_of_result(self) -> None:
        serial = read(GOOD)
        self.assertEqual([o.word for _, _, o in serial.results], ["ok", "skip", "FAIL"])
        self.assertEqual(serial.results[2][2].why, "the LPI is taken: 0x3ff, not 0x20d0")
        self.assertEqual((serial.plan, serial.done, serial.started), (3, True, None))

    def test_a_case_without_an_end_is_known_by_name(self) -> None:
        serial = read(GOOD.split("not ok 3")[0])
        self.assertEqual(serial.started, (3, "movi-routes"))
        self.assertFalse(serial.done)

    def test_a_bail_out_is_kept(self) -> None:
        self.assertIn("exception 4", read("Bail out! exception 4 on CPU 0: ESR 0x96000000").bail)

    def test_a_crash_of_xen_is_seen(self) -> None:
        self.assertTrue(read("(XEN) Panic on CPU 0:").xen.crashes)

    def test_gaps_and_lines_of_xen_are_kept(self) -> None:
        serial = read(
            "(XEN) Xen version 4.20.4-pre (@)\n1..1\n(XEN) ITS: one\n"
            "# heartbeat two-writers: longest gap 92071 us, 17 beats in 9 ms"
        )
        self.assertEqual((serial.gaps, serial.said, serial.version), ({"two-writers": 92071}, 1, "4.20.4-pre"))


class Booting(unittest.TestCase):
    """A boot behind each crash, on recorded boots."""

    def boots(self, *texts: tuple[str, str]) -> Column:
        """What comes of boots that say this, and end so."""
        told = iter([(read(text), ended) for text, ended in texts])
        with unittest.mock.patch.object(guest, "boot", lambda *_: next(told)):
            return guest.run_column("c", Path("/g"), Path("/x"), "its.test=*", Path("/l"), 1.0)

    def test_a_case_that_crashes_is_marked_and_left_out(self) -> None:
        first = "1..3\n# start 1 a\nok 1 - a\n# start 2 b\n(XEN) Panic on CPU 0:"
        column = self.boots((first, "crashed"), ("1..3\n# start 3 c\nok 3 - c\nXENITS-GUEST: done", ""))
        self.assertEqual({k: o.word for k, o in column.cases.items()}, {"a": "ok", "b": "CRASH", "c": "ok"})
        self.assertEqual((column.boots, column.done), (2, True))

    def test_a_crash_between_cases_goes_on_behind_the_last(self) -> None:
        column = self.boots(("1..2\n# start 1 a\nok 1 - a", "crashed"), ("1..2\nok 2 - b\nXENITS-GUEST: done", ""))
        self.assertEqual((column.boots, column.done, len(column.cases)), (2, True, 2))

    def test_boots_that_get_nowhere_end(self) -> None:
        column = self.boots(*[("1..2", "crashed")] * guest.FUTILE_BOOTS)
        self.assertEqual((column.boots, column.done), (guest.FUTILE_BOOTS, False))

    def test_a_case_that_is_good_alone_is_said_to_be_so(self) -> None:
        bad = column(a="FAIL")
        with unittest.mock.patch.object(guest, "boot", lambda *_: (read("1..1\nok 1 - a\nXENITS-GUEST: done"), "")):
            guest.look_again(bad, Path("/g"), None, "", Path("/l"), 1.0, Machine())
        self.assertEqual(bad.cases["a"].word, "ok*")


class Mixing(unittest.TestCase):
    """What the fuzzer had executed."""

    def mix(self, **counts: int) -> list[str]:
        """The judgement on counters like these."""
        kinds = ("MOVI", "INT", "CLEAR", "SYNC", "MAPD", "MAPC", "MAPTI", "INV", "INVALL", "MOVALL", "DISCARD")
        numbers = dict.fromkeys(kinds, 1000) | {"skipped": 100} | counts
        made = column(a="ok")
        made.counters = {"commands d0 vits=0": {k: str(v) for k, v in numbers.items() if v}}
        return guest_tests.mix(made)

    def test_good(self) -> None:
        self.assertEqual(self.mix(), [])

    def test_each_fault_of_a_mix(self) -> None:
        self.assertIn("skipped", self.mix(skipped=20_000)[0])
        self.assertIn("10 kinds", self.mix(CLEAR=0)[0])
        self.assertIn("only 7 MOVALL", self.mix(MOVALL=7)[0])

    def test_no_counters(self) -> None:
        self.assertEqual(len(guest_tests.mix(column(a="ok"))), 1)


class Masking(unittest.TestCase):
    """How often host LPIs were masked."""

    def masking(self, storms: int, masked: int) -> list[str]:
        """The judgement on counters like these."""
        made = column(a="ok")
        made.counters = {"stats d0": {"storms": str(storms)}, "state d0": {"masked": str(masked)}}
        return guest_tests.masking(made)

    def test_good(self) -> None:
        self.assertEqual(self.masking(60, 0), [])

    def test_each_fault(self) -> None:
        self.assertIn("3 times only", self.masking(3, 0)[0])
        self.assertIn("1 host LPIs are still masked", self.masking(60, 1)[0])

    def test_no_counters(self) -> None:
        self.assertEqual(len(guest_tests.masking(column(a="ok"))), 1)


class Judging(unittest.TestCase):
    """What ours is failed for."""

    def test_good(self) -> None:
        self.assertEqual(failures(column(a="ok", b="skip")), [])

    def test_nothing_is_skipped_where_all_can_run(self) -> None:
        whole = {test.name for test in guest_tests.TESTS if test.must_run_all}
        self.assertEqual(whole, {"debug", "release"})
        for test in guest_tests.TESTS:
            with self.subTest(test.name):
                own = guest_tests._judge(test, "it", column(a="ok", b="skip"))[-1]
                self.assertEqual(any("b was skipped" in why for why in own.problems), test.must_run_all)

    def test_each_bad_result_fails(self) -> None:
        for word in ("FAIL", "CRASH", "HANG"):
            with self.subTest(word):
                self.assertEqual(len(failures(column(a="ok", b=word))), 1)

    def test_missing_cases_fail(self) -> None:
        short = column(a="ok")
        short.plan = 2
        self.assertEqual(failures(short), ["1 of 2 cases did not run"])

    def test_nothing_at_all_fails(self) -> None:
        self.assertIn("no case ran", failures(Column("rust")))

    def test_an_early_end_fails(self) -> None:
        early = column(a="ok")
        early.done = False
        self.assertEqual(failures(early), ["the guest did not get to its end"])

    def test_differences_are_explained_or_said_to_be_open(self) -> None:
        other = column(**{"creadr-readonly": "FAIL", "unheard-of": "FAIL"})
        other.name, other.order = "native", list(other.cases)
        text = render([other])
        self.assertIn("known: QEMU lets GITS_CREADR be written", text)
        self.assertIn("nobody has looked into it yet", text)


class Commanding(unittest.TestCase):
    """What QEMU is told."""

    def test_native_has_no_virtualisation(self) -> None:
        native = command("native", Path("/g"), None, "its.test=*", Path("/e"), Machine())
        self.assertIn("virt,gic-version=3,its=on", native)

    def test_commas_of_a_list_are_doubled_for_the_loader(self) -> None:
        xen = command("rust", Path("/g"), Path("/x"), "its.test=a,b", Path("/e"), Machine())
        self.assertIn("its.test=a,,b", " ".join(xen))

    def test_a_device_that_fires_is_there_if_it_is_wanted(self) -> None:
        for edus in (0, 1):
            argv = command("rust", Path("/g"), Path("/x"), "", Path("/e"), Machine(edus=edus))
            self.assertEqual(argv.count("edu"), edus)

    def test_each_known_difference_is_of_another_its_than_ours(self) -> None:
        for where, _, why in conformance.KNOWN:
            self.assertIn(where, ("c", "native"))
            self.assertTrue(why)

    def test_the_page_gives_the_reason_of_each_difference(self) -> None:
        titles = {title: column for column, title in conformance.TITLES.items()}
        column, differences = "", 0
        for line in (layout.REPO / "docs/conformance.md").read_text(encoding="utf-8").splitlines():
            if match := re.match(r"## ([^:]+):", line):
                column = titles[match[1]]
            elif match := re.match(r"\* (\S+): (FAIL|CRASH|HANG): ", line):
                differences += 1
                why = conformance.known(column, match[1])
                self.assertTrue(why, f"nobody knows why {match[1]} differs on {column}")
                self.assertTrue(line.endswith(f"{why[:1].upper()}{why[1:]}."), line)
        self.assertGreater(differences, 20)


if __name__ == "__main__":
    unittest.main()
