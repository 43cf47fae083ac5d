"""Late interaction in three layouts, with sentence-transformers' MultiVectorEncoder, both ways, to 1e-5."""

from __future__ import annotations

import shutil
import string

import numpy as np
import pytest
import torch

from changed_models import filled, unseal
from flatcoat.errors import FlatcoatError
from flatcoat.files import read_json, write_json
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
from flatcoat.models.maxsim import maxsim
from flatcoat.testing.encoder import TEXTS

library = pytest.importorskip("sentence_transformers")
FULL = [text for text in TEXTS if text]
DOTTED = ["the otter lives. in the marsh.", "heron .", *FULL]


@pytest.fixture(scope="session")
def tiny(tiny, tmp_path_factory):
    """The tiny encoder with [unused0] and [unused1] in its vocabulary, as BERT has them: known, but not special; no holes."""
    return filled(tiny, tmp_path_factory.mktemp("tiny-marked") / "model", unused0="q", unused1="z")


@pytest.fixture
def marked(tiny, tmp_path):
    """A copy to be rewritten."""
    return shutil.copytree(tiny, tmp_path / "marked")


def agree(model, other) -> None:
    """Vectors, text by text, and scores of all pairs and of aligned ones."""
    ours = model.encode_queries(DOTTED), model.encode_documents(DOTTED)
    theirs = other.encode_query(DOTTED), other.encode_document(DOTTED)
    for made, wanted in zip(ours, theirs, strict=True):
        for i, vectors in enumerate(wanted):
            np.testing.assert_allclose(made.item(i), np.asarray(vectors), atol=1e-5)
    every = maxsim(*padded(ours[0]), *padded(ours[1]))
    torch.testing.assert_close(every, other.similarity(*theirs), atol=1e-4, rtol=1e-5)
    aligned = model.score(DOTTED, DOTTED[::-1])
    np.testing.assert_allclose(aligned, other.similarity_pairwise(theirs[0], theirs[1][::-1]), atol=1e-4)


def padded(items):
    vectors = [torch.from_numpy(items.item(i)) for i in range(len(items))]
    present = [torch.ones(len(v), dtype=torch.bool) for v in vectors]
    return (torch.nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (vectors, present))


def theirs(folder):
    return library.MultiVectorEncoder(str(folder), device="cpu")


OURS = {
    "plain": LateOverrides(dim=8, query_length=12, document_length=20),
    "states themselves": LateOverrides(query_length=12, document_length=20),
    "markers": LateOverrides(dim=8, query_marker="[Q] ", document_marker="[D] ", query_length=12, document_length=20),
    "expansion": LateOverrides(dim=8, query_marker="[Q] ", query_length=12, document_length=20, expand=True),
    "attended": LateOverrides(dim=8, query_length=12, document_length=20, expand=True, attend_expansion=True),
    "punctuation": LateOverrides(dim=8, query_length=12, document_length=20, skip_punctuation=True),
    "prompts": LateOverrides(dim=8, query_length=12, document_length=20, query_marker="[Q] ", query_prompt="what is ",
                             document_prompt="the "),
}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_our_folders_load_there_and_here(tiny, tmp_path, name):
    model = load_late(str(tiny), OURS[name])
    save_late(model, tmp_path / "ours")
    other = theirs(tmp_path / "ours")
    agree(model, other)
    again = load_late(str(tmp_path / "ours"))
    agree(again, other)
    save_late(again, tmp_path / "twice")
    for file in sorted((tmp_path / "ours").rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "twice" / file.relative_to(tmp_path / "ours")).read_bytes(), file


NATIVE = {
    "plain": ({}, {}),
    "lengths": ({"query_length": 9, "document_length": 11}, {}),
    "fixed": ({"query_expansion": {"strategy": "fixed", "length": 10}, "document_length": 16}, {}),
    "attended": ({"query_expansion": {"strategy": "fixed", "length": 10, "attend": True, "token": "[MASK]"}}, {}),
    "least": ({"query_expansion": {"strategy": "min", "length": 6}, "query_length": 20, "document_length": 16}, {}),
    "prompts": ({}, {"query": "what is ", "document": "the "}),
    "marker": ({}, {"query": "[MASK] ", "document": "[UNK] "}),
}


def native(folder, settings, prompts, words=tuple(string.punctuation), tasks=None, dim=8, **more):
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    rng = torch.Generator().manual_seed(3)
    weight = torch.randn(dim, 32, generator=rng)
    modules = [Transformer(str(folder), **settings),
               Dense(32, dim, False, torch.nn.Identity(), weight, module_input_name="token_embeddings", **more),
               MultiVectorMask(words, skiplist_tasks=tasks), Normalize(module_input_name="token_embeddings")]  # fmt: skip
    return library.MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts)


@pytest.mark.parametrize("name", NATIVE)
def test_their_folders_load_here_and_go_back(tiny, tmp_path, name):
    other = native(tiny, *NATIVE[name])
    other.save(str(tmp_path / "theirs"))
    model = load_late(str(tmp_path / "theirs"))
    agree(model, other)
    save_late(model, tmp_path / "ours")
    agree(model, theirs(tmp_path / "ours"))
    agree(load_late(str(tmp_path / "ours")), other)


