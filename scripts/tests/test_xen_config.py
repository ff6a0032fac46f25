# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig fragments, and the check that they came true."""

import tempfile
import unittest
from pathlib import Path

from xenits import xen_config
from xenits.errors import StepError

FINAL = """\
CONFIG_ARM_64=y
CONFIG_HAS_ITS=y
CONFIG_NR_CPUS=128
# CONFIG_LIVEPATCH is not set
"""


class Fragments(unittest.TestCase):
    def test_parse(self):
        text = '# a remark\n\nCONFIG_A=y\n  CONFIG_B="x y"\n# CONFIG_C is not set\n'
        self.assertEqual(xen_config.parse(text, "f"), {"A": "y", "B": '"x y"', "C": "n"})

    def test_render_is_what_parse_reads(self):
        symbols = {"A": "y", "B": "n", "C": "12"}
        self.assertEqual(xen_config.parse(xen_config.render(symbols), "f"), symbols)

    def test_nonsense_is_named_with_its_line(self):
        with self.assertRaisesRegex(StepError, "f:2: not a Kconfig line: A=y"):
            xen_config.parse("CONFIG_B=y\nA=y\n", "f")

    def test_the_users_fragment_wins(self):
        with tempfile.TemporaryDirectory() as name:
            one, two = Path(name, "one"), Path(name, "two")
            one.write_text("CONFIG_DEBUG=n\nCONFIG_NR_CPUS=4\n")
            two.write_text("CONFIG_NR_CPUS=8\n")
            symbols = xen_config.wanted("rust", True, [one, two])
        self.assertEqual((symbols["DEBUG"], symbols["NR_CPUS"], symbols["ITS_RUST"]), ("n", "8", "y"))

    def test_c_asks_for_no_rust(self):
        self.assertEqual(xen_config.wanted("c", False, [])["ITS_RUST"], "n")

    def test_missing_file(self):
        with self.assertRaisesRegex(StepError, "cannot read the fragment"):
            xen_config.wanted("c", True, [Path("/nonexistent/x")])


class Verifying(unittest.TestCase):
    def test_all_met(self):
        self.assertEqual(
            xen_config.unmet({"HAS_ITS": "y", "NR_CPUS": "128", "LIVEPATCH": "n", "ABSENT": "n"}, FINAL), []
        )

    def test_each_kind_of_unmet(self):
        lines = xen_config.unmet({"HAS_ITS": "n", "NR_CPUS": "4", "LIVEPATCH": "y", "ITS_RUST": "y"}, FINAL)
        self.assertEqual(
            lines,
            [
                "CONFIG_HAS_ITS: asked for n, got y",
                "CONFIG_NR_CPUS: asked for 4, got 128",
                "CONFIG_LIVEPATCH: asked for y, got n",
                "CONFIG_ITS_RUST: asked for y, got not in this configuration "
                "(unknown, or something it depends on is off)",
            ],
        )


if __name__ == "__main__":
    unittest.main()
