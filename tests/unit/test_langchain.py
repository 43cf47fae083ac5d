"""LangChain: embeddings, retriever and re-ranker against the models themselves, its standard tests, and its asynchronous side."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda

from flatcoat.app import verbs
from flatcoat.app.integrations.langchain import FlatcoatEmbeddings, FlatcoatReranker, FlatcoatRetriever
from flatcoat.app.integrations.loaded import Held, IndexSearch, RunSearch, Where, open_search
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "where does the otter live"


@pytest.fixture(scope="session")
def cross(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("langchain-cross") / "cross"
    save_cross(load_cross(str(tiny), CrossOverrides(seed=3)), folder)
    return folder


def test_vectors_are_the_models_own_each_side_by_itself(tiny):
    embeddings, model = FlatcoatEmbeddings(model=str(tiny), device="cpu"), load_dense(str(tiny))
    texts = ["The otter swims.", "", "A hare runs."]
    assert np.allclose(embeddings.embed_documents(texts), model.encode_documents(texts).vectors, atol=1e-6)
    assert np.allclose(embeddings.embed_query(QUESTION), model.encode_queries([QUESTION]).vectors[0], atol=1e-6)
    assert embeddings.embed_documents([]) == []


def test_the_asynchronous_side_gives_the_same_from_many_at_once(tiny):
    embeddings = FlatcoatEmbeddings(model=str(tiny), device="cpu")

    async def ask():
        return await asyncio.gather(
            *(embeddings.aembed_query(QUESTION) for _ in range(8)), embeddings.aembed_documents(["a"])
        )

    *queries, documents = asyncio.run(ask())
    assert all(query == embeddings.embed_query(QUESTION) for query in queries)
    assert documents == embeddings.embed_documents(["a"])


def test_a_model_is_loaded_at_its_first_use_and_once():
    made = []
    held = Held(lambda: made.append(1) or "model")
    assert not held.ready and not made
    for _ in range(2):
        with held as it:
            assert it == "model"
    assert held.ready and made == [1]


def test_what_fails_to_load_leaves_the_next_try_free():
    tries = []

    def make():
        tries.append(1)
        if len(tries) == 1:
            raise FlatcoatError("not yet")
        return "model"

    held = Held(make)
    with pytest.raises(FlatcoatError, match="not yet"), held:
        pass
    with held as it:
        assert it == "model"


def test_only_dense_models_have_one_vector_a_text(cross):
    with pytest.raises(Misuse, match=r"is a cross model; want a dense one"):
        FlatcoatEmbeddings(model=str(cross), device="cpu").embed_query("a")


def test_an_index_is_searched_as_flatcoat_searches_it(tiny, toy, index):
    retriever = FlatcoatRetriever(source=str(tiny), index=str(index), collection=str(toy), k=4, device="cpu")
    got = retriever.invoke(QUESTION)
    model = load_dense(str(tiny))
    from flatcoat.data.collection import open_collection

    documents = open_collection(str(toy)).documents
    vectors = model.encode_documents(list(documents.texts())).vectors
    scores = vectors @ model.encode_queries([QUESTION]).vectors[0]
    best = np.argsort(-scores, kind="stable")[:4]
    assert [d.id for d in got] == [documents.ids[int(row)] for row in best]
    assert np.allclose([d.metadata["score"] for d in got], scores[best], atol=1e-5)
    assert [d.page_content for d in got] == [documents.text(int(row)) for row in best]
    assert len(retriever.invoke(QUESTION, k=2)) == 2
    assert [d.id for d in asyncio.run(retriever.ainvoke(QUESTION))] == [d.id for d in got]


def test_a_bm25_index_needs_no_model(toy, tmp_path):
    verbs.index(str(toy), tmp_path / "bm25", "bm25", None, False, True)
    retriever = FlatcoatRetriever(source="bm25", index=str(tmp_path / "bm25"), collection=str(toy), k=3)
    assert all("otter" in d.page_content for d in retriever.invoke("otter"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"index": "i"}, "run's folder alone"),
        ({"index": "i", "collection": "c", "rerank": 5}, "of a run's folder"),
        ({"reranker": "m"}, "without rerank"),
    ],
)
def test_what_is_to_be_searched_is_one_thing(said, message):
    with pytest.raises(Misuse, match=message):
        FlatcoatRetriever(source="s", **said)


def test_an_index_of_another_collection_is_refused(tiny, toy, index, tmp_path):
    from flatcoat.data.toy import write_toy

    other = write_toy(tmp_path / "other")
    (other / "corpus.jsonl").write_text((other / "corpus.jsonl").read_text().replace("otter", "seal"))
    with pytest.raises(FlatcoatError, match="another"):
        open_search(Where(str(tiny), str(index), str(other), device="cpu"))


def test_an_index_cannot_filter_and_k_is_at_least_one(tiny, toy, index):
    search = open_search(Where(str(tiny), str(index), str(toy), device="cpu"))
    assert isinstance(search, IndexSearch)
    with pytest.raises(Misuse, match="cannot filter"):
        search(QUESTION, 3, {"year": 2})
    with pytest.raises(Misuse, match="k=0"):
        search(QUESTION, 0)
    with pytest.raises(Misuse, match="empty"):
        search(" ", 1)


@dataclass
class Told:
    """A retriever of the service, as far as a search asks it."""

    texts: dict[str, str]
    legs: dict[str, str] = field(default_factory=lambda: {"exact": "dense", "bm25": "lexical"})
    asked: list[Any] = field(default_factory=list)
    caught: int = 0

    def __len__(self):
        return len(self.texts)

    def catch_up(self):
        self.caught += 1
        return 0

    def search(self, queries, asked):
        self.asked.append(asked)
        from types import SimpleNamespace

        hits = [SimpleNamespace(id=id, score=1.0 / rank) for rank, id in enumerate([*self.texts, "gone"], start=1)]
        return SimpleNamespace(rankings=[hits[: asked.k + 1]])

    def document(self, id):
        from types import SimpleNamespace

        return (
            SimpleNamespace(id=id, title="T", text=self.texts[id], metadata={"year": 1}) if id in self.texts else None
        )


def test_a_run_is_asked_for_no_more_than_it_has_and_what_is_gone_is_left_out():
    pytest.importorskip("flatcoat.search.retriever")
    told = Told({"a": "one", "b": "two"})
    found = RunSearch(told, ("bm25", "exact"), "score", 7)("question", 10, {"year": 1})
    assert [f.id for f in found] == ["a", "b"] and found[0].title == "T" and found[0].metadata == {"year": 1}
    asked = told.asked[0]
    assert (asked.retrievers, asked.k, asked.fuse, asked.filter, asked.rerank) == (
        ("bm25", "exact"),
        2,
        "score",
        {"year": 1},
        7,
    )
    assert told.caught == 1
    assert RunSearch(Told({}))("question", 3) == []
    with pytest.raises(Misuse, match=r"no retriever 'dense'; there are exact, bm25"):
        RunSearch(told, ("dense",))


@pytest.fixture(scope="module")
def run(tiny, toy, tmp_path_factory):
    """The folder of a run that trained nothing, over documents with metadata."""
    from flatcoat.app.recipe import parse_recipe
    from flatcoat.app.run import run_recipe
    from flatcoat.records import silent

    pytest.importorskip("flatcoat.app.serve.open")
    home = tmp_path_factory.mktemp("langchain-run")
    shutil.copytree(toy, home / "toy")
    lines = [json.loads(line) for line in (toy / "corpus.jsonl").read_text().splitlines()]
    (home / "toy" / "corpus.jsonl").write_text(
        "".join(json.dumps({**line, "metadata": {"number": i}}) + "\n" for i, line in enumerate(lines))
    )
    said = {"collection": {"source": str(home / "toy")}, "model": {"start": str(tiny)}, "training": {"steps": 0},
            "indexes": [], "runtime": {"device": "cpu"}}  # fmt: skip
    run_recipe(parse_recipe(said, "test"), home / "run", track=silent, note=lambda _: None)
    return home / "run"


def test_a_runs_folder_is_searched_filtered_and_fused(run, tiny):
    from flatcoat.app.integrations.haystack_filters import translated

    whole = open_search(Where(str(run), legs=("exact",), device="cpu"))
    alone = open_search(Where(str(tiny), str(run / "index" / "exact"), str(run / "store"), device="cpu"))
    for question in (QUESTION, "what does the hare eat"):
        one, other = whole(question, 7), alone(question, 7)
        assert [(f.id, f.text, f.metadata) for f in one] == [(f.id, f.text, f.metadata) for f in other]
        assert np.allclose([f.score for f in one], [f.score for f in other], atol=1e-6)
    few = whole(QUESTION, 50, translated({"field": "meta.number", "operator": "<", "value": 5}))
    assert sorted(f.metadata["number"] for f in few) == [0, 1, 2, 3, 4]
    assert len(whole(QUESTION, 1000)) == 60
    both = FlatcoatRetriever(source=str(run), legs=("exact", "bm25"), k=5, device="cpu").invoke("otter")
    assert len(both) == 5 and "otter" in both[0].page_content


def test_a_retriever_gives_titles_and_metadata_and_hands_the_filter_on():
    asked = []

    def search(query, k, filter=None):
        from flatcoat.app.integrations.loaded import Found

        asked.append((query, k, filter))
        return [Found("a", "T", "text", 0.5, {"year": 1}), Found("b", "", "more", 0.25)]

    retriever = FlatcoatRetriever(source="run", k=5, filter={"year": 1})
    retriever._held = Held(lambda: search)
    one, two = retriever.invoke("q")
    assert (one.id, one.page_content, one.metadata) == ("a", "text", {"title": "T", "year": 1, "score": 0.5})
    assert two.metadata == {"score": 0.25}
    retriever.invoke("q", k=2, filter={"year": 2})
    assert asked == [("q", 5, {"year": 1}), ("q", 2, {"year": 2})]


def test_the_reranker_orders_by_the_cross_encoder_and_changes_no_document(cross):
    documents = [
        Document(page_content=text, metadata={"title": title})
        for text, title in (("a hare", "Hare"), ("an otter", ""), ("x", "Y"))
    ]
    got = FlatcoatReranker(model=str(cross), device="cpu").compress_documents(documents, QUESTION)
    scores = load_cross(str(cross)).score([QUESTION] * 3, ["Hare a hare", "an otter", "Y x"])
    order = np.argsort(-scores, kind="stable")
    assert [d.page_content for d in got] == [documents[i].page_content for i in order]
    assert np.allclose([d.metadata["relevance_score"] for d in got], scores[order], atol=1e-5)
    assert all("relevance_score" not in d.metadata for d in documents)
    best = FlatcoatReranker(model=str(cross), top_n=1, device="cpu")
    assert [d.page_content for d in asyncio.run(best.acompress_documents(documents, QUESTION))] == [got[0].page_content]
    assert best.compress_documents([], QUESTION) == []


def test_retriever_and_reranker_compose_into_a_chain(tiny, toy, index, cross):
    retriever = FlatcoatRetriever(source=str(tiny), index=str(index), collection=str(toy), k=6, device="cpu")
    reranker = FlatcoatReranker(model=str(cross), top_n=2, device="cpu")
    chain = retriever | RunnableLambda(lambda found: reranker.compress_documents(found, QUESTION))
    assert len(chain.invoke(QUESTION)) == 2


def test_the_example_answers(tiny, toy, index, cross):
    spec = spec_from_file_location("langchain_example", ROOT / "examples" / "langchain_retriever.py")
    assert spec and spec.loader
    spec.loader.exec_module(example := module_from_spec(spec))
    answer = example.build(str(tiny), str(index), str(toy), str(cross)).invoke(QUESTION)
    assert len(answer.splitlines()) == 3


def test_the_code_of_the_page_runs(tiny, toy, index, cross):
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.+?)```", page, re.S) if "integrations.langchain" in block]
    for name, path in (("my-model", tiny), ("my-index", index), ("my-collection", toy), ("my-reranker", cross)):
        code = code.replace(f'"{name}"', repr(str(path)))
    scope: dict[str, Any] = {}
    exec(compile(code, "ecosystem.md", "exec"), scope)
    assert len(scope["vector"]) == 32 and len(scope["answers"]) == 3


try:
    from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
except ImportError:  # the standard tests are a package of their own
    EmbeddingsIntegrationTests = RetrieversIntegrationTests = None

if EmbeddingsIntegrationTests is not None and RetrieversIntegrationTests is not None:

    @pytest.mark.asyncio
    @pytest.mark.filterwarnings("ignore:.*not an async function")
    class TestStandardEmbeddings(EmbeddingsIntegrationTests):
        @pytest.fixture(autouse=True)
        def _model(self, tiny):
            self.folder = str(tiny)

        @property
        def embeddings_class(self) -> type[Embeddings]:
            return FlatcoatEmbeddings

        @property
        def embedding_model_params(self) -> dict[str, Any]:
            return {"model": self.folder, "device": "cpu"}

        @pytest.fixture
        def model(self, _model):
            return self.embeddings_class(**self.embedding_model_params)

    @pytest.mark.asyncio
    @pytest.mark.filterwarnings("ignore:.*not an async function")
    class TestStandardRetriever(RetrieversIntegrationTests):
        @pytest.fixture(autouse=True)
        def _folders(self, tiny, toy, index):
            self.folders = {"source": str(tiny), "index": str(index), "collection": str(toy), "device": "cpu"}

        @property
        def retriever_constructor(self) -> type[BaseRetriever]:
            return FlatcoatRetriever

        @property
        def retriever_constructor_params(self) -> dict[str, Any]:
            return self.folders

        @property
        def retriever_query_example(self) -> str:
            return QUESTION

        @pytest.fixture
        def retriever(self, _folders):
            return self.retriever_constructor(**self.retriever_constructor_params)

    del EmbeddingsIntegrationTests, RetrieversIntegrationTests
