"""Reports: nothing from data taken for markup, what is shown of queries and logs, and folders made into pages again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from html_pages import HOSTILE, embedded, whole

from flatcoat.app.html.charts import bars_chart
from flatcoat.app.html.figures import write_figures
from flatcoat.app.html.intervals import mean_intervals, one_by_one
from flatcoat.app.html.judge_report import evaluation_report, fidelity_report
from flatcoat.app.html.page import Figure, Report
from flatcoat.app.html.queries import BYTES, Answers, best_of_read_run, best_of_run, chosen, queries_section
from flatcoat.app.html.run_report import run_report, write_run_report
from flatcoat.app.html.study_report import ablation_report, study_report, write_ablation_report
from flatcoat.app.html.tables import Table
from flatcoat.app.html.training import line_of, read_log, training_section
from flatcoat.app.recipe import parse_recipe
from flatcoat.app.run import run_recipe
from flatcoat.app.verbs_report import report as verb
from flatcoat.data.trec import write_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.evaluation.fidelity import Fidelity
from flatcoat.evaluation.measures import evaluate
from flatcoat.files import read_json, write_json
from flatcoat.records import Ranking, silent


def test_intervals_of_all_means_at_once_are_those_one_by_one():
    rng = np.random.default_rng(3)
    columns = {name: {f"q{i}": float(v) for i, v in enumerate(rng.random(40))} for name in "abc"}
    columns["d"] = dict.fromkeys(reversed(columns["a"]), 0.5)
    fast, slow = mean_intervals(columns), one_by_one(columns)
    assert list(fast) == list(slow)
    for name in columns:
        assert fast[name] == pytest.approx(slow[name], abs=1e-12)
    assert mean_intervals({}) == {}


def test_the_best_of_a_run_by_place_are_those_of_reading_it(tmp_path):
    rng = np.random.default_rng(0)
    run = {f"q{i}": Ranking.of([(f"d{j}", float(s)) for j, s in enumerate(rng.random(i % 9))]) for i in range(1, 120)}
    write_run(tmp_path / "a.trec", run)
    asked = [*list(run)[::7], "q1", "q11", "absent", "Q0"]
    assert best_of_run(tmp_path / "a.trec", asked) == best_of_read_run(tmp_path / "a.trec", asked)
    (tmp_path / "empty.trec").write_text("")
    assert best_of_run(tmp_path / "empty.trec", ["q1"]) == {"q1": []}


def test_queries_chosen_are_the_ends_and_a_spread():
    differences = {f"q{i:04}": (i - 500) / 500 for i in range(1000)}
    found = chosen(differences, 200)
    assert len(found) == len(set(found)) == 200
    assert found[:66] == [f"q{i:04}" for i in range(999, 933, -1)] and found[-66:] == [
        f"q{i:04}" for i in range(65, -1, -1)
    ]
    inner = [differences[q] for q in found[66:-66]]
    assert inner == sorted(inner, reverse=True) and max(np.abs(np.diff(inner))) < 0.03
    assert chosen({"b": 0.0, "a": 0.0}) == ["a", "b"]


def test_what_is_shown_of_queries_is_bounded():
    ids = [f"q{i}" for i in range(600)]
    values = {
        name: {q: float(v) for q, v in zip(ids, np.random.default_rng(n).random(600), strict=True)}
        for n, name in enumerate("ab")
    }
    best = lambda queries: {q: [f"{q}-{j}" for j in range(5)] for q in queries}  # noqa: E731
    long = "naïve <text> " * 60
    answers = Answers(
        "m", values, {"a": best, "b": None}, {q: {q: 1} for q in ids}, lambda q: long, lambda d: (long, long)
    )
    report = Report("t")
    queries_section(report.section("Queries"), answers, "b", "a")
    html = report.html()
    data = embedded(html)
    assert len(data["queries"]) == 200 and len(html) < 3_000_000
    assert data["queries"][0]["top"][1] is None and len(data["queries"][0]["top"][0]) == 5
    assert "200 of 600 queries" in html

    def of(i: int):
        return lambda queries: {query: [f"{query}-{i}-{j}" for j in range(5)] for query in queries}

    systems = {f"{name}{i}": table for i in range(12) for name, table in values.items()}
    wide = Answers(
        "m", systems, {name: of(i) for i, name in enumerate(systems)}, {}, lambda q: long, lambda d: (long, long)
    )
    many = Report("t")
    queries_section(many.section("Queries"), wide, "b0", "a0")
    assert len(many.html().encode()) < 3_000_000 and len(embedded(many.html())["queries"]) < 200
    assert len(json.dumps(embedded(many.html()), ensure_ascii=False, separators=(",", ":"))) <= BYTES


def test_what_comes_from_data_is_text():
    report = Report(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE, HOSTILE)])
    section = (
        report.section(HOSTILE).text(HOSTILE).items([HOSTILE], kind="warning").missing(HOSTILE).folded(HOSTILE, HOSTILE)
    )
    section.table(HOSTILE, Table([HOSTILE], [[HOSTILE]]))
    section.figure(
        Figure("f", lambda n, t, w: bars_chart(n, t, [(HOSTILE, 1)], w), Table([HOSTILE], [[HOSTILE]]), HOSTILE)
    )
    answers = Answers(HOSTILE, {HOSTILE: {HOSTILE: 1.0}, "b": {HOSTILE: 0.0}}, {HOSTILE: lambda q: {x: [HOSTILE] for x in q}, "b": None},
                      {HOSTILE: {HOSTILE: 1}}, lambda q: HOSTILE, lambda d: (HOSTILE, HOSTILE))  # fmt: skip
    queries_section(report.section("Queries"), answers, HOSTILE, "b")
    html = report.html()
    tags = whole(html)
    assert len(tags.scripts) == 2 and html.count("<script") == 2  # the page's own, and the queries' JSON
    data = embedded(html)
    assert data["queries"][0]["id"] == HOSTILE and data["documents"][0][1] == " ".join(HOSTILE.split())


def test_curves_are_means_of_windows_and_logs_are_read_to_their_last_whole_line(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [
        json.dumps({"step": i + 1, "loss": float(i), "loss/a": 1.0, "odd": None, "seconds": 0.1}) for i in range(1000)
    ]
    path.write_text("\n".join(lines) + '\n{"step": 10')
    log = read_log(path)
    line = line_of(log, "loss")
    assert (
        len(log) == 1000 and len(line.x) == 200 and line.y[0] == pytest.approx(2.0) and line.x[-1] == pytest.approx(998)
    )
    assert not line_of(log, "odd").x
    report = Report("t")
    training_section(report.section("Training"), "Training", log)
    assert [f.title for f in report.figures] == ["Training: loss"]
    assert "means of 5 steps" in report.html()
    path.write_text('{"step": 1}\nnot JSON\n')
    with pytest.raises(FlatcoatError, match=r"log\.jsonl:2"):
        read_log(path)


def test_alarms_of_sparse_training_are_said_with_their_first_step():
    log = [
        {"step": i, "active/query": 10.0, "saturation/query": 0.9 if i > 5 else 0.1, "noise/query": 0.1}
        for i in range(1, 11)
    ]
    report = Report("t")
    training_section(report.section("Training"), "Training", log, vocabulary=100)
    html = report.html()
    assert "saturation, query: above 0.8 at 5 of the steps that were looked at, first at step 6" in html
    assert "noise, query: above" not in html and "10 terms, 10.00%" in html


RECIPE = {
    "collection": {"source": ""}, "model": {"start": "", "pooling": "mean", "normalise": True, "query_length": 16, "document_length": 16},
    "training": {"steps": 3, "batch": 8, "rate": 1e-3, "warmup": 1, "norms_every": 1}, "negatives": {"kind": "uniform"},
    "indexes": [{"kind": "hnsw"}], "evaluation": {"k": 30, "measures": ["nDCG@10", "RR@10"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny, toy, tmp_path_factory) -> Path:
    """A finished run of the toy collection, of which every document is markup."""
    source, out = tmp_path_factory.mktemp("source") / "toy", tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(toy, source)
    corpus = source / "corpus.jsonl"
    documents = [json.loads(line) for line in corpus.read_text().splitlines()]
    marked = ({**document, "text": "<script>alert(1)</script> " + document["text"]} for document in documents)
    corpus.write_text("".join(json.dumps(document) + "\n" for document in marked))
    recipe = json.loads(json.dumps(RECIPE))
    recipe["collection"]["source"], recipe["model"]["start"] = str(source), str(tiny)
    run_recipe(
        parse_recipe(recipe, "recipe"),
        out,
        track=silent,
        note=lambda text: None,
        allow=("leakage", "only-judged", "truncation", "length"),
    )
    return out


def test_a_runs_report_has_every_part_and_the_same_bytes_again(run):
    path = write_run_report(run)
    html = path.read_text()
    whole(html)
    assert path.read_bytes() == write_run_report(run).read_bytes()
    report = run_report(run)
    titles = [section.title for section in report.sections]
    assert titles == [
        "Quality",
        "Queries",
        "Quality, time and size",
        "Training",
        "Costs",
        "Checks",
        "Recipe and machine",
    ]
    names = {figure.title for figure in report.figures}
    assert {"nDCG@10 by system", "RR@10 by system", "Δ nDCG@10 to before, exact", "Query by query", "nDCG@10 against time",
            "nDCG@10 against size", "Training: loss", "Training: learning rate", "Training: gradient norm",
            "Seconds of each stage", "Bytes on disk"} <= names  # fmt: skip
    assert "steps = 3" in html and "dense from" in html
    data, results = embedded(html), read_json(run / "results.json")
    assert data["systems"] == [s["name"] for s in results["systems"]]
    by_query = read_json(run / "runs" / "by-query.json")
    shown = {q["id"]: q for q in data["queries"]}
    assert set(shown) == set(by_query["BM25"]["nDCG@10"])
    for place, name in enumerate(data["systems"]):
        assert {q: v["values"][place] for q, v in shown.items()} == pytest.approx(by_query[name]["nDCG@10"], abs=1e-4)
    assert any("<script>" in document[2] for document in data["documents"])
    deltas = [q["values"][2] - q["values"][1] for q in data["queries"]]
    assert deltas == sorted(deltas, reverse=True)


def test_what_is_not_in_the_folder_is_left_out_with_a_line(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("results.json", "recipe.toml"):
        shutil.copy(run / name, folder / name)
    results = json.loads((folder / "results.json").read_text())
    assert results.pop("peak_memory_mb") > 0  # as of a run that was made before it was noted
    (folder / "results.json").write_text(json.dumps(results))
    html = run_report(folder).html()
    whole(html)
    for line in (
        "by-query.json is not in the folder",
        "Left out: the folder does not hold",
        "No training&#x27;s log",
        "did not note its peak memory",
    ):
        assert line in html
    (folder / "runs").mkdir()
    for name in ("by-query.json", "test.qrels"):
        shutil.copy(run / "runs" / name, folder / "runs" / name)
    html = run_report(folder).html()
    assert "queries and documents are named, not shown" in html and embedded(html)["queries"][0]["top"] == [None] * len(
        embedded(html)["systems"]
    )
    (folder / "recipe.toml").unlink()
    results = read_json(folder / "results.json") | {"peak_memory_mb": 123.0, "fidelity": [], "fixes": []}
    write_json(folder / "results.json", results)
    html = run_report(folder).html()
    assert "Peak memory of the process: 123 MB" in html and "No recipe lies" in html and "no approximate index" in html


def test_the_verb_makes_a_report_again_and_figures(run, tmp_path, capsys):
    pytest.importorskip("cairosvg", exc_type=(ImportError, OSError))  # pyright: ignore[reportArgumentType]
    from PIL import Image

    verb(run, tmp_path / "again.html", tmp_path / "figures")
    assert (tmp_path / "again.html").read_bytes() == write_run_report(run).read_bytes()
    report = run_report(run)
    files = {path.name for path in (tmp_path / "figures").iterdir()}
    for figure in report.figures:
        assert {f"{figure.name}.{ending}" for ending in ("svg", "png", "tex", "md")} <= files
    assert {"systems.tex", "systems.md"} <= files
    with Image.open(tmp_path / "figures" / "ndcg-10-by-system.png") as image:
        assert image.width == 2 * 940 and len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert "again.html" in capsys.readouterr().out


def test_without_what_draws_png_the_extra_is_named(monkeypatch, tmp_path):
    import flatcoat.app.html.figures as figures

    def absent(module: str, extra: str):
        raise Misuse(f"{module} is not installed; run: pip install 'flatcoat[{extra}]'")

    monkeypatch.setattr(figures, "need", absent)
    with pytest.raises(Misuse, match=r"flatcoat\[figures\]"):
        write_figures(Report("t"), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_folders_of_something_else_are_refused(tmp_path):
    with pytest.raises(Misuse, match="no such folder"):
        verb(tmp_path / "absent", None, None)
    with pytest.raises(Misuse, match="neither a run's folder"):
        verb(tmp_path, None, None)
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(FlatcoatError, match="this run is not done"):
        verb(tmp_path, None, None)
    (tmp_path / "ablated.toml").write_text("")
    with pytest.raises(FlatcoatError, match="this ablation is not done"):
        verb(tmp_path, None, None)


def records(seeds: int = 2) -> dict[str, list[dict]]:
    """Three variants by seed, as a study's runner gives them: `good` is better than `base` on every query, `same` nowhere."""
    rng, found = np.random.default_rng(0), {}
    values = rng.random(30) * 0.5
    for name, more in (("base", 0.0), ("good", 0.2), ("same", 0.0)):
        found[name] = []
        for seed in range(seeds):
            table = {f"q{i}": float(v + more + 0.001 * seed) for i, v in enumerate(values)}
            found[name].append({
                "variant": name, "seed": seed, "systems": ["served"], "depths": {}, "gradient": {},
                "seconds": {"training": 2.0, "before": 0.0},
                "measures": ["nDCG@10"], "means": {"served": {"nDCG@10": float(np.mean(list(table.values())))}},
                "by_query": {"served": {"nDCG@10": table}},
            })  # fmt: skip
    return found


