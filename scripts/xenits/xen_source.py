# SPDX-License-Identifier: GPL-2.0-only
"""Xen's source: fetched and verified, or the user's own; then patched.

Three kinds of folder in the cache, none of which is the user's tree:
``src/xen-VERSION`` (pristine), ``src/patched-KEY`` (with our series on top), and
the build folders of `xen_build`, which are brought up to date from the latter.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key, partial
from pathlib import Path

from .errors import StepError
from .layout import REPO, Stamp, cache_root, digest, digest_files, locked
from .packages import XEN_SUITE, Apt
from .shell import Command, output, run

XEN_SERIES = "4.20"
"""The version that is fetched when the user names no tree."""

LAST_GOOD = (
    "pool/main/x/xen/xen_4.20.3+127-gc42374a105.orig.tar.xz",
    "df0831854a55a8f31cb3cb85036f2edc928e2ef098d77f815f5714bfafac68f3",
)
"""The tarball that all tests have passed on, and its SHA256. A mirror may have it still, while the one that its index
names is missing."""

PATCHED_KEPT = 6
_BUILT = re.compile(r"(\.(o|a|so|d|i|s|cmd|gcno|lds)|^\.config(\.old)?|^xen-syms.*|^\.xen.*)$")
_BUILT_DIRS = {".git", "generated"}


@dataclass(frozen=True)
class Source:
    """A tree to build from: `key` names its content, `own` says that it is the user's."""

    path: Path
    key: str
    label: str
    own: bool
    suite: str = XEN_SUITE

    def place(self) -> str:
        """A name for the tree that stays when its content changes; empty for the pinned one."""
        if self.own:
            return f"tree-{digest(str(self.path))}"
        return "" if self.suite == XEN_SUITE else self.suite


def pinned(log: Path, suite: str = XEN_SUITE) -> tuple[Source, bool]:
    """The newest Xen that a suite of Debian's has; of the usual one, the newest 4.20, or `LAST_GOOD`.

    The flag tells whether it was already in the cache.
    """
    src = cache_root() / "src"
    src.mkdir(exist_ok=True)
    usual = suite == XEN_SUITE
    stamp = Stamp(src / ("pinned.stamp" if usual else f"pinned-{suite}.stamp"))
    begin = XEN_SERIES + "." if usual else ""
    with locked("xen-source"):
        for tree in sorted(src.glob("xen-*")):
            if tree.is_dir() and stamp.matches(tree.name):
                return Source(tree, tree.name, tree.name, own=False, suite=suite), True
        apt = Apt(log, suite)
        stanzas = [s for s in apt.source_stanzas("xen") if s["Version"].startswith(begin)]
        if not stanzas:
            apt.refresh(force=True)
            stanzas = [s for s in apt.source_stanzas("xen") if s["Version"].startswith(begin)]
        if not stanzas:
            raise StepError(
                f"Debian's index of {suite} has no source of Xen{f' {XEN_SERIES}' if usual else ''}",
                log=log,
                hint="give a tree of your own with --tree.",
            )
        stanzas.sort(key=cmp_to_key(lambda a, b: _compare_versions(b["Version"], a["Version"])))
        places = [partial(upstream_tarball, apt, stanza) for stanza in stanzas]
        if usual:
            places.append(partial(apt.pool_file, *LAST_GOOD))
        tree = _unpack(_first(places), src, log)
        stamp.write(tree.name)
        return Source(tree, tree.name, tree.name, own=False, suite=suite), False


def _first(places: Sequence[Callable[[], Path]]) -> Path:
    """What the first of them gives that does not fail; if all do, what is wrong with the first."""
    problems = []
    for place in places:
        try:
            return place()
        except StepError as error:
            problems.append(error)
    raise problems[0]


def _compare_versions(a: str, b: str) -> int:
    def holds(relation: str) -> bool:
        return subprocess.run(["dpkg", "--compare-versions", a, relation, b], check=False).returncode == 0

    return -1 if holds("lt") else 1 if holds("gt") else 0


def upstream_tarball(apt: Apt, stanza: dict[str, str]) -> Path:
    """The tarball of a source package that upstream made, checked against its SHA256 in the index."""
    for line in stanza.get("Checksums-Sha256", "").splitlines():
        words = line.split()
        if len(words) == 3 and re.search(r"\.orig\.tar\.\w+$", words[2]):
            return apt.source_tarball(stanza["Package"], stanza["Version"], words[2], words[0])
    raise StepError(
        f"the Sources index names no upstream tarball for {stanza['Package']} {stanza['Version']}", log=apt.log
    )


