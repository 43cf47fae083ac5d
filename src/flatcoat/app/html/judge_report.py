"""Reports of two verbs that judge: runs against judgements (`evaluate`), an index against exact search (`fidelity`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flatcoat.app.html.charts import Dot
from flatcoat.app.html.intervals import mean_intervals
from flatcoat.app.html.page import Report
from flatcoat.app.html.queries import Answers, queries_section
from flatcoat.app.html.systems import dots_figure, fidelity_dots, fidelity_scatter
from flatcoat.app.html.tables import Table
from flatcoat.evaluation.fidelity import Fidelity
from flatcoat.records import Qrels, Run

Tables = Mapping[str, Mapping[str, Mapping[str, float]]]


def evaluation_report(
    qrels: Qrels, runs: Mapping[str, Run], tables: Tables, comparisons: Sequence[Mapping[str, Any]] = ()
) -> Report:
    """Runs beside one another; the first is the baseline. `tables` are run → measure → query → value."""
    names, measures = list(tables), list(next(iter(tables.values())))
    report = Report(", ".join(Path(name).name for name in names), f"{len(qrels)} judged queries, {len(names)} runs.")
    section = report.section("Quality")
    rows = []
    for measure in measures:
        spans = mean_intervals({name: table[measure] for name, table in tables.items()})
        dots = [
            Dot(name, *span, "ring" if name == names[0] and len(names) > 1 else "dot") for name, span in spans.items()
        ]
        reference = spans[names[0]][0] if len(names) > 1 else None
        note = "Whiskers: 95 % bootstrap interval of the mean over queries."
        section.figure(dots_figure(f"{measure} by run", dots, measure, reference=reference, note=note))
        rows.append([f"{mean:.4f} [{low:.4f}, {high:.4f}]" for mean, low, high in spans.values()])
    cells = [[name, *(row[i] for row in rows)] for i, name in enumerate(names)]
    section.table("Runs", Table(["run", *(f"{m} (95 %)" for m in measures)], cells))
    if comparisons:
        section.table("Comparisons", _compared(comparisons),
                      note=f"Against {names[0]}; p values of all comparisons Holm-corrected together.")  # fmt: skip
    if len(names) > 1:
        values = {name: table[measures[0]] for name, table in tables.items()}
        answers = Answers(measures[0], values, {name: best_of(run) for name, run in runs.items()}, qrels)
        queries_section(report.section("Queries"), answers, names[1], names[0])
    return report


def best_of(run: Run, k: int = 5) -> Callable[[Sequence[str]], dict[str, list[str]]]:
    """The best documents of queries, from a run in memory."""
    return lambda queries: {query: list(run[query].doc_ids[:k]) if query in run else [] for query in queries}


def _compared(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    header = ["run", "measure", "Δ (95 %)", "p, randomisation", "p, t-test", "p (Holm)", "effect d"]
    rows = [
        [c["run"], c["measure"], f"{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]", f"{c['randomisation_p']:.4f}",
         f"{c['t_p']:.4f}", f"{c['holm_p']:.4f}", f"{c['effect']:+.3f}"]
        for c in comparisons
    ]  # fmt: skip
    return Table(header, rows)


def fidelity_report(title: str, tried: Sequence[Fidelity], best: Fidelity | None, size: int) -> Report:
    """An approximate index under the settings that were tried; `best` is the cheapest that met the target, `size` in bytes."""
    rows = [{"setting": f.setting, "recall": f.recall, "change": f.change, "cpu_ms": f.cpu_ms, "exact_cpu_ms": f.exact_cpu_ms}
            for f in tried]  # fmt: skip
    facts = [("Size with the vectors", f"{size / 1e6:.1f} MB", "")]
    facts += (
        [("Cheapest that meets the target", best.setting, f"{best.cost:.2f}× exact's processor time")] if best else []
    )
    report = Report(f"{title}: what the approximation costs", f"{len(tried)} settings against exact search.", facts)
    section = report.section("Fidelity").figure(fidelity_scatter(rows))
    for figure in fidelity_dots(rows):
        section.figure(figure)
    if not tried[0].change:
        section.missing("No judgements were given, so there is no change of measures to show.")
    header = [
        "setting",
        *(f"recall@{k}" for k in tried[0].recall),
        *(f"Δ {m} (95 %)" for m in tried[0].change),
        "cpu ms",
        "exact cpu ms",
    ]
    cells = [
        [f.setting, *(f"{v:.4f}" for v in f.recall.values()),
         *(f"{mean:+.2%} [{low:+.2%}, {high:+.2%}]" for mean, low, high in f.change.values()), f"{f.cpu_ms:.3f}", f"{f.exact_cpu_ms:.3f}"]
        for f in tried
    ]  # fmt: skip
    section.table("Settings", Table(header, cells))
    return report