def write_variants(folder: Path, found: dict[str, list[dict]]) -> None:
    for name, of in found.items():
        for record in of:
            place = folder / "results" / name / f"seed-{record['seed']}"
            write_json(place.with_suffix(".json"), record)
            Path(f"{place}-log.jsonl").write_text(
                json.dumps({"step": 1, "loss": 1.0, "negatives/of_best": 0.5, "seconds": 1.0}) + "\n"
            )
            write_run(Path(f"{place}-served.trec"), {"q0": Ranking.of([("d0", 1.0)])})


def test_a_studys_report(tmp_path):
    found = records()
    write_variants(tmp_path, found)
    report = study_report(tmp_path, "Negatives", found, "base", shares={"base": 1.0, "good": 0.1, "same": 0.0})
    html = report.html()
    whole(html)
    table = dict(report.tables)["Variants"]
    assert [row[0] for row in table.rows] == ["good", "base", "same"] and table.rows[0][2].startswith("+0.2000")
    assert table.rows[0][3] == "< 0.001" and table.rows[2][3] == "1.000" and table.rows[1][2] == "baseline"
    assert {"Training: loss", "Training: of the best", "nDCG@10 against seconds of training"} <= {
        f.title for f in report.figures
    }
    assert (
        html
        == study_report(tmp_path, "Negatives", found, "base", shares={"base": 1.0, "good": 0.1, "same": 0.0}).html()
    )
    with pytest.raises(FlatcoatError, match="not among the variants"):
        study_report(tmp_path, "Negatives", found, "other")


