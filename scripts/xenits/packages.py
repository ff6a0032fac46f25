# SPDX-License-Identifier: GPL-2.0-only
"""Debian packages through an apt configuration of our own.

The user's /etc/apt is read for the mirror and never written: lists, downloads
and sources live in the cache. That configuration knows the suites that we need
(the host's, its backports for QEMU, trixie's sources for Xen) and arm64 beside
the host's architecture, without ``dpkg --add-architecture``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import StepError
from .layout import Stamp, cache_root, locked
from .shell import Command, output, run

APT_HELPER = "/usr/lib/apt/apt-helper"
HOST_SUITE = "bookworm"
XEN_SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
QEMU_AT_LEAST = (10, 0)

TOOLS = {
    # program: package that has it
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "aarch64-linux-gnu-ld": "binutils-aarch64-linux-gnu",
    "bison": "bison",
    "c++": "g++",
    "cc": "gcc",
    "cpio": "cpio",
    "dpkg-deb": "dpkg",
    "dpkg-source": "dpkg-dev",
    "dtc": "device-tree-compiler",
    "expect": "expect",
    "flex": "flex",
    "gzip": "gzip",
    "make": "make",
    "patch": "patch",
    "perl": "perl",
    "xz": "xz-utils",
}

FILES = {
    # file: package that has it
    "/usr/include/stdio.h": "libc6-dev",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}


@dataclass(frozen=True)
class Mirror:
    """Where the user's apt gets Debian from."""

    uri: str
    suites: tuple[str, ...]
    signed_by: str | None = None


def parse_one_line(text: str) -> list[Mirror]:
    """Mirrors out of a ``sources.list``."""
    found = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        match = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)(\s|$)", line)
        if not match:
            continue
        options = dict(o.split("=", 1) for o in (match[1] or "").split() if "=" in o)
        found.append(Mirror(match[2].rstrip("/"), (match[3],), options.get("signed-by")))
    return found


def parse_deb822(text: str) -> list[Mirror]:
    """Mirrors out of a ``*.sources`` file."""
    found = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[last] = fields.get(last, "") + "\n" + line.strip()
            elif ":" in line:
                last, value = line.split(":", 1)
                last = last.strip().lower()
                fields[last] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        key = fields.get("signed-by") or None
        # A key that is spelled out in the stanza is no file that we could name.
        key = key if key and key.startswith("/") and "\n" not in key else None
        for uri in fields.get("uris", "").split():
            found.append(Mirror(uri.rstrip("/"), tuple(fields.get("suites", "").split()), key))
    return found


def read_mirrors(etc_apt: Path = Path("/etc/apt")) -> list[Mirror]:
    """All mirrors that the machine's own apt uses."""
    found: list[Mirror] = []
    main = etc_apt / "sources.list"
    parts = etc_apt / "sources.list.d"
    for path in [main, *(sorted(parts.iterdir()) if parts.is_dir() else [])]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".sources":
            found += parse_deb822(text)
        elif path.suffix == ".list":
            found += parse_one_line(text)
    return found


def main_mirror(mirrors: list[Mirror]) -> Mirror:
    """The one that has the host's own release."""
    found = next((m for m in mirrors if HOST_SUITE in m.suites), None)
    if found is None:
        raise StepError(
            f"no apt source here offers Debian {HOST_SUITE}",
            hint=f"these scripts are for Debian 12 ({HOST_SUITE}); add its mirror to /etc/apt/sources.list.",
        )
    return found


def sources_list(
    mirrors: list[Mirror], host_arch: str, keyring: str | None = None, source_suite: str = XEN_SUITE
) -> str:
    """Our ``sources.list``: the suites that we need, from the user's own mirrors.

    Of another suite than Xen's usual one there are sources, and nothing else.
    """
    main = main_mirror(mirrors)
    key = main.signed_by or keyring
    signed = f" signed-by={key}" if key else ""
    archs = ",".join(dict.fromkeys([host_arch, "arm64"]))
    sources = f"deb-src{signed and f' [{signed.strip()}]'} {main.uri} {source_suite} main"
    if source_suite != XEN_SUITE:
        return sources + "\n"
    lines = [
        f"deb [arch={archs}{signed}] {main.uri} {HOST_SUITE} main",
        f"deb [arch={archs}{signed}] {main.uri} {HOST_SUITE}-backports main",
        sources,
    ]
    # With these, host packages agree with what the user's own apt has installed.
    for mirror in mirrors:
        for suite in mirror.suites:
            if suite in (f"{HOST_SUITE}-updates", f"{HOST_SUITE}-security", f"{HOST_SUITE}/updates"):
                lines.append(f"deb [arch={archs}{signed}] {mirror.uri} {suite} main")
    return "\n".join(dict.fromkeys(lines)) + "\n"