def _unpack(tarball: Path, src: Path, log: Path) -> Path:
    """Unpack to ``src/NAME``; NAME is the one folder at the top of the tarball."""
    temp = src / "unpacking"
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir()
    run(["tar", "-C", temp, "-xf", tarball], log, what=f"cannot unpack {tarball}", hint=f"remove {tarball}, run again.")
    tops = list(temp.iterdir())
    if len(tops) != 1 or not (tops[0] / "xen/Makefile").exists():
        raise StepError(f"{tarball.name} does not look like Xen's source", log=log)
    version = re.sub(r"^xen_|\.orig\.tar.*$", "", tarball.name)
    tree = src / f"xen-{version}"
    shutil.rmtree(tree, ignore_errors=True)
    tops[0].rename(tree)
    temp.rmdir()
    return tree


def own_tree(path: Path, log: Path) -> Source:
    """The user's tree, which is only ever read."""
    path = path.expanduser().resolve()
    if not (path / "xen/arch/arm").is_dir() or not (path / "xen/Makefile").exists():
        raise StepError(
            f"{path} is not a Xen tree (it has no xen/arch/arm)", hint="give --tree the folder that has xen/ in it."
        )
    files = _tree_files(path, log)
    listing = "\n".join(
        f"{name} {stat.st_size} {stat.st_mtime_ns}" for name in files if (stat := (path / name).lstat())
    )
    return Source(path, f"tree-{digest(str(path) + listing)}", f"{path} (Xen {tree_version(path)})", own=True)


def tree_version(tree: Path) -> str:
    """The ``4.20`` of a tree, from its makefile."""
    text = (tree / "xen/Makefile").read_text(encoding="utf-8", errors="replace")
    major = re.search(r"XEN_VERSION\s*:?=\s*(\d+)", text)
    minor = re.search(r"XEN_SUBVERSION\s*:?=\s*(\d+)", text)
    return f"{major[1]}.{minor[1]}" if major and minor else "unknown"


def _tree_files(tree: Path, log: Path) -> list[str]:
    """Names of the source files of a tree, without what a build left in it."""
    if (tree / ".git").exists() and shutil.which("git"):
        argv: Command = ["git", "-C", tree, "-c", f"safe.directory={tree}", "ls-files", "-z", "--cached", "--others",
                "--exclude-standard"]  # fmt: skip
        names = output(argv, log, what=f"git cannot list {tree}").split("\0")
        return sorted(n for n in names if n and os.path.lexists(tree / n) and not (tree / n).is_dir())
    found = []
    for folder, dirs, names in os.walk(tree):
        dirs[:] = sorted(d for d in dirs if d not in _BUILT_DIRS)
        for name in names:
            # A linker script without a suffix .S beside it is a source, one with it is made.
            made = _BUILT.search(name) and not (name.endswith((".s", ".lds")) and not _made_from(folder, name))
            if not made:
                found.append(os.path.relpath(os.path.join(folder, name), tree))
    return sorted(found)


def _made_from(folder: str, name: str) -> bool:
    base = os.path.join(folder, name)
    return os.path.exists(base + ".S") or os.path.exists(os.path.splitext(base)[0] + ".c")


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", name))


def patch_files(tree_label: str) -> list[Path]:
    """Our series for a tree: that of its own version, or the last one before it, or else the pinned one.

    A file ``series`` names the patches in their order, where they are not all of the folder's:
    versions of Xen share those that fit several (``../4.23/0007-x.patch``).
    """
    top = REPO / "xen-patches"
    known = [path.name for path in top.iterdir() if re.fullmatch(r"\d+\.\d+", path.name)]
    before = [name for name in known if _version(name) <= _version(tree_label)]
    folder = top / max(before, key=_version, default=XEN_SERIES)
    series = folder / "series"
    if series.exists():
        names = [line.split("#")[0].strip() for line in series.read_text(encoding="utf-8").splitlines()]
        return [Path(os.path.normpath(folder / n)) for n in names if n]
    return sorted(folder.glob("*.patch"))


