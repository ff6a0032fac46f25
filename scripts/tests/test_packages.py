# SPDX-License-Identifier: GPL-2.0-only
"""Reading the machine's apt sources, in both of their styles."""

import tempfile
import unittest
from pathlib import Path

from xenits.errors import StepError
from xenits.packages import Mirror, parse_deb822, parse_one_line, read_mirrors, sources_list

DEB822 = """\
Types: deb
# a remark in the middle
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/k.gpg

Types: deb deb-src
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Types: deb
Enabled: no
URIs: http://mirror.example/off
Suites: bookworm
Components: main

Types: deb-src
URIs: http://mirror.example/source-only
Suites: bookworm
Components: main
"""


class Parsing(unittest.TestCase):
    def test_deb822(self):
        self.assertEqual(
            parse_deb822(DEB822),
            [
                Mirror("http://mirror.example/debian", ("bookworm", "bookworm-updates"), "/usr/share/keyrings/k.gpg"),
                Mirror("http://mirror.example/security", ("bookworm-security",), None),
            ],
        )

    def test_one_line(self):
        text = (
            "# deb http://off.example/debian bookworm main\n"
            "deb http://mirror.example/debian/ bookworm main contrib  # remark\n"
            "deb [ arch=amd64 signed-by=/k.gpg ] http://mirror.example/x bookworm-updates main\n"
            "deb-src http://mirror.example/debian bookworm main\n"
        )
        self.assertEqual(
            parse_one_line(text),
            [
                Mirror("http://mirror.example/debian", ("bookworm",), None),
                Mirror("http://mirror.example/x", ("bookworm-updates",), "/k.gpg"),
            ],
        )

    def test_files_of_both_styles_are_read_and_others_are_not(self):
        with tempfile.TemporaryDirectory() as name:
            etc = Path(name)
            (etc / "sources.list.d").mkdir()
            (etc / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
            (etc / "sources.list.d/b.sources").write_text("Types: deb\nURIs: http://b.example\nSuites: s\n")
            (etc / "sources.list.d/c.sources.disabled").write_text("Types: deb\nURIs: http://c.example\nSuites: s\n")
            self.assertEqual([m.uri for m in read_mirrors(etc)], ["http://a.example/debian", "http://b.example"])


class Writing(unittest.TestCase):
    def test_all_suites_from_the_users_mirror(self):
        text = sources_list(parse_deb822(DEB822), "amd64")
        self.assertIn(
            "deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main\n",
            text,
        )
        self.assertRegex(text, r"deb \[arch=amd64,arm64 .*\] http://mirror.example/debian bookworm-backports main\n")
        self.assertRegex(text, r"deb-src \[signed-by=\S+\] http://mirror.example/debian trixie main\n")
        self.assertRegex(text, r"http://mirror.example/security bookworm-security main\n")

    def test_without_a_key(self):
        text = sources_list([Mirror("http://m.example", ("bookworm",))], "arm64")
        self.assertIn("deb [arch=arm64] http://m.example bookworm main\n", text)
        self.assertIn("deb-src http://m.example trixie main\n", text)

    def test_the_sources_of_another_suite(self):
        text = sources_list(parse_deb822(DEB822), "amd64", source_suite="sid")
        self.assertEqual(text, "deb-src [signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian sid main\n")

    def test_another_release(self):
        with self.assertRaisesRegex(StepError, "no apt source here offers Debian bookworm"):
            sources_list([Mirror("http://m.example", ("jammy",))], "amd64")


if __name__ == "__main__":
    unittest.main()
