# SPDX-License-Identifier: GPL-2.0-only
"""Configure and build Xen, in one folder of the cache for each variant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from . import rust, xen_config, xen_source
from .errors import StepError
from .layout import REPO, Stamp, cache_root, digest, digest_files, files_below
from .shell import output, run

RUST_INPUTS = (
    "Cargo.toml",
    "Cargo.lock",
    "build.rs",
    "rust-toolchain.toml",
    ".cargo",
    "src",
    "include",
    "rust",
    "vendor",
)
"""What the Rust half of Xen is built from; scripts, tests and documents are not in it."""


@dataclass(frozen=True)
class Variant:
    """What tells one build folder from another."""

    its: str
    debug: bool
    fragments: tuple[Path, ...]
    place: str
    """`Source.place`: empty for the pinned tree."""

    def folder(self) -> Path:
        """The build folder in the cache."""
        name = f"{self.its}-{'debug' if self.debug else 'release'}"
        if self.place:
            name += f"-{self.place}"
        if self.fragments:
            name += "-" + digest("\0".join(str(f.resolve()) for f in self.fragments))
        return cache_root() / "build" / name


@dataclass(frozen=True)
class Image:
    """A Xen that was built."""

    xen: Path
    syms: Path
    config: Path


class XenBuild:
    """One build folder, from the patched tree to an image."""

    def __init__(self, variant: Variant, tree: Path, tree_key: str) -> None:
        self.variant = variant
        self.tree = tree
        self.tree_key = tree_key
        self.folder = variant.folder()
        self.work = self.folder / "xen"
        self.symbols = xen_config.wanted(variant.its, variant.debug, list(variant.fragments))

    def make(self, *targets: str) -> list[str]:
        """Xen's make, as words of a command."""
        return [
            "make", "-C", str(self.work / "xen"), f"-j{os.cpu_count() or 1}", "XEN_TARGET_ARCH=arm64",
            "CROSS_COMPILE=aarch64-linux-gnu-", f"XEN_ITS_DIR={REPO}", *targets,
        ]  # fmt: skip

    def configure(self, log: Path) -> bool:
        """Sync the tree and make ``.config``. Tells whether all of it was up to date."""
        self.work.mkdir(parents=True, exist_ok=True)
        synced = Stamp(self.folder / "tree.stamp")
        if not synced.matches(self.tree_key):
            synced.clear()
            xen_source.sync(self.tree, self.work, self.folder / "manifest")
            synced.write(self.tree_key)
            fresh = False
        else:
            fresh = True
        stamp = Stamp(self.folder / "config.stamp")
        inputs = {"symbols": self.symbols, "tree": self.tree_key}
        if self.variant.its == "rust":
            inputs["rustc"] = rust.version(log)
        config = self.work / "xen/.config"
        if fresh and config.exists() and stamp.matches(inputs):
            return True
        stamp.clear()
        old = (config.read_bytes(), config.stat().st_mtime_ns) if config.exists() else None
        run(self.make("arm64_defconfig"), log)
        text = config.read_text(encoding="utf-8")
        config.write_text(text + xen_config.render(self.symbols), encoding="utf-8")
        run(self.make("olddefconfig"), log)
        self._check(config.read_text(encoding="utf-8"), log)
        if old and config.read_bytes() == old[0]:
            # With a newer time every object of Xen's would be built again.
            os.utime(config, ns=(old[1], old[1]))
        stamp.write(inputs)
        return False

    def _check(self, config: str, log: Path) -> None:
        lines = xen_config.unmet(self.symbols, config)
        if not lines:
            return
        hint = "see what these symbols depend on: make -C xen menuconfig in " + str(self.work)
        if any("ITS_RUST" in line for line in lines):
            hint = (
                "CONFIG_ITS_RUST comes with the series in xen-patches/ and needs rustc, cargo and the target "
                f"{rust.XEN_TARGET}; check that both are there, or run with --its=c."
            )
        raise StepError("Kconfig did not take what was asked for", log=log, lines=lines, hint=hint)

    def _inputs(self, log: Path) -> dict[str, object]:
        inputs: dict[str, object] = {
            "tree": self.tree_key,
            "config": digest((self.work / "xen/.config").read_bytes()),
            "cc": digest(output(["aarch64-linux-gnu-gcc", "--version"], log)),
        }
        if self.variant.its == "rust":
            files = [f for name in RUST_INPUTS if (REPO / name).exists() for f in files_below(REPO / name)]
            inputs["repository"] = str(REPO)
            inputs["rust"] = digest_files(files, REPO)
            inputs["rustc"] = rust.version(log)
        return inputs

    def build(self, log: Path) -> tuple[Image, bool]:
        """Build Xen. The flag tells whether it was up to date."""
        image = Image(self.work / "xen/xen", self.work / "xen/xen-syms", self.work / "xen/.config")
        stamp = Stamp(self.folder / "build.stamp")
        inputs = self._inputs(log)
        if image.xen.exists() and image.syms.exists() and stamp.matches(inputs):
            return image, True
        stamp.clear()
        run(self.make(), log, what="Xen does not build", hint="the first error in the log is the one to look at.")
        for path in (image.xen, image.syms):
            if not path.exists():
                raise StepError(f"make was content, but there is no {path}", log=log)
        stamp.write(inputs)
        return image, False
