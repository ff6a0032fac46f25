# SPDX-License-Identifier: GPL-2.0-only
"""Reading, reducing, comparing and judging counts."""

from __future__ import annotations

import copy
import json
import unittest
from collections import Counter
from typing import Any

from bench import count, results
from xenits.errors import StepError

OUTPUT = """fncount 1
total insns=5000 mem=900 interrupts=2 overflows=0
fn lpi total=2729 lost=0 sequence=00000000000000aa
hist lpi 843 229 2
hist lpi 843 230 1
hist lpi 200 60 1
fn other total=0 lost=1 sequence=cbf29ce484222325
profile lpi ungrouped=0
group 843 calls=3
in 2400 3 lpi
in 100 6 lookup
in 29 0 lookup
group 200 calls=1
in 200 1 lpi
end
"""


def run(**modes: tuple[int, int]) -> dict[str, Any]:
    """A result in which each function had 1000 calls, 990 of them at the mode given."""
    functions = {}
    for name, (insns, mem) in modes.items():
        histogram = Counter({(insns, mem): 990, (insns + 7, mem + 2): 10})
        functions[name.replace("_", "-")] = results.FunctionCounts(
            name, sum(i * n for (i, _), n in histogram.items()), 0, "0", histogram
        ).reduce()
    return {"format": results.FORMAT, "functions": functions}


class Parse(unittest.TestCase):
    def test_reads_all_kinds_of_lines(self) -> None:
        out = results.parse(OUTPUT)
        self.assertEqual(out.totals, {"insns": 5000, "mem": 900, "interrupts": 2, "overflows": 0})
        self.assertEqual(out.functions["lpi"].calls, 4)
        self.assertEqual((out.functions["other"].calls, out.functions["other"].lost), (0, 1))
        self.assertEqual([g.insns for g in out.groups], [843, 200])

    def test_namesakes_are_added_up(self) -> None:
        self.assertEqual(results.parse(OUTPUT).groups[0].functions["lookup"], (129, 6))

    def test_refuses_what_does_not_add_up(self) -> None:
        for old, new in (
            ("total=2729", "total=2730"),
            ("hist lpi 843 229 2", "hist lpi 843 229 3"),
            ("in 2400 3 lpi", "in 2399 3 lpi"),
            ("group 200 calls=1", "group 200 calls=2"),
            ("overflows=0", "overflows=1"),
        ):
            with self.subTest(new=new), self.assertRaises(StepError):
                results.parse(OUTPUT.replace(old, new))

    def test_refuses_nonsense(self) -> None:
        for old, new in (
            ("fncount 1", "fncount 2"),
            ("hist lpi 843 229 2", "hist lpi 843 229"),
            ("hist lpi 843 229 2", "hist nobody 843 229 2"),
            ("hist lpi 843 229 2", "hist lpi 843 229 two"),
            ("profile lpi ungrouped=0", "profile lpi"),
            ("end\n", ""),
            ("\nend", "\nend\nmore"),
            (OUTPUT, ""),
        ):
            with self.subTest(new=new), self.assertRaises(StepError):
                results.parse(OUTPUT.replace(old, new))


class Reduce(unittest.TestCase):
    def function(self, histogram: dict[tuple[int, int], int]) -> results.FunctionCounts:
        return results.FunctionCounts("f", 0, 0, "", Counter(histogram))

    def test_mode_is_by_instructions_not_by_pairs(self) -> None:
        # 843 has 1100 calls in two kinds; no single kind is as frequent as 850's.
        f = self.function({(843, 229): 600, (843, 230): 500, (850, 231): 700})
        self.assertEqual(f.mode(), (843, 229, 1100))

    def test_memory_operations_are_those_of_most_calls_at_the_mode(self) -> None:
        self.assertEqual(self.function({(10, 3): 4, (10, 2): 5, (11, 3): 8}).mode(), (10, 2, 9))

    def test_of_equals_the_cheaper_one_counts(self) -> None:
        self.assertEqual(self.function({(12, 1): 5, (10, 2): 5}).mode(), (10, 2, 5))
        self.assertEqual(self.function({(10, 3): 5, (10, 2): 5}).mode(), (10, 2, 10))

    def test_median(self) -> None:
        self.assertEqual(self.function({(1, 0): 1, (2, 0): 1, (9, 0): 1}).median(), 2)
        self.assertEqual(self.function({(1, 0): 1, (9, 0): 1}).median(), 1)
        self.assertEqual(self.function({(5, 0): 1, (5, 1): 1, (7, 0): 3}).median(), 7)

    def test_json_form(self) -> None:
        reduced = results.parse(OUTPUT).functions["lpi"].reduce()
        self.assertEqual(reduced["mode"], {"insns": 843, "mem": 229, "calls": 3, "share": 0.75})
        self.assertEqual((reduced["min"], reduced["median"], reduced["max"]), (200, 843, 843))
        self.assertEqual(json.loads(json.dumps(reduced)), reduced)

    def test_never_called(self) -> None:
        reduced = results.parse(OUTPUT).functions["other"].reduce()
        self.assertNotIn("mode", reduced)
        self.assertIn("0", results.render({"functions": {"other": reduced}}))

    def test_profile_is_that_of_the_mode(self) -> None:
        profile = results.profile_at_mode(results.parse(OUTPUT))
        assert profile is not None
        self.assertEqual((profile["insns"], profile["samples"]), (843, 3))
        self.assertEqual([row["name"] for row in profile["functions"]], ["lpi", "lookup"])
        self.assertEqual(sum(row["insns"] for row in profile["functions"]), 843)
        self.assertEqual(profile["functions"][1]["calls"], 2)

    def test_profile_without_its_mode_is_an_error(self) -> None:
        out = results.parse(OUTPUT)
        del out.groups[0]
        with self.assertRaises(StepError):
            results.profile_at_mode(out)


