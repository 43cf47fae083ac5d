"""Reports of variants over seeds: an ablation's, from its folder; a study's, from what it found."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flatcoat.app.ablate_report import averaged, notes, sentences, teacher_rows, variant_rows
from flatcoat.app.html.charts import Dot, Mark
from flatcoat.app.html.intervals import mean_intervals
from flatcoat.app.html.page import Report
from flatcoat.app.html.plots import Point
from flatcoat.app.html.queries import Answers, best_of_run, queries_section, store_texts
from flatcoat.app.html.run_report import bars_figure, machine_line
from flatcoat.app.html.svg import number
from flatcoat.app.html.systems import LEVEL, changes_figure, dots_figure, scatter_figure
from flatcoat.app.html.tables import Table
from flatcoat.app.html.training import Log, curves_beside, read_log, training_section
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError
from flatcoat.evaluation.significance import compare, holm
from flatcoat.files import read_json

Records = Mapping[str, Sequence[Mapping[str, Any]]]


def write_ablation_report(folder: Path) -> Path:
    """Write `report.html` into an ablation's folder. Raises FlatcoatError where it is not done, or damaged."""
    return ablation_report(folder).write(folder / "report.html")


def ablation_report(folder: Path) -> Report:
    """The report of an ablation's folder, from what lies in it. Raises FlatcoatError where it is not done, or damaged."""
    results = read_json(folder / "ablation.json")
    rows, measure = results["rows"], results["measures"][0]
    seeds = len(results["seeds"])
    line = f"{results['queries']} test queries, {seeds} seed{'s' if seeds > 1 else ''}, {len(rows)} variants."
    report = Report(f"{results['collection']}: what each part is worth", line, _facts(rows, measure))
    section = report.section("What each part is worth")
    dots = [_difference(row["name"], row["against"]) for row in rows[1:]]
    note = ("Without a part: a triangle down is a loss that shows, so that the part earns its place; one up is a gain. 95 % "
            "bootstrap interval over queries.")  # fmt: skip
    section.figure(dots_figure(f"Δ {measure} to the whole recipe", dots, f"Δ {measure}", reference=0.0, note=note))
    section.items(sentences(results))
    whole = [Dot(row["name"], row["means"][measure], mark="dot", each=tuple(row["by_seed"])) for row in rows]
    section.figure(dots_figure(f"{measure} of each seed", whole, measure, reference=rows[0]["means"][measure],
                               note="Strokes: seeds; the dot: their mean; the broken line: the whole recipe."))  # fmt: skip
    others = [(row["name"], row["means"]) for row in rows[1:]]
    section.figure(changes_figure("Change of every measure", others, rows[0]["means"]), folded=True)
    section.table("Variants", Table(*variant_rows(results)))
    if results["teachers"]:
        section.table("What teaches", Table(*teacher_rows(results)))
    section.items(notes(results), kind="note")
    costs = report.section("Costs")
    shares = [
        (row["name"].removeprefix("without "), 100 * row["gradient_share"])
        for row in rows
        if row["gradient_share"] is not None
    ]
    if shares:
        costs.figure(bars_figure("Share of the gradient", shares, "%"))
    costs.figure(bars_figure("Seconds of training", [(row["name"], row["seconds"]) for row in rows], "s"))
    records = records_of(folder, [row["name"] for row in rows], results["seeds"])
    _queries(report, folder, records, measure, rows[0]["name"], _most_changed(rows), _split(folder))
    if log := _log(folder, rows[0]["name"], results["seeds"][0]):
        heading = f"Training: {rows[0]['name']}, seed {results['seeds'][0]}"
        training_section(report.section(heading), heading, log)
    last = report.section("Recipe and machine").text(machine_line(results["machine"]))
    if (folder / "ablated.toml").is_file():
        last.folded("The whole recipe", (folder / "ablated.toml").read_text(encoding="utf-8"))
    return report


