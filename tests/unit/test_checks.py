"""Each check finds its planted fault and passes a clean case."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from flatcoat.checks.base import Finding, enforce
from flatcoat.checks.belongs import belongs, precision
from flatcoat.checks.best_pooling import pooling_by_measure
from flatcoat.checks.collection import leakage, only_judged, truncated
from flatcoat.checks.run import missing_queries, rank_order, upside_down
from flatcoat.checks.towers import lengths, normalisation, pooling
from flatcoat.checks.training import frozen_batches, piled_up
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import epoch_batches
from flatcoat.data.toy import toy_sentences
from flatcoat.data.trec import write_run
from flatcoat.errors import FlatcoatError
from flatcoat.models.checkpoint import Overrides, load_dense
from flatcoat.records import Ranking
from flatcoat.testing.index import unit


def levels(findings):
    return {finding.level for finding in findings}


def test_pooling():
    assert levels(pooling("mean", "mean")) == {"ok"}
    assert levels(pooling("mean", "cls")) == {"error"}
    assert levels(pooling(None, "cls")) == {"warning"}


def test_length_and_prompt(tiny):
    trained = load_dense(str(tiny))
    assert levels(lengths(trained, load_dense(str(tiny)))) == {"ok"}
    assert levels(lengths(trained, load_dense(str(tiny), Overrides(query_length=8)))) == {"warning"}
    assert levels(lengths(trained, load_dense(str(tiny), Overrides(query_prompt="query: ")))) == {"error"}


def test_normalisation():
    vectors = unit(20, 8)
    assert levels(normalisation(vectors, vectors)) == {"ok"}
    assert levels(normalisation(3 * vectors, 2 * vectors)) == {"ok"}
    assert levels(normalisation(vectors, 3 * vectors)) == {"error"}


def test_best_pooling_finds_a_lost_setting(tiny):
    rows = toy_sentences()[:30]
    queries, documents = [d for _, _, d in rows], [d for _, _, d in rows]
    for pool in ("mean", "max"):
        assert levels(pooling_by_measure(load_dense(str(tiny), Overrides(pooling=pool)), queries, documents)) == {"ok"}
    model = load_dense(str(tiny), Overrides(pooling="cls"))
    with torch.no_grad():  # a backbone whose first token says nothing, as in a model trained with mean pooling
        layers = model.query.backbone.encoder.layer
        for layer in layers:
            layer.attention.output.dense.weight.zero_()
    found = pooling_by_measure(model, queries, documents)
    assert levels(found) == {"error"} and "pooled by cls" in found[0].message and "cls 0.065" in found[0].message
    assert model.document.settings.pooling == "cls"


def test_belongs(tmp_path):
    of = {"model": "a" * 64, "corpus": "b" * 64, "precision": "fp32"}
    assert levels(belongs(tmp_path, of, model="a" * 64, corpus="b" * 64)) == {"ok"}
    assert levels(belongs(tmp_path, of, model="c" * 64)) == {"error"}
    assert levels(belongs(tmp_path, of, corpus="c" * 64)) == {"error"}
    assert levels(belongs(tmp_path, {}, corpus="c" * 64)) == {"warning"}
    assert precision(tmp_path, of, "fp32") == [] and levels(precision(tmp_path, of, "bf16")) == {"warning"}


def store(tmp_path, splits, documents=100):
    folder = tmp_path / "c"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in range(documents))
    )
    queries = sorted({q for rows in splits.values() for q, _ in rows})
    text = {q: q.split("/")[-1] for q in queries}
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": q, "text": text[q]}) + "\n" for q in queries))
    for split, rows in splits.items():
        (folder / "qrels" / f"{split}.tsv").write_text("q\td\ts\n" + "".join(f"{q}\td{d}\t1\n" for q, d in rows))
    return build_store(str(folder), tmp_path / "store")


def test_only_judged(tmp_path):
    collection = store(tmp_path, {"test": [(f"q{i}", i) for i in range(95)], "dev": [(f"q{i}", i) for i in range(20)]})
    assert levels(only_judged(collection, "test")) == {"error"}
    assert levels(only_judged(collection, "dev")) == {"ok"}


def test_leakage_by_text_not_by_id(tmp_path):
    rows = {
        "train": [("train/What is it", 1), ("train/other", 2)],
        "test": [("test/what is  it", 3)],
        "dev": [("dev/new", 4)],
    }
    collection = store(tmp_path, rows)
    assert levels(leakage(collection, "train", "test")) == {"error"}
    assert levels(leakage(collection, "train", "dev")) == {"ok"}


def test_shared_positives_are_a_warning(tmp_path):
    collection = store(tmp_path, {"train": [("a", 1), ("b", 2)], "test": [("c", 1)]})
    assert levels(leakage(collection, "train", "test")) == {"warning"}


def test_truncation(tmp_path):
    collection = store(tmp_path, {"test": [("q", 1)]})
    assert levels(truncated(lambda texts: [4] * len(texts), collection, 4)) == {"ok"}
    assert levels(truncated(lambda texts: [5] * len(texts), collection, 4)) == {"warning"}


def ranked(best_first=True, queries=12):
    run, qrels = {}, {}
    for i in range(queries):
        scores = {f"d{j}": float(10 - j) for j in range(10)}
        run[f"q{i}"], qrels[f"q{i}"] = Ranking.of(scores), {"d1" if best_first else "d8": 1}
    return run, qrels


def test_a_distance_ranked_as_a_similarity(tmp_path):
    assert levels(upside_down(*ranked())) == {"ok"}
    assert levels(upside_down(*ranked(best_first=False))) == {"error"}
    write_run(tmp_path / "good.trec", ranked()[0])
    assert levels(rank_order(tmp_path / "good.trec")) == {"ok"}
    lines = "".join(f"q Q0 d{j} {j + 1} {0.1 * j} tag\n" for j in range(9))
    (tmp_path / "distance.trec").write_text(lines)
    assert levels(rank_order(tmp_path / "distance.trec")) == {"error"}


def test_missing_queries():
    run, qrels = ranked()
    assert levels(missing_queries(run, qrels)) == {"ok"}
    assert levels(missing_queries(run, {**qrels, "other": {"a": 1}})) == {"warning"}


def test_gradients_that_pile_up():
    weight = torch.nn.Parameter(torch.ones(3))

    def norm(clear):
        if clear:
            weight.grad = None
        (weight**2).sum().backward()
        return float(weight.grad.norm())

    assert levels(piled_up(lambda: norm(True))) == {"ok"}
    weight.grad = None
    assert levels(piled_up(lambda: norm(False))) == {"error"}


def test_in_batch_negatives_that_never_change():
    keys = np.arange(64)
    assert levels(frozen_batches(lambda e: epoch_batches(keys, 8, 0, e))) == {"ok"}
    assert levels(frozen_batches(lambda e: epoch_batches(keys, 8, 0, 0))) == {"error"}


def test_enforcing(capsys):
    error, warning = Finding("error", "pooling", "wrong", "mend it"), Finding("warning", "length", "short")
    with pytest.raises(FlatcoatError, match=r"pooling: wrong; mend it \(or accept it: --allow pooling\)"):
        enforce([warning, error])
    enforce([error], allow=["pooling"])
    assert "length: short" in capsys.readouterr().err
