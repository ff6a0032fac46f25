# SPDX-License-Identifier: GPL-2.0-only
"""Gates: properties of the repository and of what is linked into Xen.

A gate is a function with the decorator `gate`. It gets a `Gate`, looks at whatever
it wants to, and returns the reasons why it is not content: none means it passed.
What it looks at and what it thinks of that are in other modules, apart, so that
``scripts/tests/test_gates.py`` can show each of them something bad.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import (
    abi,
    by_hand,
    objects,
    pipeline,
    promises,
    python_gate,
    regen,
    rust,
    series,
    sources,
    xen_config,
    xen_source,
)
from .elf import Elf
from .layout import REPO, files_below
from .shell import output, run
from .steps import Steps
from .suite import Case, Context, Result
from .xen_build import Image


@dataclass
class Gate:
    """What a gate works with."""

    context: Context

    @property
    def log(self) -> Path:
        """Where programs' output goes."""
        return self.context.log

    def output(self, *argv: str) -> str:
        """Standard output of a program, run in the repository; a failure fails the gate."""
        return output(list(argv), self.log, cwd=REPO)

    def text(self, path: Path) -> str:
        """A file of the repository."""
        return (REPO / path).read_text(encoding="utf-8")

    def metadata(self, *arguments: str) -> dict[str, Any]:
        """What cargo says of the workspace."""
        rust.prepare(self.log)
        argv = ["cargo", "metadata", "--locked", "--format-version", "1", *arguments]
        found: dict[str, Any] = json.loads(self.output(*argv))
        return found

    def xen(self, its: str = "rust", debug: bool = True, config: str = "") -> Image:
        """A Xen built as ``scripts/run --build-only`` does, with Kconfig lines added."""
        options = pipeline.Options(its=its, debug=debug)
        if config:
            fragment = self.context.logs / "fragment.config"
            fragment.write_text(config, encoding="utf-8")
            options.fragments = [fragment]
        return pipeline.build_xen(options, Steps(pipeline.BUILD_STEPS, self.context.logs, quiet=True), with_qemu=False)


Check = Callable[[Gate], Iterable[str]]
_GATES: list[Case] = []


def gate(name: str, about: str, quick: bool = True) -> Callable[[Check], Check]:
    """Register a gate; `quick` is false for one that needs a build of Xen."""

    def register(check: Check) -> Check:
        def case(context: Context) -> list[Result]:
            return [Result(f"gate/{name}", problems=tuple(check(Gate(context))))]

        _GATES.append(Case(f"gate/{name}", about, functools.wraps(check)(case), quick))
        return check

    return register


def cases() -> Iterable[Case]:
    """All gates, in the order in which they are written below."""
    return [c for c in _GATES if c.name != XEN_OBJECT or xen_source.patch_files(xen_source.XEN_SERIES)]


def repository_files() -> list[str]:
    """The files of the repository: what git tracks, or all there are where git cannot tell."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return [str(path.relative_to(REPO)) for path in files_below(REPO)]
    return [name for name in done.stdout.decode().split("\0") if name]


@gate("spdx", "every source file names its licence in its first lines")
def spdx(gate: Gate) -> Iterable[str]:
    """Looks at every file that is not ignored; see `repository_files`."""
    return sources.spdx(REPO, repository_files())


@gate("licences", "what is linked into Xen has a licence that goes with GPL-2.0-only")
def licences(gate: Gate) -> Iterable[str]:
    """Dependencies for the hypervisor's target; those of tests and of macros are not linked."""
    return sources.licences(gate.metadata("--filter-platform", rust.XEN_TARGET), "xen-its")


@gate("unsafe", f"unsafe code is in rust/{sources.UNSAFE_CRATE} only")
def unsafe_code(gate: Gate) -> Iterable[str]:
    """All crates of the workspace."""
    return sources.unsafe_code(gate.metadata("--no-deps"), REPO)


@gate("python", "Python code is formatted, without likely mistakes, and typed: ruff and mypy find no fault")
def python(gate: Gate) -> Iterable[str]:
    """All of it; types everywhere but in tests."""
    return python_gate.problems(REPO, gate.log)


@gate("promises", "docs/promises.md names tests that exist, and every test of a fault that others had")
def promises_hold(gate: Gate) -> Iterable[str]:
    """Tests in Rust and Python, cases of the guest, and what scripts/test runs."""
    # It lists what this module registers, and so cannot come first.
    from . import cli

    names = repository_files()
    regressions = promises.rust_tests(REPO, (name for name in names if "/regressions/" in name))
    known = {case.name for case in cli.all_cases()} | promises.rust_tests(REPO, names)
    known |= promises.guest_cases(REPO / "rust/guest/src/cases") | promises.python_tests(REPO, names)
    return promises.problems(gate.text(Path("docs/promises.md")), known, regressions)


