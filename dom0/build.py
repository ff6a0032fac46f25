#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Build what Dom0 runs: an initramfs with the exerciser, to go with Debian's
arm64 cloud kernel, or with the full one, which also drives SATA.

The initramfs holds the exerciser as /init, a static busybox for the shell
scenario, the kernel modules Debian does not build in, and the ivshmem module
from this repository.

The last two lines printed are `kernel=PATH` and `initrd=PATH`. Everything
downloaded or built stays under --cache; a second run redoes only what changed
and needs no network.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "scripts"))
from xenits.errors import StepError  # noqa: E402
from xenits.layout import cache_root, locked  # noqa: E402
from xenits.packages import Apt, install_host_packages  # noqa: E402
from xenits.shell import Command  # noqa: E402

TARGET = "aarch64-unknown-linux-musl"
CROSS = "aarch64-linux-gnu-"
# Modules that the scenarios need and Debian's cloud kernel does not build in.
# What these depend on is found from the modules themselves.
MODULES = {
    "cloud-arm64": ["xen-privcmd", "virtio_pci", "virtio_net"],
    "cloud-arm64-bpo": ["xen-privcmd", "virtio_pci", "virtio_net"],
    "arm64": ["xen-privcmd", "ahci", "sd_mod"],
}
CLOUD = "cloud-arm64"
# The flavours for which the ivshmem module is built, and the suites of Debian's that they are in:
# empty for the stable one.
SUITES = {CLOUD: "", "cloud-arm64-bpo": "bookworm-backports"}


class BuildError(Exception):
    """A step failed; the text says which, where its log is and what to do."""


class Builder:
    """Runs the steps, each with its own log and a stamp of its inputs."""

    def __init__(self, cache: Path, flavour: str = CLOUD) -> None:
        self.flavour = flavour
        self.dir = cache / ("dom0" if flavour == CLOUD else f"dom0-{flavour}")
        # The exerciser is the same for all kernels.
        self.target = cache / "dom0" / "target"
        self.logs = self.dir / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        step: str,
        cmd: Command,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        tries: int = 1,
    ) -> None:
        """Run one command of a step; its output goes to the step's log."""
        log = self.logs / f"{step}.log"
        for attempt in range(1, tries + 1):
            with log.open("ab" if attempt > 1 else "wb") as out:
                out.write(("$ " + " ".join(map(str, cmd)) + "\n").encode())
                out.flush()
                done = subprocess.run(
                    cmd, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
                )
            if done.returncode == 0:
                return
            time.sleep(2 if attempt < tries else 0)
        tail = log.read_text(errors="replace").splitlines()[-15:]
        raise BuildError(
            f"step '{step}' failed (exit {done.returncode}): {' '.join(map(str, cmd))}\n"
            + "\n".join("    " + line for line in tail)
            + f"\nfull log: {log}"
        )

    def stamped(self, step: str, key: object, output: Path, action: Callable[[], None]) -> None:
        """Do `action` unless `output` exists and was made from the same key."""
        stamp = self.dir / f"{step}.stamp"
        text = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        if output.exists() and stamp.exists() and stamp.read_text() == text:
            print(f"dom0: {step}: up to date", flush=True)
            return
        began = time.monotonic()
        stamp.unlink(missing_ok=True)
        action()
        stamp.write_text(text)
        print(f"dom0: {step}: done in {time.monotonic() - began:.1f} s", flush=True)


