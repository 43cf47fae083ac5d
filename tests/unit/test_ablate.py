"""Taking a recipe apart: which variants there are, what is trained once, what is not done twice, and the table by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
from commands import call

from flatcoat.app.ablate import gradient_norms, nll_alone, run_ablation, seeded, stage_keys, variants, weighing
from flatcoat.app.ablate_report import markdown, sentences, summarise, verdict
from flatcoat.app.recipe import load_recipe, parse_recipe
from flatcoat.data.collection import open_collection
from flatcoat.data.trec import read_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.evaluation.measures import evaluate
from flatcoat.evaluation.significance import compare, holm
from flatcoat.records import silent
from stages import BEFORE

RECIPE = (
    """
[collection]
source = "{toy}"
[model]
start = "{tiny}"
pooling = "mean"
normalise = true
query_length = 16
document_length = 16
[training]
steps = 3
batch = 8
rate = 3e-3
warmup = 1
save_every = 1
norms_every = 1
seed = 5
[negatives]
kind = "uniform"
[cascade]
late = true
late_dim = 8
cross = "{tiny}"
cross_length = 32
[terms]
nll.late = 1.0
nll.dual = 1.0
kl.cross.dual = 0.5
nll.cross = 0.0
[evaluation]
k = 30
rerank = 5
measures = ["nDCG@10", "RR@10"]
"""
    + BEFORE.replace("{steps}", "2")
    + """[[indexes]]
kind = "scan"
"""
)
LEAST = {"collection": {"source": "x"}, "model": {"start": "y"}}
NAMES = [
    "full",
    "without nll.late",
    "without nll.dual",
    "without kl.cross.dual",
    "without post",
    "without interaction",
    "nll alone",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ablate")


@pytest.fixture(scope="module")
def recipe(tiny, toy, home):
    (home / "r.toml").write_text(RECIPE.format(tiny=tiny, toy=toy))
    return home / "r.toml"


@pytest.fixture(scope="module")
def notes():
    return []


@pytest.fixture(scope="module")
def done(recipe, home, notes):
    results = run_ablation(load_recipe(recipe), home / "whole", seeds=2, track=silent, note=notes.append)
    return home / "whole", results


def records(folder):
    """Every result by variant, in the order of seeds."""
    found = {}
    for path in sorted(folder.glob("results/*/seed-?.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["variant"], []).append(record)
    return found


def told(results):
    """What does not depend on the clock."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in results["rows"]]
    return json.loads(json.dumps([rows, results["teachers"], results["seeds"], results["queries"]]))


def test_variants_take_away_one_thing_each(recipe):
    said = load_recipe(recipe)
    made = {variant.name: variant for variant in variants(said)}
    assert list(made) == NAMES and weighing(said) == ["nll.late", "nll.dual", "kl.cross.dual"]
    less = made["without kl.cross.dual"].recipe
    assert weighing(less) == ["nll.late", "nll.dual"] and less.cascade == said.cascade and less.before == said.before
    assert less.model_copy(update={"terms": said.terms}) == said
    assert [stage.name for stage in made["without post"].recipe.before] == ["interaction"]
    alone = made["nll alone"].recipe
    assert weighing(alone) == ["nll.dual"] and alone.cascade is None and alone.scorers == {"dual"}
    assert [(s.name, s.cascade) for s in alone.before] == [("post", None), ("interaction", None)]
    assert alone.before[0] == said.before[0] and weighing(alone.of_stage(alone.before[1])) == ["nll.dual"]
    assert (alone.training, alone.negatives, alone.model) == (said.training, said.negatives, said.model)
    several = [variant.takes for variant in variants(said, pairs=True) if variant.kind == "pair"]
    assert several == [("nll.late", "nll.dual"), ("nll.late", "kl.cross.dual"), ("nll.dual", "kl.cross.dual")]
    chosen = variants(said, pairs=True, only=("nll.late", "nll.dual", "post"))
    assert [v.name for v in chosen] == [*NAMES[:3], "without post", "without nll.late + nll.dual"]