@gate("series", "the patches for each version of Xen are one series, and add the same files")
def one_series(gate: Gate) -> Iterable[str]:
    """All folders of xen-patches/; what Xen is built from is in no test without its tree."""
    top = REPO / "xen-patches"
    files = {path.name: xen_source.patch_files(path.name) for path in sorted(top.iterdir()) if path.is_dir()}
    used = {path for paths in files.values() for path in paths}
    lost = [f"no series has {name}" for name in series.unused(top, used)]
    lost += [f"a series names {path.relative_to(REPO)}, which is not there" for path in used if not path.exists()]
    if lost:
        return lost
    parsed = {version: [series.parse(gate.text(path)) for path in paths] for version, paths in files.items()}
    return series.differences(parsed, series.NOT_NEEDED)


@gate("generated", "the generated headers, bindings and lists are up to date (scripts/regen --check)")
def generated(gate: Gate) -> Iterable[str]:
    """Generate them, and compare."""
    found = regen.differences(regen.generate(REPO, gate.log), REPO)
    return ["run scripts/regen, and commit what it changes:\n" + diff for diff in found]


XEN_WARNINGS = (
    "-std=gnu99", "-ffreestanding", "-Wall", "-Wextra", "-Werror", "-Wredundant-decls", "-Wstrict-prototypes",
    "-Wdeclaration-after-statement", "-Wnested-externs", "-Wvla", "-Wno-unused-parameter",
)  # fmt: skip
"""Xen's own, and some more."""

_XEN_TYPES = "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n"


def compile_c(text: str, include: Path, folder: Path, log: Path) -> list[str]:
    """Compile C against our headers; gives what the compiler has to say."""
    (folder / "xen").mkdir(parents=True, exist_ok=True)
    (folder / "xen/types.h").write_text(_XEN_TYPES, encoding="utf-8")
    (folder / "probe.c").write_text(text, encoding="utf-8")
    argv = [
        "aarch64-linux-gnu-gcc", *XEN_WARNINGS, f"-I{folder}", f"-I{include}", "-c", str(folder / "probe.c"),
        "-o", str(folder / "probe.o"),
    ]  # fmt: skip
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    with open(log, "a", encoding="utf-8") as out:
        print(f"$ {' '.join(argv)}\n{text}{done.stderr}", file=out)
    if done.returncode == 0:
        return []
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    short = (line.replace(f"{folder}/", "").replace(f"{include}/", "include/") for line in errors)
    return list(dict.fromkeys(short)) or ["gcc failed: see the log"]


@gate("headers", "each header compiles on its own, twice, and with the other, under Xen's warnings")
def headers(gate: Gate) -> Iterable[str]:
    """In both orders."""
    its, services = (f'#include "{path.name}"\n' for path in (regen.HEADER, regen.SERVICES))
    problems: list[str] = []
    for text in (its * 2, services * 2, its + services, services + its):
        problems += compile_c(text + "extern int some;\n", REPO / "include", gate.context.logs / "c", gate.log)
    return dict.fromkeys(problems)


@gate("abi", "C's compiler sees the sizes, constants and prototypes that Rust's has")
def abi_matches(gate: Gate) -> Iterable[str]:
    """Numbers are those in bindings.rs, which Rust asserts; prototypes are read from the Rust sources."""
    files = sorted((REPO / "rust/xen-its/src").rglob("*.rs"))
    return abi_problems(
        "\n".join(path.read_text(encoding="utf-8") for path in files),
        gate.text(regen.BINDINGS), REPO / "include", gate.context.logs / "c", gate.log,
    )  # fmt: skip


def abi_problems(source: str, bindings: str, include: Path, folder: Path, log: Path) -> list[str]:
    """What is wrong between the Rust sources, bindings and the headers in `include`."""
    try:
        signatures = abi.exported(source)
    except KeyError as error:
        return [f"do not know what the Rust type {error} is in C: see C_TYPES in scripts/xenits/abi.py"]
    declared = abi.functions((include / regen.HEADER.name).read_text(encoding="utf-8"))
    services = abi.functions((include / regen.SERVICES.name).read_text(encoding="utf-8"))
    numbers = abi.layouts(bindings)
    problems = []
    if not signatures or not numbers or not services:
        problems.append("the sources show no function, no service or no number")
    for name in sorted(declared ^ set(signatures)):
        problems.append(f"{name} is in only one of rust/xen-its and include/{regen.HEADER.name}")
    for name in sorted(services ^ abi.bound(bindings)):
        problems.append(f"{name} is in only one of {regen.BINDINGS} and include/{regen.SERVICES.name}")
    both = {name: s for name, s in signatures.items() if name in declared}
    return problems + compile_c(abi.probe(both, numbers), include, folder, log)


Object = tuple[str, str, Callable[[Gate, Path], Iterable[str]]]

OBJECT_CHECKS: list[Object] = [
    (
        "exports", "the object exports what include/xen_its.h and exports.txt name, and nothing else",
        lambda gate, path: objects.exports(
            Elf(path), objects.read_list(REPO / regen.EXPORTS), abi.functions(gate.text(regen.HEADER))
        ),
    ),
    (
        "imports", "the object needs nothing but the services of include/xen_services.h and memcpy and the like",
        lambda gate, path: objects.imports(Elf(path), abi.functions(gate.text(regen.SERVICES))),
    ),
    ("panics", "no panic is reachable in the object", lambda gate, path: objects.panics(Elf(path))),
    (
        "vectors", "the object uses no floating-point or vector register",
        lambda gate, path: objects.vectors(
            gate.output("aarch64-linux-gnu-objdump", "-d", "-w", "--no-show-raw-insn", str(path))
        ),
    ),
    (
        "sections", "the object has only sections that Xen links and maps right",
        lambda gate, path: objects.sections(Elf(path)),
    ),
]  # fmt: skip
"""Name, what it is about, and the check of an object file."""

