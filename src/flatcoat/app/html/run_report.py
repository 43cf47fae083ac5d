"""A run's report: what was measured, query by query, what it costs, how training went, and what checks said."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flatcoat.app.html.charts import bars_chart
from flatcoat.app.html.page import Figure, Report, Section
from flatcoat.app.html.queries import Answers, best_of_run, queries_section, store_texts
from flatcoat.app.html.svg import number
from flatcoat.app.html.systems import changes_figure, difference_figure, measure_figures, trade_section
from flatcoat.app.html.tables import Table
from flatcoat.app.html.training import logs_of, read_log, training_section
from flatcoat.app.report import cost_lines, fidelity_rows, fix_lines, system_rows
from flatcoat.data.trec import read_qrels
from flatcoat.errors import FlatcoatError
from flatcoat.files import read_json

MADE = ("store", "before", "vectors", "model", "start")  # what a run's bytes are, beside each index


def write_run_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder.

    Raises:
        FlatcoatError: the folder has no results yet, or a file of it is damaged.
    """
    return run_report(folder).write(folder / "report.html")


def run_report(folder: Path) -> Report:
    """The report of a run's folder, from what lies in it; nothing is searched or measured again.

    Raises:
        FlatcoatError: the folder has no results yet, or a file of it is damaged.
    """
    results = read_json(folder / "results.json")
    recipe = (folder / "recipe.toml").read_text(encoding="utf-8") if (folder / "recipe.toml").is_file() else ""
    said = tomllib.loads(recipe)
    collection = results["collection"]
    counts = f"{collection['documents']:,} documents, {collection['test_queries']:,} test queries"
    line = f"Collection {collection['source']} ({counts}). {recipe_line(said)}"
    report = Report(f"Run {folder.resolve().name}", line, _facts(results))
    _quality(report, folder, results)
    _queries(report, folder, results)
    _trade(report, results)
    _training(report, folder)
    _costs(report, folder, results)
    checks_section(report.section("Checks"), results["checks"])
    _what(report, folder, results, recipe, said)
    return report


def recipe_line(said: Mapping[str, Any]) -> str:
    """A recipe in one line: the model, its training, its negatives, its indexes."""
    if not said:
        return "No recipe lies in the folder."
    model, training = said.get("model", {}), said.get("training", {})
    parts = [f"{model.get('kind', 'dense')} from {model.get('start', '?')}"]
    if training.get("steps"):
        parts.append(f"{training['steps']} steps of {training.get('batch')} at {training.get('rate'):g}")
        parts.append(f"negatives: {said.get('negatives', {}).get('kind', 'none')}")
    else:
        parts.append("not trained")
    stages = [stage["name"] for stage in said.get("before", ())]
    parts += [f"after {', '.join(stages)}"] if stages else []
    indexes = [table.get("name") or table["kind"] for table in said.get("indexes", ())]
    parts += [f"indexes: {', '.join(indexes)}"] if indexes else []
    parts += [f"beside it: {', '.join(other['name'] for other in said['also'])}"] if said.get("also") else []
    return "; ".join(parts) + "."


def baseline_of(systems: Sequence[Mapping[str, Any]]) -> str:
    """The system that the others are compared with."""
    return next((s["against"]["baseline"] for s in systems if s.get("against")), systems[0]["name"])


def main_of(systems: Sequence[Mapping[str, Any]], baseline: str) -> str:
    """The system that a run is about: the trained model by exact search, the model, or the last that is not the baseline."""
    names = [s["name"] for s in systems if s["name"] != baseline]
    return next((name for name in ("after, exact", "exact") if name in names), names[-1] if names else baseline)


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    systems = {s["name"]: s for s in results["systems"]}
    measure, baseline = next(iter(results["systems"][0]["means"])), baseline_of(results["systems"])
    main = systems[main_of(results["systems"], baseline)]
    facts = [
        (
            f"{measure}, {main['name']}",
            f"{main['means'][measure]:.4f}",
            f"{baseline}: {systems[baseline]['means'][measure]:.4f}",
        )
    ]
    if against := main.get("against"):
        p = "p < 0.001" if against["holm_p"] < 0.001 else f"p {against['holm_p']:.3f}"
        span = f"[{against['low']:+.4f}, {against['high']:+.4f}], {p}"
        facts.append(("Difference", f"{against['difference']:+.4f}".replace("-", "−"), span.replace("-", "−")))
    best = max(results["systems"], key=lambda s: s["means"][measure])
    facts.append(("Best of all", f"{best['means'][measure]:.4f}", best["name"]))
    if results["query_ms"]:
        facts.append(("A query", f"{results['query_ms']:.1f} ms", "to encode"))
    facts.append(("All stages", _duration(sum(results["seconds"].values())), f"{results['machine']['cores']} cores"))
    return facts


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def by_query_of(folder: Path) -> dict[str, dict[str, dict[str, float]]] | None:
    """Each system's measures by query; None where the folder does not hold them."""
    path = folder / "runs" / "by-query.json"
    return read_json(path) if path.is_file() else None


def _quality(report: Report, folder: Path, results: Mapping[str, Any]) -> None:
    section, systems = report.section("Quality"), results["systems"]
    measure, baseline, by_query = next(iter(systems[0]["means"])), baseline_of(systems), by_query_of(folder)
    if results.get("made"):  # questions that nobody asked
        section.text(results["made"]["statement"])
    if by_query is None:
        section.missing("runs/by-query.json is not in the folder: means are shown without intervals.")
    first, *others = measure_figures(systems, by_query or {}, baseline)
    section.figure(first)
    if len(systems) > 1:
        section.figure(difference_figure(systems, measure, baseline))
    for figure in others:
        section.figure(figure, folded=True)
    base = next(s["means"] for s in systems if s["name"] == baseline)
    rows = [(s["name"], s["means"]) for s in systems if s["name"] != baseline]
    section.figure(changes_figure(f"Change of every measure from {baseline}", rows, base), folded=True)
    note = (
        "p: paired randomisation test, Holm-corrected over the table. ms/query: median wall time of the search alone."
    )
    section.table("Systems", Table(*system_rows(dict(results))), note=note)


