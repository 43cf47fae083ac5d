"""Charts of one value a row: dots with whiskers, bars, a heat map. Data in, SVG out; nothing else is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flatcoat.app.html.svg import Canvas, Scale, fit, number

Mark = Literal["dot", "up", "down", "ring"]
TONE: dict[str, str] = {"dot": "c0", "up": "c1", "down": "c2", "ring": "ink"}
NARROW = 520  # pixels, below which labels stand above their rows


@dataclass(frozen=True)
class Dot:
    """A value with its interval; `mark` says what it is beside the reference, `each` are the values it is the mean of."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    mark: Mark = "dot"
    each: tuple[float, ...] = ()

    @property
    def said(self) -> str:
        """The value in words."""
        span = "" if self.low is None or self.high is None else f" [{number(self.low)}, {number(self.high)}]"
        return f"{self.label}: {number(self.value)}{span}"

    @property
    def values(self) -> list[float]:
        """All that must be on the axis."""
        return [v for v in (self.value, self.low, self.high, *self.each) if v is not None]


def _rows(width: int, labels: Sequence[str]) -> tuple[float, float, float]:
    """Where the values begin, a row's height, and where in it the mark is: beside the label, or below it where it is narrow."""
    if width < NARROW:
        return 12, 42, 29
    longest = max((len(label) for label in labels), default=0)
    return min(0.4 * width, 24 + longest * 7.4), 26, 13


def dots_chart(
    name: str, title: str, dots: Sequence[Dot], width: int, *, axis: str = "", reference: float | None = None
) -> str:  # fmt: skip
    """Rows of dots with whiskers, and a line at the reference."""
    left, row, middle = _rows(width, [dot.label for dot in dots])
    top, bottom = 8, 44
    sheet = Canvas(width, top + row * len(dots) + bottom)
    values = [v for dot in dots for v in dot.values] + ([reference] if reference is not None else [])
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.04 * (high - low)
    scale = Scale(low - room, high + room, left, width - 16)
    floor = top + row * len(dots)
    _axis(sheet, scale, top, floor, axis, 4 if width < NARROW else 6)
    if reference is not None:
        sheet.line(scale.at(reference), top, scale.at(reference), floor, tone="ink", dash="3 3")
    for i, dot in enumerate(dots):
        y = top + i * row
        _label(sheet, dot.label, y, left, width)
        _whisker(sheet, scale, dot, y + middle)
    return sheet.svg(name, title, "; ".join(dot.said for dot in dots))


def _axis(sheet: Canvas, scale: Scale, top: float, floor: float, label: str, count: int) -> None:
    for tick in scale.ticks(count):
        sheet.line(scale.at(tick), top, scale.at(tick), floor)
        sheet.text(scale.at(tick), floor + 17, number(tick), anchor="middle", tone="soft", size=12)
    sheet.text((scale.start + scale.end) / 2, floor + 36, label, anchor="middle", tone="soft", size=12)


def _label(sheet: Canvas, label: str, y: float, left: float, width: int) -> None:
    if width < NARROW:
        sheet.text(12, y + 14, fit(label, width - 24))
    else:
        sheet.text(left - 14, y + 17.5, fit(label, left - 18), anchor="end")


def _whisker(sheet: Canvas, scale: Scale, dot: Dot, y: float) -> None:
    tone = TONE[dot.mark]
    if dot.low is not None and dot.high is not None:
        sheet.line(scale.at(dot.low), y, scale.at(dot.high), y, tone=tone, width=2)
        for end in (dot.low, dot.high):
            sheet.line(scale.at(end), y - 4, scale.at(end), y + 4, tone=tone, width=2)
    for value in dot.each:
        sheet.line(scale.at(value), y - 8, scale.at(value), y + 8, tone="c5", width=2)
    sheet.mark(scale.at(dot.value), y, dot.mark, tone=tone, title=dot.said)


def bars_chart(name: str, title: str, bars: Sequence[tuple[str, float]], width: int, *, unit: str = "") -> str:
    """Rows of bars from 0, each with its value."""
    left, row, middle = _rows(width, [label for label, _ in bars])
    sheet = Canvas(width, 8 + row * len(bars) + 8)
    most = max((value for _, value in bars), default=1.0) or 1.0
    told = [f"{number(value, 3)} {unit}".strip() for _, value in bars]
    scale = Scale(0.0, most, left, width - max([96, *(20 + 7 * len(said) for said in told)]))
    for i, ((label, value), said) in enumerate(zip(bars, told, strict=True)):
        y = 8 + i * row
        _label(sheet, label, y, left, width)
        sheet.box(left, y + middle - 7, max(1.0, scale.at(value) - left), 14, tone="c1", title=f"{label}: {said}")
        sheet.text(scale.at(value) + 8, y + middle + 4.5, said, tone="soft", size=12)
    return sheet.svg(name, title, "; ".join(f"{label}: {number(value)} {unit}".strip() for label, value in bars))


def heat_map(
    name: str, title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], width: int,
    *, percent: bool = False,
) -> str:  # fmt: skip
    """Cells around 0: one colour above, another below, as strong as far away; each with its number."""
    left, row, middle = _rows(width, rows)
    top = 30
    sheet = Canvas(width, top + row * len(rows) + 8)
    most = max((abs(v) for line in values for v in line if v is not None), default=0.0) or 1.0
    cell = (width - left - 8) / max(1, len(columns))
    for j, column in enumerate(columns):
        sheet.text(left + (j + 0.5) * cell, 18, fit(column, cell - 4, 12), anchor="middle", tone="soft", size=12)
    told = []
    for i, label in enumerate(rows):
        y = top + i * row
        _label(sheet, label, y, left, width)
        for j, value in enumerate(values[i]):
            if value is None:
                continue
            said = f"{value:+.1%}".replace("-", "−") if percent else number(value)
            tone, strength = ("c1" if value >= 0 else "c2"), 0.06 + 0.5 * abs(value) / most
            place = (left + j * cell + 1, y + middle - 11, cell - 2, 22)
            sheet.box(*place, tone=tone, opacity=strength, title=f"{label}, {columns[j]}: {said}")
            sheet.text(left + (j + 0.5) * cell, y + middle + 4.5, said, anchor="middle", size=12)
            told.append(f"{label}, {columns[j]}: {said}")
    return sheet.svg(name, title, "; ".join(told))
