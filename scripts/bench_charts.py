"""Charts of benchmark tables as files of SVG that are readable on light and on dark pages: bars, and cost against size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from flatcoat.app.html.charts import bars_chart
from flatcoat.app.html.svg import SERIES, TONES, Canvas, Scale, number

WIDTH, LEFT, RIGHT, TOP, HEIGHT, GAP = 760, 66, 190, 30, 260, 16
DARK = {"c0": "#98a4b3", "c1": "#6cb0ff", "c2": "#ff9a57", "c3": "#4cc38a", "c4": "#c49bf5", "c5": "#e0b04e", "c6": "#ff7da3",
        "c7": "#55ccd9", "ink": "#e8eaed", "soft": "#a3adba", "grid": "#323a44", "paper": "#14171b"}  # fmt: skip
Places = Sequence[tuple[float, float]]


def both(drawing: str) -> str:
    """A drawing that takes dark colours where the page around it is dark."""
    rules = "".join(f".f-{tone}{{fill:{DARK[tone]}}}.s-{tone}{{stroke:{DARK[tone]}}}" for tone in TONES)
    start, rest = drawing.split(">", 1)
    return f"{start}><style>@media (prefers-color-scheme: dark){{{rules}}}</style>{rest}"


def bars(name: str, title: str, values: Sequence[tuple[str, float]], unit: str) -> str:
    """A bar for each label, from 0."""
    return both(bars_chart(name, title, values, WIDTH, unit=unit))


def size(value: float) -> str:
    """A count in short: 30k, 1M."""
    for least, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:g}{letter}"
    return f"{value:g}"


def costs(name: str, title: str, lines: Mapping[str, Places], x_label: str, y_label: str) -> str:
    """Lines of cost against size, both axes logarithmic, each line named where it ends."""
    every = [place for line in lines.values() for place in line]
    floor, right = TOP + HEIGHT, WIDTH - RIGHT
    sheet = Canvas(WIDTH, floor + 48)
    across = Scale(min(x for x, _ in every), max(x for x, _ in every), LEFT, right, log=True)
    low, high = (f(math.log10(y) for _, y in every) for f in (min, max))
    up = Scale(10 ** math.floor(low), 10 ** math.ceil(high + 1e-9), floor, TOP, log=True)
    for power in range(math.floor(low), math.ceil(high + 1e-9) + 1):
        y = up.at(10.0**power)
        sheet.line(LEFT, y, right, y)
        sheet.text(LEFT - 8, y + 4, number(10.0**power), anchor="end", tone="soft", size=12)
    for x in sorted({x for x, _ in every}):
        sheet.line(across.at(x), floor, across.at(x), floor + 4, tone="soft")
        sheet.text(across.at(x), floor + 18, size(x), anchor="middle", tone="soft", size=12)
    sheet.text(8, 14, y_label, tone="soft", size=12)
    sheet.text((LEFT + right) / 2, floor + 38, x_label, anchor="middle", tone="soft", size=12)
    whole = {label: up.at(line[-1][1]) for label, line in lines.items() if line[-1][0] == across.high}
    ends = _apart(whole)
    for tone, (label, line) in zip(SERIES, lines.items(), strict=False):
        points = [(across.at(x), up.at(y)) for x, y in line]
        sheet.path(points, tone=tone)
        for (x, y), (documents, cost) in zip(points, line, strict=True):
            sheet.mark(x, y, "dot", tone=tone, size=3.5, title=f"{label}: {number(cost)} at {size(documents)}")
        if label in ends:
            sheet.line(points[-1][0] + 5, points[-1][1], right + 10, ends[label], tone=tone)
            sheet.text(right + 14, ends[label] + 4, label, tone=tone, size=12)
        else:
            sheet.text(points[-1][0] + 8, points[-1][1] - 6, label, tone=tone, size=12)
    told = (f"{label}: from {number(line[0][1])} at {size(line[0][0])} to {number(line[-1][1])} at {size(line[-1][0])}"
            for label, line in lines.items())  # fmt: skip
    return both(sheet.svg(name, title, "; ".join(told)))


def _apart(places: dict[str, float]) -> dict[str, float]:
    """Heights of names, each at least a line below the one above it, all moved up where the last fell below the axis."""
    found: dict[str, float] = {}
    last = -math.inf
    for label, place in sorted(places.items(), key=lambda item: item[1]):
        last = max(place, last + GAP)
        found[label] = last
    over = max(0.0, last - (TOP + HEIGHT))
    return {label: place - over for label, place in found.items()}


def write(path: Path, drawing: str) -> None:
    """Keep a drawing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawing, encoding="utf-8")