def test_an_ablations_report(tmp_path):
    from flatcoat.app.ablate_report import summarise

    found = records()
    whole_first = {"full": found["base"], "without a": found["good"], "without b": found["same"]}
    table = summarise([("full", "full", (), whole_first["full"]), ("without a", "term", ("a",), whole_first["without a"]),
                       ("without b", "term", ("b",), whole_first["without b"])], ["nDCG@10"])  # fmt: skip
    machine = {"processor": "p", "cores": 2, "python": "3", "versions": {"numpy": "2"}, "date": "2000-01-01"}
    write_json(tmp_path / "ablation.json", {"collection": "toy", **table, "machine": machine})
    html = write_ablation_report(tmp_path).read_text()
    whole(html)
    assert (
        "a does harm: without it" in html
        and "b makes no difference" in html
        and "Left out: results/ does not hold" in html
    )
    write_variants(tmp_path, {name.replace(" ", "-"): of for name, of in whole_first.items()})
    report = ablation_report(tmp_path)
    whole(report.html())
    assert "Query by query" in {f.title for f in report.figures} and embedded(report.html())["systems"] == list(
        whole_first
    )
    verb(tmp_path, None, None)
    assert (tmp_path / "report.html").read_text() == report.html()


def test_reports_of_the_verbs_that_judge():
    qrels = {"q1": {"d1": 1}, "q2": {"d2": 1}, "q3": {"d1": 1}}
    ranked = lambda *ids: Ranking.of([(d, -float(i)) for i, d in enumerate(ids)])  # noqa: E731
    runs = {"a.trec": {"q1": ranked("d2", "d1"), "q2": ranked("d1")}, "b.trec": {q: ranked("d1", "d2") for q in qrels}}
    tables = {name: evaluate(qrels, run, ["RR@10", "R@100"]) for name, run in runs.items()}
    report = evaluation_report(qrels, runs, tables)
    html = report.html()
    whole(html)
    assert embedded(html)["queries"][0]["top"][1] and dict(report.tables)["Runs"].rows[1][0] == "b.trec"
    assert dict(report.tables)["Runs"].rows[1][1].startswith("0.8333")
    whole(evaluation_report(qrels, {"a": runs["a.trec"]}, {"a": tables["a.trec"]}).html())
    tried = [
        Fidelity(
            f"nprobe={n}", {10: 1 - 0.2 / n}, {"RR@10": (-0.1 / n, -0.2 / n, -0.01 / n)}, {"RR@10": 0.5}, 0.1 * n, 1.0
        )
        for n in (1, 2)
    ]
    html = fidelity_report("ivf", tried, tried[1], 5_000_000).html()
    whole(html)
    assert "5.0 MB" in html and "nprobe=2" in html and "−10" in html
    assert "no change of measures" in fidelity_report("ivf", [Fidelity("x", {10: 0.9})], None, 1).html()
