"""Draw docs/sparse-scale.svg and docs/negatives-scale.svg: cost against the number of documents, from benchmarks/results/*_scale.tsv."""

from __future__ import annotations

import math
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 60, 44, 16, 90
COLOURS = ("#1b6ca8", "#c7522a", "#4a8c3f", "#7a4fa3")
Series = dict[
    str, list[tuple[float, float, float]]
]  # of each line: documents, milliseconds, and those of the dashed line


def rows_of(name: str) -> list[dict[str, str]]:
    """A results file's rows by heading."""
    text = (ROOT / "benchmarks" / "results" / f"{name}.tsv").read_text(encoding="utf-8")
    header, *rows = [line.split("\t") for line in text.splitlines() if not line.startswith("# ")]
    return [dict(zip(header, row, strict=True)) for row in rows]


def negatives() -> Series:
    """What a draw for a batch costs by method."""
    columns = {
        "descend": "draw ms, descend",
        "members": "draw ms, uniform members",
        "best": "draw ms, best",
        "exhaustive": "exhaustive ms",
    }
    found: Series = {}
    for row in rows_of("negatives_scale"):
        for name, column in columns.items():
            value = float(row[column])
            if not math.isnan(value):
                found.setdefault(name, []).append((float(row["targets"]), value, value))
    return found


def sparse() -> Series:
    """Of each kind: documents, median and 99th percentile of processor milliseconds."""
    found: Series = {}
    for row in rows_of("sparse_scale"):
        documents, kind, median, high = list(row.values())[:4]
        found.setdefault(kind, []).append((float(documents), float(median), float(high)))
    return found


def draw(series: Series, name: str, caption: str) -> None:
    """Write a picture."""
    every = [p for line in series.values() for p in line]
    low_x, high_x = (math.log10(f(p[0] for p in every)) for f in (min, max))
    low_y = math.floor(math.log10(min(p[1] for p in every)))
    high_y = math.ceil(math.log10(max(p[2] for p in every)))

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (math.log10(x) - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (math.log10(y) - low_y) / (high_y - low_y) * (HEIGHT - BOTTOM - TOP)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']  # fmt: skip
    for power in range(low_y, high_y + 1):
        _, y = at(10**low_x, 10**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} ms</text>')
    for number in sorted({p[0] for p in every}):
        x, _ = at(number, 10**low_y)
        said = f"{number / 1e6:g}M" if number >= 1e6 else f"{number / 1e3:g}k"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{said}</text>')
    for colour, (kind, line) in zip(COLOURS, series.items(), strict=False):
        for column, style in ((1, "stroke-width='2'"), (2, "stroke-dasharray='3 3'")):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p[0], p[column]) for p in line))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" {style}/>')
        x, y = at(line[-1][0], line[-1][1])
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colour}">{kind}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">{caption}</text>')
    (ROOT / "docs" / f"{name}.svg").write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def main() -> None:
    """Write every picture."""
    said = "documents; processor time of a query of 29 terms, one thread: median, and dashed the 99th percentile"
    draw(sparse(), "sparse-scale", said)
    draw(negatives(), "negatives-scale", "targets; time to draw 64 of them for each of 128 queries, two threads")


if __name__ == "__main__":
    main()