XEN_OBJECT_CHECKS: list[Object] = [
    *OBJECT_CHECKS,
    ("names", "no symbol's name is too long for Xen", lambda gate, path: objects.names(Elf(path))),
]
"""What is true only after Xen's build shortened the names of local symbols."""


@functools.cache
def _prelinked(logs: Path) -> Path:
    folder = logs / "object"
    folder.mkdir(exist_ok=True)
    return objects.prelink(folder, folder / "object.log")


def _check_object(name: str, about: str, check: Callable[[Gate, Path], Iterable[str]]) -> None:
    @gate(f"object/{name}", about)
    def quick(gate: Gate) -> Iterable[str]:
        # One object for all of them.
        return check(gate, _prelinked(gate.context.logs.parent))


for _name, _about, _check in OBJECT_CHECKS:
    _check_object(_name, _about, _check)

XEN_OBJECT = "gate/xen-object"


def _xen_object(context: Context) -> Iterable[Result]:
    """All checks again, on what Xen's own build makes and links."""
    gate = Gate(context)
    for debug in (True, False):
        kind = "debug" if debug else "release"
        path = gate.xen("rust", debug).xen.parent / "arch/arm/its-rs.o"
        for name, _, check in XEN_OBJECT_CHECKS:
            yield Result(f"{XEN_OBJECT}/{kind}/{name}", problems=tuple(check(gate, path)))


_GATES.append(
    Case(
        XEN_OBJECT,
        "the same of the objects that Xen's own build links, and no name is too long",
        _xen_object,
        quick=False,
    )
)


@gate("xen-by-hand", "a build by hand: paths with spaces, LIVEPATCH, offline, make twice, make clean", quick=False)
def built_by_hand(gate: Gate) -> Iterable[str]:
    """What the README says of one's own tree."""
    folder = gate.context.logs / "by-hand"
    folder.mkdir()
    return by_hand.build(folder, gate.log)


@gate("xen-without-rust", "Xen with the C ITS, which is the default, has no Rust in it", quick=False)
def without_rust(gate: Gate) -> Iterable[str]:
    """The C variant has all options of the Rust one but that which chooses."""
    image = gate.xen("c")
    yield from rust_in_config(image.config.read_text(encoding="utf-8"))
    yield from rust_in_symbols(Elf(image.syms))
    yield from rust_in_tree(image.xen.parent)
    yield from (f"by default: {p}" for p in rust_in_config(_default_config(gate)))


def rust_in_config(config: str) -> list[str]:
    """The option that chooses Rust is off, and the ITS is on."""
    symbols = xen_config.parse(config)
    problems = [] if symbols.get("HAS_ITS") == "y" else ["CONFIG_HAS_ITS is off: that says nothing of the default"]
    return problems + (["CONFIG_ITS_RUST is on"] if symbols.get("ITS_RUST", "n") != "n" else [])


def rust_in_symbols(elf: Elf) -> Iterable[str]:
    """No symbol of the component's, nor any other of Rust's."""
    found = sorted(
        {
            s.name
            for s in elf.symbols
            if s.name.startswith(("xen_its_", "_R")) or "17h" in s.name and s.name.startswith("_ZN")
        }
    )
    if found:
        yield f"{elf.path.name} has {len(found)} symbols of Rust's: {' '.join(found[:5])}"


_CARGO_LEAVES = (".rustc_info.json", "CACHEDIR.TAG")


def rust_in_tree(tree: Path) -> Iterable[str]:
    """Cargo was not run, and no object of Rust's was made."""
    for folder, _, files in os.walk(tree):
        for name in files:
            if (
                name in _CARGO_LEAVES
                or name.endswith((".rlib", ".rmeta"))
                or name.startswith(("its-rs.o", "libxen_its"))
            ):
                yield f"the build made {Path(folder, name).relative_to(tree)}"


def _default_config(gate: Gate) -> str:
    """What Kconfig makes of "an ITS, please", and no word of which."""
    source, _ = xen_source.pinned(gate.log)
    tree, _, _, _ = xen_source.patched(source, gate.log)
    out = gate.context.logs / "default"
    out.mkdir()
    make = [
        "make", "-C", str(tree / "xen"), f"O={out}", "XEN_TARGET_ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-",
    ]  # fmt: skip
    run([*make, "arm64_defconfig"], gate.log)
    config = out / ".config"
    symbols = {"EXPERT": "y", "UNSUPPORTED": "y", "GICV3": "y", "HAS_ITS": "y"}
    config.write_text(config.read_text(encoding="utf-8") + xen_config.render(symbols), encoding="utf-8")
    run([*make, "olddefconfig"], gate.log)
    return config.read_text(encoding="utf-8")
