# SPDX-License-Identifier: GPL-2.0-only
"""Small line charts as SVG, for the page of a flight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 34


@dataclass(frozen=True)
class Line:
    """One line of a chart: a value for each flight that has one."""

    name: str
    style: str
    """A class of the page's style sheet."""

    points: Sequence[tuple[int, float]]
    """Flight and value."""


def round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10, times a power of ten: a good end of an axis."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * 0.999)


def number(value: float) -> str:
    """As short as it can be."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def chart(title: str, lines: Sequence[Line]) -> str:
    """The chart, or nothing if there is no value at all. All axes of values begin at 0."""
    flights = sorted({flight for line in lines for flight, _ in line.points})
    if not flights:
        return ""
    top = round_up(max(value for line in lines for _, value in line.points))
    across = {flight: _spread(i, len(flights)) for i, flight in enumerate(flights)}

    def down(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = down(top * part)
        out.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(top * part)}</text>')
    # Not so many numbers that they touch.
    every = math.ceil(len(flights) / 12)
    for i, flight in enumerate(flights):
        if i % every == 0 or i == len(flights) - 1:
            x = across[flight]
            out.append(
                f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{flight}</text>'
            )
    out.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">flight</text>')
    for line in lines:
        path = " ".join(f"{across[flight]:.1f},{down(value):.1f}" for flight, value in line.points)
        out.append(f'<polyline class="{line.style}" points="{path}"/>')
        for flight, value in line.points:
            said = escape(f"flight {flight}, {line.name}: {number(value)}")
            at = f'cx="{across[flight]:.1f}" cy="{down(value):.1f}"'
            point = f'<circle class="{line.style}" {at} r="4"><title>{said}</title></circle>'
            out.append(f'<a href="../{flight}/index.html">{point}</a>')
    return "\n".join([*out, "</svg>"])


def _spread(at: int, count: int) -> float:
    room = WIDTH - LEFT - RIGHT - 20
    return LEFT + 10 + (room * at / (count - 1) if count > 1 else room / 2)
