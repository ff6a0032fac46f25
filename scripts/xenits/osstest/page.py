# SPDX-License-Identifier: GPL-2.0-only
"""The page of a flight: what `page.html.j2` is given, and the file that comes of it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import figures, jobs, libraries, plots, statuses, text
from .database import Job, Step
from .history import Failure, History, earlier
from .home import Home
from .junit import seconds, tail

TEMPLATE = Path(__file__).parent / "page.html.j2"
PAST = 20
"""Flights that the page looks back on."""

VARIANTS = (
    ("", "Rust"),
    ("-gic4", "Rust, GICv4"),
    ("-bpo", "Rust, newer Linux"),
    ("-sid", "Rust, Xen of sid"),
    ("-sid-c", "C, Xen of sid"),
    ("-upstream", "Rust, own Xen"),
    ("-fvp", "Rust, FVP"),
    ("-long", "Rust, for long"),
    ("-c", "C"),
    ("-gic4-c", "C, GICv4"),
)
"""Ends of jobs' names, and what they mean: the columns of the grid. The longest end that fits counts."""

EXCERPT_LINES = 12


@dataclass
class Entry:
    """A job, as the page shows it."""

    job: Job
    steps: list[Step]
    runvars: dict[str, str]
    files: list[str]
    """Its logs, as links."""

    link: str
    """The log that says most: that of the first step that did not pass, or the report."""

    seconds: int

    def log(self, step: Step) -> str:
        """A step's log, as a link."""
        return f"{self.job.job}/{step.stepno}.{step.step}.log"

    def log_of(self, number: int) -> str:
        """The log of the step with this number, as a link."""
        return next(self.log(step) for step in self.steps if step.stepno == number)

    def seconds_of(self, step: Step) -> int:
        """How long a step took."""
        return seconds(step)


@dataclass
class Row:
    """A row of the grid: a case, and its job in each variant."""

    case: str
    cells: list[Entry | None]


@dataclass
class Versus:
    """Rust against C in one case."""

    case: str
    rust: Entry
    c: Entry
    figures: list[tuple[str, str, str]]
    """The value of each of `COMPARED` on Rust and on C, and the one divided by the other."""


@dataclass
class Chart:
    """A chart of one figure of one case."""

    title: str
    svg: str


@dataclass
class Page:
    """All of it."""

    flight: int
    branch: str
    started: str
    outcome: str
    good: bool
    against: int | None
    counts: dict[str, int]
    seconds: int
    builds: list[Entry] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    grid: list[Row] = field(default_factory=list)
    others: list[Entry] = field(default_factory=list)
    failures: list[tuple[Failure, Entry, str]] = field(default_factory=list)
    """A failure or what is broken, its job, and the end of its log; what was better once comes first."""

    never_ran: list[Entry] = field(default_factory=list)
    """Jobs that are blocked, starved or aborted."""

    compared: list[str] = field(default_factory=list)
    """Titles of the figures in which Rust and C are compared."""

    versus: list[Versus] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    flights: list[int] = field(default_factory=list)
    history: list[tuple[str, list[str]]] = field(default_factory=list)
    """A job, and its status in each of the flights; empty where it did not run."""

    entries: list[Entry] = field(default_factory=list)


def place(job: str) -> tuple[str, str] | None:
    """Row and column of a test job in the grid; none if it belongs elsewhere."""
    if not job.startswith(jobs.PREFIX):
        return None
    rest = job.removeprefix(jobs.PREFIX)
    for end, _ in sorted(VARIANTS, key=lambda variant: -len(variant[0])):
        case = rest.removesuffix(end)
        if rest.endswith(end) and (case in jobs.DOM0_CASES or case in jobs.GUEST_CASES):
            return case, end
    return None


def _entry(home: Home, job: Job) -> Entry:
    steps = home.database.steps(job.flight, job.job)
    logs = home.job_logs(job.flight, job.job)
    wanted = (".log", ".cmd", ".json")
    files = sorted(str(p.relative_to(logs.parent)) for p in logs.rglob("*") if p.is_file() and p.suffix in wanted)
    numbered = {f"{job.job}/{step.stepno}.{step.step}.log" for step in steps}
    bad = next((step for step in steps if step.status != statuses.PASS), None)
    report = f"{job.job}/report.log"
    last = f"{job.job}/{steps[-1].stepno}.{steps[-1].step}.log" if steps else ""
    link = f"{job.job}/{bad.stepno}.{bad.step}.log" if bad else report if report in files else last
    begun = [step.started for step in steps if step.started]
    ended = [step.finished for step in steps if step.finished]
    took = max(ended) - min(begun) if begun and ended else 0
    runvars = home.database.runvars(job.flight, job.job)
    return Entry(job, steps, runvars, [name for name in files if name not in numbered], link, took)


