# SPDX-License-Identifier: GPL-2.0-only
"""Recipes: which steps a job of each kind has, in order."""

from __future__ import annotations

from dataclasses import dataclass

from . import statuses


@dataclass(frozen=True)
class Step:
    """One program of ``osstest/``, and what it means if it fails."""

    program: str
    testid: str
    arguments: tuple[str, ...] = ()
    iffail: str = statuses.FAIL
    limit: float = 600.0
    """Seconds after which it is stopped."""

    goes_on: bool = False
    """The next step runs even if this one did not pass."""

    always: bool = False
    """It runs whatever has happened before."""


BUILD_LIMIT_S = 3600.0
"""A first build fetches and compiles everything, on a machine that may have other things to do."""

BOOT_LIMIT_S = 6 * 3600.0
"""A boot has a limit of its own, in its runvars; this is for a step that does not keep to it."""

CHECK = Step("ts-its-build-check", "build-check(1)", iffail=statuses.BLOCKED, limit=60)
INSTALL = Step("ts-its-host-install", "host-install", iffail=statuses.BROKEN, limit=BUILD_LIMIT_S)
CAPTURE = Step("ts-its-logs-capture", "capture-logs", iffail=statuses.BROKEN, limit=120, always=True)

DOM0 = (
    CHECK,
    INSTALL,
    Step("ts-its-xen-boot", "xen-boot", limit=BOOT_LIMIT_S),
    Step("ts-its-check", "its-check", goes_on=True),
    Step("ts-its-guest-errors", "guest-errors", goes_on=True),
)

RECIPES: dict[str, tuple[Step, ...]] = {
    "build-its": (
        INSTALL,
        Step("ts-its-xen-build", "xen-build/debug", ("debug",), limit=BUILD_LIMIT_S),
        Step("ts-its-xen-build", "xen-build/release", ("release",), limit=BUILD_LIMIT_S),
    ),
    "build-dom0": (INSTALL, Step("ts-its-dom0-build", "kernel-build", limit=BUILD_LIMIT_S)),
    "build-its-guest": (INSTALL, Step("ts-its-guest-build", "guest-build", limit=BUILD_LIMIT_S)),
    "test-its-dom0": (*DOM0, Step("ts-its-leak-check", "leak-check/check", goes_on=True), CAPTURE),
    # Upstream's C keeps no counters, so nothing can be said of leaks.
    "test-its-dom0-c": (*DOM0, CAPTURE),
    "test-its-guest": (
        CHECK,
        INSTALL,
        Step("ts-its-guest", "its-guest", limit=BOOT_LIMIT_S),
        CAPTURE,
    ),
    "test-its-fvp": (
        CHECK,
        Step("ts-its-fvp", "fvp-boot", limit=BOOT_LIMIT_S),
        CAPTURE,
    ),
}  # fmt: skip
