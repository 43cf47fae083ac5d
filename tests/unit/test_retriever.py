"""Serving what comes and goes: every search answers as an index built anew over the documents that are there."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flatcoat.data.problems import Problems
from flatcoat.data.store import Collection, StoreBuilder
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.base import TopK
from flatcoat.index.bm25 import Bm25Index, Bm25Settings
from flatcoat.index.exact import ExactIndex
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.multivector import MultiVectorIndex, MultiVectorSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.search import journal as journal_module
from flatcoat.search import legs as legs_module
from flatcoat.search import retriever as retriever_module
from flatcoat.search.journal import Document
from flatcoat.search.legs import DenseView, Encoding, LateView, Leg, SparseView
from flatcoat.search.lexical import Base, LexicalView
from flatcoat.search.missed import compare
from flatcoat.search.retriever import Asked, Conflict, Retriever

DIM, VOCAB, WORDS = 8, 64, [f"word{i}" for i in range(60)]
LEGS = ("exact", "scan", "hnsw", "sparse", "pruned", "late", "late-exact", "bm25")


def seed_of(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")


class Fake:
    """An encoder of any kind that is a pure function of a text's words."""

    def __init__(self, kind: str):
        self.kind, self.asked = kind, 0
        self.vocabulary = [f"t{i}" for i in range(VOCAB)]

    def encode_queries(self, texts):
        self.asked += 1
        if self.kind == "dense":
            return Dense(np.stack([self.tokens(text).sum(0) for text in texts]).astype(np.float32))
        if self.kind == "late":
            return MultiVector.of([self.tokens(text) for text in texts], DIM)
        rows = np.zeros((len(texts), VOCAB), np.float32)
        for row, text in enumerate(texts):
            for word, count in Counter(text.split()).items():
                rows[row, seed_of(word) % VOCAB] += count * 2.0 ** (seed_of(word) % 3 - 1)
        return Sparse.of(rows)

    encode_documents = encode_queries

    def tokens(self, text: str) -> np.ndarray:
        words = text.split()
        made = [np.random.default_rng(seed_of(word)).standard_normal(DIM) for word in words]
        return np.array(made, np.float32).reshape(len(words), DIM).astype(np.float16).astype(np.float32)


def some_text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(3, 12)))


def documents(n: int, prefix: str, seed: int) -> list[Document]:
    rng = np.random.default_rng(seed)
    return [
        Document(
            f"{prefix}{i}",
            f"{WORDS[i % 60]}" if i % 3 else "",
            some_text(rng),
            {"n": i, "parity": ["even", "odd"][i % 2]},
        )
        for i in range(n)
    ]


def text_of(doc: Document) -> str:
    return f"{doc.title} {doc.text}".strip()


def store(folder: Path, docs: list[Document]) -> Collection:
    folder.mkdir(parents=True)
    builder = StoreBuilder(folder, Problems())
    for doc in docs:
        builder.documents.add(doc.id, doc.title, doc.text, "here:1", doc.metadata)
    builder.close({"spec": "made"})
    return Collection.open(folder)


def index_of(name: str, docs: list[Document], bm25: bool = False):
    """An index built over documents in memory, as the legs of `served` have."""
    texts = [text_of(doc) for doc in docs]
    if name == "bm25":
        return Bm25Index.build(texts, Bm25Settings(stem=False, stopwords=False))
    kind = {"exact": "dense", "scan": "dense", "hnsw": "dense", "sparse": "sparse", "pruned": "sparse"}.get(
        name, "late"
    )
    made = Fake(kind).encode_documents(texts)
    if kind == "dense":
        settings = {"scan": VectorSettings("scan", rescore=1000), "hnsw": VectorSettings("hnsw", ef_search=1000)}
        return ExactIndex(made.vectors) if name == "exact" else VectorIndex.build(made.vectors, settings[name])
    if kind == "sparse":
        settings = InvertedSettings(bits=32) if name == "sparse" else InvertedSettings("pruned", mass=100)
        return InvertedIndex.build(made, settings)
    made = MultiVector(made.start, made.vectors.astype(np.float16))
    if name == "late-exact":
        return MaxSimExact(made)
    everything = MultiVectorSettings(nprobe=16, candidates=10000, rescore=10000, cells=16)
    return MultiVectorIndex.build(made, everything)