def test_a_teacher_goes_when_nothing_asks_it():
    said = parse_recipe(
        {"collection": {"source": "x"}, "model": {"start": "y"}, "teacher": {"model": "z"}, "loss": {"kl": 0.5}}, "here"
    )
    made = {variant.name: variant.recipe for variant in variants(said)}
    assert list(made) == ["full", "without loss.contrastive", "without loss.kl"]  # the last is the likelihood alone
    assert made["without loss.kl"].teacher is None and made["without loss.contrastive"].teacher == said.teacher
    assert made["without loss.contrastive"].loss.contrastive == 0.0 and nll_alone(said) == made["without loss.kl"]
    terms = {"nll.dual": 1.0, "kl.teacher.dual": 1.0}
    said = parse_recipe({**LEAST, "teacher": {"model": "z"}, "terms": terms}, "here")
    made = {variant.name: variant.recipe for variant in variants(said)}
    assert made["without kl.teacher.dual"].teacher is None and made["without nll.dual"].teacher is not None


def test_the_likelihood_alone_keeps_its_own_weight_and_weighs_all_along():
    term = {"weight": 2.0, "temperature": 0.5, "start": 0.5}
    said = parse_recipe({**LEAST, "cascade": {"late": True}, "terms": {"nll.dual": term, "nll.late": 1.0}}, "here")
    own = nll_alone(said).every_term()["nll.dual"]
    assert (own.weight, own.temperature, own.start) == (2.0, 0.5, 0.0)


def test_seeds_of_all_stages_move_alike(recipe):
    moved = seeded(load_recipe(recipe), 2)
    assert moved.training.seed == 7 and [stage.training.seed for stage in moved.before] == [2, 2]
    assert moved.of_stage(moved.before[1]).training.temperature == moved.training.temperature


def test_stages_alike_have_one_key(recipe, toy):
    collection = open_collection(str(toy))
    keys = {v.name: stage_keys(v.recipe, collection) for v in variants(load_recipe(recipe))}
    whole = keys["full"]
    assert all(keys[name] == whole for name in NAMES[1:4])
    assert keys["without interaction"] == {"post": whole["post"]} and keys["nll alone"]["post"] == whole["post"]
    others = {keys[name]["interaction"] for name in ("full", "without post", "nll alone")}
    assert len(others) == 3
    assert len({stage_keys(seeded(load_recipe(recipe), n), collection)["post"] for n in (0, 1)}) == 2


def test_every_variant_is_measured_and_stages_are_trained_once(done, notes):
    folder, results = done
    assert [row["name"] for row in results["rows"]] == NAMES and results["seeds"] == [5, 6]
    assert {name: len(found) for name, found in records(folder).items()} == dict.fromkeys(NAMES, 2)
    stages = sorted(path.name.split("-")[0] for path in (folder / "work" / "stages").iterdir())
    assert stages == ["interaction"] * 6 + ["post"] * 2  # of full and its terms, without post, nll alone; two seeds
    assert notes.count("before-post") == 2 and notes.count("before-interaction") == 6
    for log in folder.glob("work/stages/*/training/log.jsonl"):
        assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2]
    assert not list((folder / "work" / "trained").iterdir())
    assert len({path.read_bytes() for path in folder.glob("results/*/seed-?-served.trec")}) == 14


def test_the_numbers_are_those_of_the_runs_that_are_kept(done, toy):
    folder, _ = done
    qrels = open_collection(str(toy)).qrels("test")
    for record in records(folder)["full"]:
        assert record["systems"] == ["served", "late", "cross"]
        runs = {s: read_run(folder / "results" / "full" / f"seed-{record['seed']}-{s}.trec") for s in record["systems"]}
        for system, run in runs.items():
            assert evaluate(qrels, run, ["nDCG@10", "RR@10"]) == record["by_query"][system]
        for query, ranking in runs["served"].items():
            assert set(runs["cross"][query].doc_ids[:5]) == set(ranking.doc_ids[:5])
            assert set(runs["late"][query].doc_ids) == set(ranking.doc_ids) and len(ranking) == 30


