# SPDX-License-Identifier: GPL-2.0-only
"""A line chart with logarithmic axes, as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 190, 34, 48
COLOURS = ("#0b62a4", "#c8502a", "#3b8132", "#7a3d9a", "#8a6d00", "#00797d")


@dataclass(frozen=True)
class Line:
    """One line: what the legend calls it, its colour by number, dashed or not, and its points."""

    name: str
    colour: int
    dashed: bool
    points: tuple[tuple[float, float], ...]


class _Axis:
    """Where on the page a value is; whole powers of ten are the ends."""

    def __init__(self, values: list[float], start: float, length: float) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)
        self.start, self.length = start, length

    def at(self, value: float) -> float:
        return self.start + self.length * (math.log10(value) - self.low) / (self.high - self.low)

    def powers(self) -> list[int]:
        return [10**n for n in range(self.low, self.high + 1)]


def _short(value: int) -> str:
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value // unit} {name}"
    return str(value)


def chart(title: str, along: str, up: str, lines: list[Line]) -> str:
    """The chart. All values are positive."""
    points = [point for line in lines for point in line.points]
    across = _Axis([x for x, _ in points], LEFT, WIDTH - LEFT - RIGHT)
    height = _Axis([y for _, y in points], HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM))
    right, low = WIDTH - RIGHT, HEIGHT - BOTTOM
    out = [
        "<!-- SPDX-License-Identifier: GPL-2.0-only -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for value in across.powers():
        x = f"{across.at(value):.1f}"
        out.append(f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{low}" stroke="#ddd"/>')
        out.append(f'<text x="{x}" y="{low + 16}" text-anchor="middle">{_short(value)}</text>')
    for value in height.powers():
        y = height.at(value)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    out.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(along)}</text>')
    middle = (TOP + low) / 2
    out.append(f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[line.colour % len(COLOURS)]
        style = f'stroke="{colour}" stroke-width="2"' + (' stroke-dasharray="6 4"' if line.dashed else "")
        path = " ".join(f"{across.at(x):.1f},{height.at(y):.1f}" for x, y in line.points)
        out.append(f'<polyline points="{path}" fill="none" {style}/>')
        out += [
            f'<circle cx="{across.at(x):.1f}" cy="{height.at(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in line.points
        ]
        y = TOP + 10 + 18 * number
        out.append(f'<line x1="{right + 14}" y1="{y}" x2="{right + 44}" y2="{y}" {style}/>')
        out.append(f'<text x="{right + 50}" y="{y + 4}">{escape(line.name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