def legs_of(collection: Collection, docs: list[Document], names=LEGS, made: dict | None = None) -> list[Leg]:
    fakes = {
        kind: Encoding(kind, kind, f"fake-{kind}", Fake(kind), np.dtype(np.float16))
        for kind in ("dense", "sparse", "late")
    }
    found = []
    for name in names:
        index = index_of(name, docs)
        if name == "bm25":
            found.append(Leg(name, "lexical", "bm25", LexicalView(Base(index, collection.documents.texts()))))
            continue
        view_of = (
            DenseView
            if isinstance(index, ExactIndex | VectorIndex)
            else SparseView
            if isinstance(index, InvertedIndex)
            else LateView
        )
        kind = {DenseView: "dense", SparseView: "sparse", LateView: "late"}[view_of]
        exact = {"scan": "exact", "hnsw": "exact", "pruned": "sparse", "late": "late-exact"}.get(name)
        twin = None if exact is None else (lambda exact=exact: index_of(exact, docs))
        found.append(Leg(name, kind, name, view_of.of(index, kind), fakes[kind], exact is not None, twin))
    return found


class Served:
    """A retriever beside the plain dictionary of what it should hold."""

    def __init__(self, folder: Path, n: int = 40, names=LEGS, **more):
        self.folder, self.names, self.base = folder, names, documents(n, "b", 0)
        self.collection = store(folder / "store", self.base)
        self.legs = legs_of(self.collection, self.base, names)
        self.more = more
        self.there = {doc.id: doc for doc in self.base}
        self.retriever = self.another()

    def another(self) -> Retriever:
        return Retriever(self.collection.documents, self.legs, self.folder / "live", **self.more)

    def add(self, docs, replace=False):
        sequence = self.retriever.add(docs, replace=replace)
        for doc in docs:
            self.there.pop(doc.id, None)
            self.there[doc.id] = doc
        return sequence

    def delete(self, *ids):
        done = self.retriever.delete(ids)
        for id in ids:
            self.there.pop(id, None)
        return done


def fresh(name: str, docs: list[Document], query: str, k: int) -> dict[str, float]:
    """The slow twin: ids and scores of an index built anew."""
    index = index_of(name, docs)
    kind = {"exact": "dense", "scan": "dense", "hnsw": "dense", "sparse": "sparse", "pruned": "sparse"}.get(
        name, "late"
    )
    top = index.search(Fake(kind).encode_queries([query]), min(k, len(docs)))
    return {
        docs[row].id: score for row, score in zip(top.rows[0].tolist(), top.scores[0].tolist(), strict=True) if row >= 0
    }


def answers(retriever: Retriever, name: str, query: str, k: int, **asked) -> dict[str, float]:
    ranking = retriever.search([query], Asked((name,), k=k, **asked)).rankings[0]
    return {hit.id: hit.score for hit in ranking}


