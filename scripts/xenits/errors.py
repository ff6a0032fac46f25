# SPDX-License-Identifier: GPL-2.0-only
"""The one exception that a user gets to see."""

from __future__ import annotations

from pathlib import Path


class StepError(Exception):
    """A step failed in a way that the user can act on.

    `log` is the file with all of the output, `lines` the part of it that matters,
    and `hint` says what to do. `status` is what the command ends with.
    """

    status = 1

    def __init__(
        self,
        message: str,
        *,
        log: Path | None = None,
        lines: list[str] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.log = log
        self.lines = lines or []
        self.hint = hint

    def render(self) -> str:
        """The message as it is printed, several lines."""
        out = [self.message]
        out += [f"    | {line}" for line in self.lines]
        if self.log:
            out.append(f"  log:  {self.log}")
        if self.hint:
            out.append(f"  what to do: {self.hint}")
        return "\n".join(out)


class UsageError(StepError):
    """The options make no sense."""

    status = 2
