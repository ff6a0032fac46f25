# SPDX-License-Identifier: GPL-2.0-only
"""The marks plugin, on a bare-metal program whose operations have known costs, and what reads its output."""

from __future__ import annotations

import subprocess
import tempfile
import unittest
from pathlib import Path

from bench import boots, marks, repo
from bench.elfsyms import Symbol, SymbolTable
from bench.plugin.build import build_plugin
from xenits.errors import StepError

PROGRAM = repo.BENCH / "tests" / "marks.S"


class Plugin(unittest.TestCase):
    """Builds plugin and programs once."""

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.dir = Path(folder.name)
        cls.plugin = build_plugin(cls.dir / "plugin.log", "marks")
        for name, *flags in (("whole",), ("broken", "-DBROKEN"), ("nested", "-DNESTED"), ("unended", "-DUNENDED")):
            subprocess.run(
                ["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-Ttext=0x40200000",
                 *flags, "-o", cls.dir / name, PROGRAM],
                check=True,
            )  # fmt: skip

    def count(self, *more: str, program: str = "whole", smp: int = 1) -> marks.Output:
        done = self.qemu(program, smp, *more)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return marks.parse((self.dir / "out").read_text(encoding="utf-8"))

    def qemu(self, program: str, smp: int, *more: str) -> subprocess.CompletedProcess[str]:
        address = SymbolTable.read(self.dir / program).address
        words = [
            f"lo={address('_start'):#x}", f"hi={address('vectors') + 0x800:#x}", f"vec={address('vectors'):#x}",
            f"out={self.dir}/out", f"lock={address('lock'):#x}", f"point={address('point'):#x}",
            f"alloc=0:1:{address('small'):#x}", f"alloc=0:0x1000:{address('pages'):#x}", *more,
        ]  # fmt: skip
        return subprocess.run(
            ["qemu-system-aarch64", "-M", "virt,gic-version=3,virtualization=on", "-cpu", "cortex-a57",
             "-smp", str(smp), "-m", "128M", "-display", "none", "-nodefaults", "-nic", "none",
             "-icount", "shift=0", "-kernel", self.dir / program,
             "-plugin", ",".join([str(self.plugin), *words])],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def check(self, out: marks.Output) -> None:
        """What every run has."""
        self.assertEqual({n: op.calls for n, op in out.ops.items() if n}, {1: 2, 2: 1, 3: 1, 4: 1, 5: 1})
        kinds = ("insns", "mem", "trips", "atomics", "barriers", "locks", "bytes")
        costs = {n: tuple(op.usual()[kind] for kind in kinds) for n, op in out.ops.items() if n}
        self.assertEqual(
            costs,
            {
                1: (3, 0, 1, 0, 0, 0, 0),
                2: (22, 4, 1, 1, 2, 1, 100 + 4 * 4096),
                3: (14, 0, 1, 0, 0, 0, 0),
                4: (6, 0, 2, 0, 0, 0, 0),
                5: (0, 0, 0, 0, 0, 0, 0),
            },
        )

    def test_operations_cost_what_the_hypervisor_executes(self) -> None:
        self.check(self.count())

    def test_nothing_is_counted_before_the_guest_says_so(self) -> None:
        # The marked ones, one that is not, and the last.
        self.assertEqual(self.count().totals["trips"], 6 + 1 + 1)

    def test_so_they_do_on_several_cpus(self) -> None:
        out = self.count(smp=2)
        self.check(out)
        self.assertEqual({op.hold for op in out.ops.values()}, {0})

    def test_the_longest_stretch_ends_at_a_point(self) -> None:
        out = self.count()
        # Operation 2: up to the entry of `point`, and from there. Operation 3: but for the exception in it.
        self.assertEqual({n: op.hold for n, op in out.ops.items() if n}, {1: 3, 2: 12, 3: 12, 4: 3, 5: 0})
        # What is not marked: as operation 2.
        self.assertEqual(out.ops[0].hold, 12)

    def test_other_work_is_in_no_stretch(self) -> None:
        symbols = SymbolTable.read(self.dir / "whole")
        small, lock = (f"{symbols.address(name):#x}" for name in ("small", "lock"))
        # Operation 2: up to `small`, on to `point`, on to `lock`, and the end; with all of `lock`, this is 8.
        self.assertEqual(self.count(f"others={small}", f"others={lock}").ops[2].hold, 7)
        self.assertEqual(self.count(f"others={small}", f"point={lock}").ops[2].hold, 8)

    def test_calls_of_the_hypervisor_itself(self) -> None:
        symbols = SymbolTable.read(self.dir / "whole")
        out = self.count(f"span=900:{symbols.address('outer'):#x}", f"span=901:{symbols.address('point'):#x}")
        op = out.ops[900]
        self.assertEqual((op.calls, op.sorted(), op.usual()["mem"], op.usual()["bytes"]), (2, [10, 10], 2, 50))
        # Those inside `outer` are its; operation 2 has another; the guest did it unmarked twice.
        self.assertEqual((out.ops[901].calls, out.ops[901].sorted()), (2, [1, 1]))
        self.assertEqual(out.ops[1].calls, 2)

    def test_what_is_given_back(self) -> None:
        symbols = SymbolTable.read(self.dir / "whole")
        span, free = (f"{symbols.address(name):#x}" for name in ("outer", "give_back"))
        for more, freed in (([], 0), ([f"free={free}"], 50)):
            self.assertEqual(self.count(f"span=900:{span}", *more).ops[900].usual()["freed"], freed)

    def test_lines(self) -> None:
        for smp in (1, 2):
            usual = self.count("lines=1", smp=smp).ops[2].usual()
            self.assertEqual((usual["lines"], usual["dirty"], usual["shared"], usual["guest"]), (1, 1, 0, 4))
        usual = self.count().ops[2].usual()
        self.assertEqual((usual["lines"], usual["guest"]), (0, 0))

    def test_calls_from_inside_an_allocator_are_left_out(self) -> None:
        symbols = SymbolTable.read(self.dir / "whole")
        low, high = symbols.address("guest_exception"), symbols.address("guest")
        out = self.count(f"alloc=0:1:{symbols.address('lock'):#x}:{low:#x}:{high:#x}")
        self.assertEqual(out.ops[2].usual()["bytes"], 100 + 4 * 4096)

    def test_profile(self) -> None:
        syms = self.dir / "syms"
        symbols = SymbolTable.read(self.dir / "whole")
        pieces = symbols.ranges(symbols.address("_start"), symbols.address("vectors") + 0x800)
        syms.write_text("".join(f"{s.addr:x} {s.size:x} {s.name}\n" for s in pieces), encoding="utf-8")
        for smp in (1, 2):
            out = self.count("profile=1", f"syms={syms}", smp=smp)
            self.assertEqual(out.functions, {"vectors": 2, "guest_exception": 4})

    def test_marks_that_do_not_fit_together_are_noticed(self) -> None:
        for program in ("broken", "nested", "unended"):
            with self.subTest(program), self.assertRaisesRegex(StepError, "marks do not fit together"):
                self.count(program=program)

    def test_bad_arguments_are_refused(self) -> None:
        for word in (
            "nonsense=1", "lock=zz", "alloc=0:1", "alloc=2:1:5", "span=0:1", "span=1", "profile=1", "syms=/nowhere",
        ):  # fmt: skip
            done = self.qemu("whole", 1, word)
            self.assertNotEqual(done.returncode, 0, word)
            self.assertIn("marks: ", done.stderr, word)


def sample(calls: int, insns: int) -> str:
    zeroes = " ".join(f"{name}=0" for name in marks.COUNTS if name != "insns")
    return f"calls={calls} insns={insns} {zeroes}"


OUTPUT = f"""marks 1
total broken=0 open=0 insns=500
op 0 calls=0 hold=9
op 1 calls=4 hold=7
sample 1 {sample(3, 100)}
sample 1 {sample(1, 120)}
op 2 calls=1 hold=5
sample 2 {sample(1, 10)}
in 300 f
in 20 f
end
"""
NOTES = ["1 CPU, under Xen", "bench op=1 calls=4 late=0 name=lpi/running", "bench op=2 calls=1 late=1 name=exit/x"]


class Reading(unittest.TestCase):
    def test_an_operation(self) -> None:
        out = marks.parse(OUTPUT)
        op = out.ops[1]
        self.assertEqual((op.mode(), op.usual()["insns"], op.sorted(), op.hold), (100, 100, [100, 100, 100, 120], 7))
        self.assertEqual((op.total("insns"), out.functions), (420, {"f": 320}))

    def test_refuses_what_does_not_add_up(self) -> None:
        for old, new in (
            ("marks 1", "marks 2"),
            ("end\n", ""),
            ("calls=3", "calls=2"),
            ("broken=0", "broken=1"),
            ("open=0", "open=3"),
            ("insns=120 mem=0", "insns=120"),
            ("op 1", "operation 1"),
            (OUTPUT, ""),
        ):
            with self.subTest(new=new), self.assertRaises(StepError):
                marks.parse(OUTPUT.replace(old, new, 1))

    def test_with_what_the_guest_said(self) -> None:
        running, other = boots.match(NOTES, marks.parse(OUTPUT))
        self.assertEqual((running.name, running.calls, running.late), ("lpi/running", 4, 0))
        self.assertEqual((running.lowest, running.median, running.highest), (100, 100, 120))
        self.assertEqual((other.name, other.late, other.usual["insns"]), ("exit/x", 1, 10))

    def test_the_guest_and_the_plugin_must_agree(self) -> None:
        out = marks.parse(OUTPUT)
        for notes in (
            NOTES[:2],
            [*NOTES, "bench op=3 calls=1 late=0 name=more"],
            [NOTES[1].replace("calls=4", "calls=5"), NOTES[2]],
            [NOTES[1], NOTES[2].replace("exit/x", "lpi/running")],
        ):
            with self.subTest(notes=notes), self.assertRaises(StepError):
                boots.match(notes, out)


class Arguments(unittest.TestCase):
    SYMBOLS = SymbolTable(
        Path("xen-syms"),
        [
            Symbol(a, s, n, True, True)
            for a, s, n in (
                (0x1000, 0, "_stext"), (0x1800, 0, "hyp_traps_vector"), (0x2000, 64, "_spin_lock"),
                (0x3000, 64, "_xmalloc.part.0"), (0x3040, 16, "_xmalloc"), (0x3080, 16, "_xzalloc"),
                (0x4000, 64, "alloc_xenheap_pages"), (0x4100, 64, "alloc_domheap_pages"), (0x5000, 8, "do_softirq"),
                (0x5100, 8, "xen_its_work"),
                (0x6000, 0, "_etext"), (0x7000, 0, "_end"),
            )
        ],
    )  # fmt: skip

    def test_words_for_the_plugin(self) -> None:
        words = marks.arguments(Path("/p.so"), self.SYMBOLS, Path("/out"), lines=True).split(",")
        self.assertEqual(words[0], "/p.so")
        for word in ("lo=0x1000", "hi=0x7000", "vec=0x1800", "lock=0x2000", "point=0x5100", "others=0x5000", "lines=1",
                     "alloc=0:1:0x3000", "alloc=0:0x1000:0x4000:0x3000:0x3090",
                     "alloc=1:0x1000:0x4100:0x4000:0x4040"):  # fmt: skip
            self.assertIn(word, words)

    def test_a_comma_is_refused(self) -> None:
        with self.assertRaises(StepError):
            marks.arguments(Path("/p,q.so"), self.SYMBOLS, Path("/out"))


if __name__ == "__main__":
    unittest.main()