def patched(source: Source, log: Path, *, series: bool = True) -> tuple[Path, str, str, bool]:
    """The tree with our series on it, or without.

    Gives its folder, a key that names the content, a remark, and whether it was there already.
    """
    patches = patch_files(tree_version(source.path)) if series else []
    for path in patches:
        if not path.exists():
            raise StepError(f"a series in xen-patches/ names {path.relative_to(REPO)}, which is not there")
    key = digest(f"{source.key} {digest_files(patches, REPO)}")
    tree = cache_root() / "src" / f"patched-{key}"
    remark = f"{len(patches)} patches" if patches else "no patches: pristine"
    with locked("xen-patched"):
        if tree.is_dir():
            os.utime(tree)
            return tree, key, remark, True
        tree.parent.mkdir(exist_ok=True)
        _drop_old_patched(tree.parent)
        temp = tree.with_name("patching")
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir()
        for name in _tree_files(source.path, log):
            target = temp / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source.path / name, target, follow_symlinks=False)
        inexact = []
        for path in patches:
            if source.own and not _needed(path) and not _applies(path, temp):
                remark += f"; without {path.name}"
            elif _apply(path, temp, log, source):
                inexact.append(path.name)
        if inexact:
            remark += f"; with fuzz or offset: {', '.join(inexact)}"
        os.utime(temp)
        temp.rename(tree)
    return tree, key, remark, False


def _drop_old_patched(src: Path) -> None:
    trees = sorted(src.glob("patched-*"), key=lambda p: p.stat().st_mtime)
    for tree in trees[:-PATCHED_KEPT]:
        shutil.rmtree(tree, ignore_errors=True)


def _needed(patch: Path) -> bool:
    """Whether a patch changes what Xen is built from: jobs of Xen's CI may differ in a user's tree."""
    names = re.findall(r"^\+\+\+ b/(.*)$", patch.read_text(encoding="utf-8"), re.MULTILINE)
    return not names or not all(name.startswith("automation/") for name in names)


def _applies(patch: Path, tree: Path) -> bool:
    """Whether it would apply, if it were tried as it is on a user's tree."""
    argv = ["patch", "-p1", "--force", "--dry-run", "--fuzz=2", "-i", str(patch)]
    return subprocess.run(argv, cwd=tree, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _apply(patch: Path, tree: Path, log: Path, source: Source) -> bool:
    """Apply one patch; tells whether it needed fuzz or an offset, as it may on a user's tree."""
    fuzz = "2" if source.own else "0"
    argv = ["patch", "-p1", "--force", "--no-backup-if-mismatch", f"--fuzz={fuzz}", "-i", str(patch)]
    done = subprocess.run(
        argv, cwd=tree, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    with open(log, "a", encoding="utf-8") as out:
        print(f"== {patch}\n{done.stdout}", file=out)
    if done.returncode != 0:
        raise StepError(
            f"{patch.relative_to(REPO)} does not apply to {source.label}",
            log=log,
            lines=failed_hunks(done.stdout, tree),
            hint="port that hunk to the tree, and put the series in "
            f"xen-patches/{tree_version(source.path)}/ if the tree is another version of Xen."
            if source.own
            else "the patch is not for this version of Xen: regenerate it against the tree in the cache.",
        )
    return "fuzz" in done.stdout or "offset" in done.stdout


def failed_hunks(said: str, tree: Path, most: int = 24) -> list[str]:
    """What ``patch`` said about hunks that failed, and the first of those hunks."""
    lines = []
    file = ""
    rejected: list[str] = []
    for line in said.splitlines():
        if match := re.match(r"patching file '?([^']+?)'?$", line):
            file = match[1]
        elif "FAILED" in line or "can't find file" in line or "already exists" in line or "malformed" in line:
            lines.append(f"{file}: {line}" if file else line)
        if match := re.search(r"saving rejects to file '?([^']+?)'?$", line):
            rejected.append(match[1])
    for name in rejected[:1]:
        reject = tree / name
        if reject.exists():
            lines += reject.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[:most]


def sync(source: Path, target: Path, manifest: Path) -> int:
    """Bring `target` in line with `source` and leave a build's own files alone.

    Only files whose content differs are written (with the time of now, so that make
    sees them); files that `source` no longer has are removed. Gives the number of changes.
    """
    before = set(manifest.read_text(encoding="utf-8").splitlines()) if manifest.exists() else set()
    names: set[str] = set()
    changes = 0
    for folder, _, files in os.walk(source):
        for name in files:
            path = Path(folder) / name
            relative = str(path.relative_to(source))
            names.add(relative)
            copy = target / relative
            if path.is_symlink():
                if not copy.is_symlink() or os.readlink(copy) != os.readlink(path):
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.unlink(missing_ok=True)
                    copy.symlink_to(os.readlink(path))
                    changes += 1
                continue
            if copy.is_file() and not copy.is_symlink() and filecmp.cmp(path, copy, shallow=False):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.unlink(missing_ok=True)
            shutil.copyfile(path, copy)
            shutil.copymode(path, copy)
            changes += 1
    for gone in before - names:
        (target / gone).unlink(missing_ok=True)
        changes += 1
    manifest.write_text("\n".join(sorted(names)), encoding="utf-8")
    return changes
