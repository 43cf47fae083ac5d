"""Checks come while they can still save somebody's time: before anything is made, encoded or learnt."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import call

from flatcoat.errors import FlatcoatError
from flatcoat.index.exact import ExactIndex
from flatcoat.testing.index import unit
from flatcoat.vectors import write_vectors

RECIPE = """
[collection]
source = "{toy}"
dev = "dev"
[model]
start = "{tiny}"
dropout = 0.0
[training]
steps = 20
batch = 8
warmup = 2
temperature = 0.1
[negatives]
kind = "bm25"
last = 8
[evaluation]
measures = ["nDCG@10"]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("before")


@pytest.fixture(scope="module")
def recipe(tiny, toy, home):
    path = home / "toy.toml"
    path.write_text(RECIPE.format(tiny=tiny, toy=toy))
    return path


@pytest.fixture(autouse=True)
def _nothing_is_made(monkeypatch):
    """Whatever is made in these tests is made too early."""

    def begins(place):
        def begun(*_, **__):
            raise FlatcoatError(f"WORK HAS BEGUN: {place}")

        return begun

    for place in (
        "flatcoat.app.run.write_bm25", "flatcoat.index.bm25.Bm25Index.build", "flatcoat.app.encode._encode_to",
        "flatcoat.app.family.write_vector_index", "flatcoat.app.verbs_mine._source",
    ):  # fmt: skip
        monkeypatch.setattr(place, begins(place))


def said(words, capsys):
    """The exit code of a command, and what it wrote to stderr."""
    capsys.readouterr()
    code = call(*words)
    return code, capsys.readouterr().err


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def scores(toy, of):
    """A teacher's scores of the toy's training queries: `of` gives them for an answer and two other documents."""
    rows = [line.split("\t")[:2] for line in (toy / "qrels" / "train.tsv").read_text().splitlines()[1:]]
    documents = [doc for _, doc in rows]
    return [
        {"query_id": query, "document_ids": [doc, documents[i - 1], documents[i - 2]], "scores": of(i)}
        for i, (query, doc) in enumerate(rows)
    ]


TEACHERS = {
    "teacher-constant": lambda i: [1.0, 1.0, 1.0],
    "teacher-order": lambda i: [-3.0 + i % 2, 2.0, 1.0],
    "teacher-scale": lambda i: [0.9, 0.4 + 0.01 * (i % 3), 0.1],
}
LEARNS = ["loss.margin_mse=1.0", "loss.contrastive=0.0", "training.temperature=0.001"]


@pytest.mark.parametrize("verb", ["run", "train"])
@pytest.mark.parametrize("check", TEACHERS)
def test_a_teacher_on_another_scale_stops_before_training(verb, check, recipe, toy, home, tmp_path, capsys):
    file = lines(home / f"{check}.jsonl", scores(toy, TEACHERS[check]))
    words = [word for change in [*LEARNS, f"teacher.file={file}"] for word in ("--set", change)]
    code, told = said((verb, recipe, "--out", tmp_path / "out", *words), capsys)
    assert code == 1 and f"flatcoat: {check}: " in told and f"--allow {check}" in told and "BEGUN" not in told
    code, told = said(
        (verb, recipe, "--out", tmp_path / "out", *words, "--allow", check, "--allow", "teacher-scale"), capsys
    )
    assert code == 1 and "WORK HAS BEGUN" in told


ERRORS = {
    "splits": ["collection.test=train"],
    "negatives-window": ["negatives.first=70", "negatives.last=90"],
    "negatives-cover": ["negatives.kind=given", "negatives.file={home}/other.jsonl"],
    "false-negatives": ["negatives.kind=given", "negatives.file={home}/answers.jsonl"],
    "sources": ["negatives.judge=/nowhere/at-all"],
    "pooling": ["model.pooling=cls"],
    "prompt": ["model.query_prompt=q:"],
}
WARNINGS = {
    "temperature": ["training.temperature=1.0"],
    "warmup": ["training.warmup=19"],
    "few-negatives": ["training.batch=2", "negatives.kind=none"],
    "measure-depth": ['evaluation.measures=["R@100"]'],
    "probes": ['indexes=[{{kind="ivf",cells=20,nprobe=1}}]'],
    "length": ["model.query_length=8"],
    "teacher-weaker": [],
}