def test_the_table_by_hand(done):
    folder, results = done
    found = records(folder)
    mean = {
        name: {
            q: np.mean([r["by_query"]["served"]["nDCG@10"][q] for r in own])
            for q in own[0]["by_query"]["served"]["nDCG@10"]
        }
        for name, own in found.items()
    }
    rows = {row["name"]: row for row in results["rows"]}
    p = {name: compare("nDCG@10", mean[name], mean["full"]).randomisation_p for name in NAMES[1:]}
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    for name in NAMES:
        by_seed = [np.mean(list(r["by_query"]["served"]["nDCG@10"].values())) for r in found[name]]
        assert rows[name]["by_seed"] == pytest.approx(by_seed)
        assert rows[name]["means"]["nDCG@10"] == pytest.approx(np.mean(by_seed))
        assert rows[name]["deviation"] == pytest.approx(abs(by_seed[0] - by_seed[1]) / np.sqrt(2))
    whole = rows["full"]["by_seed"]
    for name in NAMES[1:]:
        against = compare("nDCG@10", mean[name], mean["full"])
        assert rows[name]["against"] == {**asdict(against), "holm_p": corrected[name]}
        assert against.difference == pytest.approx(rows[name]["means"]["nDCG@10"] - rows["full"]["means"]["nDCG@10"])
        one, two = np.subtract(rows[name]["by_seed"], whole)
        assert rows[name]["seeds_disagree"] == (one * two < 0)
    full, alone = (rows[name]["means"]["nDCG@10"] for name in ("full", "nll alone"))
    for row in results["teachers"]:
        top = np.mean([r["means"][row["system"]]["nDCG@10"] for r in found["full"]])
        closed = (full - alone) / (top - alone) if top > alone else None
        assert row["gap_closed"] == (None if closed is None else pytest.approx(closed))
    shares = []
    for seed in (5, 6):
        lines = [json.loads(line) for line in (folder / f"results/full/seed-{seed}-log.jsonl").read_text().splitlines()]
        norm = {
            t: np.mean([line[f"gradient/{t}"] for line in lines]) for t in ("nll.late", "nll.dual", "kl.cross.dual")
        }
        shares.append(norm["kl.cross.dual"] / sum(norm.values()))
    assert rows["without kl.cross.dual"]["gradient_share"] == pytest.approx(np.mean(shares))
    assert rows["without post"]["gradient_share"] is None


