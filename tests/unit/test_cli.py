"""The command line, end to end on the toy collection, and what bad input gets."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import call
from flatcoat.data.trec import read_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def recipe(tiny, toy, home):
    text = f"""
[collection]
source = "{toy}"
dev = "dev"
[model]
start = "{tiny}"
dropout = 0.0
[training]
steps = 40
batch = 8
rate = 3e-3
warmup = 4
temperature = 0.1
save_every = 4
[negatives]
kind = "periodic"
last = 8
every = 10
[evaluation]
k = 20
[[indexes]]
kind = "scan"
[[indexes]]
kind = "ivf"
name = "cells"
cells = 5
nprobe = 1
"""
    path = home / "toy.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def ran(recipe, home):
    assert call("run", recipe, "--out", home / "run", "--quiet") == 0
    return home / "run"


def test_a_run_measures_every_system(ran):
    results = json.loads((ran / "results.json").read_text())
    names = [system["name"] for system in results["systems"]]
    assert names == ["BM25", "before, exact", "after, exact", "after, scan", "after, cells", "hybrid (BM25 + exact)"]
    quality = {s["name"]: s["means"]["nDCG@10"] for s in results["systems"]}
    assert quality["after, exact"] > quality["before, exact"]
    assert "| after, scan |" in (ran / "report.md").read_text()
    assert read_run(ran / "runs" / "after-exact.trec")


def test_a_second_run_does_nothing_twice(ran, recipe, capsys):
    before = (ran / "results.json").read_bytes()
    assert call("run", recipe, "--out", ran) == 0
    assert capsys.readouterr().err.count("already done") == 9
    assert (ran / "results.json").read_bytes() == before


def test_another_recipe_in_the_same_folder(ran, recipe, home, capsys):
    folder = home / "other"
    shutil.copytree(ran, folder)
    assert call("run", recipe, "--out", folder, "--set", "evaluation.k=10") == 2
    assert "was made by another recipe" in capsys.readouterr().err
    assert call("run", recipe, "--out", folder, "--set", "evaluation.k=10", "--resume") == 0
    assert capsys.readouterr().err.count("already done") >= 6


@pytest.mark.parametrize(
    "moment", ["store", "before.partial", "training/log.jsonl", "training", "model", "vectors", "runs/*.trec"]
)
def test_a_killed_run_ends_like_one_that_was_not(ran, recipe, home, moment):
    """kill -9 at some moment, then the same command: all that is made is the same, to the bit, of two processes, each with hashes
    of its own.
    """
    folder = home / re.sub(r"\W", "-", f"killed-{moment}")
    words = [sys.executable, "-m", "flatcoat", "run", str(recipe), "--out", str(folder), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not _reached(folder, moment):
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert call("run", recipe, "--out", folder, "--quiet", "--resume") == 0
    kinds = (".safetensors", ".npy", ".trec", ".qrels", ".faiss", ".txt")
    made = [path.relative_to(ran) for path in ran.rglob("*") if path.suffix in kinds]
    assert len(made) > 20 and {"model/model.safetensors", "runs/after-exact.trec"} <= {name.as_posix() for name in made}
    for name in made:
        assert (folder / name).is_file(), name
        assert (folder / name).read_bytes() == (ran / name).read_bytes(), name


def _reached(folder: Path, moment: str) -> bool:
    """Whether a run has come to a moment; `training` is behind the first refresh of its negatives."""
    if moment == "training":
        steps = [int(path.name[5:]) for path in (folder / "training" / "checkpoints").glob("step-*")]
        return max(steps, default=0) >= 12
    return any(folder.glob(moment))


def test_search_a_question(ran, capsys):
    assert call("search", ran, "--query", "where does the otter live", "-k", "3") == 0
    assert re.match(r"  1\. \d\.\d{4}  d-", capsys.readouterr().out)
    assert call("search", ran, "--query", "otter", "--name", "bm25", "--json") == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["id"].startswith("d-otter")


def test_verb_by_verb(tiny, toy, home, capsys):
    d, q, i = home / "d", home / "q", home / "i"
    assert call("encode", tiny, toy, "--out", d, "--quiet") == 0
    assert call("encode", tiny, toy, "--queries", "test", "--out", q, "--quiet") == 0
    assert call("index", d, "--out", i, "--kind", "hnsw", "--set", "ef_search=20", "--quiet") == 0
    assert call("search", tiny, i, toy, "--split", "test", "--out", home / "a.trec", "-k", "10", "--quiet") == 0
    assert call("index", toy, "--kind", "bm25", "--out", home / "b", "--quiet") == 0
    assert call("search", "bm25", home / "b", toy, "--split", "test", "--out", home / "b.trec", "--quiet") == 0
    assert call("fuse", home / "a.trec", home / "b.trec", "--out", home / "f.trec") == 0
    capsys.readouterr()
    qrels = toy / "qrels" / "test.tsv"
    words = ["evaluate", qrels, home / "a.trec", home / "b.trec", home / "f.trec", "--compare", "--json"]
    assert call(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["means"][str(home / "b.trec")]["nDCG@10"] > 0.9 and len(told["comparisons"]) == 6
    assert call("fidelity", i, d, q, "--qrels", qrels, "--target-recall", "0.99") == 0
    assert "cheapest setting that meets the target: ef_search=" in capsys.readouterr().out
    assert call("fidelity", i, d, q, "--target-recall", "1.5") == 1
    assert "no setting meets the target" in capsys.readouterr().err


def test_mine_feeds_given(tiny, toy, home, capsys):
    for model in (tiny, "bm25"):
        assert call("mine", model, toy, "--last", "4", "--quiet") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == 40 and all(len(line["negatives"]) <= 4 for line in lines)
        assert all(line["query_id"].replace("q-", "d-") not in line["negatives"] for line in lines)


def test_train_alone(recipe, home, capsys):
    assert (
        call(
            "train", recipe, "--out", home / "model", "--set", "training.steps=3", "--set", "training.evaluate_every=1"
        )
        == 0
    )
    assert (home / "model" / "modules.json").is_file()
    assert "3 steps" in capsys.readouterr().err


def test_check(ran, recipe, tiny, toy, home, capsys):
    assert call("check", ran, recipe, tiny, toy) == 0
    assert "error" not in capsys.readouterr().out
    assert call("check", tiny, "--on", toy) in (0, 1)
    assert "best-pooling" in capsys.readouterr().out


def test_pooling_that_is_not_the_checkpoints(tiny, toy, home, capsys):
    assert call("encode", tiny, toy, "--out", home / "cls", "--pooling", "cls") == 1
    assert "pooled by cls, but the checkpoint was trained with mean" in capsys.readouterr().err
    assert not (home / "cls").exists()
    assert (
        call(
            "encode", tiny, toy, "--out", home / "cls", "--pooling", "cls", "--allow", "pooling", "--allow", "collapse"
        )
        == 0
    )
    capsys.readouterr()
    assert call("check", home / "cls") == 1
    assert "error: pooling" in capsys.readouterr().out


def test_an_index_of_another_model(ran, tiny, toy, home, capsys):
    assert call("search", tiny, ran / "index" / "scan", toy, "--query", "x") == 1
    assert "was built from another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["search", "m"], 2, "either --query TEXT or --split NAME"),
        (["search", "none", "--query", "x"], 2, "not the folder of a run"),
        (["index", "none", "--out", "x", "--kind", "hnws"], 2, "did you mean 'hnsw'"),
        (["index", "none", "--out", "x"], 1, "not a flatcoat-vectors folder"),
        (["run", "none.toml", "--out", "x"], 2, "no such recipe"),
        (["evaluate", "none", "none"], 1, "No such file"),
        (["fuse", "none", "--by", "chance"], 2, "want rank or score"),
        (["check", "nothing-at-all"], 2, "no such folder, and not to be had from the Hub"),
        (["recipe", str(ROOT / "recipes" / "dpr.toml"), "--set", "model.pooling=sum"], 2, "not 'sum'"),
    ],
)
def test_misuse_is_one_line(words, code, message, capsys):
    assert call(*words) == code
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and told.startswith("flatcoat: ")


def test_a_run_leaves_a_folder_of_someone_else_alone(recipe, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert call("run", recipe, "--out", tmp_path) == 2
    assert "not a run's folder" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_an_unwritable_place_is_named(tiny, toy, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert call("encode", tiny, toy, "--out", tmp_path / "file" / "v") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_corpus_that_changes_under_a_run(ran, recipe, toy, home, capsys):
    folder = home / "changed"
    shutil.copytree(toy, home / "copy")
    words = [
        "run",
        recipe,
        "--out",
        folder,
        "--set",
        f"collection.source={home / 'copy'}",
        "--set",
        "training.steps=0",
        "--quiet",
    ]
    assert call(*words) == 0
    with (home / "copy" / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "new", "text": "new"}\n')
    assert call(*words) == 1
    assert "corpus.jsonl changed after" in capsys.readouterr().err


def test_given_negatives_of_a_file(recipe, tiny, toy, home, capsys):
    mined = home / "mined.jsonl"
    assert call("mine", tiny, toy, "--last", "4", "--out", mined, "--quiet") == 0
    changes = ["--set", "negatives.kind=given", "--set", f"negatives.file={mined}", "--set", "training.steps=2"]
    assert call("train", recipe, "--out", home / "given", "--quiet", *changes) == 0
    mined.write_text('{"query_id": "q-otter-home", "negatives": ["nowhere"]}\n')
    capsys.readouterr()
    assert call("train", recipe, "--out", home / "given2", "--quiet", *changes) == 1
    assert "mined.jsonl:1: document 'nowhere' is not of this collection" in capsys.readouterr().err


def test_gradient_checkpointing_changes_nothing_but_memory(recipe, home):
    for name, value in (("plain", "false"), ("saved", "true")):
        changes = ["--set", "training.steps=3", "--set", f"runtime.gradient_checkpointing={value}"]
        assert call("train", recipe, "--out", home / name, "--quiet", *changes) == 0
    from safetensors.numpy import load_file

    a, b = (load_file(home / name / "model.safetensors") for name in ("plain", "saved"))
    for key in a:
        assert abs(a[key] - b[key]).max() < 1e-5


def test_running_out_of_disk_is_one_line(recipe, home, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device", str(home / "x"))

    monkeypatch.setattr("flatcoat.app.run.write_bm25", full)
    assert call("run", recipe, "--out", home / "full", "--quiet") == 1
    told = capsys.readouterr().err
    assert told == f"flatcoat: {home / 'x'}: No space left on device; free some and run again\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["collection.test=train"], "are also queries of 'train'"),
        (["training.evaluate_every=2", "collection.dev=test"], "choosing and judging want different queries"),
        (['evaluation.measures=["nDGC@10"]'], "'nDGC@10' is not known"),
        (["training.batch=50"], "batch=50 is more than the 40 distinct training queries"),
        (["negatives.kind=given", "negatives.file=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["collection.train=none"], "no split 'none'; it has dev, test, train"),
    ],
)
def test_what_would_fail_in_an_hour_fails_in_a_second(recipe, tmp_path, capsys, changes, message):
    words = [word for change in changes for word in ("--set", change)]
    assert call("run", recipe, "--out", tmp_path / "run", "--quiet", *words) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "index").exists()


def test_what_is_not_ours_is_not_replaced(tiny, toy, home, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("precious")
    assert call("encode", tiny, toy, "--out", tmp_path / "notes") == 2
    assert "is there and not a flatcoat-vectors" in capsys.readouterr().err
    assert call("encode", tiny, toy, "--out", tmp_path / "d", "--quiet") == 0
    capsys.readouterr()
    assert call("index", tmp_path / "d", "--out", tmp_path / "d") == 2
    assert "is also what is read" in capsys.readouterr().err
    assert (tmp_path / "notes" / "a.txt").read_text() == "precious"


def test_a_run_that_moved_still_answers(ran, home, capsys):
    shutil.copytree(ran, home / "moved")
    shutil.rmtree(home / "moved" / "runs")
    assert call("search", home / "moved", "--query", "heron") == 0
    vectors = home / "moved" / "vectors" / "vectors.npy"
    vectors.unlink()
    shutil.rmtree(home / "moved" / "vectors")
    assert call("search", home / "moved", "--query", "heron") == 0  # the place they were built at is the second choice


def test_an_index_over_vectors_that_were_made_anew(tiny, toy, home, tmp_path, capsys):
    d, i = tmp_path / "d", tmp_path / "i"
    assert call("encode", tiny, toy, "--out", d, "--quiet") == 0
    assert call("index", d, "--out", i, "--quiet") == 0
    assert call("encode", tiny, toy, "--out", d, "--quiet", "--pooling", "max", "--allow", "pooling") == 0
    assert call("search", tiny, i, toy, "--query", "heron") == 1
    assert "altered since" in capsys.readouterr().err


def test_search_uses_the_settings_that_were_measured(recipe, home, capsys):
    folder = home / "prompted"
    changes = ["--set", "training.steps=0", "--set", "model.query_prompt=young of the ", "--allow", "prompt"]
    assert call("run", recipe, "--out", folder, "--quiet", *changes) == 0
    assert (
        call("search", folder, "--split", "test", "-k", "20", "--name", "exact", "--out", home / "p.trec", "--quiet")
        == 0
    )
    measured, searched = read_run(folder / "runs" / "exact.trec"), read_run(home / "p.trec")
    assert {q: r.doc_ids[:20] for q, r in measured.items()} == {q: r.doc_ids for q, r in searched.items()}
