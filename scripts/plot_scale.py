"""Draw docs/sparse-scale.svg: what a query costs against the number of documents, from benchmarks/results/sparse_scale.tsv."""

from __future__ import annotations

import math
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 60, 44, 16, 90
COLOURS = {"inverted": "#1b6ca8", "pruned": "#c7522a"}


def points() -> dict[str, list[tuple[float, float, float]]]:
    """Of each kind: documents, median and 99th percentile of processor milliseconds."""
    text = (ROOT / "benchmarks" / "results" / "sparse_scale.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("# ")]
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows[1:]:
        found.setdefault(row[1], []).append((float(row[0]), float(row[2]), float(row[3])))
    return found


def main() -> None:
    """Write the picture."""
    series = points()
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
    for kind, line in series.items():
        for column, style in ((1, "stroke-width='2'"), (2, "stroke-dasharray='3 3'")):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p[0], p[column]) for p in line))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[kind]}" {style}/>')
        x, y = at(line[-1][0], line[-1][1])
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{COLOURS[kind]}">{kind}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">documents; processor time of a query of 29 terms, one thread: '
                 "median, and dashed the 99th percentile</text>")  # fmt: skip
    (ROOT / "docs" / "sparse-scale.svg").write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