def hash_tree(root: Path) -> str:
    """Hash of the sources below `root`, build products left out."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not {"target", "__pycache__", "tests"} & set(relative.parts):
            digest.update(str(relative).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


# --- packages -------------------------------------------------------------


def fetch_packages(builder: Builder, refresh: bool) -> tuple[Path, str]:
    """Download and unpack kernel, headers and busybox; returns their root and the kernel's release.

    All names follow from the headers package, so that the module is built
    for the very kernel that is booted.
    """
    lock = builder.dir / "packages.json"
    root = builder.dir / "root"

    def action() -> None:
        log = builder.logs / "packages.log"
        apt = Apt(log)
        if refresh:
            apt.refresh(force=True)
        packages = ["busybox-static:arm64"]
        if builder.flavour in SUITES:
            named, suite = r"linux-headers-\S+?-cloud-arm64(?=:|$|\s)", SUITES[builder.flavour]
            headers = apt.dependency("linux-headers-cloud-arm64:arm64", named, suite)
            release = headers.removeprefix("linux-headers-")
            common = apt.dependency(f"{headers}:arm64", r"linux-headers-\S+?-common(?=:|$|\s)")
            kbuild = apt.dependency(f"{headers}:arm64", r"linux-kbuild-[\w.+]+")
            packages += [f"{headers}:arm64", f"{common}:all", f"{kbuild}:{apt.arch}"]
        else:
            image = apt.dependency(f"linux-image-{builder.flavour}:arm64", rf"linux-image-\S+?-{builder.flavour}")
            release = image.removeprefix("linux-image-")
        shutil.rmtree(root, ignore_errors=True)
        for package in (f"linux-image-{release}:arm64", *packages):
            builder.run("unpack", ["dpkg-deb", "-x", apt.download(package), root])
        if builder.flavour in SUITES:
            # The headers' Makefile names its other half by an absolute path.
            makefile = root / f"usr/src/{headers}/Makefile"
            makefile.write_text(f"include {root}/usr/src/{common}/Makefile\n")
        lock.write_text(json.dumps({"release": release}))

    if refresh:
        lock.unlink(missing_ok=True)
    builder.stamped("packages", {"format": 1, "root": str(root)}, lock, action)
    return root, json.loads(lock.read_text())["release"]


def need_rust(builder: Builder) -> None:
    """Add the Rust target if it is missing."""
    if not shutil.which("cargo"):
        raise BuildError("cargo is not in PATH: install Rust with rustup first")
    if shutil.which("rustup"):
        done = subprocess.run(
            ["rustup", "target", "list", "--installed"], cwd=HERE, capture_output=True, text=True, check=False
        )
        if TARGET not in done.stdout.split():
            builder.run("rust-target", ["rustup", "target", "add", TARGET], cwd=HERE, tries=3)


# --- exerciser ------------------------------------------------------------


def build_exerciser(builder: Builder) -> Path:
    """Cross-build the Rust tool; linked by rust-lld, so no arm64 libc is needed."""
    target_dir = builder.target
    binary = target_dir / TARGET / "release" / "exerciser"
    version = subprocess.run(["rustc", "-vV"], cwd=HERE, capture_output=True, text=True, check=False).stdout

    def action() -> None:
        env = {
            **os.environ,
            "CARGO_TARGET_DIR": str(target_dir),
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER": "rust-lld",
        }
        # Flags meant for some other build would change what is built here.
        env.pop("RUSTFLAGS", None)
        builder.run(
            "exerciser",
            ["cargo", "build", "--locked", "--release", "--target", TARGET],
            cwd=HERE / "exerciser", env=env, tries=2,
        )  # fmt: skip

    builder.stamped("exerciser", [hash_tree(HERE / "exerciser"), version], binary, action)
    return binary


# --- ivshmem module -------------------------------------------------------


def build_module(builder: Builder, root: Path, release: str) -> Path:
    """Build the ivshmem module against the headers of the kernel that is booted."""
    work = builder.dir / "ivshmem"
    module = work / "xenits_ivshmem.ko"
    sources = sorted([*(HERE / "ivshmem").glob("*.[ch]"), HERE / "ivshmem" / "Makefile"])
    key = [release, [[p.name, p.read_text()] for p in sources]]

    def action() -> None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for path in sources:
            shutil.copy(path, work / ("Kbuild" if path.name == "Makefile" else path.name))
        builder.run(
            "ivshmem",
            ["make", "-C", root / f"usr/src/linux-headers-{release}", f"M={work}", "ARCH=arm64",
             f"CROSS_COMPILE={CROSS}", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"],
        )  # fmt: skip

    builder.stamped("ivshmem", key, module, action)
    return module


# --- initramfs ------------------------------------------------------------


def module_name(path: Path) -> str:
    """A module's file without what is appended to tell that it is one, and that it is compressed."""
    return path.name.removesuffix(".xz").removesuffix(".ko")


