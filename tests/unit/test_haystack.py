"""Haystack: each component against the model itself, in pipelines, through their files, and what bad input gets."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.core.serialization import component_to_dict
from haystack.document_stores.in_memory import InMemoryDocumentStore

from flatcoat.app.integrations.haystack import (
    FlatcoatDocumentEmbedder,
    FlatcoatRanker,
    FlatcoatRetriever,
    FlatcoatSparseDocumentEmbedder,
    FlatcoatSparseTextEmbedder,
    FlatcoatTextEmbedder,
)
from flatcoat.app.integrations.haystack_filters import translated
from flatcoat.app.integrations.loaded import Found, Held
from flatcoat.errors import Misuse
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross
from flatcoat.models.splade_checkpoint import load_splade

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "where does the otter live"


@pytest.fixture(scope="session")
def cross(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("haystack-cross") / "cross"
    save_cross(load_cross(str(tiny), CrossOverrides(seed=3)), folder)
    return folder


def documents():
    return [
        Document(id="a", content="The otter swims.", meta={"title": "Otters", "year": 1}),
        Document(id="b", content="A hare runs."),
        Document(id="c", content="", meta={"title": 7}),
    ]


def test_dense_embedders_give_each_side_of_the_model(tiny):
    model, given = load_dense(str(tiny)), documents()
    got = FlatcoatDocumentEmbedder(str(tiny), device="cpu").run(documents=given)["documents"]
    wanted = model.encode_documents(["Otters The otter swims.", "A hare runs.", ""]).vectors
    assert np.allclose([d.embedding for d in got], wanted, atol=1e-6)
    assert [d.id for d in got] == ["a", "b", "c"] and got[0].meta == given[0].meta
    assert all(d.embedding is None for d in given)
    asked = FlatcoatTextEmbedder(str(tiny), device="cpu").run(text=QUESTION)
    assert np.allclose(asked["embedding"], model.encode_queries([QUESTION]).vectors[0], atol=1e-6)
    assert FlatcoatDocumentEmbedder(str(tiny), device="cpu").run(documents=[])["documents"] == []


def test_sparse_embedders_give_term_weights(tiny_mlm):
    model = load_splade(str(tiny_mlm))
    wanted = model.encode_documents(["Otters The otter swims.", "A hare runs.", ""]).array()
    got = FlatcoatSparseDocumentEmbedder(str(tiny_mlm), device="cpu").run(documents=documents())["documents"]
    for document, row in zip(got, wanted, strict=True):
        made = np.zeros_like(row)
        made[document.sparse_embedding.indices] = document.sparse_embedding.values
        assert np.allclose(made, row, atol=1e-5)
    asked = FlatcoatSparseTextEmbedder(str(tiny_mlm), device="cpu").run(text=QUESTION)["sparse_embedding"]
    row = model.encode_queries([QUESTION]).array()[0]
    assert len(asked.indices) == np.count_nonzero(row) and np.allclose(row[asked.indices], asked.values, atol=1e-5)


def test_a_pipeline_over_haystacks_own_store_finds_what_exact_search_finds(tiny, toy):
    from flatcoat.data.toy import toy_sentences

    store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
    indexing = Pipeline()
    indexing.add_component("embed", FlatcoatDocumentEmbedder(str(tiny), device="cpu"))
    indexing.add_component("write", DocumentWriter(store))
    indexing.connect("embed.documents", "write.documents")
    texts = [text for _, _, text in toy_sentences()]
    indexing.run({"embed": {"documents": [Document(id=str(i), content=text) for i, text in enumerate(texts)]}})
    asking = Pipeline()
    asking.add_component("embed", FlatcoatTextEmbedder(str(tiny), device="cpu"))
    asking.add_component("search", InMemoryEmbeddingRetriever(store, top_k=5))
    asking.connect("embed.embedding", "search.query_embedding")
    got = asking.run({"embed": {"text": QUESTION}})["search"]["documents"]
    model = load_dense(str(tiny))
    scores = model.encode_documents(texts).vectors @ model.encode_queries([QUESTION]).vectors[0]
    assert [int(d.id) for d in got] == np.argsort(-scores, kind="stable")[:5].tolist()


def test_retriever_and_ranker_in_a_pipeline_that_went_through_its_file(tiny, toy, index, cross):
    pipeline = Pipeline()
    pipeline.add_component("search", FlatcoatRetriever(str(tiny), str(index), str(toy), top_k=6, device="cpu"))
    pipeline.add_component("rank", FlatcoatRanker(str(cross), top_k=3, device="cpu"))
    pipeline.connect("search.documents", "rank.documents")
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["flatcoat.app.integrations.haystack"])
    asked = {"search": {"query": QUESTION}, "rank": {"query": QUESTION}}
    one, two = (p.run(asked)["rank"]["documents"] for p in (pipeline, again))
    assert [d.id for d in one] == [d.id for d in two] and len(one) == 3
    found = FlatcoatRetriever(str(tiny), str(index), str(toy), device="cpu").run(query=QUESTION, top_k=6)["documents"]
    scores = load_cross(str(cross)).score([QUESTION] * 6, [d.content for d in found])
    assert [d.id for d in one] == [found[i].id for i in np.argsort(-scores, kind="stable")[:3]]
    assert np.allclose([d.score for d in one], sorted(scores.tolist(), reverse=True)[:3], atol=1e-5)


def test_what_a_component_was_made_with_survives_its_file():
    retriever = FlatcoatRetriever(
        "runs/a", top_k=3, legs=["exact", "bm25"], fuse="score", rerank=4, filters={"year": 1}
    )
    ranker = FlatcoatRanker("m", top_k=2, precision="bf16")
    for made in (retriever, ranker, FlatcoatTextEmbedder("m", "cpu", "bf16"), FlatcoatSparseDocumentEmbedder("m")):
        data = component_to_dict(made, "it")
        again = type(made).from_dict(data)
        assert component_to_dict(again, "it") == data
        assert not made._held.ready and not again._held.ready
    assert retriever.to_dict()["init_parameters"]["legs"] == ["exact", "bm25"]


def test_warm_up_loads_the_model(tiny):
    embedder = FlatcoatTextEmbedder(str(tiny), device="cpu")
    embedder.warm_up()
    assert embedder._held.ready


def test_filters_and_top_k_of_a_call_go_before_those_of_the_making():
    asked = []

    def search(query, k, filter=None):
        asked.append((k, filter))
        return [Found("a", "T", "text", 0.5, {"year": 1})]

    retriever = FlatcoatRetriever("run", top_k=4, filters={"field": "meta.year", "operator": "==", "value": 1})
    retriever._held = Held(lambda: search)
    (got,) = retriever.run(query="q")["documents"]
    assert (got.id, got.content, got.meta, got.score) == ("a", "text", {"year": 1, "title": "T"}, 0.5)
    retriever.run(query="q", filters={"year": {"lt": 3}}, top_k=2)
    assert asked == [(4, {"year": {"eq": 1}}), (2, {"year": {"lt": 3}})]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (None, None),
        ({}, None),
        ({"year": 3}, {"year": 3}),
        ({"field": "meta.year", "operator": ">=", "value": 3}, {"year": {"gte": 3}}),
        ({"field": "year", "operator": "in", "value": [1, 2]}, {"year": {"in": [1, 2]}}),
        ({"field": "year", "operator": "not in", "value": [1]}, {"not": {"year": {"in": [1]}}}),
        ({"field": "year", "operator": "!=", "value": 1}, {"not": {"year": {"eq": 1}}}),
        ({"field": "year", "operator": "==", "value": None}, {"year": {"exists": False}}),
        (
            {"operator": "NOT", "conditions": [
                {"operator": "OR", "conditions": [{"field": "a", "operator": "<", "value": 1}]},
                {"field": "b", "operator": "<=", "value": 2}]},
            {"not": {"and": [{"or": [{"a": {"lt": 1}}]}, {"b": {"lte": 2}}]}},
        ),
        ({"operator": "and", "conditions": [{"field": "a", "operator": ">", "value": 1}]}, {"and": [{"a": {"gt": 1}}]}),
    ],
)  # fmt: skip
def test_filters_are_translated(theirs, ours):
    assert translated(theirs) == ours


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"operator": "XOR", "conditions": [{}]}, "want AND, OR or NOT"),
        ({"operator": "AND", "conditions": []}, "without conditions"),
        ({"operator": "AND", "conditions": ["x"]}, "want an operator"),
        ({"operator": "==", "value": 1}, "wants a field and a value"),
        ({"operator": "~", "field": "a", "value": 1}, "operator '~': want one of"),
    ],
)
def test_a_filter_that_cannot_be_translated_says_why(theirs, message):
    with pytest.raises(Misuse, match=message):
        translated(theirs)


def test_what_is_wrong_is_said(tiny, cross):
    embedder = FlatcoatDocumentEmbedder(str(tiny), device="cpu")
    with pytest.raises(Misuse, match="document 'x' has no text"):
        embedder.run(documents=[Document(id="x", content=None)])
    with pytest.raises(TypeError, match="list of Documents"):
        embedder.run(documents="text")
    with pytest.raises(TypeError, match="takes a str"):
        FlatcoatTextEmbedder(str(tiny), device="cpu").run(text=documents())
    with pytest.raises(Misuse, match="is a dense model; want a sparse one"):
        FlatcoatSparseTextEmbedder(str(tiny), device="cpu").warm_up()
    with pytest.raises(Misuse, match="top_k=0"):
        FlatcoatRanker(str(cross), device="cpu").run(query="q", documents=documents(), top_k=0)
    with pytest.raises(Misuse, match="top_k=0"):
        FlatcoatRetriever("run", top_k=0)
    assert FlatcoatRanker(str(cross), device="cpu").run(query="q", documents=[])["documents"] == []


def test_the_example_answers(tiny, toy, index, cross):
    spec = spec_from_file_location("haystack_example", ROOT / "examples" / "haystack_pipeline.py")
    assert spec and spec.loader
    spec.loader.exec_module(example := module_from_spec(spec))
    assert len(example.main(str(tiny), str(index), str(toy), str(cross), QUESTION)) == 3


def test_the_code_of_the_page_runs(tiny, toy, index, cross):
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.+?)```", page, re.S) if "integrations.haystack" in block]
    for name, path in (("my-model", tiny), ("my-index", index), ("my-collection", toy), ("my-reranker", cross)):
        code = code.replace(f'"{name}"', repr(str(path)))
    scope: dict = {}
    exec(compile(code, "ecosystem.md", "exec"), scope)
    assert len(scope["answers"]) == 3 and all(d.score is not None for d in scope["answers"])