def _grid(page: Page) -> None:
    placed = {at: entry for entry in page.entries if (at := place(entry.job.job))}
    used = [(end, title) for end, title in VARIANTS if any(column == end for _, column in placed)]
    page.columns = [title for _, title in used]
    for case in [*jobs.DOM0_CASES, *jobs.GUEST_CASES]:
        if any(row == case for row, _ in placed):
            page.grid.append(Row(case, [placed.get((case, end)) for end, _ in used]))
    page.builds = [entry for entry in page.entries if entry.job.job.startswith("build-")]
    shown = {id(entry) for entry in [*page.builds, *placed.values()]}
    page.others = [entry for entry in page.entries if id(entry) not in shown]


COMPARED = (figures.SECONDS, figures.RATE, figures.INTERRUPTS)


def _versus(page: Page) -> None:
    by_name = {entry.job.job: entry for entry in page.entries}
    for case in jobs.C_CASES:
        rust, c = (by_name.get(f"{jobs.PREFIX}{case}{end}") for end in ("", "-c"))
        if rust and c:
            pairs = [(rust.runvars.get(name, ""), c.runvars.get(name, "")) for name in COMPARED]
            if any(ours and theirs for ours, theirs in pairs):
                page.versus.append(Versus(case, rust, c, [(*pair, ratio(*pair)) for pair in pairs]))


def ratio(ours: str, theirs: str) -> str:
    """One figure divided by another, if both are there."""
    return f"{float(ours) / float(theirs):.2f}" if ours and theirs and float(theirs) else ""


CHARTS = (
    (("boot", "nvme", "multi"), figures.SECONDS),
    (("nvme", "smp"), figures.RATE),
    (("hostile", "conformance"), figures.GAP),
)


def _charts(home: Home, page: Page, past: list[int]) -> None:
    runvars = {
        flight: {j.job: home.database.runvars(flight, j.job) for j in home.database.jobs(flight)} for flight in past
    }
    for cases, name in CHARTS:
        for case in cases:
            lines = []
            for end, title, style in (("", "Rust", "rust"), ("-c", "C", "c")):
                job = f"{jobs.PREFIX}{case}{end}"
                values = [(flight, v) for flight in past if (v := runvars[flight].get(job, {}).get(name))]
                if values:
                    lines.append(plots.Line(title, style, [(flight, float(value)) for flight, value in values]))
            title = f"{case}: {figures.TITLES[name]}"
            if svg := plots.chart(title, lines):
                page.charts.append(Chart(title, svg))


def collect(home: Home, flight: int, against: int | None = None) -> Page:
    """Everything that the page shows."""
    database = home.database
    row = database.flight(flight)
    assert row is not None, flight
    history = History(database, flight, against)
    failures = history.failures()
    rows = database.jobs(flight)
    entries = [_entry(home, job) for job in rows]
    words = [job.status for job in rows]
    outcome = text.outcome(words, failures, history.against is not None)
    ended = [step.finished for entry in entries for step in entry.steps if step.finished]
    page = Page(
        flight,
        row.branch,
        time.strftime("%Y-%m-%d %H:%M", time.localtime(row.started)),
        outcome,
        text.is_good(words),
        history.against,
        {word: words.count(word) for word in dict.fromkeys(words)},
        max(ended, default=row.started) - row.started,
        entries=entries,
    )
    by_name = {entry.job.job: entry for entry in entries}
    for failure in sorted(failures, key=lambda failure: not failure.blocking):
        if failure.status not in (statuses.FAIL, statuses.BROKEN):
            continue
        step = next(s for s in by_name[failure.job].steps if s.stepno == failure.stepno)
        log = home.step_log(flight, failure.job, step.stepno, step.step)
        page.failures.append((failure, by_name[failure.job], tail(log, EXCERPT_LINES)))
    page.never_ran = [e for e in entries if e.job.status not in (statuses.PASS, statuses.FAIL, statuses.BROKEN)]
    page.compared = [figures.TITLES[name] for name in COMPARED]
    _grid(page)
    _versus(page)
    page.flights = [*[f.flight for f in reversed(earlier(database, flight)[: PAST - 1])], flight]
    seen = {number: {job.job: job.status for job in database.jobs(number)} for number in page.flights}
    page.history = [(name, [seen[number].get(name, "") for number in page.flights]) for name in by_name]
    _charts(home, page, page.flights)
    return page


def duration(count: int) -> str:
    """Seconds, minutes or hours."""
    if count < 100:
        return f"{count} s"
    return f"{count // 60} min {count % 60:02} s" if count < 3600 else f"{count // 3600} h {count // 60 % 60:02} min"


def short(job: str) -> str:
    """A job's name without what all have in common."""
    return re.sub(r"^(test-arm64-arm64-xl-|build-arm64-)", "", job)


def write(home: Home, flight: int, path: Path, log: Path, against: int | None = None) -> None:
    """Write the page."""
    jinja2 = libraries.load("jinja2", log)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"duration": duration, "short": short}
    made = environment.get_template(TEMPLATE.name).render(page=collect(home, flight, against))
    path.write_text(made, encoding="utf-8")