def module_content(path: Path) -> bytes:
    """The module itself: newer kernels have them compressed."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def module_depends(path: Path) -> list[str]:
    """The modules that a .ko names as its dependencies (from its .modinfo)."""
    match = re.search(rb"\0depends=([^\0]*)\0", module_content(path))
    return [name for name in (match.group(1).decode() if match else "").split(",") if name]


def module_order(found: Iterable[Path], wanted: Iterable[str], builtin: Iterable[str] = ()) -> list[Path]:
    """The wanted modules and what they need, each after its dependencies; without what the kernel has built in."""
    by_name = {module_name(path).replace("-", "_"): path for path in found}
    inside = {name.replace("-", "_") for name in builtin}
    order: list[Path] = []

    def visit(name: str, chain: str) -> None:
        key = name.replace("-", "_")
        if key in inside:
            return
        if key not in by_name:
            raise BuildError(f"kernel module '{name}' is not in the kernel package (needed by {chain})")
        if by_name[key] in order:
            return
        for dependency in module_depends(by_name[key]):
            visit(dependency, name)
        order.append(by_name[key])

    for name in wanted:
        visit(name, "the scenarios")
    return order


class Cpio:
    """Writes a `newc` archive: the format the kernel unpacks as its first root.

    Owners, times and inode numbers are fixed, so that the same content gives
    the same bytes.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.inode = 0

    def _entry(
        self, name: str, mode: int, content: bytes = b"", rdev: tuple[int, int] = (0, 0), links: int = 1
    ) -> None:
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, links, 0, len(content), 0, 0, *rdev, len(encoded), 0)
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self.data += b"\0" * (-len(self.data) % 4)
        self.data += content
        self.data += b"\0" * (-len(self.data) % 4)

    def folder(self, name: str) -> None:
        self._entry(name, 0o040755, links=2)

    def file(self, name: str, content: bytes, mode: int = 0o755) -> None:
        self._entry(name, 0o100000 | mode, content)

    def link(self, name: str, target: str) -> None:
        self._entry(name, 0o120777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        self._entry(name, 0o020600, rdev=(major, minor))

    def finish(self) -> bytes:
        self._entry("TRAILER!!!", 0)
        self.data += b"\0" * (-len(self.data) % 512)
        return bytes(self.data)


APPLETS = (
    "sh ls cat dmesg echo mount umount grep sed ps top sleep poweroff lspci insmod rmmod lsmod "
    "hexdump taskset dd free ip vi less head tail wc uname devmem"
).split()


def pack(out: Path, exerciser: Path, busybox: Path, modules: list[Path]) -> None:
    """Write the initramfs, gzip'd; /modules/order is the order to load in."""
    archive = Cpio()
    for name in ("bin", "dev", "proc", "sys", "tmp", "modules"):
        archive.folder(name)
    # The kernel opens these before devtmpfs is mounted.
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3)
    archive.file("init", exerciser.read_bytes())
    archive.file("bin/busybox", busybox.read_bytes())
    for applet in APPLETS:
        archive.link(f"bin/{applet}", "busybox")
    for module in modules:
        archive.file(f"modules/{module_name(module)}.ko", module_content(module), 0o644)
    archive.file("modules/order", "".join(f"{module_name(m)}.ko\n" for m in modules).encode(), 0o644)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        packed.write(archive.finish())


def build(args: argparse.Namespace) -> tuple[Path, Path]:
    """All steps in order; returns the kernel image and the initramfs."""
    builder = Builder(args.cache, args.flavour)
    if not all(shutil.which(tool) for tool in ("make", CROSS + "gcc")):
        install_host_packages(builder.logs / "tools.log", with_qemu=False)
    need_rust(builder)
    root, release = fetch_packages(builder, args.refresh)
    exerciser = build_exerciser(builder)
    folder = root / "lib/modules" / release
    found = [*folder.rglob("*.ko"), *folder.rglob("*.ko.xz")]
    builtin = [module_name(Path(line)) for line in (folder / "modules.builtin").read_text().splitlines()]
    modules = module_order(found, MODULES[args.flavour], builtin)
    if args.flavour in SUITES:
        modules.append(build_module(builder, root, release))
    busybox = root / "bin/busybox"
    if not busybox.exists():
        busybox = root / "usr/bin/busybox"
    inputs = [exerciser, busybox, *modules, Path(__file__)]
    key = [[p.name, hashlib.sha256(p.read_bytes()).hexdigest()] for p in inputs] + [str(args.out)]
    builder.stamped("initramfs", key, args.out, lambda: pack(args.out, exerciser, busybox, modules))
    return root / f"boot/vmlinuz-{release}", args.out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=cache_root(), help="downloads and build products (%(default)s)")
    parser.add_argument("--flavour", choices=list(MODULES), default=CLOUD, help="of Debian's kernel (%(default)s)")
    parser.add_argument("--out", type=Path, help="the initramfs to write (CACHE/dom0/initrd.gz)")
    parser.add_argument("--refresh", action="store_true", help="ask apt again for the newest kernel and busybox")
    args = parser.parse_args()
    args.cache = args.cache.resolve()
    args.out = (args.out or Builder(args.cache, args.flavour).dir / "initrd.gz").resolve()
    try:
        with locked("dom0"):
            kernel, initrd = build(args)
    except (BuildError, OSError) as error:
        print(f"dom0/build.py: {error}", file=sys.stderr)
    except StepError as error:
        print(f"dom0/build.py: {error.render()}", file=sys.stderr)
    else:
        print(f"kernel={kernel}\ninitrd={initrd}")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
