"""Each check of late-interaction models, their vectors, and cross-encoders finds its planted fault and passes a clean case."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from test_cli import call

from changed_models import unseal
from flatcoat.app.inspect_models import judged_pairs
from flatcoat.checks.cross import cut_pairs, one_label, others, related, spread
from flatcoat.checks.late import alike, cut_queries, expansion, markers, punctuation, unit_length
from flatcoat.data.collection import open_collection
from flatcoat.files import read_json, write_json
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
from flatcoat.models.colbert_layouts import describe_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross
from flatcoat.models.encode import pad
from flatcoat.representations import MultiVector
from flatcoat.testing.multi_index import tokens
from flatcoat.testing.tiny import write_tiny

MARKED = LateOverrides(8, 12, 24, query_marker="q", document_marker="d", expand=True, skip_punctuation=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("checks-late")


@pytest.fixture(scope="module")
def late(tiny, home):
    save_late(load_late(str(tiny), MARKED), home / "late")
    return home / "late"


@pytest.fixture(scope="module")
def cross(toy, home):
    """A cross-encoder that learnt to tell the toy's judged pairs from those that the check compares them with."""
    model = load_cross(str(write_tiny(home / "wide", dim=64)), CrossOverrides(seed=0))
    queries, documents = judged_pairs(open_collection(str(toy)))
    wrong = [documents[i] for i in others(len(queries)).tolist()]
    pairs = [*zip(queries, documents, strict=True), *zip(queries, wrong, strict=True)]
    given = pad(model.tower.tokenize(pairs), model.tower.pad_id, "cpu")
    model.tower.eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        scores = model.tower(*given).view(2, -1)
        optimizer.zero_grad()
        torch.nn.functional.softplus(scores[1] - scores[0]).mean().backward()
        optimizer.step()
    save_cross(model, home / "cross")
    return home / "cross"


def copied(model, folder):
    """A copy that may be changed."""
    shutil.copytree(model, folder)
    unseal(folder)


def levels(findings):
    return {finding.level for finding in findings}


def lines(words, capsys):
    """Exit code and lines of `flatcoat check`."""
    capsys.readouterr()
    code = call("check", *words)
    return code, capsys.readouterr().out.splitlines()


def test_token_vectors_that_are_not_of_unit_length():
    vectors = tokens(40, 0, 9)
    assert levels(unit_length(vectors, "texts")) == {"ok"}
    assert levels(unit_length(MultiVector(vectors.start, 2 * vectors.vectors), "texts")) == {"error"}
    assert levels(unit_length(MultiVector(vectors.start, vectors.vectors.astype(np.float16)), "texts")) == {"ok"}
    assert levels(unit_length(MultiVector(np.zeros(3, np.int64), np.zeros((0, 4), np.float32)), "texts")) == {"ok"}


def test_collapse_and_texts_without_vectors():
    vectors = tokens(40, 1, 9)
    assert levels(alike(vectors, "texts")) == {"ok"}
    same = vectors.vectors[:1] + 0.01 * vectors.vectors
    same /= np.linalg.norm(same, axis=1, keepdims=True)
    found = alike(MultiVector(vectors.start, same), "texts")
    assert levels(found) == {"error"} and found[0].check == "collapse"
    few = MultiVector.of([vectors.item(0), np.zeros((0, 16), np.float32), vectors.item(1)], 16)
    assert levels(alike(few, "texts")) == {"warning"}
    assert levels(alike(few[1:2], "texts")) == {"error"} and levels(alike(few[:0], "texts")) == {"warning"}


def test_a_marker_that_the_vocabulary_has_not(late, tmp_path, capsys):
    assert levels(markers(describe_late(late), load_late(str(late)))) == {"ok"}
    folder = tmp_path / "lost"
    copied(late, folder)
    config = folder / "config_sentence_transformers.json"
    write_json(config, {**read_json(config), "query_prefix": "[Q] "})
    found = markers(describe_late(folder), load_late(str(folder)))
    assert levels(found) == {"error"} and "query marker '[Q] ' is no token" in found[0].message
    assert lines((folder,), capsys)[0] == 1
    write_json(config, {**read_json(config), "query_prefix": ""})
    assert levels(markers(describe_late(folder), load_late(str(folder)))) == {"warning"}


def test_expansion_beyond_the_length(late, tmp_path):
    assert levels(expansion(describe_late(late), load_late(str(late)))) == {"ok"}
    copied(late, tmp_path / "m")
    config = tmp_path / "m" / "config_sentence_transformers.json"
    how = {"strategy": "min", "attend": False, "token": None, "length": 20}
    write_json(config, {**read_json(config), "query_expansion": how})
    found = expansion(describe_late(tmp_path / "m"), load_late(str(tmp_path / "m")))
    assert levels(found) == {"warning"} and "20 tokens, but are cut at 12" in found[0].message
    assert levels(expansion(describe_late(late), load_late(str(late), LateOverrides(expand=False)))) == {"ok"}


