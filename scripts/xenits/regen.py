# SPDX-License-Identifier: GPL-2.0-only
"""``scripts/regen``: the files that are generated from others, and committed.

They are committed so that neither cbindgen nor bindgen nor libclang is needed to
build Xen. This command is the only one that needs these tools; it installs them
in the cache, in the versions below, because others would write other text.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import abi
from .errors import StepError
from .layout import REPO, cache_root, locked, new_run_dir
from .shell import Command, run
from .tools import cargo_tool, pip_install

CBINDGEN = ("cbindgen", "cbindgen", "0.29.4")
BINDGEN = ("bindgen-cli", "bindgen", "0.72.1")
"""Package, program, version."""

LIBCLANG = "18.1.1"

HEADER = Path("include/xen_its.h")
SERVICES = Path("include/xen_services.h")
BINDINGS = Path("rust/xen-sys/src/bindings.rs")
EXPORTS = Path("rust/xen-its/link/exports.txt")

_EXPORTS_HEAD = """\
# SPDX-License-Identifier: GPL-2.0-only
# The symbols that Xen links against: all others of the component are local.
# Generated from rust/xen-its by scripts/regen; do not edit.
"""

_ABOUT = """\
Write the files that are generated from others:
  include/xen_its.h              what Rust offers to Xen, from rust/xen-its (cbindgen)
  rust/xen-its/link/exports.txt  the names of that, for the linker
  rust/xen-sys/src/bindings.rs   what Xen offers to Rust, from include/xen_services.h (bindgen)
The tools are installed into ${XDG_CACHE_HOME:-~/.cache}/xen-its/tools on first use,
which takes some minutes.
"""


@dataclass(frozen=True)
class Tools:
    """The generators."""

    cbindgen: Path
    bindgen: Path
    libclang: Path
    """The folder with libclang.so."""


def ensure_tools(log: Path) -> Tools:
    """Have the generators in the cache, in their pinned versions."""
    home = cache_root() / "tools"
    with locked("tools"):
        return Tools(cargo_tool(*CBINDGEN, log), cargo_tool(*BINDGEN, log), _libclang(home / "py", log))


def _libclang(home: Path, log: Path) -> Path:
    native = home / "clang/native"
    if not (native / "libclang.so").exists() or not (home / f"libclang-{LIBCLANG}.dist-info").is_dir():
        print(f"installing libclang {LIBCLANG} into {home} ...", file=sys.stderr, flush=True)
        pip_install(home, [f"libclang=={LIBCLANG}"], log)
    return native


def generate(repo: Path, log: Path) -> dict[Path, str]:
    """All generated files, as they should be: path in the repository, and text."""
    tools = ensure_tools(log)
    with tempfile.TemporaryDirectory() as name:
        header = tidy(_header(tools, repo, Path(name, "xen_its.h"), log))
        bindings = _bindings(tools, repo, Path(name, "bindings.rs"), log)
    return {HEADER: header, EXPORTS: exports(header), BINDINGS: bindings}


def _header(tools: Tools, repo: Path, out: Path, log: Path) -> str:
    crate = repo / "rust/xen-its"
    argv: Command = [tools.cbindgen, "-q", "--config", crate / "cbindgen.toml", "--output", out, crate]
    run(argv, log, cwd=repo, what="cbindgen cannot make include/xen_its.h")
    return out.read_text(encoding="utf-8")


def tidy(header: str) -> str:
    """The header with comments and pointers as Xen writes them."""
    # cbindgen writes /** and knows no other style with a star on each line.
    header = header.replace("/**\n", "/*\n")
    header = re.sub(r"/\*\n \* ([^\n]{1,72})\n \*/", r"/* \1 */", header)

    def pointers(line: str) -> str:
        # The C names of pointers come from cbindgen.toml; cbindgen takes them for plain types.
        return line if line.startswith(" *") or "/*" in line else re.sub(r"\* +(?=[\w*])", "*", line)

    return "\n".join(pointers(line) for line in header.split("\n"))


def exports(header: str) -> str:
    """The list of exported symbols out of the header."""
    return _EXPORTS_HEAD + "".join(f"{name}\n" for name in sorted(abi.functions(header)))


def _bindings(tools: Tools, repo: Path, out: Path, log: Path) -> str:
    lines = (repo / "rust/xen-sys/bindgen.flags").read_text(encoding="utf-8").splitlines()
    flags = [line for line in lines if line.strip() and not line.startswith("#")]
    argv: Command = [
        tools.bindgen, SERVICES, "--output", out, "--rustfmt-configuration-file", repo / "rustfmt.toml", *flags,
    ]  # fmt: skip
    env = {"LIBCLANG_PATH": str(tools.libclang)}
    run(argv, log, cwd=repo, env=env, what=f"bindgen cannot read {SERVICES}")
    return out.read_text(encoding="utf-8")


def differences(wanted: dict[Path, str], repo: Path) -> list[str]:
    """A diff for each file that is not as it should be."""
    found = []
    for path, text in wanted.items():
        have = (repo / path).read_text(encoding="utf-8") if (repo / path).exists() else ""
        if have != text:
            lines = difflib.unified_diff(
                have.splitlines(keepends=True),
                text.splitlines(keepends=True),
                f"{path} (committed)",
                f"{path} (generated)",
            )
            found.append("".join(lines))
    return found


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/regen", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file would change")
    args = parser.parse_args(argv)
    wanted = generate(REPO, new_run_dir("regen") / "regen.log")
    found = differences(wanted, REPO)
    if args.check and found:
        sys.stdout.write("".join(found))
        print("generated files are out of date: run scripts/regen, and commit what it changes", file=sys.stderr)
        return 1
    for path, text in wanted.items():
        target = REPO / path
        if target.exists() and target.read_text(encoding="utf-8") == text:
            print(f"up to date  {path}")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temp = target.with_name(target.name + ".new")
        temp.write_text(text, encoding="utf-8")
        os.replace(temp, target)
        print(f"written     {path}")
    return 0


def main() -> int:
    """Entry point."""
    try:
        return _main(sys.argv[1:])
    except StepError as error:
        print(f"\n{error.render()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