def _facts(rows: Sequence[Mapping[str, Any]], measure: str) -> list[tuple[str, str, str]]:
    spread = rows[0]["deviation"]
    facts = [
        (
            f"{measure}, whole recipe",
            f"{rows[0]['means'][measure]:.4f}",
            "" if spread is None else f"± {spread:.4f} over seeds",
        )
    ]
    for verdict, title in (("earns its place", "Earn their place"), ("makes no difference that shows", "Show no difference"),
                           ("does harm", "Do harm")):  # fmt: skip
        names = [
            row["name"].removeprefix("without ")
            for row in rows[1:]
            if row["verdict"] == verdict and row["kind"] != "alone"
        ]
        facts.append((title, str(len(names)), ", ".join(names)))
    return facts


def _difference(name: str, against: Mapping[str, Any]) -> Dot:
    stand: Mark = "dot" if against["holm_p"] >= LEVEL else "up" if against["difference"] > 0 else "down"
    return Dot(name, against["difference"], against["low"], against["high"], stand)


def _most_changed(rows: Sequence[Mapping[str, Any]]) -> str:
    return max(rows[1:], key=lambda row: abs(row["against"]["difference"]))["name"]


def _place(folder: Path, variant: str, seed: int) -> Path:
    from flatcoat.app.measure import slug

    return folder / "results" / slug(variant) / f"seed-{seed}"


