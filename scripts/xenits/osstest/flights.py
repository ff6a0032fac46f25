# SPDX-License-Identifier: GPL-2.0-only
"""The flights that can be run by name."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UsageError
from . import jobs
from .jobs import PREFIX, Spec

SMOKE = ("boot", "nvme", "nvme-c", "hostile")
"""A build of each ITS, a boot, interrupts, a guest that means harm, and upstream's C beside."""


def with_needs(names: Iterable[str], known: dict[str, Spec]) -> list[Spec]:
    """These jobs, behind those whose artefacts they take."""
    ordered: dict[str, Spec] = {}

    def add(name: str) -> None:
        for needed in known[name].needs():
            add(needed)
        ordered.setdefault(name, known[name])

    for name in names:
        if name not in known:
            raise UsageError(f"there is no job {name}", hint="osstest/run list names them all.")
        add(name)
    return list(ordered.values())


def smoke(tree: str) -> list[Spec]:
    """Well below ten minutes."""
    return with_needs([PREFIX + case for case in SMOKE], jobs.all_jobs(tree))


_WEEKLY = ("-long", "-bpo", "-sid", "-sid-c")


def _is_long(name: str) -> bool:
    return name.endswith(_WEEKLY) or "-cpus-smp" in name


def full(tree: str) -> list[Spec]:
    """Every job but the weekly ones."""
    known = jobs.all_jobs(tree)
    return with_needs((name for name in known if not _is_long(name)), known)


def weekly(tree: str) -> list[Spec]:
    """What takes hours, or says something about other kernels and numbers of CPUs."""
    known = jobs.all_jobs(tree)
    return with_needs((name for name in known if _is_long(name) or name.endswith("-upstream")), known)


FLIGHTS = {"smoke": smoke, "full": full, "weekly": weekly}