class Apt:
    """apt-get and apt-cache on the private configuration; one for the sources of another suite has lists of its own."""

    def __init__(self, log: Path, source_suite: str = XEN_SUITE) -> None:
        self.log = log
        self.source_suite = source_suite
        self.home = cache_root() / ("debian" if source_suite == XEN_SUITE else f"debian-{source_suite}")
        self.debs = self.home / "debs"
        self.config = self.home / "apt.conf"
        self.arch = output(["dpkg", "--print-architecture"], log).strip()
        self._write_config()

    def _write_config(self) -> None:
        for folder in ("lists/partial", "debs/partial", "install/partial", "log"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        keyring = KEYRING if Path(KEYRING).exists() else None
        sources = sources_list(read_mirrors(), self.arch, keyring, self.source_suite)
        archs = "".join(f' "{a}";' for a in dict.fromkeys([self.arch, "arm64"]))
        sandbox = 'APT::Sandbox::User "root";\n' if os.geteuid() == 0 else ""
        config = (
            "// Written by xen-its. The machine's own apt is not touched.\n"
            f'Dir::Etc::sourcelist "{self.home}/sources.list";\n'
            'Dir::Etc::sourceparts "-";\n'
            f'Dir::State::lists "{self.home}/lists";\n'
            f'Dir::Cache "{self.home}";\n'
            f'Dir::Cache::archives "{self.home}/debs";\n'
            f"APT::Architectures {{{archs} }};\n"
            'Acquire::Languages "none";\n'
            'Acquire::Retries "2";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n' + sandbox
        )
        for path, text in ((self.home / "sources.list", sources), (self.config, config)):
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
                self._stamp().clear()

    def _stamp(self) -> Stamp:
        return Stamp(self.home / "lists.stamp")

    def refresh(self, force: bool = False) -> None:
        """Have package lists; `force` gets them anew because a download failed with the old ones."""
        if self._stamp().matches("lists") and not force:
            return
        argv: Command = ["apt-get", "-c", self.config, "-q", "update"]
        hint = "check the network and the mirror in /etc/apt, then run the same command again."
        try:
            run(argv, self.log)
        except StepError:
            run(argv, self.log, what="apt-get update failed twice", hint=hint)
        self._stamp().write("lists")

    def install(self, packages: list[str]) -> None:
        """Install host packages, with sudo if need be."""
        self.refresh()
        # sudo asks for a password on the terminal itself, whatever our own input is.
        root = [] if os.geteuid() == 0 else ["sudo"]
        if root and not shutil.which("sudo"):
            raise StepError(
                "packages are missing, and neither are you root nor is there sudo: " + " ".join(packages),
                hint=f"as root: apt-get install {' '.join(packages)}  (QEMU from {HOST_SUITE}-backports)",
            )
        argv: Command = [
            *root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-c", self.config,
            # Files of root's are kept apart from what the user downloads.
            "-o", f"Dir::Cache::archives={self.home}/install", "-o", "Dir::Cache::pkgcache=",
            "-o", "Dir::Cache::srcpkgcache=", "-q", "install", "-y", "--no-install-recommends", *packages,
        ]  # fmt: skip
        hint = f"try by hand: apt-get install {' '.join(packages)}"
        self._twice(argv, f"cannot install {' '.join(packages)}", hint)

    def download(self, package: str) -> Path:
        """Download one package (``name`` or ``name:arch``), or find it in the cache."""
        self.refresh()
        name, _, arch = package.partition(":")
        have = sorted(self.debs.glob(f"{name}_*_{arch or self.arch}.deb"), key=lambda p: p.stat().st_mtime)
        if not have:
            argv: Command = ["apt-get", "-c", self.config, "-q", "download", package]
            self._twice(argv, f"cannot download {package}", "check the network, then try again.", cwd=self.debs)
            have = sorted(self.debs.glob(f"{name}_*_{arch or self.arch}.deb"))
        if not have:
            raise StepError(f"apt-get download {package} left no file in {self.debs}", log=self.log)
        return have[-1]

    def _twice(self, argv: Command, what: str, hint: str, cwd: Path | None = None) -> None:
        try:
            run(argv, self.log, cwd=cwd)
        except StepError:
            # The lists may be older than the mirror.
            self.refresh(force=True)
            run(argv, self.log, cwd=cwd, what=f"{what} (tried twice)", hint=hint)

    def dependency(self, package: str, pattern: str, suite: str = "") -> str:
        """The one package that `package` (of this suite, or the stable one) depends on whose name matches `pattern`."""
        self.refresh()
        chosen = ["-o", f"APT::Default-Release={suite}"] if suite else []
        argv: Command = ["apt-cache", "-c", self.config, *chosen, "show", "--no-all-versions", package]
        match = re.search(r"^Depends: (.*)$", output(argv, self.log), re.MULTILINE)
        words = re.split(r"[,|]", match[1]) if match else []
        names = [n for w in words if re.fullmatch(pattern, n := re.split(r"[\s:(]", w.strip(), maxsplit=1)[0])]
        if not names:
            raise StepError(f"{package} depends on nothing like {pattern}", log=self.log)
        return names[0]

    def source_stanzas(self, package: str) -> list[dict[str, str]]:
        """The records of a source package, as the mirror's Sources index has them."""
        self.refresh()
        text = output(["apt-cache", "-c", self.config, "showsrc", "--only-source", package], self.log)
        stanzas = []
        for chunk in text.split("\n\n"):
            fields: dict[str, str] = {}
            last = ""
            for line in chunk.splitlines():
                if line[:1] == " ":
                    fields[last] += "\n" + line.strip()
                elif ":" in line:
                    last, value = line.split(":", 1)
                    fields[last] = value.strip()
            if fields.get("Package") == package:
                stanzas.append(fields)
        return stanzas

    def source_tarball(self, package: str, version: str, name: str, sha256: str) -> Path:
        """Download the upstream tarball `name` of a source package and check it."""
        path = self.debs / name
        if not path.exists() or _sha256(path) != sha256:
            path.unlink(missing_ok=True)
            argv: Command = [
                "apt-get", "-c", self.config, "-q", "source", "--download-only", "--tar-only", f"{package}={version}",
            ]  # fmt: skip
            self._twice(argv, f"cannot download {name}", "check the network, then try again.", cwd=self.debs)
        got = _sha256(path)
        if got != sha256:
            raise StepError(
                f"{name} has SHA256 {got}, but the Sources index says {sha256}",
                hint=f"remove {path} and run again; if it stays so, do not trust the mirror.",
            )
        return path

    def pool_file(self, path: str, sha256: str) -> Path:
        """Download a file of the mirror's that its index need not name any more, and check it."""
        target = self.debs / Path(path).name
        if not target.exists() or _sha256(target) != sha256:
            target.unlink(missing_ok=True)
            uri = f"{main_mirror(read_mirrors()).uri}/{path}"
            argv: Command = [APT_HELPER, "-c", self.config, "download-file", uri, target, f"SHA256:{sha256}"]
            self._twice(argv, f"cannot download {target.name}", "check the network, then try again.")
        return target


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def qemu_version() -> tuple[int, int] | None:
    """Version of the QEMU that is installed, if one is."""
    try:
        text = subprocess.run(["qemu-system-aarch64", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    match = re.search(r"version (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def missing(with_qemu: bool) -> list[str]:
    """Packages that the host lacks."""
    programs = {package for program, package in TOOLS.items() if not shutil.which(program)}
    lacking = sorted(programs | {package for file, package in FILES.items() if not Path(file).exists()})
    if with_qemu:
        have = qemu_version()
        if have is None or have < QEMU_AT_LEAST:
            lacking.append(f"qemu-system-arm/{HOST_SUITE}-backports")
            # Named too, because a release given for one package is not taken for what it needs.
            lacking += [f"qemu-system-{p}/{HOST_SUITE}-backports" for p in ("common", "data")]
    return lacking


def install_host_packages(log: Path, with_qemu: bool = True) -> list[str]:
    """Install what is missing on the host. Gives the packages that were installed."""
    lacking = missing(with_qemu)
    if lacking:
        with locked("apt"):
            Apt(log).install(lacking)
        still = missing(with_qemu)
        if still:
            raise StepError(f"apt-get was content, but these are still missing: {' '.join(still)}", log=log)
    return lacking