def _queries(report: Report, folder: Path, results: Mapping[str, Any]) -> None:
    section, by_query = report.section("Queries"), by_query_of(folder)
    qrels = folder / "runs" / "test.qrels"
    baseline = baseline_of(results["systems"])
    main = main_of(results["systems"], baseline)
    if by_query is None or not qrels.is_file() or main == baseline:
        section.missing("Left out: the folder does not hold two systems' measures by query, and judgements.")
        return
    measure, texts = next(iter(results["systems"][0]["means"])), store_texts(folder / "store")
    if texts is None:
        section.missing("The collection's store is not in the folder: queries and documents are named, not shown.")
    query, document = texts or (str, lambda id: ("", ""))
    answers = Answers(
        measure, {name: table[measure] for name, table in by_query.items()},
        {name: _best(folder, name) for name in by_query}, read_qrels(qrels),
        query, document,
    )  # fmt: skip
    queries_section(section, answers, main, baseline)


def _best(folder: Path, system: str) -> Callable[[Sequence[str]], Mapping[str, Sequence[str]]] | None:
    from flatcoat.app.measure import slug

    path = folder / "runs" / f"{slug(system)}.trec"
    return partial(best_of_run, path) if path.is_file() else None


def _trade(report: Report, results: Mapping[str, Any]) -> None:
    section = report.section("Quality, time and size")
    trade_section(section, results["systems"], results["fidelity"])
    header, rows = fidelity_rows(dict(results))
    if rows:
        section.table("What each approximation costs", Table(header, rows))
        section.items(fix_lines(dict(results)))
    else:
        section.missing("This run has no approximate index, so there is no fidelity to show.")


def _training(report: Report, folder: Path) -> None:
    logs = logs_of(folder)
    if not logs:
        report.section("Training").missing(
            "No training's log lies in the folder (training/log.jsonl): there are no curves."
        )
    names = folder / "vectors" / "vocabulary.json"
    vocabulary = len(read_json(names)) if names.is_file() else None
    for heading, path in logs:
        training_section(report.section(heading), heading, read_log(path), vocabulary=vocabulary)


def bars_figure(title: str, bars: Sequence[tuple[str, float]], unit: str, note: str = "") -> Figure:
    """Bars from 0, and their table."""
    table = Table(["what", unit], [[label, number(value)] for label, value in bars])
    return Figure(title, lambda n, t, w: bars_chart(n, t, bars, w, unit=unit), table, note)


def _costs(report: Report, folder: Path, results: Mapping[str, Any]) -> None:
    section = report.section("Costs")
    section.items(cost_lines(dict(results))[:-1])
    section.figure(bars_figure("Seconds of each stage", list(results["seconds"].items()), "s"))
    if results.get("peak_memory_mb"):
        section.text(f"Peak memory of the process: {number(results['peak_memory_mb'])} MB.")
    else:
        section.missing("The run did not note its peak memory.")
    sizes = [(name, _bytes(folder / name)) for name in MADE]
    below = sorted(path for path in (folder / "index").iterdir()) if (folder / "index").is_dir() else []
    sizes += [(f"index {path.name}", _bytes(path)) for path in below]
    bars = [(name, size / 1e6) for name, size in sizes if size]
    if bars:
        section.figure(
            bars_figure(
                "Bytes on disk",
                bars,
                "MB",
                "Indexes that read full vectors where they were encoded do not count them here.",
            )
        )


def _bytes(folder: Path) -> int:
    """Of the files that a folder of ours holds."""
    if not folder.is_dir() or folder.is_symlink():
        return 0
    return sum(p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))


def checks_section(section: Section, lines: Sequence[str]) -> Section:
    """What checks found, the worst first; what is well is folded away."""
    for level in ("error", "warning"):
        section.items([line.partition(": ")[2] for line in lines if line.startswith(f"{level}:")], kind=level)
    well = [line for line in lines if not line.startswith(("error:", "warning:"))]
    if len(well) == len(lines):
        section.text("No check found anything wrong." if lines else "No checks are noted in the folder.")
    return section.folded(f"What is well ({len(well)})", "\n".join(well)) if well else section


def _what(report: Report, folder: Path, results: Mapping[str, Any], recipe: str, said: Mapping[str, Any]) -> None:
    section = report.section("Recipe and machine")
    section.text(recipe_line(said), machine_line(results["machine"]))
    if recipe:
        section.folded("The recipe in full", recipe)
    for other in said.get("also", ()):
        if (folder / "also" / other["name"] / "recipe.toml").is_file():
            text = (folder / "also" / other["name"] / "recipe.toml").read_text(encoding="utf-8")
            section.folded(f"The recipe of {other['name']}, whose own report is also/{other['name']}/report.html", text)


def machine_line(machine: Mapping[str, Any]) -> str:
    """The machine, versions and date of the measurements."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}, {machine['date']}."
    )


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's. Raises FlatcoatError where it is one that is not done."""
    if (folder / "results.json").is_file():
        return True
    if (folder / "recipe.toml").is_file():
        raise FlatcoatError(
            f"{folder}: this run is not done (it has no results.json); finish it with flatcoat run --resume"
        )
    return False