@pytest.mark.parametrize("verb", ["run", "train"])
@pytest.mark.parametrize("check", ERRORS)
def test_an_error_stops_before_anything_is_made(verb, check, recipe, toy, home, tmp_path, capsys):
    lines(home / "other.jsonl", [{"query_id": "q-otter-young", "negatives": ["d-otter-home"]}])
    pairs = [line.split("\t")[:2] for line in (toy / "qrels" / "train.tsv").read_text().splitlines()[1:]]
    lines(home / "answers.jsonl", [{"query_id": query, "negatives": [doc]} for query, doc in pairs])
    changes = [change.format(home=home) for change in ERRORS[check]]
    words = [word for change in changes for word in ("--set", change)]
    code, told = said((verb, recipe, "--out", tmp_path / "out", *words), capsys)
    assert code in (1, 2) and "BEGUN" not in told and not (tmp_path / "out" / "index").exists()
    assert "/nowhere/at-all" in told if check == "sources" else f"flatcoat: {check}: " in told


@pytest.mark.parametrize("check", [name for name in WARNINGS if WARNINGS[name]])
def test_a_warning_is_said_before_anything_is_made(check, recipe, tmp_path, capsys):
    words = [word for change in WARNINGS[check] for word in ("--set", change.format())]
    code, told = said(("run", recipe, "--out", tmp_path / "out", *words), capsys)
    assert code == 1 and "WORK HAS BEGUN" in told
    assert f"flatcoat: warning: {check}: " in told.partition("BEGUN")[0]


def broken(toy, path):
    """The toy, its judgements of the test naming documents that are not there, in characters that were read wrongly."""
    shutil.copytree(toy, path)
    for split in ("test", "train"):
        file = path / "qrels" / f"{split}.tsv"
        file.write_text(file.read_text().replace("\td-", "\tdoc-"))
    corpus = path / "corpus.jsonl"
    texts = [json.loads(line) for line in corpus.read_text().splitlines()]
    lines(corpus, [{**record, "text": record["text"].replace("The", "â€œThe")} for record in texts])
    return path


def test_a_collection_whose_ids_do_not_meet(recipe, toy, tiny, tmp_path, capsys):
    bad = broken(toy, tmp_path / "bad")
    code, told = said(("run", recipe, "--out", tmp_path / "out", "--set", f"collection.source={bad}"), capsys)
    assert code == 1 and "flatcoat: absent: 10 of 10 answers of 'test' are not in the corpus" in told
    assert "warning: encoding: " in told and "BEGUN" not in told
    code, told = said(("mine", "bm25", bad, "--out", tmp_path / "m.jsonl"), capsys)
    assert code == 1 and "flatcoat: " in told and "BEGUN" not in told
    code, told = said(("encode", tiny, bad, "--out", tmp_path / "v"), capsys)
    assert "warning: encoding: " in told.partition("BEGUN")[0] and "BEGUN" in told


def test_what_is_encoded_or_indexed_is_looked_at_first(tiny, toy, tmp_path, capsys):
    import torch

    from flatcoat.models.checkpoint import load_dense, save_dense

    model = load_dense(str(tiny))
    with torch.no_grad():
        model.document.backbone.encoder.layer[-1].output.LayerNorm.weight.zero_()
        model.document.backbone.encoder.layer[-1].output.LayerNorm.bias.fill_(1.0)
    save_dense(model, tmp_path / "bad")
    code, told = said(("encode", tmp_path / "bad", toy, "--out", tmp_path / "v"), capsys)
    assert code == 1 and "flatcoat: collapse: " in told and "BEGUN" not in told
    wrong = unit(30, 16)
    wrong[4, 2] = float("nan")
    write_vectors(tmp_path / "v", wrong, [f"d{i}" for i in range(30)], {})
    code, told = said(("index", tmp_path / "v", "--kind", "exact", "--out", tmp_path / "i"), capsys)
    assert code == 1 and "flatcoat: finite: 1 of 30 texts have numbers that are none, the first in row 4" in told
    code, told = said(
        ("index", tmp_path / "v", "--kind", "exact", "--out", tmp_path / "i", "--allow", "finite"), capsys
    )
    assert "WORK HAS BEGUN" in told


