"""`--precision auto`: what is measured is taken, kept through an interruption, and written down as a plain precision."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import call

from flatcoat.app import verbs_speed
from flatcoat.app.family import open_vectors
from flatcoat.app.recipe import load_recipe
from flatcoat.app.speed import Row, Speed
from flatcoat.data.collection import open_collection
from flatcoat.data.trec import read_run, write_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.encode import encode_all
from flatcoat.models.load import load_model
from flatcoat.records import Ranking


@pytest.fixture(autouse=True)
def unlooked(monkeypatch):
    """The checks before encoding also encode a few texts; here only the windows of the work are counted."""
    monkeypatch.setattr("flatcoat.app.ready.before_encoding", lambda *_: [])


@pytest.fixture
def measured(monkeypatch):
    """Measurements that say what is planted, `int8` first unless told; gives the rates and losses, and counts."""
    said = {"rows": {"fp32": (100.0, 0.0), "bf16": (150.0, 0.0), "int8": (511.0, -0.001)}, "times": 0}

    def measure(*_, **__):
        said["times"] += 1
        rows = (Row(p, r, r / 100.0, 1.0, 1.0, None, 0.5, c, c, c) for p, (r, c) in said["rows"].items())
        return Speed("documents", 10, 60, None, "judgements of split 'test'", tuple(rows))

    monkeypatch.setattr("flatcoat.app.speed.measure_encoder", measure)
    monkeypatch.setattr("flatcoat.app.speed.measure_scorer", measure)
    return said


def encode(model, toy, out, *more, precision="auto") -> int:
    return call("encode", model, toy, "--out", out, "--precision", precision, "--device", "cpu", *more)


def small_windows(monkeypatch, stop_at=None):
    """Windows of five texts; encoding is interrupted at window `stop_at`. Gives the windows that were encoded, by precision."""
    from flatcoat.models import encode as dense
    from flatcoat.models import encode_multi as late
    from flatcoat.models import encode_sparse as sparse

    seen: list[str] = []
    names = ((dense, "encode_window"), (sparse, "encode_sparse_window"), (late, "encode_multi_window"))
    for module, name in names:
        monkeypatch.setattr(module, "WINDOW", 5)
        real = getattr(module, name)
        real = getattr(real, "real", real)

        def window(tower, texts, runtime, real=real):
            if len(seen) == stop_at:
                raise FlatcoatError("stopped")
            seen.append(runtime.precision)
            return real(tower, texts, runtime)

        window.real = real
        monkeypatch.setattr(module, name, window)
    return seen


def test_the_choice_is_said_and_the_manifest_names_it(models, toy, tmp_path, measured, capsys):
    assert encode(models["dense"], toy, tmp_path / "v") == 0
    assert open_vectors(tmp_path / "v").facts["precision"] == "int8"
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "flatcoat: --precision auto: int8 (5.1x fp32), 511.0 documents/s, nDCG@10 -0.10% [-0.10%, -0.10%]: "
        "10 queries, 60 documents; judgements of split 'test'"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v"]
    assert encode(models["dense"], toy, tmp_path / "plain", precision="int8") == 0
    np.testing.assert_array_equal(open_vectors(tmp_path / "v").vectors, open_vectors(tmp_path / "plain").vectors)
    assert call("index", tmp_path / "v", "--kind", "exact", "--out", tmp_path / "i") == 0
    capsys.readouterr()
    assert call("search", models["dense"], tmp_path / "i", toy, "--query", "otter", "-k", 1, "--device", "cpu") == 0
    assert "warning: precision" not in capsys.readouterr().err  # queries are encoded as the documents were


@pytest.mark.parametrize(("int8", "bf16", "taken"), [(-0.002, 0.0, "bf16"), (-0.5, -0.5, "fp32"), (0.1, 0.0, "int8")])
def test_a_loss_above_what_is_allowed_is_never_taken(int8, bf16, taken, models, toy, tmp_path, measured):
    measured["rows"] |= {"bf16": (150.0, bf16), "int8": (900.0, int8)}
    assert encode(models["dense"], toy, tmp_path / "v") == 0
    assert open_vectors(tmp_path / "v").facts["precision"] == taken


def test_it_measures_for_itself(models, toy, tmp_path, capsys):
    assert encode(models["dense"], toy, tmp_path / "q", "--queries", "test") == 0
    made = open_vectors(tmp_path / "q").facts["precision"]
    assert made in ("fp32", "bf16", "int8")
    assert f"--precision auto: {made}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dense", "sparse", "late"])
def test_an_interrupted_encoding_keeps_its_choice(kind, models, toy, tmp_path, measured, monkeypatch, capsys):
    out = tmp_path / "v"
    seen = small_windows(monkeypatch, stop_at=3)
    assert encode(models[kind], toy, out) == 1 and not out.exists() and seen == ["int8"] * 3
    measured["rows"] |= {"int8": (50.0, -0.9)}  # another measurement would say another
    seen = small_windows(monkeypatch)
    capsys.readouterr()
    assert encode(models[kind], toy, out) == 0
    assert measured["times"] == 1 and seen == ["int8"] * 9
    assert f"--precision auto: int8, as {out}.partial was begun" in capsys.readouterr().err
    assert open_vectors(out).facts["precision"] == "int8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v"]
    assert encode(models[kind], toy, out) == 0  # a finished folder's choice is none for the next
    assert measured["times"] == 2 and open_vectors(out).facts["precision"] == "bf16"


def test_a_choice_counts_for_the_same_work_only(models, toy, tmp_path, measured, monkeypatch):
    out = tmp_path / "v"
    small_windows(monkeypatch, stop_at=3)
    assert encode(models["dense"], toy, out) == 1
    measured["rows"] |= {"int8": (50.0, -0.9)}
    seen = small_windows(monkeypatch)
    assert encode(models["dense"], toy, out, "--queries", "train") == 0
    assert measured["times"] == 2 and seen == ["bf16"] * 8


def test_a_precision_that_was_said_is_not_taken_for_a_choice(models, toy, tmp_path, measured, monkeypatch):
    out = tmp_path / "v"
    measured["rows"] |= {"int8": (900.0, -0.9)}
    small_windows(monkeypatch, stop_at=3)
    assert encode(models["dense"], toy, out, precision="int8") == 1
    seen = small_windows(monkeypatch)
    assert encode(models["dense"], toy, out) == 0 and seen == ["bf16"] * 12
    note = verbs_speed.chosen_for(out)
    small_windows(monkeypatch, stop_at=3)
    assert encode(models["dense"], toy, out) == 1 and json.loads(note.read_text())["precision"] == "bf16"
    small_windows(monkeypatch, stop_at=3)
    assert encode(models["dense"], toy, out, precision="int8") == 1  # now it is work of int8 that lies there
    seen = small_windows(monkeypatch)
    assert encode(models["dense"], toy, out) == 0 and seen == ["bf16"] * 12
    assert measured["times"] == 3 and not note.exists()


def test_token_vectors_begun_at_another_precision_are_begun_anew(models, toy, tmp_path, monkeypatch):
    small_windows(monkeypatch, stop_at=3)
    assert encode(models["late"], toy, tmp_path / "v", precision="bf16") == 1
    seen = small_windows(monkeypatch)
    assert encode(models["late"], toy, tmp_path / "v", precision="fp32") == 0 and seen == ["fp32"] * 12


def test_where_nothing_can_be_told_it_is_fp32(models, tmp_path, capsys):
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "a", "title": "", "text": "an otter"}\n')
    (folder / "queries.jsonl").write_text("")
    assert encode(models["dense"], folder, tmp_path / "v") == 0
    assert open_vectors(tmp_path / "v").facts["precision"] == "fp32"
    assert "--precision auto: fp32, for nothing can be measured: " in capsys.readouterr().err


@pytest.fixture
def first(toy, tmp_path):
    opened = open_collection(str(toy))
    docs = [opened.documents.ids[i] for i in range(12)]
    ranking = Ranking.of({doc: float(-i) for i, doc in enumerate(docs)})
    write_run(tmp_path / "first.trec", {opened.queries.ids[i]: ranking for i in range(15)})
    return tmp_path / "first.trec"


@pytest.mark.parametrize("kind", ["cross", "dense"])
def test_rerank_takes_what_is_measured(kind, models, toy, first, tmp_path, measured, capsys):
    words = ("rerank", models[kind], first, toy, "--device", "cpu", "--out")
    assert call(*words, tmp_path / "auto.trec", "--precision", "auto") == 0
    assert "--precision auto: int8 (5.1x fp32)" in capsys.readouterr().err and measured["times"] == 1
    assert call(*words, tmp_path / "int8.trec", "--precision", "int8") == 0
    assert call(*words, tmp_path / "fp32.trec") == 0
    auto, low, full = (read_run(tmp_path / f"{name}.trec") for name in ("auto", "int8", "fp32"))
    scores = [np.concatenate([r.scores for r in run.values()]) for run in (auto, low, full)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert (scores[0] != scores[2]).any()


def test_rerank_measures_for_itself(models, toy, first, tmp_path, capsys):
    words = (
        "rerank",
        models["cross"],
        first,
        toy,
        "--device",
        "cpu",
        "--precision",
        "auto",
        "--out",
        tmp_path / "r.trec",
    )
    assert call(*words) == 0 and len(read_run(tmp_path / "r.trec")) == 15
    assert "15 queries, 12 documents, 180 pairs" in capsys.readouterr().err


def test_what_auto_is_not_for_is_said(models, toy, tmp_path, capsys):
    for words, said in (
        (("encode", models["dense"], toy, "--out", tmp_path / "v", "--workers", "1"), "measures on this machine alone"),
        (("encode", models["dense"], toy, "--out", tmp_path / "v", "--queries", "none"), "no split 'none'"),
        (("mine", models["dense"], toy), "--precision auto: want fp32, bf16 or int8"),
    ):
        assert call(*words, "--precision", "auto", "--device", "cpu") == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_recipe_wants_a_plain_precision(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('[collection]\nsource = "x"\n[model]\nstart = "y"\n[runtime]\nprecision = "auto"\n')
    with pytest.raises(
        Misuse, match="runtime.precision: auto is measured for a model that is there, as flatcoat speed"
    ):
        load_recipe(path)


def test_encoding_without_auto_measures_nothing(models, toy, tmp_path, measured):
    assert encode(models["dense"], toy, tmp_path / "v", precision="fp32") == 0 and measured["times"] == 0
    model, opened = load_model(str(models["dense"])), open_collection(str(toy))
    wanted = encode_all(model.document, opened.documents.texts(), model.runtime)
    np.testing.assert_allclose(open_vectors(tmp_path / "v").vectors, wanted, atol=1e-6)
