"""Names of a page's sections, charts and tables, and how much of queries is put into it."""

from __future__ import annotations

import json

import pytest
from html_pages import embedded

from flatcoat.app.html.charts import bars_chart
from flatcoat.app.html.figures import write_figures
from flatcoat.app.html.page import Figure, Report
from flatcoat.app.html.queries import BYTES, Answers, queries_section
from flatcoat.app.html.tables import Table


def test_what_is_shown_is_bounded_in_bytes():
    ids, long = [f"q{i}" for i in range(300)], "文" * 600
    best = lambda name: lambda queries: {q: [f"{name}-{q}-{j}" for j in range(5)] for q in queries}  # noqa: E731
    values = {name: dict.fromkeys(ids, float(name == "a")) for name in "abcd"}
    answers = Answers(
        "m", values, {n: best(n) for n in "abc"} | {"d": None}, {}, lambda q: long, lambda d: (long, long)
    )
    report = Report("t")
    queries_section(report.section("Queries"), answers, "a", "b")
    data = embedded(report.html())
    assert 0 < len(data["queries"]) < 200
    assert len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()) <= BYTES


def test_names_are_used_once():
    report = Report("t")
    report.section("One two")
    with pytest.raises(ValueError, match="two are called 'One two'"):
        report.section("One two")
    figure = Figure("f", lambda n, t, w: bars_chart(n, t, [], w), Table(["a"], []))
    with pytest.raises(ValueError, match="two are called 'f'"):
        report.section("other").figure(figure).figure(figure)


def test_titles_of_one_name_are_numbered(tmp_path):
    report = Report("t")
    for stage in ("训练", "調整", "one"):
        section = report.section(f"Training: {stage}")
        section.figure(Figure(f"{stage}: loss", lambda n, t, w: bars_chart(n, t, [("a", 1)], w), Table(["a"], [])))
    report.section("Training")
    html = report.html()
    assert [section.name for section in report.sections] == ["training", "training-2", "training-one", "training-3"]
    assert [figure.name for figure in report.figures] == ["loss", "loss-2", "one-loss"]
    for name in ("training-section", "training-2-section", "loss", "loss-2"):
        assert html.count(f'id="{name}"') == 1
    assert '<a href="#training-2-section">Training: 調整</a>' in html and 'data-svg="loss-2"' in html


def test_tables_of_one_name_are_all_written(tmp_path):
    pytest.importorskip("cairosvg", exc_type=(ImportError, OSError))  # pyright: ignore[reportArgumentType]
    report = Report("t")
    section = report.section("one")
    for n, title in enumerate(("表", "图", "loss", "loss")):
        section.table(title, Table(["a"], [[str(n)]]))
    written = write_figures(report, tmp_path)
    assert [path.name for path in written[1::2]] == ["part.md", "part-2.md", "loss.md", "loss-2.md"]
    assert [path.read_text().count(str(n)) for n, path in enumerate(written[1::2])] == [1, 1, 1, 1]