def test_a_run_of_distances_is_neither_read_again_nor_mined_nor_measured(tiny, toy, tmp_path, capsys):
    rows = [line.split("\t")[:2] for line in (toy / "qrels" / "train.tsv").read_text().splitlines()[1:]]
    documents = [doc for _, doc in rows]
    run = [f"{q} Q0 {d} {r + 1} {0.1 * r} x\n" for q, _ in rows for r, d in enumerate(documents[:9])]
    (tmp_path / "r.trec").write_text("".join(run))
    for words in (
        ("rerank", tiny, tmp_path / "r.trec", toy),
        ("mine", tmp_path / "r.trec", toy, "--last", "5"),
        ("evaluate", toy / "qrels" / "train.tsv", tmp_path / "r.trec"),
    ):
        code, told = said(words, capsys)
        assert code == 1 and "rank-order: " in told and "scores look like distances" in told and "BEGUN" not in told


def test_check_looks_at_recipes_teachers_and_negatives(recipe, toy, home, tmp_path, capsys):
    def checked(*words):
        capsys.readouterr()
        code = call("check", *words)
        told = capsys.readouterr()
        return code, told.out + told.err

    code, told = checked(recipe)
    assert code == 0 and "ok: sources: " in told and "ok: warmup: " in told and "warning: query-truncation" not in told
    bad = tmp_path / "bad.toml"
    bad.write_text(
        recipe.read_text()
        .replace('dev = "dev"', 'dev = "dev"\ntest = "train"')
        .replace("last = 8", "last = 8\nfirst = 70")
    )
    code, told = checked(bad)
    assert code == 1 and "error: splits: " in told and "error: negatives-window: " in told
    good = lines(home / "good.jsonl", scores(toy, lambda i: [5.0 + i % 3, 1.0, -2.0]))
    code, told = checked(good, "--on", toy)
    assert code == 0 and "ok: teacher-order: " in told and "ok: teacher-covers: 40 of 40" in told
    code, told = checked(lines(home / "sigmoid.jsonl", scores(toy, TEACHERS["teacher-scale"])), "--on", toy)
    assert code == 0 and "warning: teacher-range: " in told
    assert checked(good)[0] == 2 and "say which: --on COLLECTION" in checked(good)[1]
    mined = lines(home / "mined.jsonl", [{"query_id": "q-otter-home", "negatives": ["d-otter-home"]}])
    code, told = checked(mined, "--on", toy)
    assert code == 1 and "error: false-negatives: 100.0% of 1" in told and "warning: negatives-cover: 1 of 40" in told
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    code, told = checked(tmp_path / "photo.jpg")
    assert code == 2 and "check looks at a model, a collection" in told and told.count("\n") == 1


def test_check_finds_an_index_that_loses_what_exact_search_finds(monkeypatch, tmp_path, capsys):
    monkeypatch.undo()
    write_vectors(tmp_path / "v", unit(400, 16), [f"d{i}" for i in range(400)], {})
    for probed, wanted in ((1, "warning: index-recall: "), (40, "ok: index-recall: ")):
        words = ("--kind", "ivf", "--set", "cells=40", "--set", f"nprobe={probed}", "--quiet")
        assert call("index", tmp_path / "v", *words, "--out", tmp_path / f"i{probed}") == 0
        assert call("check", tmp_path / f"i{probed}") == 0
        assert wanted in capsys.readouterr().out
    assert len(ExactIndex(unit(4, 8))) == 4


def test_a_companion_is_looked_at_once(recipe, toy, tmp_path, monkeypatch):
    """Its own part of the run takes over what was found before anything was made: no model or teacher is read twice."""
    from flatcoat.app import ready_run
    from flatcoat.app.recipe import load_recipe
    from flatcoat.app.run import run_recipe
    from flatcoat.checks.base import Finding
    from flatcoat.data.collection import build_store

    build_store(str(toy), tmp_path / "store")
    monkeypatch.setattr(ready_run, "found_of", lambda *_, **__: pytest.fail("looked at again"))
    how = {"store": tmp_path / "store", "checked": [Finding("warning", "length", "short")]}
    with pytest.raises(FlatcoatError, match="WORK HAS BEGUN"):
        run_recipe(load_recipe(recipe), tmp_path / "out", track=lambda items, *_: items, note=lambda _: None, **how)
    assert json.loads((tmp_path / "out" / "checks.json").read_text()) == ["warning: length: short"]