def agree(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """The same scores, and the same documents but for those that tie with the last."""
    np.testing.assert_allclose(sorted(ours.values()), sorted(theirs.values()), rtol=2e-5, atol=1e-5)
    least = min(theirs.values(), default=0.0)
    above = {id for id, score in theirs.items() if score > least + 1e-4}
    assert above <= ours.keys()
    for id in above:
        assert ours[id] == pytest.approx(theirs[id], rel=2e-5, abs=1e-5)


def check_all(served: Served, retriever: Retriever, seed: int, k: int = 7) -> None:
    rng, docs = np.random.default_rng(seed), list(served.there.values())
    for name in served.names:
        if name != "bm25":
            query = some_text(rng)
            agree(answers(retriever, name, query, k), fresh(name, docs, query, k))


def change(served: Served) -> None:
    """Adding, replacing and deleting, in the base and in what was added."""
    served.add(documents(6, "n", 1))
    served.delete("b3", "b7", "n2", "nowhere")
    served.add([replace(doc, id=f"b{i}") for i, doc in enumerate(documents(4, "x", 2), start=10)], replace=True)
    served.add([replace(documents(1, "y", 3)[0], id="n1")], replace=True)
    served.delete("b11")
    served.add(documents(1, "b7", 4)[:1])
    served.add([replace(served.base[3], text="word1 word2")])  # an id that was deleted comes back


@pytest.fixture
def served(tmp_path) -> Served:
    return Served(tmp_path)


@pytest.mark.parametrize("few", [legs_module.FEW, 0], ids=["rows one by one", "asking for more"])
def test_answers_are_those_of_an_index_built_anew(served, monkeypatch, few):
    monkeypatch.setattr(legs_module, "FEW", few)
    monkeypatch.setattr(legs_module, "FEWER", legs_module.FEWER if few else 10**9)
    check_all(served, served.retriever, 0)
    change(served)
    assert len(served.retriever) == len(served.there)
    for seed in range(3):
        check_all(served, served.retriever, seed)
        check_all(served, served.another(), seed)  # another process reads it all from the journal
    check_all(served, served.retriever, 9, k=1000)


def test_replaying_gives_the_same_bits_and_encodes_nothing(served):
    change(served)
    counts = {leg.encoding.key: leg.encoding.model.asked for leg in served.legs if leg.encoding}
    again = served.another()
    assert {leg.encoding.key: leg.encoding.model.asked for leg in served.legs if leg.encoding} == counts
    for name in LEGS:
        assert answers(again, name, "word1 word2 word3", 20) == answers(served.retriever, name, "word1 word2 word3", 20)


def test_many_deletions_take_no_places(served):
    query = "word1 word2 word3 word4"
    for name in LEGS:
        best = list(answers(served.retriever, name, query, 30))
        gone = [id for id in best if id in served.there][:10]
        served.delete(*gone)
        found = answers(served.retriever, name, query, 8)
        assert not set(found) & set(gone)
        if name != "bm25":
            agree(found, fresh(name, list(served.there.values()), query, 8))
            served.add([doc for doc in served.base if doc.id in gone])


def test_everything_deleted_gives_nothing_and_nothing_breaks(tmp_path):
    served = Served(tmp_path, 12)
    served.add(documents(2, "n", 1))
    served.delete(*served.there)
    assert len(served.retriever) == 0
    for name in LEGS:
        assert answers(served.retriever, name, "word1 word2", 5) == {}
    served.add(documents(3, "m", 2))
    for name in LEGS:
        found = answers(served.retriever, name, text_of(served.there["m0"]), 5)
        assert found and set(found) <= {"m0", "m1", "m2"}


@pytest.mark.parametrize(
    "given", [{"parity": "odd"}, {"n": {"lt": 3}}, {"not": {"n": {"exists": True}}}, {"n": {"gte": 0}}]
)
def test_filters_search_among_those_that_pass(served, monkeypatch, given):
    change(served)
    for few in (4096, 0):
        monkeypatch.setattr(legs_module, "FEW", few)
        monkeypatch.setattr(legs_module, "FEWER", 10**9 if not few else 32)
        tests = {
            '{"parity": "odd"}': lambda m: m["parity"] == "odd",
            '{"n": {"lt": 3}}': lambda m: m["n"] < 3,
            '{"not": {"n": {"exists": true}}}': lambda m: "n" not in m,
            '{"n": {"gte": 0}}': lambda m: True,
        }
        passing = [doc for doc in served.there.values() if tests[json.dumps(given)](doc.metadata)]
        for name in LEGS:
            found = answers(served.retriever, name, "word5 word6 word7", 6, filter=given)
            assert set(found) <= {doc.id for doc in passing}
            if name != "bm25" and passing:
                agree(found, fresh(name, passing, "word5 word6 word7", 6))


def test_bm25_scores_what_was_added_by_the_base(served):
    base = served.base
    served.add([Document("new", "", "word1 word1 word2 unheard"), Document("other", "", "unheard of things word1")])
    served.delete("b0")
    view = served.legs[-1].view
    lengths = [len(text_of(doc).split()) for doc in base]
    assert isinstance(view, LexicalView)
    assert view.base.mean_length == pytest.approx(np.mean(lengths), rel=1e-5)
    found = answers(served.retriever, "bm25", "word1 word2 word2 unheard missing", 100)

    def score(doc: Document) -> float:
        words, total = text_of(doc).split(), 0.0
        for term, times in {"word1": 1, "word2": 2, "unheard": 1}.items():
            df = sum(term in text_of(each).split() for each in base) or 2
            idf = math.log(1 + (len(base) - df + 0.5) / (df + 0.5))
            tf = words.count(term)
            total += times * idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * len(words) / np.mean(lengths)))
        return total

    wanted = {doc.id: score(doc) for doc in served.there.values() if score(doc) > 0} | {
        doc.id: score(doc)
        for doc in (Document("new", "", "word1 word1 word2 unheard"), Document("other", "", "unheard of things word1"))
    }
    assert found.keys() == wanted.keys()
    for id, value in wanted.items():
        assert found[id] == pytest.approx(value, rel=1e-4)


