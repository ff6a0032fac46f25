# SPDX-License-Identifier: GPL-2.0-only
"""The plugin itself, on a bare-metal program that makes calls of known cost."""

from __future__ import annotations

import subprocess
import tempfile
import unittest
from pathlib import Path

from bench import repo, results
from bench.elfsyms import SymbolTable
from bench.plugin.build import build_plugin
from xenits.errors import StepError

PROGRAM = repo.BENCH / "tests" / "plugin.S"
FUNCTIONS = ["leaf", "caller", "recurse", "tail", "interrupted", "enter_guest"]


class Plugin(unittest.TestCase):
    """Builds plugin and program once."""

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.dir = Path(folder.name)
        cls.plugin = build_plugin(cls.dir / "plugin.log")
        cls.program = cls.dir / "program"
        subprocess.run(
            ["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-Ttext=0x40200000",
             "-o", cls.program, PROGRAM],
            check=True,
        )  # fmt: skip
        cls.symbols = SymbolTable.read(cls.program)

    def qemu(self, words: list[str], smp: int = 1) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["qemu-system-aarch64", "-M", "virt,gic-version=3,virtualization=on", "-cpu", "cortex-a57",
             "-smp", str(smp), "-m", "128M", "-display", "none", "-nodefaults", "-nic", "none",
             "-kernel", self.program,
             "-plugin", ",".join([str(self.plugin), *words])],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def words(self) -> list[str]:
        address = self.symbols.address
        low, high = address("_start"), address("vectors") + 0x800
        return [
            f"lo={low:#x}", f"hi={high:#x}", f"vec={address('vectors'):#x}", f"out={self.dir}/out",
            *(f"fn={name}:{address(name):#x}" for name in FUNCTIONS),
        ]  # fmt: skip

    def count(self, *more: str) -> results.PluginOutput:
        out = self.dir / "out"
        out.unlink(missing_ok=True)
        done = self.qemu([*self.words(), *more])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return results.parse(out.read_text(encoding="utf-8"))

    def test_calls_cost_what_they_execute(self) -> None:
        functions = self.count().functions
        self.assertEqual(functions["caller"].histogram, {(11, 4): 1})
        self.assertEqual(functions["recurse"].histogram, {(5, 2): 1, (11, 4): 1, (17, 6): 1})
        self.assertEqual(functions["tail"].histogram, {(6, 1): 1})
        # From _start 1, caller 2, tail 1, interrupted 1, its handler 1, the trips 3; none from the guest.
        self.assertEqual(functions["leaf"].histogram, {(3, 1): 9})

    def test_an_interrupt_inside_a_call_is_left_out(self) -> None:
        out = self.count()
        self.assertEqual(out.functions["interrupted"].histogram, {(8, 3): 1})
        self.assertEqual(out.totals["interrupts"], 1)

    def test_without_vectors_the_interrupt_is_part_of_the_call(self) -> None:
        words = [w for w in self.words() if not w.startswith("vec=")]
        done = self.qemu(words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        out = results.parse((self.dir / "out").read_text(encoding="utf-8"))
        # The branch in the vector, four of the handler's own, and its leaf.
        self.assertEqual(out.functions["interrupted"].histogram, {(8 + 1 + 4 + 3, 3 + 3): 1})

    def test_a_call_that_never_returns_is_lost(self) -> None:
        function = self.count().functions["enter_guest"]
        self.assertEqual((function.calls, function.lost), (0, 1))

    def test_a_trip_counts_only_with_exactly_one_call_in_it(self) -> None:
        trip = self.count("trip=trip:leaf").functions["trip"]
        self.assertEqual(trip.histogram, {(9, 1): 1})

    def test_calls_from_elsewhere_are_not_looked_at(self) -> None:
        address = self.symbols.address
        low, high = address("caller"), address("recurse")
        out = self.count(f"fn=from_caller:{address('leaf'):#x}:{low:#x}:{high:#x}")
        self.assertEqual(out.functions["from_caller"].histogram, {(3, 1): 2})

    def profile(self, name: str, *more: str) -> results.ProfileGroup:
        syms = self.dir / "syms"
        pieces = self.symbols.ranges(self.symbols.address("_start"), self.symbols.address("vectors") + 0x800)
        syms.write_text("".join(f"{s.addr:x} {s.size:x} {s.name}\n" for s in pieces), encoding="utf-8")
        out = self.count(*more, f"profile={name}", f"syms={syms}")
        self.assertEqual(len(out.groups), 1)
        return out.groups[0]

    def test_profile_of_a_call(self) -> None:
        group = self.profile("caller")
        self.assertEqual((group.insns, group.calls), (11, 1))
        self.assertEqual(group.functions, {"caller": (5, 1), "leaf": (6, 2)})

    def test_profile_leaves_interrupts_out(self) -> None:
        self.assertEqual(self.profile("interrupted").functions, {"interrupted": (5, 1), "leaf": (3, 1)})

    def test_profile_of_a_trip(self) -> None:
        group = self.profile("trip", "trip=trip:leaf")
        self.assertEqual(group.functions, {"vectors": (1, 0), "guest_exception": (5, 1), "leaf": (3, 1)})

    def test_more_than_one_cpu_is_refused(self) -> None:
        done = self.qemu(self.words(), smp=2)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("use -smp 1", done.stderr)

    def test_bad_arguments_are_refused(self) -> None:
        for word in ("nonsense=1", "fn=x", "fn=x:1:2", "fn=x:zz", "profile=leaf", "trip=t:nobody"):
            done = self.qemu([*self.words(), word])
            self.assertNotEqual(done.returncode, 0, word)
            self.assertIn("fncount: ", done.stderr, word)

    def test_a_file_that_was_cut_short_is_refused(self) -> None:
        self.count()
        text = (self.dir / "out").read_text(encoding="utf-8")
        for cut in ("", text[: len(text) // 2], text.removesuffix("end\n")):
            with self.assertRaises(StepError):
                results.parse(cut)


if __name__ == "__main__":
    unittest.main()
