"""Charts of two axes: lines over steps, a scatter, all values in order, and bars that can be pressed. Data in, SVG out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from flatcoat.app.html.svg import SERIES, Canvas, Scale, fit, number, safe

LEFT, RIGHT, TOP, HEIGHT = 62, 16, 12, 240
WINDOWS = 20  # of a smoothed line
DASHES = ("", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Line:
    """A named line through (x, y)."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Point:
    """A named place."""

    label: str
    x: float
    y: float
    tone: str = "c1"


def _frame(
    sheet: Canvas, across: Scale, up: Scale, x_label: str, y_label: str, *, floor: float, width: int
) -> None:  # fmt: skip
    for tick in up.ticks(5):
        sheet.line(LEFT, up.at(tick), width - RIGHT, up.at(tick))
        sheet.text(LEFT - 8, up.at(tick) + 4, number(tick), anchor="end", tone="soft", size=12)
    for tick in across.ticks(4 if width < 520 else 7):
        sheet.line(across.at(tick), floor, across.at(tick), floor + 4, tone="soft")
        sheet.text(across.at(tick), floor + 18, number(tick), anchor="middle", tone="soft", size=12)
    sheet.line(LEFT, floor, width - RIGHT, floor, tone="soft")
    sheet.text((LEFT + width - RIGHT) / 2, floor + 37, x_label, anchor="middle", tone="soft", size=12)
    if y_label:
        sheet.text(8, TOP + 2, fit(y_label, width - 20, 12), tone="soft", size=12)


