#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Build the plugins for the QEMU that is installed.

Debian's QEMU packages have neither plugins nor the header to build one. The
header comes out of the source package of the very version that is installed,
GLib's headers out of its -dev package, which is unpacked, not installed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import repo  # noqa: E402, I001
from xenits.errors import StepError  # noqa: E402
from xenits.layout import Stamp, cache_root, digest, locked, new_run_dir  # noqa: E402
from xenits.packages import HOST_SUITE, Apt  # noqa: E402
from xenits.shell import output, run  # noqa: E402

QEMU_PACKAGE = "qemu-system-arm"
PLUGINS = ("fncount", "marks")
HEADER = "include/qemu/qemu-plugin.h"
CFLAGS = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-fPIC", "-shared"]


class SourceApt(Apt):
    """The project's private apt, in a place of its own, with the sources of the host's backports."""

    def _write_config(self) -> None:
        self.home = cache_root() / "bench" / "debian"
        self.debs = self.home / "debs"
        self.config = self.home / "apt.conf"
        super()._write_config()
        path = self.home / "sources.list"
        text = path.read_text(encoding="utf-8")
        more = add_source_lines(text)
        if more != text:
            path.write_text(more, encoding="utf-8")


def add_source_lines(text: str) -> str:
    """A ``sources.list`` with a deb-src line for the host's backports, where QEMU is from."""
    lines = text.splitlines()
    for line in list(lines):
        match = re.match(r"deb (?:\[([^]]*)\] )?(\S+ (\S+) .*)", line)
        if not match or match[3] != f"{HOST_SUITE}-backports":
            continue
        options = [o for o in (match[1] or "").split() if not o.startswith("arch=")]
        source = "deb-src " + (f"[{' '.join(options)}] " if options else "") + match[2]
        if source not in lines:
            lines.append(source)
    return "\n".join(lines) + "\n"


def qemu_source(log: Path) -> tuple[str, str]:
    """Name and version of the source package of the QEMU that is installed."""
    hint = f"apt-get install -t {HOST_SUITE}-backports {QEMU_PACKAGE}"
    fields = ["dpkg-query", "-W", "-f", "${source:Package} ${source:Version}", QEMU_PACKAGE]
    text = output(fields, log, what=f"{QEMU_PACKAGE} is not installed as a Debian package", hint=hint)
    name, _, version = text.partition(" ")
    if not version:
        raise StepError(f"{QEMU_PACKAGE} is known to dpkg, but not installed", log=log, hint=hint)
    return name, version


def orig_tarball(stanzas: list[dict[str, str]], version: str) -> tuple[str, str]:
    """Name and SHA256 of the upstream tarball of a source package's `version`."""
    for stanza in stanzas:
        if stanza.get("Version") != version:
            continue
        for line in stanza.get("Checksums-Sha256", "").splitlines():
            words = line.split()
            if len(words) == 3 and re.search(r"\.orig\.tar\.\w+$", words[2]):
                return words[2], words[0]
    have = ", ".join(sorted({s.get("Version", "?") for s in stanzas})) or "none"
    raise StepError(
        f"the mirror has no source of QEMU {version}, the version that is installed (it has: {have})",
        hint=f"bring it up to date: apt-get install -t {HOST_SUITE}-backports {QEMU_PACKAGE}",
    )


def _extract_header(tarball: Path, to: Path) -> None:
    """Take ``qemu-plugin.h`` out of QEMU's source."""
    # As a stream: the header is early in a large archive.
    with tarfile.open(tarball, "r|*") as tar:
        for member in tar:
            if member.isfile() and member.name.partition("/")[2] == HEADER:
                file = tar.extractfile(member)
                assert file is not None
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(file.read())
                return
    raise StepError(f"{tarball} has no {HEADER}", hint="remove that file and run again.")


def _headers(home: Path, source: str, version: str, log: Path) -> list[Path]:
    """Have the headers of QEMU and GLib below `home`; gives the include folders."""
    apt = SourceApt(log)
    stamp = Stamp(home / "headers.stamp")
    inputs = {"qemu": version, "arch": apt.arch}
    qemu, glib = home / "qemu", home / "glib"
    if not stamp.matches(inputs):
        stamp.clear()
        for folder in (qemu, glib):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            tarball = orig_tarball(apt.source_stanzas(source), version)
        except StepError:
            # The lists may be older than the package that was installed since.
            apt.refresh(force=True)
            tarball = orig_tarball(apt.source_stanzas(source), version)
        path = apt.source_tarball(source, version, *tarball)
        _extract_header(path, qemu / "qemu-plugin.h")
        deb = apt.download("libglib2.0-dev")
        run(["dpkg-deb", "-x", deb, glib], log, what=f"cannot unpack {deb}", hint="remove that file and run again.")
        # 40 MB for one header that is out now.
        path.unlink()
        stamp.write(inputs)
    configured = next(glib.glob("usr/lib/*/glib-2.0/include"), None)
    if configured is None:
        raise StepError(f"libglib2.0-dev has no glibconfig.h in {glib}", log=log)
    return [qemu, glib / "usr/include/glib-2.0", configured]


def build_plugin(log: Path, name: str = "fncount") -> Path:
    """Have a plugin built for the QEMU that is installed; gives the path of the .so.

    Downloads and builds only what is missing; what the programs say goes to `log`.
    Raises `StepError`.
    """
    source, version = qemu_source(log)
    home = cache_root() / "bench" / "plugin"
    plugin = home / f"{name}.so"
    code, shared = repo.BENCH / "plugin" / f"{name}.c", repo.BENCH / "plugin" / "common.h"
    compiler = shutil.which("cc")
    if compiler is None:
        raise StepError("there is no C compiler", hint="apt-get install gcc libc6-dev")
    with locked("bench-plugin"):
        stamp = Stamp(home / f"{name}.stamp")
        inputs = {
            "qemu": version,
            "source": digest(code.read_bytes() + shared.read_bytes()),
            "flags": CFLAGS,
            "cc": compiler,
        }
        if plugin.exists() and stamp.matches(inputs):
            return plugin
        stamp.clear()
        home.mkdir(parents=True, exist_ok=True)
        # -isystem: warnings in their headers are not ours to fix.
        folders = [a for folder in _headers(home, source, version, log) for a in ("-isystem", folder)]
        # Built aside: a QEMU that runs now may have the old one mapped.
        fresh = home / f"{name}.so.new"
        run([compiler, *CFLAGS, *folders, "-o", fresh, code], log, what="the QEMU plugin does not compile")
        fresh.replace(plugin)
        stamp.write(inputs)
    return plugin


def main() -> int:
    """Build the plugins and print where they are."""
    try:
        for name in PLUGINS:
            print(build_plugin(new_run_dir("bench-plugin") / "build.log", name))
    except StepError as error:
        print(f"bench/plugin/build.py: {error.render()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