def records_of(folder: Path, variants: Sequence[str], seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """What each variant of each seed showed, where all seeds' files are there."""
    found = {}
    for variant in variants:
        paths = [_place(folder, variant, seed).with_suffix(".json") for seed in seeds]
        if all(path.is_file() for path in paths):
            found[variant] = [read_json(path) for path in paths]
    return found


def _queries(
    report: Report, folder: Path, records: Records, measure: str, minus: str, plus: str, split: str | None
) -> None:  # fmt: skip
    section = report.section("Queries")
    if not {minus, plus} <= set(records):
        section.missing("Left out: results/ does not hold what each variant showed by query.")
        return
    texts = store_texts(folder / "store")
    if texts is None:
        section.missing("The collection's store is not in the folder: queries and documents are named, not shown.")
    seed = min(record["seed"] for record in records[minus])
    section.text(f"Values are means over seeds; answers are of seed {seed}.")
    queries = averaged(records[minus], "served", measure)
    qrels = Collection.open(folder / "store").qrels(split) if texts and split else {}
    query, document = texts or (str, lambda id: ("", ""))
    answers = Answers(
        measure, {name: averaged(found, "served", measure) for name, found in records.items()},
        {name: _best(Path(f"{_place(folder, name, seed)}-served.trec")) for name in records},
        {query: qrels.get(query, {}) for query in queries}, query, document,
    )  # fmt: skip
    queries_section(section, answers, plus, minus)


def _best(path: Path) -> Callable[[Sequence[str]], Mapping[str, Sequence[str]]] | None:
    return partial(best_of_run, path) if path.is_file() else None


def _split(folder: Path) -> str | None:
    """The split that an ablation measured on."""
    path = folder / "ablated.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["collection"]["test"] if path.is_file() else None


def _log(folder: Path, variant: str, seed: int) -> Log:
    """A variant's log; empty where it is not kept."""
    path = Path(f"{_place(folder, variant, seed)}-log.jsonl")
    return read_log(path) if path.is_file() else []


def study_report(
    folder: Path,
    title: str,
    records: Records,
    baseline: str,
    *,
    line: str = "",
    split: str | None = None,
    shares: Mapping[str, float] | None = None,
    machine: Mapping[str, Any] | None = None,
) -> Report:
    """The report of variants that stand beside a baseline: `records` are what `Runner.record` gave, by variant.

    `split` is whose judgements were used, so that they can be shown; `shares` are what each variant holds beside the model, of all
    documents' vectors. `folder` is the study's, with its `results/` and `store/`; what is not there is left out.

    Raises:
        FlatcoatError: no variant of the baseline's name.
    """
    if baseline not in records:
        raise FlatcoatError(f"{baseline!r} is not among the variants: {', '.join(records)}")
    measure = records[baseline][0]["measures"][0]
    means = {name: _means(found) for name, found in records.items()}
    order = sorted(records, key=lambda name: (-means[name][measure], name))
    against = _against(records, baseline, measure)
    report = Report(title, line, [(f"{measure}, best", f"{means[order[0]][measure]:.4f}", order[0]),
                                  (f"{measure}, {baseline}", f"{means[baseline][measure]:.4f}", "the baseline")])  # fmt: skip
    section = report.section("What each teaches")
    spans = mean_intervals({name: averaged(found, "served", measure) for name, found in records.items()})
    dots = [_dot(name, spans[name], records[name], measure, against) for name in order]
    note = "Strokes: seeds. Whiskers: 95 % interval over queries."
    section.figure(dots_figure(f"{measure} by variant", dots, measure, reference=means[baseline][measure], note=note))
    deltas = [_difference(name, against[name]) for name in order if name != baseline]
    if deltas:
        section.figure(dots_figure(f"Δ {measure} to {baseline}", deltas, f"Δ {measure}", reference=0.0))
    others = [(name, means[name]) for name in order if name != baseline]
    section.figure(changes_figure(f"Change of every measure from {baseline}", others, means[baseline]), folded=True)
    section.table("Variants", _table(order, records, means, against, shares or {}))
    costs, seconds = report.section("Costs"), {name: _seconds(found) for name, found in records.items()}
    points = [Point(name, seconds[name], means[name][measure]) for name in order]
    costs.figure(scatter_figure(f"{measure} against seconds of training", points, "seconds of training", measure))
    if shares:
        held = [(name, 100 * shares[name]) for name in order]
        costs.figure(bars_figure("Vectors held beside the model, of all documents'", held, "%"))
    best = next((name for name in order if name != baseline), baseline)
    if best != baseline:
        _queries(report, folder, records, measure, baseline, best, split)
    seed = records[baseline][0]["seed"]
    logs = {name: log for name in order if (log := _log(folder, name, seed))}
    if logs:
        curves_beside(report.section("Training").text(f"Of seed {seed}."), "Training", logs)
    if machine:
        report.section("Machine").text(machine_line(machine))
    return report


def _means(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = found[0]["means"]["served"]
    return {name: sum(record["means"]["served"][name] for record in found) / len(found) for name in names}


def _seconds(found: Sequence[Mapping[str, Any]]) -> float:
    return sum(record["seconds"]["training"] for record in found) / len(found)


def _against(records: Records, baseline: str, measure: str) -> dict[str, dict[str, Any]]:
    """Each variant's paired comparison with the baseline, values averaged over seeds, p values corrected together."""
    base = averaged(records[baseline], "served", measure)
    found = {
        name: compare(measure, averaged(of, "served", measure), base)
        for name, of in records.items()
        if name != baseline
    }
    corrected = holm([comparison.randomisation_p for comparison in found.values()])
    return {name: {**asdict(c), "holm_p": p} for (name, c), p in zip(found.items(), corrected, strict=True)}


def _dot(
    name: str, span: tuple[float, float, float], found: Sequence[Mapping[str, Any]], measure: str, against: Mapping[str, Any]
) -> Dot:  # fmt: skip
    seeds = tuple(record["means"]["served"][measure] for record in found)
    stand: Mark = _difference(name, against[name]).mark if name in against else "ring"
    return Dot(name, *span, stand, seeds if len(seeds) > 1 else ())


def _table(
    order: Sequence[str], records: Records, means: Mapping[str, Mapping[str, float]], against: Mapping[str, Any],
    shares: Mapping[str, float],
) -> Table:  # fmt: skip
    measures = list(means[order[0]])
    rows = []
    for name in order:
        delta = against.get(name)
        said = (
            "baseline" if delta is None else f"{delta['difference']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}]"
        )
        p = "" if delta is None else "< 0.001" if delta["holm_p"] < 0.001 else f"{delta['holm_p']:.3f}"
        held = f"{shares[name]:.2%}" if name in shares else ""
        rows.append(
            [name, *(f"{means[name][m]:.4f}" for m in measures), said, p, held, number(_seconds(records[name]), 3)]
        )
    return Table(["variant", *measures, f"Δ {measures[0]} (95 %)", "p (Holm)", "held", "training s"], rows)


def is_ablation(folder: Path) -> bool:
    """Whether a folder is an ablation's. Raises FlatcoatError where it is one that is not done."""
    if (folder / "ablation.json").is_file():
        return True
    if (folder / "ablated.toml").is_file():
        raise FlatcoatError(
            f"{folder}: this ablation is not done (it has no ablation.json); run flatcoat ablate again to go on"
        )
    return False