def test_projections_in_a_row_are_one(tiny, tmp_path):
    from sentence_transformers.base.modules import Dense

    other = native(tiny, {}, {}, dim=32, use_residual=True)
    rng = torch.Generator().manual_seed(4)
    for place, (wide, narrow) in enumerate(((32, 6), (6, 5))):
        made = Dense(wide, narrow, True, torch.nn.Identity(), torch.randn(narrow, wide, generator=rng),
                     torch.randn(narrow, generator=rng), "token_embeddings", use_residual=True)  # fmt: skip
        other.insert(2 + place, made)
    other.save(str(tmp_path / "theirs"))
    model = load_late(str(tmp_path / "theirs"))
    agree(model, other)
    save_late(model, tmp_path / "ours")
    agree(model, theirs(tmp_path / "ours"))


def test_queries_that_skip_tokens_load_but_are_not_written(tiny, tmp_path):
    other = native(tiny, {}, {}, tasks=["query", "document"])
    other.save(str(tmp_path / "theirs"))
    model = load_late(str(tmp_path / "theirs"))
    agree(model, other)
    with pytest.raises(FlatcoatError, match="cannot be written"):
        save_late(model, tmp_path / "ours")


def test_what_is_not_supported_is_refused(tiny, tmp_path):
    from sentence_transformers.base.modules import Dense

    native(tiny, {"query_expansion": {"strategy": "fixed", "length": 9, "token": "[UNK]"}}, {}).save(
        str(tmp_path / "a")
    )
    with pytest.raises(FlatcoatError, match="filled up with"):
        load_late(str(tmp_path / "a"))
    bent = native(tiny, {}, {})
    bent.insert(2, Dense(8, 8, module_input_name="token_embeddings"))
    bent.save(str(tmp_path / "b"))
    with pytest.raises(FlatcoatError, match="Tanh"):
        load_late(str(tmp_path / "b"))
    bare = native(tiny, {}, {})
    del bare[3]
    bare.save(str(tmp_path / "c"))
    with pytest.raises(FlatcoatError, match="no Normalize"):
        load_late(str(tmp_path / "c"))


def stanford(folder, **metadata):
    """Rewrite an encoder's folder as Stanford's ColBERT writes it."""
    from safetensors.torch import load_file, save_file

    held = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    held["linear.weight"] = torch.randn(8, 32, generator=torch.Generator().manual_seed(5))
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "architectures": ["HF_ColBERT"]})
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    if metadata:
        write_json(folder / "artifact.metadata", metadata)
    return folder


SAID = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 16, "doc_maxlen": 14, "dim": 8}


@pytest.mark.parametrize(
    "more", [{"mask_punctuation": True}, {"mask_punctuation": False, "attend_to_mask_tokens": True}]
)
def test_stanfords_folders(marked, tmp_path, more):
    folder = stanford(marked, similarity="cosine", **SAID, **more)
    model, other = load_late(str(folder)), theirs(folder)
    agree(model, other)
    assert model.query.settings.marker == "[unused0]"
    assert model.query.settings.expansion == 16
    save_late(model, tmp_path / "ours")
    agree(model, theirs(tmp_path / "ours"))
    agree(load_late(str(tmp_path / "ours")), other)


def test_a_stanford_folder_without_metadata(marked):
    folder = stanford(marked)
    model = load_late(str(folder))
    assert (model.query.settings.max_length, model.document.settings.max_length) == (32, 64)  # of 64 positions
    short = load_late(str(folder), LateOverrides(document_length=32))
    agree(short, theirs(folder))  # there the tokenizer's length bounds documents


def test_pylates_own_words(marked, tmp_path):
    """Settings as PyLate writes them: a marker with a space in the vocabulary, prompts, and defaults left out."""
    model = load_late(str(marked), LateOverrides(dim=8, query_marker="[Q] ", document_marker="[D] "))
    save_late(model, tmp_path / "pylate")
    unseal(tmp_path / "pylate")
    said = read_json(tmp_path / "pylate" / "config_sentence_transformers.json")
    for left_out in ("do_query_expansion", "skiplist_words", "query_length"):
        said.pop(left_out)
    said |= {"query_length": None, "document_length": 18, "prompts": {"query": "[Q] what is ", "document": ""}}
    write_json(tmp_path / "pylate" / "config_sentence_transformers.json", said)
    loaded = load_late(str(tmp_path / "pylate"))
    query, document = loaded.query.settings, loaded.document.settings
    assert (query.marker, query.prompt, query.max_length, query.expansion) == ("[Q] ", "what is ", 32, 32)
    assert document.skip == tuple(string.punctuation)
    agree(loaded, theirs(tmp_path / "pylate"))


def test_a_prefix_that_is_no_token_is_text(tiny, tmp_path):
    save_late(load_late(str(tiny), LateOverrides(dim=8)), tmp_path / "pylate")
    unseal(tmp_path / "pylate")
    said = read_json(tmp_path / "pylate" / "config_sentence_transformers.json")
    write_json(tmp_path / "pylate" / "config_sentence_transformers.json", {**said, "query_prefix": "query: "})
    model = load_late(str(tmp_path / "pylate"))
    assert (model.query.settings.marker, model.query.settings.prompt) == (None, "query: ")
    agree(model, theirs(tmp_path / "pylate"))
