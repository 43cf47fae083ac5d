"""Charts of plain data, and tables in three forms: right, readable, and nothing from data taken for markup."""

from __future__ import annotations

import numpy as np
import pytest
from html_pages import HOSTILE, SVG, drawn

from flatcoat.app.html.charts import Dot, bars_chart, dots_chart, heat_map
from flatcoat.app.html.plots import (
    Line,
    Point,
    line_chart,
    moving_mean,
    numbers_beside,
    pressed_chart,
    scatter_chart,
    sorted_chart,
)
from flatcoat.app.html.svg import Scale, fit, log_ticks, number, plain, round_ticks, slug
from flatcoat.app.html.tables import Table, html_table, latex_table, markdown_table

DOTS = lambda label: [Dot(label, 0.5, 0.4, 0.6, "up", (0.5, 0.6)), Dot("b", 0.1)]  # noqa: E731
LINES = lambda label: [Line(label, [1, 2], [0.0, 3.0]), Line("b", [1], [2.0])]  # noqa: E731
POINTS = lambda label: [Point(label, 0.1, 1), Point("b", 10, 1)]  # noqa: E731
CHARTS = {
    "dots": lambda label, w: dots_chart("c", label, DOTS(label), w, axis=label, reference=0.2),
    "bars": lambda label, w: bars_chart("c", label, [(label, 3.0), ("b", 0.0)], w, unit=label),
    "heat": lambda label, w: heat_map("c", label, [label, "b"], [label, "m"], [[0.5, None], [-1.0, 0.0]], w),
    "lines": lambda label, w: line_chart("c", label, LINES(label), w, y_label=label, limits=[(label, 1.0)]),
    "log lines": lambda label, w: line_chart("c", label, [Line(label, range(60), [0.0, *([1e-3] * 59)])], w, log=True, smooth=True),
    "scatter": lambda label, w: scatter_chart("c", label, POINTS(label), w, x_label=label, y_label=label, log=True),
    "sorted": lambda label, w: sorted_chart("c", label, [0.5, -0.2, 0, 0], w, y_label=label),
    "pressed": lambda label, w: pressed_chart("c", label, [(label, 0.5), ("b", -0.5), ("c", 0)], w, y_label=label),
}  # fmt: skip


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS.keys())
@pytest.mark.parametrize("width", [348, 940])
def test_a_chart_is_xml_with_a_title_whatever_it_is_told(chart, width):
    root = drawn(chart(HOSTILE, width))
    assert not list(root.iter(f"{SVG}script")) and root.get("width") == str(width)
    assert root.find(f"{SVG}title").text == plain(HOSTILE).replace("\r", "\n")
    assert chart(HOSTILE, width) == chart(HOSTILE, width)


@pytest.mark.parametrize(
    "chart",
    [
        lambda: dots_chart("c", "t", [], 500),
        lambda: dots_chart("c", "t", [Dot("one", 0.0)], 500),
        lambda: bars_chart("c", "t", [], 500),
        lambda: heat_map("c", "t", [], [], [], 500),
        lambda: line_chart("c", "t", [], 500),
        lambda: line_chart("c", "t", [Line("none", [], [])], 500, log=True),
        lambda: scatter_chart("c", "t", [], 500, x_label="x", y_label="y", log=True),
        lambda: scatter_chart("c", "t", [Point("one", 1.0, 1.0)], 500, x_label="x", y_label="y", log=True),
        lambda: sorted_chart("c", "t", [], 500, y_label="y"),
        lambda: pressed_chart("c", "t", [], 500, y_label="y"),
    ],
)
def test_a_chart_of_nothing_or_one_thing_is_still_one(chart):
    drawn(chart())


def test_a_dot_stands_where_its_value_is():
    root = drawn(dots_chart("c", "t", [Dot("a", 0.0), Dot("b", 0.5), Dot("c", 1.0)], 940))
    x = [float(c.get("cx")) for c in root.iter(f"{SVG}circle")]
    assert x[0] < x[1] < x[2] and x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    bars = drawn(bars_chart("c", "t", [("a", 1.0), ("b", 2.0)], 940))
    one, two = (float(r.get("width")) for r in bars.iter(f"{SVG}rect") if r.get("height") == "14")
    assert two == pytest.approx(2 * one, abs=0.2)


def test_scales_and_ticks():
    assert round_ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert log_ticks(0.1, 100, 4) == [0.1, 1, 10, 100]
    assert all(0.3 <= t <= 0.9 for t in log_ticks(0.3, 0.9, 4))
    assert log_ticks(0.31, 0.45, 4)
    scale = Scale(1, 100, 0, 200, log=True)
    assert scale.at(10) == pytest.approx(100) and Scale(0, 0, 0, 10).at(0) == pytest.approx(5)
    assert [number(v) for v in (0, 0.25, -1.5, 1234.56, 8e-5, float("nan"), 1e7)] == [
        "0",
        "0.25",
        "−1.5",
        "1235",
        "8e−5",
        "–",
        "1e7",
    ]
    assert fit("long enough", 30) == "lon…"
    assert slug("Δ nDCG@10 to before, exact") == "ndcg-10-to-before-exact" and slug("Δ") == "part"


def test_numbers_beside_points_hide_no_other():
    places = [(100.0, 100.0), (104.0, 100.0), (100.0, 104.0)]
    found = numbers_beside(places)
    for i, a in enumerate(found):
        others = [*found[:i], *(p for j, p in enumerate(places) if j != i)]
        assert all(abs(a[0] - b[0]) > 11 or abs(a[1] - b[1]) > 9 for b in others)


def test_moving_means_are_means_of_those_around():
    values = np.random.default_rng(0).random(100).tolist()
    found = moving_mean(values)
    assert found[50] == pytest.approx(np.mean(values[48:53])) and found[0] == pytest.approx(np.mean(values[:3]))


def test_a_table_in_three_forms():
    table = Table(["sys|tem", "nDCG_10"], [["a & b", "0.5"], [HOSTILE, "−0.25 ± 0.1"]])
    assert markdown_table(table).splitlines()[:3] == ["| sys\\|tem | nDCG_10 |", "| --- | ---: |", "| a & b | 0.5 |"]
    latex = latex_table(table)
    assert r"\begin{tabular}{lr}" in latex and r"sys|tem & nDCG\_10 \\" in latex and r"a \& b & 0.5 \\" in latex
    assert r"$-$0.25 $\pm$ 0.1" in latex and latex.count("\n") == 8 and "\x00" not in latex
    assert "<script" not in html_table(table, HOSTILE)
    with pytest.raises(ValueError, match="3 cells"):
        Table(["a", "b"], [["1", "2", "3"]])