def _keys(sheet: Canvas, labels: Sequence[str], y: float, *, dashed: bool, numbered: bool = False) -> None:
    """What each line, or each numbered point, is: as many in a row as there is room for."""
    columns = _columns(sheet.width, numbered)
    for i, label in enumerate(labels):
        x, at = 12 + (i % columns) * (sheet.width - 16) / columns, y + (i // columns) * 20
        if numbered:
            sheet.text(x + 14, at, f"{i + 1}", anchor="end", size=12, bold=True)
        else:
            dash = DASHES[i // len(SERIES) % len(DASHES)] if dashed else ""
            sheet.path([(x, at - 4), (x + 22, at - 4)], tone=SERIES[i % len(SERIES)], width=2.5, dash=dash)
        sheet.text(x + (20 if numbered else 28), at, fit(label, (sheet.width - 16) / columns - 36, 12), size=12)


def _columns(width: int, numbered: bool) -> int:
    return max(1, width // (290 if numbered else 220))


def _key_rows(count: int, width: int, *, numbered: bool = False) -> int:
    return math.ceil(count / _columns(width, numbered))


def line_chart(
    name: str, title: str, lines: Sequence[Line], width: int, *, x_label: str = "step", y_label: str = "", log: bool = False,
    limits: Sequence[tuple[str, float]] = (), smooth: bool = False,
) -> str:  # fmt: skip
    """Lines over a common axis; `limits` are levels that are drawn and named; `smooth` adds each line's moving mean."""
    top = TOP + (14 if y_label else 0)
    floor = top + (HEIGHT if width > 520 else 180)
    keyed = [line.label for line in lines] if len(lines) > 1 else []
    sheet = Canvas(width, floor + 44 + 20 * _key_rows(len(keyed), width))
    if log:  # what is 0 has no place
        lines = [Line(line.label, *_above_zero(line)) for line in lines]
    xs, ys = [x for line in lines for x in line.x], [y for line in lines for y in line.y]
    ys += [level for _, level in limits]
    low, high = min(ys, default=0.0), max(ys, default=1.0)
    low = low if log and low > 0 else min(low, 0.0) if low < 0.5 * high else low
    across = Scale(min(xs, default=0.0), max(xs, default=1.0), LEFT, width - RIGHT)
    up = Scale(low, high, floor, top + 4, log=log)
    _frame(sheet, across, up, x_label, y_label, floor=floor, width=width)
    for label, level in limits:
        sheet.line(LEFT, up.at(level), width - RIGHT, up.at(level), tone="c6", dash="4 4")
        sheet.text(width - RIGHT, up.at(level) - 5, label, anchor="end", tone="c6", size=12)
    for i, line in enumerate(lines):
        _draw(sheet, across, up, line, i, smooth=smooth and len(line.x) >= 2 * WINDOWS)
    _keys(sheet, keyed, floor + 58, dashed=True)
    told = (f"{ln.label}: from {number(ln.y[0])} to {number(ln.y[-1])}" for ln in lines if len(ln.y))
    return sheet.svg(name, title, "; ".join(told))


def _above_zero(line: Line) -> tuple[list[float], list[float]]:
    kept = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y > 0]
    return [x for x, _ in kept], [y for _, y in kept]


def _draw(sheet: Canvas, across: Scale, up: Scale, line: Line, i: int, *, smooth: bool) -> None:
    tone, dash = SERIES[i % len(SERIES)], DASHES[i // len(SERIES) % len(DASHES)]
    points = [(across.at(x), up.at(y)) for x, y in zip(line.x, line.y, strict=True)]
    if smooth:
        sheet.path(points, tone=tone, width=1, opacity=0.35)
        points = [(across.at(x), up.at(y)) for x, y in zip(line.x, moving_mean(line.y), strict=True)]
    sheet.path(points, tone=tone, dash=dash)
    if len(points) == 1:
        sheet.mark(*points[0], "dot", tone=tone, size=4)


def moving_mean(values: Sequence[float]) -> list[float]:
    """Each value's mean with those around it, over about a WINDOWS-th of all; fewer at the ends."""
    half = max(1, len(values) // (2 * WINDOWS))
    around = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(some) / len(some) for some in around]


def scatter_chart(
    name: str, title: str, points: Sequence[Point], width: int, *, x_label: str, y_label: str, log: bool = False
) -> str:
    """Numbered points, and below which is which."""
    top = TOP + 16
    floor = top + HEIGHT + 20
    sheet = Canvas(width, floor + 52 + 20 * _key_rows(len(points), width, numbered=True))
    across = _roomy([p.x for p in points], LEFT, width - RIGHT, log=log)
    up = _roomy([p.y for p in points], floor, top)
    _frame(sheet, across, up, x_label, y_label, floor=floor, width=width)
    places = [(across.at(p.x), up.at(p.y)) for p in points]
    for p, (x, y) in zip(points, places, strict=True):
        sheet.mark(
            x, y, "dot", tone=p.tone, size=5, title=f"{p.label}: {x_label} {number(p.x)}, {y_label} {number(p.y)}"
        )
    for i, (x, y) in enumerate(numbers_beside(places)):
        sheet.text(x, y + 4, str(i + 1), anchor="middle", size=12, bold=True)
    _keys(sheet, [p.label for p in points], floor + 62, dashed=False, numbered=True)
    told = (f"{p.label}: {x_label} {number(p.x)}, {y_label} {number(p.y)}" for p in points)
    return sheet.svg(name, title, "; ".join(told))


def _roomy(values: Sequence[float], start: float, end: float, *, log: bool = False) -> Scale:
    """A scale with room at both ends."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log and low > 0:
        return Scale(low / 1.3, high * 1.3, start, end, log=True)
    room = 0.06 * (high - low)
    return Scale(low - room, high + room, start, end)


def numbers_beside(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where each point's number stands: beside it, where it hides no point and no number before it; else to its right."""
    taken = list(places)
    found = []
    for x, y in places:
        tries = [
            (x + dx, y + dy)
            for dx, dy in ((0, -13), (13, 0), (0, 14), (-13, 0), (11, -11), (-11, -11), (11, 11), (-11, 11))
        ]
        free = (t for t in tries if all(abs(t[0] - a) > 15 or abs(t[1] - b) > 10 for a, b in taken if (a, b) != (x, y)))
        place = next(free, tries[1])
        found.append(place)
        taken.append(place)
    return found


def sorted_chart(name: str, title: str, values: Sequence[float], width: int, *, y_label: str) -> str:
    """All values, greatest first: what is above 0 in one colour, what is below in another."""
    ordered = sorted(values, reverse=True)
    top, floor = TOP + 16, TOP + 16 + 150
    sheet = Canvas(width, floor + 48)
    most = max((abs(v) for v in ordered), default=0.0) or 1.0
    up = Scale(-most, most, floor, top)
    across = Scale(0, max(1, len(ordered)), LEFT, width - RIGHT)
    _frame(sheet, across, up, "queries, greatest gain first", y_label, floor=floor, width=width)
    for tone, side in (("c1", [v for v in ordered if v > 0]), ("c2", [v for v in ordered if v < 0])):
        begin = 0 if tone == "c1" else len(ordered) - len(side)
        if not side:
            continue
        edge = [(across.at(begin + i + d), up.at(v)) for i, v in _thinned(side, width) for d in (0, 1)]
        ends = [(across.at(begin + len(side)), up.at(0)), (across.at(begin), up.at(0))]
        sheet.area([*edge, *ends], tone=tone)
    better, worse = sum(v > 0 for v in ordered), sum(v < 0 for v in ordered)
    same = len(ordered) - better - worse
    return sheet.svg(name, title, f"{better} queries better, {same} the same, {worse} worse")


def _thinned(values: Sequence[float], most: int) -> list[tuple[int, float]]:
    """Values with their places, no more than so many, first and last among them."""
    if len(values) <= most:
        return list(enumerate(values))
    places = sorted({round(i * (len(values) - 1) / (most - 1)) for i in range(most)})
    return [(i, values[i]) for i in places]


def pressed_chart(name: str, title: str, bars: Sequence[tuple[str, float]], width: int, *, y_label: str) -> str:
    """A bar for each (label, value) in the given order, each a button that a page's script listens to."""
    top, floor = TOP + 16, TOP + 16 + 170
    sheet = Canvas(width, floor + 14)
    most = max((abs(v) for _, v in bars), default=0.0) or 1.0
    up = Scale(-most, most, floor, top)
    for share in (1, 0.5, 0, -0.5, -1):
        y = up.at(share * most)
        sheet.line(LEFT, y, width - RIGHT, y)
        sheet.text(LEFT - 8, y + 4, number(share * most, 3), anchor="end", tone="soft", size=12)
        sheet.parts[-1] = sheet.parts[-1].replace("<text ", f'<text data-share="{share:g}" ', 1)
    sheet.line(LEFT, up.at(0), width - RIGHT, up.at(0), tone="soft")
    sheet.text(8, TOP + 2, fit(y_label, width - 20, 12), tone="soft", size=12)
    step = (width - LEFT - RIGHT) / max(1, len(bars))
    for i, (label, value) in enumerate(bars):
        x, tone = LEFT + i * step, "c1" if value >= 0 else "c2"
        said = f' role="button" tabindex="{-1 if i else 0}" aria-label="{safe(fit(label, 900))}: {value:+.3f}"'
        sheet.parts.append(f'<g class="bar" data-i="{i}"{said}>')
        sheet.parts.append(
            f'<rect class="hit" x="{x:.2f}" y="{top}" width="{step:.2f}" height="{floor - top}" fill="none" pointer-events="all"/>'
        )
        tall = max(1.5, abs(up.at(value) - up.at(0)))
        y = up.at(0) - (tall if value >= 0 else 0)
        sheet.parts.append(
            f'<rect class="v f-{tone}" x="{x + 0.1 * step:.2f}" y="{y:.1f}" width="{0.8 * step:.2f}" height="{tall:.1f}" '
            f'fill="{"#1f5fa8" if value >= 0 else "#b4540a"}"/></g>'
        )
    scale = safe(json.dumps({"zero": round(up.at(0), 1), "half": round(up.at(0) - top, 1)}))
    desc = f"{len(bars)} queries; press a bar to see its answers"
    return sheet.svg(name, title, desc, role="group", more=f' class="pressed" data-scale="{scale}"')