def test_conflicts_and_what_is_no_document_are_refused_and_nothing_is_added(served):
    before = served.retriever.sequence
    with pytest.raises(Conflict, match="'b1' is there already"):
        served.retriever.add([Document("fresh", "", "word1"), Document("b1", "", "word1")])
    for bad, said in [
        ([Document("", "", "x")], "empty or has control"),
        ([Document("a\nb", "", "x")], "empty or has control"),
        ([Document("a", "", "x"), Document("a", "", "y")], "given twice"),
        ([Document("a", "", "x", {"n": float("nan")})], "not JSON"),
        ([Document("a", "", "x", {"n": object()})], "not JSON"),
    ]:
        with pytest.raises(Misuse, match=said):
            served.retriever.add(bad)
    assert served.retriever.document("fresh") is None and served.retriever.sequence == before
    assert served.retriever.add([]) == before and served.retriever.delete(["nowhere"]) == (0, before)


def test_documents_come_back_as_given(served):
    served.retriever.add([Document("ü€", "Title", "bro\ud800ken", {"a": [1, {"b": None}], "é": "x"})])
    found = served.another().document("ü€")
    assert found == Document("ü€", "Title", "bro?ken", {"a": [1, {"b": None}], "é": "x"})
    assert served.retriever.document("b1") == served.base[1]
    assert served.retriever.document("b999") is None
    assert served.retriever.fields() == ["a", "n", "parity", "é"]


def test_processes_see_one_another(served):
    other = served.another()
    one = served.retriever.add(documents(2, "p", 5))
    assert other.catch_up() == one and other.document("p1") is not None
    assert other.delete(["p1", "b1", "b1"]) == (2, one + 1)
    assert served.retriever.document("p1") is not None  # until it looks
    served.retriever.catch_up()
    assert served.retriever.document("p1") is None and served.retriever.sequence == one + 1
    with pytest.raises(Conflict):
        other.add([documents(1, "p", 5)[0]])
    third = served.another()
    third.add(documents(1, "q", 6))
    with pytest.raises(Conflict):  # a writer reads what others wrote before it checks
        other.add(documents(1, "q", 7))


def test_compacting_keeps_every_answer_and_others_notice(served):
    change(served)
    other = served.another()
    held = [answers(served.retriever, name, "word1 word5 word9", 20) for name in LEGS[:-1]]
    before, after = served.retriever.compact()
    assert after < before
    assert served.retriever.sequence == other.sequence
    other.catch_up()
    for retriever in (served.retriever, other, served.another()):
        assert [answers(retriever, name, "word1 word5 word9", 20) for name in LEGS[:-1]] == held
        assert len(retriever) == len(served.there)
    assert other.add(documents(1, "z", 8)) == served.retriever.sequence + 1


def test_sequence_numbers_rise_for_ever(served):
    served.add(documents(2, "n", 1))
    served.add(documents(1, "m", 2))
    served.delete("m0")
    before = served.retriever.sequence
    served.retriever.compact()  # the last record goes, those before it stay
    assert served.retriever.sequence == served.another().sequence == before
    assert served.retriever.add(documents(1, "z", 8)) == before + 1


