"""What tests of a retriever share: encoders without weights, and a retriever beside the plain dictionary of what it should hold."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flatcoat.data.problems import Problems
from flatcoat.data.store import Collection, StoreBuilder
from flatcoat.index.bm25 import Bm25Index, Bm25Settings
from flatcoat.index.exact import ExactIndex
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.multivector import MultiVectorIndex, MultiVectorSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.search.journal import Document
from flatcoat.search.legs import DenseView, Encoding, LateView, Leg, SparseView
from flatcoat.search.lexical import Base, LexicalView
from flatcoat.search.retriever import Asked, Retriever

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
