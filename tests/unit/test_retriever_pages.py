"""Pages, fusing, re-ranking, and why: what a retriever says of documents that come and go."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from retrieving import DIM, LEGS, VOCAB, Served, answers, change, check_all, documents, legs_of, store, text_of

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.base import TopK
from flatcoat.index.inverted import InvertedIndex
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.representations import Dense, MultiVector
from flatcoat.search import legs as legs_module
from flatcoat.search import retriever as retriever_module
from flatcoat.search.journal import Document
from flatcoat.search.legs import DenseView, LateView
from flatcoat.search.missed import compare
from flatcoat.search.retriever import Asked, Retriever


def pages(retriever: Retriever, names: tuple[str, ...], query: str, k: int, last: int, **asked) -> list[str]:
    """What all pages give, one after another."""
    offsets = range(0, last, k)
    found = [retriever.search([query], Asked(names, k, offset, **asked)).rankings[0] for offset in offsets]
    return [hit.id for page in found for hit in page]


@pytest.mark.parametrize("few", [legs_module.FEW, 0], ids=["rows one by one", "asking for more"])
def test_pages_follow_one_another_where_scores_tie(tmp_path, monkeypatch, few):
    monkeypatch.setattr(legs_module, "FEW", few)
    monkeypatch.setattr(legs_module, "FEWER", legs_module.FEWER if few else 10**9)
    exact, same = ("exact", "sparse", "late-exact", "bm25"), ("word1 word2", "word2 word3", "word1")
    base = [Document(f"d{i:03}", "", same[i * 7 % 3]) for i in range(240)]
    collection = store(tmp_path / "store", base)
    retriever = Retriever(collection.documents, legs_of(collection, base, exact), tmp_path / "live")
    for turn in range(2):
        for name in exact:
            whole = [hit.id for hit in retriever.search(["word1 word2"], Asked((name,), k=250)).rankings[0]]
            assert len(whole) == len(set(whole)) > 150
            assert pages(retriever, (name,), "word1 word2", 10, 250) == whole
        retriever.add([Document(f"a{turn}{i}", "", same[i % 3]) for i in range(9)])
        retriever.delete([f"d{i:03}" for i in range(0, 240, 11)])


@pytest.mark.parametrize("asked", [{}, {"fuse": "score"}, {"rerank": 30}, {"weights": (1.0, 0.2)}])
def test_pages_of_several_retrievers_follow_one_another(tmp_path, asked):
    served = Served(tmp_path, 400, names=("exact", "bm25"), scorer=Length())
    whole = served.retriever.search(["word1 word2 word7"], Asked(("exact", "bm25"), k=400, **asked)).rankings[0]
    ids = [hit.id for hit in whole]
    assert pages(served.retriever, ("exact", "bm25"), "word1 word2 word7", 20, 400, **asked) == ids
    assert len(set(ids)) == 400
    scores = [hit.score for hit in whole]
    assert scores == sorted(scores, reverse=True) and all(hit.found_by for hit in whole)


def test_ranks_past_what_is_fused_are_refused(tmp_path, monkeypatch):
    served = Served(tmp_path, 40, names=("exact", "bm25"))
    monkeypatch.setattr(retriever_module, "DEEPEST", 30)
    with pytest.raises(Misuse, match="rank 35 of 2 retrievers: together they give at most 30"):
        served.retriever.search(["word1"], Asked(("exact", "bm25"), k=5, offset=30))
    assert len(served.retriever.search(["word1"], Asked(("exact",), k=5, offset=30)).rankings[0]) == 5


def test_queries_are_encoded_once_a_model(served):
    models = {leg.encoding.key: leg.encoding.model for leg in served.legs if leg.encoding}
    before = {key: model.asked for key, model in models.items()}
    found = served.retriever.search(["word1", "word2", "word1"], Asked(("exact", "scan", "sparse", "bm25")))
    assert {key: model.asked - before[key] for key, model in models.items()} == {"dense": 1, "sparse": 1, "late": 0}
    assert found.rankings[0] == found.rankings[2] != found.rankings[1]
    assert set(found.seconds) == {"encode", "search", "rerank", "total"}
    assert served.retriever.search([], Asked(())).rankings == []


class Length:
    """A scorer that likes long documents."""

    def score(self, queries, texts):
        return np.array([len(text) for text in texts], np.float32)


def test_the_best_are_read_again(tmp_path):
    served = Served(tmp_path, names=("exact", "bm25"), scorer=Length(), reranker="length")
    served.add([Document("long", "", "word1 " * 50)])
    plain = served.retriever.search(["word1 word2"], Asked(("exact",), k=41)).rankings[0]
    again = served.retriever.search(["word1 word2"], Asked(("exact",), k=41, rerank=5)).rankings[0]
    lengths = {hit.id: len(text_of(served.retriever.document(hit.id))) for hit in plain[:5]}
    assert [lengths[hit.id] for hit in again[:5]] == sorted(lengths.values(), reverse=True)
    assert [hit.id for hit in again[5:]] == [hit.id for hit in plain[5:]]
    first = served.retriever.search(["word1 word2"], Asked(("exact",), k=3, rerank=5)).rankings[0]
    assert [hit.id for hit in first] == [hit.id for hit in again[:3]]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(("exakt",)), "no retriever 'exakt'.*did you mean 'exact'"),
        (Asked(("exact", "exact")), "name each once"),
        (Asked(("exact",), k=0), "want at least 1"),
        (Asked(("exact",), offset=-1), "at least 0"),
        (Asked(("exact",), fuse="sum"), "want rank or score"),
        (Asked(("exact", "scan"), weights=(1.0,)), "1 weights for 2 retrievers"),
        (Asked(("exact",), weights=(math.nan,)), "one number each"),
        (Asked(("exact",), rerank=10), "no reranker here"),
        (Asked(("exact",), filter={"a": {"near": 1}}), "no operator 'near'"),
    ],
)
def test_what_cannot_be_asked_is_refused(served, asked, said):
    with pytest.raises(Misuse, match=said):
        served.retriever.search(["word1"], asked)


def test_what_an_index_misses_is_named(served):
    change(served)
    for name in ("exact", "sparse", "late-exact", "bm25"):
        found = served.retriever.missed("word1 word2", name, 5)
        assert found["recall"] == 1.0 and found["missed"] == []
    for name in ("scan", "hnsw", "pruned", "late"):  # their knobs are open
        found = served.retriever.missed("word1 word2 word3", name, 5)
        assert found["recall"] == 1.0 and found["missed"] == [] and found["seconds"]["exact"] > 0


def test_an_index_that_loses_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(legs_module, "FEW", 0)
    monkeypatch.setattr(legs_module, "FEWER", 10**9)
    served = Served(tmp_path, 400, names=("exact", "scan"))
    narrow = VectorIndex(
        served.legs[1].view.base.index, served.legs[1].view.base.vectors, VectorSettings("scan", rescore=1)
    )
    served.legs[1] = replace(served.legs[1], view=DenseView.of(narrow, "dense"))
    served.retriever = served.another()
    served.delete("b5")
    losses = 0
    for i in range(20):
        query = f"word{i} word{i + 7} word{i + 20}"
        exact, scan = (answers(served.retriever, name, query, 60) for name in ("exact", "scan"))
        found = served.retriever.missed(query, "scan", 60)
        lost = set(exact) - set(scan)
        assert {each["id"] for each in found["missed"]} <= lost
        assert found["recall"] == pytest.approx(1 - len(found["missed"]) / 60)
        for each in found["missed"]:
            assert list(exact).index(each["id"]) + 1 == each["rank"] and each["title"] == served.there[each["id"]].title
        losses += len(found["missed"])
    assert losses


def test_rows_added_are_put_beside_an_exact_index_once(served, monkeypatch):
    served.add(documents(3, "n", 1))
    calls, real = [], InvertedIndex.add
    monkeypatch.setattr(InvertedIndex, "add", lambda self, made: calls.append(1) or real(self, made))
    for _ in range(3):
        served.retriever.missed("word1 word2", "pruned", 5)
    assert len(calls) == 1


def test_documents_of_equal_score_stand_for_one_another():
    exact = TopK(np.array([[4, 2, 7]]), np.array([[3, 2, 2]], np.float32))
    other = TopK(np.array([[4, 9, 7]]), np.array([[3, 2, 2]], np.float32))
    assert compare(exact, other, exact_scores=True) == (1.0, [])
    assert compare(exact, other, exact_scores=False) == (pytest.approx(2 / 3), [1])
    less = TopK(np.array([[2, 7, 9]]), np.array([[2, 2, 2]], np.float32))
    assert compare(exact, less, exact_scores=True) == (pytest.approx(2 / 3), [0])


def test_why_by_words(served):
    found = served.retriever.explain("word1 word1 word2 word50", Document("x", "word1", "word2 word3"), "bm25")
    assert sorted(each["term"] for each in found["terms"]) == ["word1", "word2"]
    assert sum(each["product"] for each in found["terms"]) == pytest.approx(found["score"])
    assert sum(each["share"] for each in found["terms"]) == pytest.approx(1)
    held = served.there["b1"]
    said = answers(served.retriever, "bm25", "word1 word2 word3 word4", 40)
    for id, score in said.items():
        why = served.retriever.explain("word1 word2 word3 word4", served.there[id], "bm25")
        assert why["score"] == pytest.approx(score, rel=1e-4)
    nobody = served.retriever.explain("unheard", Document("x", "", "unheard of"), "bm25")
    assert nobody["score"] == 0 and [each["share"] for each in nobody["terms"]] == [0]
    passages = served.retriever.explain("word1", replace(held, text="word1 word2. word3 word4! word5"), "exact")
    assert [each["text"] for each in passages["passages"]].count("word3 word4!") == 1
    scores = [each["score"] for each in passages["passages"]]
    assert scores == sorted(scores, reverse=True) and passages["kind"] == "dense"


def test_what_it_is(served):
    facts = {fact.name: fact for fact in served.retriever.facts()}
    assert list(facts) == list(LEGS) and facts["exact"].documents == 40
    assert facts["bm25"].model is None and facts["scan"].approximate and not facts["exact"].approximate
    assert isinstance(served.retriever.embed(["word1"], "late", "query"), MultiVector)
    assert len(served.retriever.vocabulary()) == VOCAB
    with pytest.raises(Misuse, match="want query or document"):
        served.retriever.embed(["word1"], "dense", "queries")
    with pytest.raises(Misuse, match="no cross retriever"):
        served.retriever.embed(["word1"], "cross", "query")


def test_a_search_never_sees_half_a_write(tmp_path):
    """Pairs of documents come and go together, while another thread searches: it finds both or none, in every leg."""
    served = Served(tmp_path, 30, names=("exact", "sparse", "late-exact", "bm25"))
    query, wrong, done = "word1 word2 word3", [], threading.Event()

    def write():
        for i in range(25):
            served.retriever.add([Document("one", "", query), Document("two", "", query + f" word{i}")], replace=True)
            served.retriever.delete(["one", "two"])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        for name in served.names:
            found = answers(served.retriever, name, query, 100)
            if len({"one", "two"} & set(found)) == 1:
                wrong.append((name, found))
        served.retriever.catch_up()
    thread.join()
    assert not wrong and served.retriever.sequence == 50


def test_a_failure_while_replaying_is_made_good_by_the_next_reading(served, monkeypatch):
    other = served.another()
    served.add(documents(3, "n", 1))
    served.add(documents(2, "m", 2))
    real, calls = LateView.extended, []

    def fails(self, added):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return real(self, added)

    with monkeypatch.context() as patch:
        patch.setattr(LateView, "extended", fails)
        with pytest.raises(MemoryError):
            other.catch_up()
    assert other.catch_up() == served.retriever.sequence
    check_all(served, other, 3)
    assert answers(other, "bm25", "word1 word2", 50) == answers(served.retriever, "bm25", "word1 word2", 50)


def test_vectors_that_are_not_finite_are_refused(served):
    model = served.legs[0].encoding.model
    model.encode_documents = lambda texts: Dense(np.full((len(texts), DIM), np.nan, np.float32))
    with pytest.raises(FlatcoatError, match="not finite"):
        served.retriever.add([Document("x", "", "word1")])
    assert served.retriever.document("x") is None