def test_what_is_mostly_undone_is_tidied_once(served, monkeypatch):
    monkeypatch.setattr(retriever_module, "UNDONE", 6)
    other, new = served.another(), documents(2, "n", 1)
    for _ in range(3):
        served.add(new, replace=True)
        assert not served.retriever.tidy()
    served.add(new, replace=True)
    other.catch_up()
    size = (served.folder / "live" / "journal").stat().st_size
    assert served.retriever.tidy() and not served.retriever.tidy()
    assert not other.tidy()  # it looks first
    assert (served.folder / "live" / "journal").stat().st_size < size
    assert other.sequence == served.retriever.sequence == 4 and len(other) == len(served.there)
    check_all(served, served.retriever, 1)


def test_a_write_that_cannot_be_taken_in_is_not_on_disk(served, monkeypatch):
    served.add(documents(1, "n", 1))
    with monkeypatch.context() as patch:
        patch.setattr(LateView, "extended", lambda self, added: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            served.retriever.add([Document("bad", "", "word1")])
    for retriever in (served.retriever, served.another()):
        assert retriever.catch_up() == 1 and retriever.document("bad") is None
        check_all(served, retriever, 1)
    assert served.add(documents(1, "m", 2)) == 2
    check_all(served, served.retriever, 2)


def test_a_write_that_the_disk_refuses_leaves_every_search_as_it_was(served, monkeypatch):
    change(served)
    before = served.retriever.sequence
    with monkeypatch.context() as patch:
        patch.setattr(
            journal_module, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(FlatcoatError, match="No space left"):
            served.retriever.add([Document("bad", "", "word1 word2")])
    assert served.retriever.document("bad") is None
    check_all(served, served.retriever, 1)  # also before it has looked again
    assert served.add(documents(1, "m", 2)) == before + 1
    check_all(served, served.retriever, 2)


@pytest.mark.parametrize(("k1", "b"), [(0.0, 0.4), (1.2, 0.0), (1.2, 1.0)])
def test_bm25_of_any_settings_takes_documents(tmp_path, k1, b):
    base = documents(20, "b", 0)
    collection = store(tmp_path / "store", base)
    settings = Bm25Settings(k1=k1, b=b, stem=False, stopwords=False)
    index = Bm25Index.build([text_of(doc) for doc in base], settings)
    leg = Leg("bm25", "lexical", "bm25", LexicalView(Base(index, collection.documents.texts())))
    retriever = Retriever(collection.documents, [leg], tmp_path / "live")
    query = base[3].text
    before = answers(retriever, "bm25", query, 20)["b3"]
    retriever.add([replace(base[3], id="again")])
    assert answers(retriever, "bm25", query, 21)["again"] == pytest.approx(before, rel=1e-4)


def test_a_leg_that_a_writer_had_not_is_encoded_by_the_reader(served):
    alone = Retriever(served.collection.documents, served.legs[:1], served.folder / "live")
    new = documents(3, "n", 1)
    alone.add(new)
    served.retriever.catch_up()
    served.there |= {doc.id: doc for doc in new}
    check_all(served, served.retriever, 1)


def test_legs_are_fused_as_runs_are(served):
    change(served)
    from flatcoat.records import Ranking
    from flatcoat.search.fuse import normalised_score, reciprocal_rank

    query, names = "word1 word2 word3", ("exact", "sparse", "bm25")
    said = [answers(served.retriever, name, query, 100) for name in names]
    runs = [
        {"q": Ranking(tuple(each), np.array(list(each.values())))} for each in said
    ]  # equal scores as the leg has them
    for way, fuse in (("rank", reciprocal_rank), ("score", normalised_score)):
        wanted = fuse(runs, (1.0, 0.5, 2.0))["q"]
        asked = Asked(names, k=5, offset=2, fuse=way, weights=(1.0, 0.5, 2.0))
        hits = served.retriever.search([query], asked).rankings[0]
        assert [hit.id for hit in hits] == list(wanted.doc_ids[2:7])
        np.testing.assert_allclose([hit.score for hit in hits], wanted.scores[2:7])
        for hit in hits:
            for name, (rank, score) in hit.found_by.items():
                run = runs[names.index(name)]["q"]
                assert run.doc_ids[rank - 1] == hit.id and run.scores[rank - 1] == score


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