class Compare(unittest.TestCase):
    def test_side_by_side_with_ratio(self) -> None:
        text = results.compare(run(lpi=(800, 200), c_only=(5, 1)), run(lpi=(400, 50), rust_only=(7, 1)))
        rows = {line.split()[0]: line.split() for line in text.partition("\n\n")[0].splitlines()}
        self.assertEqual(rows["lpi"], ["lpi", "800", "400", "0.50", "200", "50", "0.25"])
        self.assertEqual(rows["c-only"], ["c-only", "5", "-", "-", "1", "-", "-"])
        self.assertEqual(rows["rust-only"], ["rust-only", "-", "7", "-", "-", "1", "-"])
        self.assertIn("C insns", text)
        self.assertIn("Rust insns", text)

    def test_all_calls(self) -> None:
        text = results.compare(run(lpi=(800, 200)), run(lpi=(400, 50)))
        row = text.partition("\n\n")[2].splitlines()[1].split()
        self.assertEqual(row, ["lpi", "1000", "1000", "800070", "400070", "0.50"])

    def test_costlier_than_the_baseline(self) -> None:
        base = run(lpi=(843, 229))
        self.assertEqual(results.relative_errors(run(lpi=(843, 500)), base, ["lpi"]), [])
        self.assertEqual(len(results.relative_errors(run(lpi=(844, 1)), base, ["lpi"])), 1)
        self.assertEqual(len(results.relative_errors(run(other=(1, 1)), base, ["lpi"])), 1)
        self.assertEqual(len(results.relative_errors(run(lpi=(1, 1)), base, ["other"])), 1)


class Limits(unittest.TestCase):
    def errors(self, limit: dict[str, float], **change: Any) -> list[str]:
        result = copy.deepcopy(run(lpi=(843, 229)))
        result["functions"]["lpi"].update(change)
        return results.limit_errors(result, {"lpi": limit})

    def test_each_limit_holds_up_to_its_value(self) -> None:
        for key, good, bad in (
            ("insns", 843, 842),
            ("mem", 229, 228),
            ("calls", 1000, 1001),
            ("share", 0.99, 0.991),
        ):
            with self.subTest(key=key):
                self.assertEqual(self.errors({key: good}), [])
                self.assertEqual(len(self.errors({key: bad})), 1)

    def test_lost_calls_are_an_error(self) -> None:
        self.assertEqual(len(self.errors({"insns": 843}, lost=1)), 1)

    def test_a_limit_for_what_was_not_counted_is_an_error(self) -> None:
        self.assertEqual(len(results.limit_errors(run(other=(1, 1)), {"lpi": {"insns": 1}})), 1)
        self.assertEqual(len(self.errors({"insns": 843}, calls=0)), 1)

    def test_a_limit_nobody_knows_is_refused(self) -> None:
        with self.assertRaises(StepError):
            self.errors({"insn": 843})

    def test_the_limits_in_the_repository(self) -> None:
        for build in ("release", "debug"):
            limits = count.load_limits(build)
            self.assertIn(count.LPI, limits)
            self.assertIn(count.TRIP, limits)
            # Nothing was counted: every limit must say so.
            self.assertEqual(len(results.limit_errors({"functions": {}}, limits)), len(limits))
        with self.assertRaises(StepError):
            count.load_limits("nonsense")


if __name__ == "__main__":
    unittest.main()
