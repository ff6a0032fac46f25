# SPDX-License-Identifier: GPL-2.0-only
"""The limits of operations, and the tables of ``scripts/bench``."""

from __future__ import annotations

import copy
import tempfile
import unittest
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench import boots, limits, main, marks
from bench.page import Page
from xenits.errors import StepError


def figures(insns: int, **more: int) -> dict[str, Any]:
    """An operation that costs so much."""
    usual = dict.fromkeys(marks.COUNTS, 0) | {"insns": insns, "mem": insns // 3} | more
    return boots.Measured("", 8, 0, usual, insns, insns, insns, insns).json()


RUST = {
    "lpi/running": figures(900, locks=3),
    "command/INV/1": figures(2000),
    "command/INV/16": figures(8000),
    "concurrent/2/one-vcpu": figures(3000, locks=7, shared=4),
    "memory/devices/500": figures(20000, bytes=400000, freed=50000),
    "memory/lpis/4096": figures(20000, bytes=32768),
    "memory/host-tables/14-bits": figures(20000, bytes=1000000),
    "memory/host-tables/16-bits": figures(20000, bytes=1049152),
    "grow/lpis/1/lpi": figures(900),
    "grow/lpis/1/INVALL,0-pending,1": figures(2000),
    "grow/lpis/57280/lpi": figures(901),
    "grow/lpis/57280/INVALL,0-pending,1": figures(2000),
}
C = {name: figures(2 * one["mode"]["insns"]) for name, one in RUST.items() if "57280" not in name}


class Limits(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "limits.json"
        limits.write(RUST, self.path)

    def problems(self, measured: dict[str, Any]) -> list[str]:
        return limits.problems(measured, self.path)

    def test_what_was_written_is_kept(self) -> None:
        self.assertEqual(self.problems(RUST), [])
        self.assertEqual(limits.read(self.path)["lpi/running"], {"insns": 900, "mem": 300, "hold": 900})

    def test_the_committed_limits_can_be_read(self) -> None:
        self.assertIn("lpi/running", limits.read())

    def test_each_kind_is_limited(self) -> None:
        for kind, where in (("insns", "instructions"), ("mem", "memory operations"), ("hold", "preemption point")):
            worse = copy.deepcopy(RUST)
            one = worse["lpi/running"]
            target = one if kind == "hold" else one["mode"]
            target[kind] = int(target[kind] * 1.019)
            self.assertEqual(self.problems(worse), [], kind)
            target[kind] = int(target[kind] * 1.02)
            (line,) = self.problems(worse)
            self.assertIn(where, line)
            self.assertIn("lpi/running", line)

    def test_commands_that_are_late_hide_their_cost(self) -> None:
        worse = copy.deepcopy(RUST)
        worse["command/INV/1"]["late"] = 1
        self.assertEqual(len(self.problems(worse)), 1)

    def test_both_have_the_same_operations(self) -> None:
        more = RUST | {"new": figures(1)}
        self.assertIn("no limit", self.problems(more)[0])
        less = {name: one for name, one in RUST.items() if name != "lpi/running"}
        self.assertIn("not measured", self.problems(less)[0])

    def test_growth_is_noticed_whatever_the_limits_say(self) -> None:
        worse = copy.deepcopy(RUST)
        worse["grow/lpis/57280/INVALL,0-pending,1"]["mode"]["insns"] = 2201
        limits.write(worse, self.path)
        (line,) = self.problems(worse)
        self.assertIn("2201 instructions with 57280 lpis, 2000 with 1", line)
        self.assertTrue(limits.growth({}))

    def test_stretches_that_grow_are_noticed(self) -> None:
        sizes = {"hold/INVALL/64-lpis": 100, "hold/INVALL/512-lpis": 9000, "hold/INVALL/4000-lpis": 9100}
        measured = {name: figures(hold) for name, hold in sizes.items()} | {"hold/INVALL/64-pending": figures(5)}
        self.assertEqual(limits.holds(measured), [])
        measured["hold/INVALL/4000-lpis"] = figures(12000)
        (line,) = limits.holds(measured)
        self.assertIn("hold/INVALL/N-lpis: 12000 instructions without a preemption point for 4000, 9000 for 512", line)

    def test_some_stretches_may_grow_a_little(self) -> None:
        measured = {"grow/devices/256/MAPD": figures(1000), "grow/devices/1024/MAPD": figures(1050 + 4 * 768)}
        measured |= {"grow/devices/256/lpi": figures(1), "grow/devices/1024/lpi": figures(9)}
        self.assertEqual(limits.holds(measured), [])
        measured["grow/devices/1024/MAPD"] = figures(1051 + 4 * 768)
        self.assertEqual(len(limits.holds(measured)), 1)

    def test_a_file_that_is_none(self) -> None:
        self.path.write_text("[", encoding="utf-8")
        with self.assertRaises(StepError):
            self.problems(RUST)


class Tables(unittest.TestCase):
    def setUp(self) -> None:
        rates = {"4": {"c": [100.0, 200.0, 50.0], "rust": [110.0, 240.0, 40.0]}}
        self.page = Page({"c": C, "rust": RUST, "throughput": rates})
        self.text = self.page.render()

    def test_sides_and_their_ratio(self) -> None:
        self.assertRegex(self.text, r"\| running +\| +1 800 \| +900 \| +0\.50 \|")

    def test_a_further_command(self) -> None:
        self.assertEqual(self.page.further("INV", "rust"), 400)
        self.assertRegex(self.text, r"\| INV +\| +4 000 \| +2 000 \| +0\.50 \| +800 \| +400 \| +0\.50 \|")

    def test_growth_has_a_column_for_each_size(self) -> None:
        self.assertRegex(self.text, r"\| lpis +\| +1 \| +57280 \|")
        self.assertRegex(self.text, r"\| lpi C +\| +1 800 \| +- \|")
        self.assertRegex(self.text, r"\| lpi Rust +\| +900 \| +901 \|")

    def test_memory_and_locks(self) -> None:
        self.assertRegex(self.text, r"\| a device with 32 events +\| +0 \| +700 \|")
        self.assertRegex(self.text, r"\| a mapped LPI +\| +0 \| +8 \|")
        self.assertRegex(self.text, r"\| host, 20 INTID bits +\| +0 \| +2 032 192 \|")
        self.assertRegex(self.text, r"\| running +\| Rust \| +900 \| +3 \|")

    def test_many_cpus(self) -> None:
        self.assertRegex(self.text, r"\| 2 CPUs, one-vcpu, Rust +\| 1 500 \| +3\.5 \| +0 \| +0 \| +0 \| +2 \|")
        self.assertRegex(self.text, r"\| 4 +\| +0\.80 \| +1\.10 \| +1\.20 \|")

    def test_pictures_have_a_line_for_each_side(self) -> None:
        picture = self.page.charts()["lpis.svg"]
        self.assertEqual(picture.count("<polyline"), 4)
        for name in ("INVALL, C", "INVALL, Rust", "lpi, C", "lpi, Rust"):
            self.assertIn(f">{name}</text>", picture)
        self.assertEqual(picture, self.page.charts()["lpis.svg"])
        ElementTree.fromstring(picture)

    def test_one_side_alone(self) -> None:
        self.assertRegex(Page({"rust": RUST}).render(), r"\| running +\| +- \| +900 \| +- \|")

    def test_upstream_without_the_series(self) -> None:
        text = Page({"c": C, "rust": RUST, "upstream": {"lpi/running": figures(2000), "device/x": figures(1)}}).render()
        self.assertRegex(text, r"\| LPI, running +\| +2 000 \| +1 800 \| +900 \| +0\.45 \|")
        self.assertNotIn("device/x", text)
        self.assertNotIn("Upstream as it is", self.text)

    def test_a_second_boot_adds_what_the_first_did_not_count(self) -> None:
        results: dict[str, Any] = {}
        for insns, lines in ((900, 0), (950, 40)):
            usual = dict.fromkeys(marks.COUNTS, 0) | {"insns": insns, "lines": lines}
            main.add(results, boots.Measured("lpi/running", 8, 0, usual, insns, insns, insns, insns))
        figures_ = results["lpi/running"]
        self.assertEqual((figures_["mode"]["insns"], figures_["mode"]["lines"], figures_["hold"]), (900, 40, 900))

    def test_sections_without_figures_are_left_out(self) -> None:
        self.assertNotIn("A boot of Dom0", self.text)
        self.assertNotIn("number of vCPUs", self.text)

    def test_the_page_names_what_it_was_made_with(self) -> None:
        made = {"xen": "4.20.3", "gcc": "gcc 12", "rustc": "rustc 1", "qemu": "QEMU 10"}
        text = main.document({"c": C, "rust": RUST, "versions": made, "date": "2026-01-02"})
        for word in (*made.values(), "2026-01-02", "SPDX-License-Identifier"):
            self.assertIn(word, text)


if __name__ == "__main__":
    unittest.main()