def test_a_second_time_nothing_is_done(done, recipe, capsys):
    folder, results = done
    files = [*folder.glob("results/*/*"), *folder.glob("work/stages/*/training/log.jsonl")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert call("ablate", recipe, "--out", folder, "--seeds", 2, "--quiet", "--json") == 0
    assert told(json.loads(capsys.readouterr().out)) == told(results)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_measures_train_nothing_and_what_is_shown_is_what_is_kept(done, recipe, home, capsys):
    folder = home / "moved"  # results are of what went in, not of where they lie
    shutil.copytree(done[0], folder, symlinks=True)
    words = ["ablate", recipe, "--out", folder, "--seeds", 2, "--set", 'evaluation.measures=["RR@10"]', "--quiet"]
    assert call(*words, "--only", "post") == 0
    shown = capsys.readouterr().out
    results = json.loads((folder / "ablation.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["full", "without post"]
    assert results["rows"][0]["means"] == {"RR@10": done[1]["rows"][0]["means"]["RR@10"]}
    assert f"{results['rows'][1]['means']['RR@10']:.4f}" in shown and sentences(results)[0] in shown
    text = (folder / "ablation.md").read_text()
    assert text == markdown(results) and "| without post |" in text and "gap from" not in text


def test_a_killed_ablation_ends_like_one_that_was_not(done, recipe, home):
    folder = home / "killed"
    words = [sys.executable, "-m", "flatcoat", "ablate", recipe, "--out", folder, "--seeds", "2", "--quiet"]
    words += ["--only", "post", "--only", "kl.cross.dual", "--only", "nll alone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [str(w) for w in words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    moment = "work/trained/*/training/checkpoints/step-*"  # in the middle of the second variant
    while process.poll() is None and not (list(folder.glob("results/full/seed-5.json")) and list(folder.glob(moment))):
        time.sleep(0.002)
    assert process.poll() is None, process.stderr.read()
    process.kill()
    process.wait()
    first = folder / "results" / "full" / "seed-5.json"
    kept, only = first.stat().st_mtime_ns, ("post", "kl.cross.dual", "nll alone")
    run_ablation(load_recipe(recipe), folder, seeds=2, only=only, track=silent, note=lambda _: None)
    assert first.stat().st_mtime_ns == kept
    one, two = records(folder), records(done[0])
    assert len(one) == 4
    for name, own in one.items():
        for mine, theirs in zip(own, two[name], strict=True):
            assert (mine["key"], mine["by_query"]) == (theirs["key"], theirs["by_query"])


def made(name, kind, values, takes=(), systems=("served",), gradient=None):
    """A variant's records of made-up values: [seed][query]."""
    found = []
    for seed, own in enumerate(values):
        table = {system: {"RR": {f"q{i}": float(v + n) for i, v in enumerate(own)}} for n, system in enumerate(systems)}
        average = {system: {"RR": float(np.mean(list(t["RR"].values())))} for system, t in table.items()}
        found.append({"seed": seed, "by_query": table, "means": average, "systems": list(systems), "gradient": gradient or {},
                      "depths": dict.fromkeys(systems[1:], 9), "seconds": {"training": 2.0, "before": 1.0}})  # fmt: skip
    return name, kind, takes, found


def test_verdicts_gaps_and_shares_of_made_up_values():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, (2, 40))
    norms = {"a": 3.0, "b": 1.0}
    results = summarise(
        [
            made("full", "full", base, systems=("served", "late"), gradient=norms),
            made("without a", "term", base - 0.2, ("a",)),
            made("without b", "term", base + 0.1, ("b",)),
            made("without a + b", "pair", np.stack([base[0] + 1e-4, base[1] - 1e-4]), ("a", "b")),
            made("nll alone", "alone", base - 0.25),
        ],
        ["RR"],
    )
    rows = {row["name"]: row for row in results["rows"]}
    assert [row.get("verdict") for row in rows.values()] == [
        None, "earns its place", "does harm", "makes no difference that shows", "earns its place",
    ]  # fmt: skip
    assert [row.get("seeds_disagree") for row in rows.values()] == [None, False, False, True, False]
    assert [row["gradient_share"] for row in rows.values()] == [None, 0.75, 0.25, 1.0, None]
    assert results["teachers"][0]["gap_closed"] == pytest.approx(0.25 / 1.25) and rows["full"]["seconds"] == 3.0
    said = sentences(results)
    assert said[0].startswith("a earns its place: without it RR moves by -0.2000")
    assert said[2].startswith("a and b make no difference that shows: without them") and said[2].endswith(
        "disagree in sign"
    )
    assert said[4].startswith("late interaction (best 9 re-scored): ") and said[4].endswith(
        "closes 20% of the gap from nll alone to it"
    )


def test_one_seed_has_no_deviation_and_a_teacher_below_no_gap():
    base = np.linspace(0, 1, 8)[None]
    results = summarise(
        [made("full", "full", base, systems=("served", "late")), made("nll alone", "alone", base + 2)], ["RR"]
    )
    assert results["rows"][0]["deviation"] is None and results["teachers"][0]["gap_closed"] is None
    assert "no gap to close" in sentences(results)[-1] and verdict(-1.0, 0.05) == "makes no difference that shows"


def test_norms_are_means_over_the_lines_that_have_them():
    lines = ['{"step": 1, "gradient/a": 1.0, "gradient_cross/a": 9.0}', '{"step": 2}', '{"step": 3, "gradient/a": 2.0}']
    assert gradient_norms(lines) == {"a": 1.5} and gradient_norms(lines[1:2]) == {}
    assert gradient_norms(['{"gradient_cross/a": 9.0}']) == {"a": 9.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds 0: want at least 1"),
        (["--only", "kl.cros.dual"], "did you mean 'kl.cross.dual'"),
        (["--only", "zzz"], "here: nll.late, nll.dual, kl.cross.dual, post, interaction, nll alone"),
        (["--set", "training.steps=0"], "trains nothing"),
        (["--set", 'evaluation.measures=["nDGC@10"]'], "'nDGC@10' is not known"),
    ],
)
def test_misuse_is_one_line(recipe, tmp_path, capsys, words, message):
    assert call("ablate", recipe, "--out", tmp_path / "a", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "a").exists()


def test_nothing_to_take_away_and_a_folder_of_something_else(recipe, tmp_path, capsys):
    with pytest.raises(Misuse, match="loss.contrastive is all that is minimised"):
        variants(parse_recipe(LEAST, "here"))
    (tmp_path / "mine.txt").write_text("precious")
    assert call("ablate", recipe, "--out", tmp_path) == 2
    assert "not an ablation's folder" in capsys.readouterr().err and (tmp_path / "mine.txt").read_text() == "precious"


def test_an_error_says_which_variant(recipe, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise FlatcoatError("loss became nan")

    monkeypatch.setattr("flatcoat.app.ablate.train_model", broken)
    monkeypatch.setattr("flatcoat.app.ablate.run_before", lambda recipe, *_, **__: (recipe, None, []))
    with pytest.raises(FlatcoatError, match="full, seed 5: loss became nan"):
        run_ablation(load_recipe(recipe), tmp_path / "a", seeds=1, track=silent, note=lambda _: None)