def test_punctuation_that_is_not_skipped(late):
    model = load_late(str(late))
    assert levels(punctuation(model.document)) == {"ok"}
    model.document.skip_ids = torch.zeros(0, dtype=torch.long)  # a list that is another tokenizer's
    found = punctuation(model.document)
    assert levels(found) == {"warning"} and "'.'" in found[0].message
    kept = load_late(str(late), LateOverrides(skip_punctuation=False))
    assert levels(punctuation(kept.document)) == {"ok"}


def test_queries_that_are_cut_off(late, toy):
    collection = open_collection(str(toy))
    assert levels(cut_queries(load_late(str(late)).query, collection)) == {"ok"}
    short = load_late(str(late), LateOverrides(query_length=5))
    assert levels(cut_queries(short.query, collection)) == {"warning"}


def test_a_collapsed_late_model(late, tmp_path, capsys):
    model = load_late(str(late))
    with torch.no_grad():
        model.document.projection.weight.zero_()
        model.document.projection.weight[0].fill_(1.0)
        model.document.backbone.encoder.layer[-1].output.LayerNorm.bias.fill_(1.0)
    save_late(model, tmp_path / "bad")
    code, said = lines((tmp_path / "bad",), capsys)
    assert code == 1 and any("error: collapse" in line for line in said)


def test_a_healthy_cross_encoder_passes(cross, toy, capsys):
    code, said = lines((cross, "--on", toy), capsys)
    assert code == 0 and len(said) == 5
    for check in (
        "labels: one",
        "collapse: scores",
        "related: ",
        "truncation: 0% of 40 judged pairs",
        "language: 0.0%",
    ):
        assert any(f": ok: {check}" in line for line in said), check


def test_a_cross_encoder_of_several_labels(cross, tmp_path, capsys):
    assert levels(one_label(cross)) == {"ok"}
    copied(cross, tmp_path / "m")
    config = read_json(tmp_path / "m" / "config.json")
    write_json(tmp_path / "m" / "config.json", {**config, "id2label": {str(i): str(i) for i in range(3)}})
    assert levels(one_label(tmp_path / "m")) == {"error"}
    code, said = lines((tmp_path / "m",), capsys)
    assert code == 1 and "a classifier of 3 labels" in said[0]


def turned(cross, path, factor):
    """The cross-encoder with its head times a factor."""
    model = load_cross(str(cross))
    with torch.no_grad():
        model.tower.backbone.classifier.weight.mul_(factor)
        model.tower.backbone.classifier.bias.mul_(factor)
    save_cross(model, path)
    return path


def test_a_head_whose_sign_is_turned(cross, toy, tmp_path, capsys):
    code, said = lines((turned(cross, tmp_path / "m", -1), "--on", toy), capsys)
    assert code == 1 and any("error: related" in line and "sign of the head" in line for line in said)


def test_a_head_that_says_the_same_of_all(cross, tmp_path, capsys):
    assert levels(spread(load_cross(str(cross)))) == {"ok"}
    code, said = lines((turned(cross, tmp_path / "m", 0), ), capsys)  # fmt: skip
    assert code == 1 and any("error: collapse" in line for line in said)


def test_words_in_common_and_their_opposite():
    class Overlap:
        def __init__(self, sign):
            self.sign = sign

        def score(self, queries, documents):
            shared = [len(set(q.split()) & set(d.split())) for q, d in zip(queries, documents, strict=True)]
            return np.array(shared, np.float32) * self.sign

    queries, documents = [f"where is word{i}" for i in range(20)], [f"word{i} is there" for i in range(20)]
    assert levels(related(Overlap(1), queries, documents)) == {"ok"}
    assert levels(related(Overlap(-1), queries, documents)) == {"error"}


def test_a_head_that_was_never_trained_ranks_by_chance():
    class Chance:
        def score(self, queries, documents):
            return np.array([hash_of(f"{q} {d}") for q, d in zip(queries, documents, strict=True)], np.float32)

    def hash_of(text):
        return sum(ord(c) * 31**i for i, c in enumerate(text)) % 1009

    names = [f"text {i}" for i in range(100)]
    found = related(Chance(), names, names)
    assert levels(found) == {"warning"} and "which is chance" in found[0].message
    assert levels(related(Chance(), names[:1], names[:1])) == {"warning"}
    assert all(sorted(others(n)) == list(range(n)) and (others(n) != np.arange(n)).all() for n in (2, 3, 40))


def test_pairs_that_are_cut_off(cross):
    queries, documents = ["otter"] * 3, ["the otter " * 30, "the otter " * 30, "otter"]
    assert levels(cut_pairs(load_cross(str(cross)), queries, documents)) == {"warning"}
    assert levels(cut_pairs(load_cross(str(cross)), queries[2:], documents[2:])) == {"ok"}
