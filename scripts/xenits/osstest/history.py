# SPDX-License-Identifier: GPL-2.0-only
"""What failures of a flight mean, given what earlier flights have seen."""

from __future__ import annotations

from dataclasses import dataclass

from . import statuses
from .database import Database, Flight, Step

REGRESSION = "REGR. vs."
LIKE = "like"
NEVER = "never pass"
NOTHING = "n/a"


@dataclass(frozen=True)
class Failure:
    """A step that did not pass, and how that compares."""

    job: str
    stepno: int
    testid: str
    status: str
    verdict: str
    basis: int | None = None
    """The flight that it is compared with."""

    @property
    def blocking(self) -> bool:
        """Whether it was better once."""
        return self.verdict == REGRESSION

    def remark(self) -> str:
        """As the report has it."""
        return f"{self.verdict} {self.basis}" if self.basis is not None else self.verdict


def earlier(database: Database, flight: int) -> list[Flight]:
    """Flights of the same branch before this one, the latest first."""
    this = database.flight(flight)
    assert this is not None, flight
    return [f for f in reversed(database.flights(this.branch)) if f.flight < flight]


def basis_for(database: Database, flight: int) -> int | None:
    """What a flight is compared with unless one is chosen: the last one before it that came to its end."""
    for before in earlier(database, flight):
        if all(job.status not in statuses.UNFINISHED for job in database.jobs(before.flight)):
            return before.flight
    return None


class History:
    """Looks up what became of a step in earlier flights."""

    def __init__(self, database: Database, flight: int, against: int | None = None) -> None:
        self.database = database
        self.flight = flight
        self.against = basis_for(database, flight) if against is None else against
        before = [f.flight for f in earlier(database, flight)]
        if self.against is not None:
            before = [self.against, *(number for number in before if number != self.against)]
        self._steps = {number: self._of(number) for number in before}

    def _of(self, flight: int) -> dict[tuple[str, str], str]:
        return {(step.job, step.testid): step.status for step in self.database.steps(flight)}

    def failures(self) -> list[Failure]:
        """Every step that did not pass, in the order of the jobs."""
        order = {job.job: number for number, job in enumerate(self.database.jobs(self.flight))}
        bad = [step for step in self.database.steps(self.flight) if step.status != statuses.PASS]
        return [self._judge(step) for step in sorted(bad, key=lambda step: (order[step.job], step.stepno))]

    def _judge(self, step: Step) -> Failure:
        verdict, basis = NOTHING, None
        if step.status in (statuses.FAIL, statuses.BROKEN):
            verdict, basis = self._compare(step.job, step.testid)
        return Failure(step.job, step.stepno, step.testid, step.status, verdict, basis)

    def _compare(self, job: str, testid: str) -> tuple[str, int | None]:
        """The chosen flight decides; only where it has nothing to say, those before do."""
        for number, seen in self._steps.items():
            status = seen.get((job, testid))
            if status == statuses.PASS:
                return REGRESSION, number
            if number == self.against and status in (statuses.FAIL, statuses.BROKEN):
                if any(other.get((job, testid)) == statuses.PASS for other in self._steps.values()):
                    return LIKE, number
                return NEVER, None
        return NEVER, None
