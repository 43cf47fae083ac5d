"""Systems beside one another: each measure with its interval, differences to a baseline, quality against time and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flatcoat.app.html.charts import Dot, Mark, dots_chart, heat_map
from flatcoat.app.html.intervals import mean_intervals
from flatcoat.app.html.page import Figure, Section
from flatcoat.app.html.plots import Point, scatter_chart
from flatcoat.app.html.svg import number
from flatcoat.app.html.tables import Table

LEVEL = 0.05
READ = "Triangles: better (up) or worse (down) than the baseline by the corrected p; a dot: no difference shows; a ring: the baseline."


def marks(systems: Sequence[Mapping[str, Any]]) -> dict[str, Mark]:
    """How each system stands to the baseline, by its corrected p."""
    found: dict[str, Mark] = {}
    for system in systems:
        against = system.get("against")
        if not against:
            found[system["name"]] = "ring"
        elif against["holm_p"] >= LEVEL:
            found[system["name"]] = "dot"
        else:
            found[system["name"]] = "up" if against["difference"] > 0 else "down"
    return found


def dots_figure(
    title: str, dots: Sequence[Dot], axis: str, *, reference: float | None = None, note: str = ""
) -> Figure:
    """Dots with whiskers, and their table."""
    rows = [[d.label, number(d.value), *("" if v is None else number(v) for v in (d.low, d.high))] for d in dots]
    table = Table(["row", axis, "low", "high"], rows)
    return Figure(title, lambda n, t, w: dots_chart(n, t, dots, w, axis=axis, reference=reference), table, note)


def measure_figures(
    systems: Sequence[Mapping[str, Any]],
    by_query: Mapping[str, Mapping[str, Mapping[str, float]]],
    baseline: str | None,
) -> list[Figure]:
    """For each measure: every system's mean with its interval; the first measure carries the marks of the test."""
    found, stand = [], marks(systems)
    for place, measure in enumerate(systems[0]["means"]):
        columns = {name: table[measure] for name, table in by_query.items() if measure in table}
        spans = mean_intervals(columns)
        dots = []
        for system in systems:
            name = system["name"]
            _, low, high = spans.get(name, (None, None, None))
            other: Mark = "ring" if name == baseline else "dot"
            dots.append(Dot(name, system["means"][measure], low, high, stand[name] if not place else other))
        reference = next((s["means"][measure] for s in systems if s["name"] == baseline), None)
        note = "Whiskers: 95 % bootstrap interval of the mean over queries. "
        found.append(
            dots_figure(f"{measure} by system", dots, measure, reference=reference, note=note + ("" if place else READ))
        )
    return found


def difference_figure(systems: Sequence[Mapping[str, Any]], measure: str, baseline: str) -> Figure:
    """Each system's paired difference to the baseline."""
    stand = marks(systems)
    dots = [
        Dot(s["name"], s["against"]["difference"], s["against"]["low"], s["against"]["high"], stand[s["name"]])
        for s in systems if s.get("against")
    ]  # fmt: skip
    note = "Paired over queries: an interval that does not hold 0 can stand where the means' own intervals overlap."
    return dots_figure(f"Δ {measure} to {baseline}", dots, f"Δ {measure}", reference=0.0, note=note)


def changes_figure(title: str, rows: Sequence[tuple[str, Mapping[str, float]]], base: Mapping[str, float]) -> Figure:
    """Each measure's change as a share of the baseline's, by row."""
    measures = list(base)
    cells = [[(means[m] - base[m]) / base[m] if base[m] else None for m in measures] for _, means in rows]
    labels = [label for label, _ in rows]
    said = [
        [label, *("" if v is None else f"{v:+.2%}" for v in line)] for label, line in zip(labels, cells, strict=True)
    ]
    draw = lambda n, t, w: heat_map(n, t, labels, measures, cells, w, percent=True)  # noqa: E731
    return Figure(title, draw, Table(["row", *measures], said))


def trade_section(
    section: Section, systems: Sequence[Mapping[str, Any]], fidelity: Sequence[Mapping[str, Any]]
) -> Section:
    """Quality against a query's time and the index's size, and what approximate indexes lose for what they save."""
    measure = next(iter(systems[0]["means"]))
    for key, title, label, left_out in (
        ("ms", "time", "ms a query, search alone", "Left out, as they were not timed: "),
        ("megabytes", "size", "MB", "Left out, as they have no index of their own: "),
    ):
        known = [s for s in systems if s.get(key)]
        points = [Point(s["name"], s[key], s["means"][measure]) for s in known]
        rest = [s["name"] for s in systems if not s.get(key)]
        note = left_out + ", ".join(rest) + "." if rest else ""
        if points:
            section.figure(scatter_figure(f"{measure} against {title}", points, label, measure, note))
    if fidelity:
        section.figure(fidelity_scatter(fidelity))
        for place, figure in enumerate(fidelity_dots(fidelity)):
            section.figure(figure, folded=place > 0)
    return section


def scatter_figure(title: str, points: Sequence[Point], x_label: str, y_label: str, note: str = "") -> Figure:
    """Named points, x logarithmic, and their table."""
    rows = [[str(i), p.label, number(p.x), number(p.y)] for i, p in enumerate(points, start=1)]
    draw = lambda n, t, w: scatter_chart(n, t, points, w, x_label=x_label, y_label=y_label, log=True)  # noqa: E731
    return Figure(title, draw, Table(["point", "name", x_label, y_label], rows), note)


def fidelity_scatter(fidelity: Sequence[Mapping[str, Any]]) -> Figure:
    """Recall against exact search by processor time."""
    k = next(iter(fidelity[0]["recall"]))
    points = [Point(row["setting"], row["cpu_ms"], row["recall"][k]) for row in fidelity]
    exact = fidelity[0]["exact_cpu_ms"]
    points.append(Point("exact search", exact, 1.0, "c0"))
    label = "processor ms a query, one thread"
    return scatter_figure(f"Recall@{k} of exact search's answers against time", points, label, f"recall@{k}")


def fidelity_dots(fidelity: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Each measure's relative change through approximation, with its interval."""
    found = []
    for measure in fidelity[0]["change"]:
        dots = []
        for row in fidelity:
            mean, low, high = row["change"][measure]
            lost: Mark = "down" if high < 0 else "up" if low > 0 else "dot"
            dots.append(Dot(row["setting"], 100 * mean, 100 * low, 100 * high, lost))
        found.append(
            dots_figure(f"Change of {measure} by approximation", dots, f"% of exact's {measure}", reference=0.0)
        )
    return found
