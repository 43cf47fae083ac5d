"""sentence-transformers' SparseEncoder and plain masked-language-model folders, both ways, to 1e-5."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flatcoat.errors import Misuse
from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade, save_splade
from flatcoat.testing.encoder import TEXTS

library = pytest.importorskip("sentence_transformers")
FULL = [text for text in TEXTS if text]


def dense(found) -> np.ndarray:
    return found.to_dense().numpy()


def close(ours, theirs) -> None:
    """Equal; a static embedding there has no room for entries beyond the tokenizer's, which are nothing here."""
    width = theirs.shape[1]
    np.testing.assert_allclose(ours[:, :width], theirs, atol=1e-5)
    assert not ours[:, width:].any()


def agree(model, other) -> None:
    close(model.encode_queries(FULL).array(), dense(other.encode_query(FULL)))
    close(model.encode_documents(FULL).array(), dense(other.encode_document(FULL)))


@pytest.mark.parametrize("aggregate", ["max", "sum"])
@pytest.mark.parametrize("queries", ["shared", "separate", "lookup"])
def test_our_folders_load_there(tiny_mlm, tmp_path, aggregate, queries):
    model = load_splade(str(tiny_mlm), SparseOverrides(aggregate=aggregate, queries=queries))
    if queries != "shared":
        with torch.no_grad():
            for parameter in model.query.parameters():
                parameter.mul_(1.05)
    save_splade(model, tmp_path / "ours")
    agree(model, library.SparseEncoder(str(tmp_path / "ours"), device="cpu"))
    agree(load_splade(str(tmp_path / "ours")), library.SparseEncoder(str(tmp_path / "ours"), device="cpu"))


@pytest.mark.parametrize("aggregate", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_their_folders_load_here(tiny_mlm, tmp_path, aggregate, activation):
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    transformer = Transformer(str(tiny_mlm), transformer_task="fill-mask")
    other = library.SparseEncoder(modules=[transformer, SpladePooling(aggregate, activation)], device="cpu")
    other.save(str(tmp_path / "theirs"))
    if (aggregate, activation) == ("sum", "log1p_relu"):
        with pytest.raises(Misuse, match="second logarithm"):
            load_splade(str(tmp_path / "theirs"))
        return
    agree(load_splade(str(tmp_path / "theirs")), other)


def test_their_inference_free_folders_load_here(tiny_mlm, tmp_path):
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    transformer = Transformer(str(tiny_mlm), transformer_task="fill-mask")
    rng = torch.Generator().manual_seed(0)
    weight = torch.rand(len(transformer.tokenizer), generator=rng)
    static = SparseStaticEmbedding(tokenizer=transformer.tokenizer, weight=weight, frozen=True)
    router = Router.for_query_document([static], [transformer, SpladePooling("max")])
    other = library.SparseEncoder(modules=[router], device="cpu")
    other.save(str(tmp_path / "theirs"))
    model = load_splade(str(tmp_path / "theirs"))
    known = [t for t in FULL if "[UNK]" not in model.query.tokenizer.tokenize(t)]
    close(model.encode_queries(known).array(), dense(other.encode_query(known)))
    close(model.encode_documents(FULL).array(), dense(other.encode_document(FULL)))
    assert not model.query.weight.requires_grad


def test_a_plain_folder_is_the_same_model(tiny_mlm, tmp_path):
    """naver's layout: a masked-language model, and a query encoder in `query/` where there is one."""
    import shutil

    model = load_splade(str(tiny_mlm))
    save_splade(model, tmp_path / "ours")
    import transformers

    network = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        logits = network(**tokenizer(FULL[1], return_tensors="pt")).logits[0]
    by_hand = torch.log1p(torch.relu(logits)).amax(0).numpy()
    np.testing.assert_allclose(model.encode_documents([FULL[1]]).array()[0], by_hand, atol=1e-5)
    shutil.copytree(tiny_mlm, tmp_path / "naver")
    shutil.copytree(tiny_mlm, tmp_path / "naver" / "query")
    assert not load_splade(str(tmp_path / "naver")).shared
