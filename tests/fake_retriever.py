"""A retriever in memory that obeys the protocol of flatcoat.search.retriever: documents in a dict, scores by words in common."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.search.filters import compile_filter
from flatcoat.search.retriever import Answers, Asked, Conflict, Document, Hit, LegFacts

DIM = 8
LEGS = {"exact": ("dense", "exact"), "scan": ("dense", "scan"), "sparse": ("sparse", "inverted"), "late": ("late", "multivector"),
        "bm25": ("lexical", "bm25")}  # fmt: skip


def vector(text: str) -> np.ndarray:
    """A vector of a text's bytes, another for every text."""
    made = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIM).astype(np.float32)
    return made / np.linalg.norm(made)


class FakeScorer:
    """A pair's score: words in common, and a little of the place in the alphabet, so that few are equal."""

    def score(self, queries, documents):
        pairs = zip(queries, documents, strict=True)
        return np.array([overlap(q, d) + (zlib.crc32(d.encode()) % 997) / 1e5 for q, d in pairs], np.float32)


def overlap(query: str, text: str) -> float:
    """Words in common."""
    return float(len(set(query.lower().split()) & set(text.lower().split())))


class FakeRetriever:
    """`delay` seconds are spent on each batch; a query in `poison` raises; `calls` notes (what, how many) of each call; two calls at
    once, which the protocol forbids, are noted in `overlapping`.
    """

    def __init__(self, documents=(), *, legs=tuple(LEGS), scorer: FakeScorer | None = None, delay=0.0):
        self.legs = {name: SimpleNamespace(name=name) for name in legs}
        self.scorer, self.delay = scorer, delay
        self.reranker = None if scorer is None else "models/tiny-cross"
        self.documents = {d.id: d for d in documents}
        self.sequence = 0
        self.poison: set[str] = set()
        self.calls: list[tuple[str, int]] = []
        self.overlapping = 0
        self.caught_up = 0
        self.tidied = 0
        self.closed = False
        self.hold: Callable[[], None] | None = None
        self._busy = threading.Lock()

    def __len__(self):
        return len(self.documents)

    def _enter(self, what: str, count: int):
        if not self._busy.acquire(blocking=False):
            self.overlapping += 1
            return
        try:
            self.calls.append((what, count))
            if self.hold is not None:
                self.hold()
            time.sleep(self.delay)
        finally:
            self._busy.release()

    def facts(self):
        return [
            LegFacts(name, *LEGS[name], None if name == "bm25" else "models/tiny", name == "scan", len(self))
            for name in self.legs
        ]

    def fields(self):
        return sorted({name for d in self.documents.values() for name in d.metadata})

    def catch_up(self):
        self.caught_up += 1
        return self.sequence

    def tidy(self):
        self._enter("tidy", 1)
        self.calls.pop()
        self.tidied += 1
        return False

    def search(self, queries, asked: Asked):
        self._enter("search", len(queries))
        for query in queries:
            if query in self.poison:
                raise FlatcoatError(f"query {query!r} is poison")
        keep = compile_filter(asked.filter) if asked.filter is not None else lambda _: True
        rankings = []
        for query in queries:
            scored = [
                (overlap(query, f"{d.title} {d.text}"), d.id) for d in self.documents.values() if keep(d.metadata)
            ]
            best = sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))
            hits = [Hit(id, s, dict.fromkeys(asked.retrievers, (r, s))) for r, (s, id) in enumerate(best, start=1)]
            rankings.append(hits[asked.offset : asked.offset + asked.k])
        return Answers(rankings, {"encode": 0.001, "search": 0.002, "rerank": 0.0, "total": 0.003}, self.sequence)

    def document(self, id):
        return self.documents.get(id)

    def add(self, documents, *, replace=False):
        self._enter("add", len(documents))
        for document in documents:
            if document.id in self.documents and not replace:
                raise Conflict(f"document {document.id!r} is there already")
        self.documents |= {d.id: d for d in documents}
        self.sequence += 1
        return self.sequence

    def delete(self, ids):
        self._enter("delete", len(ids))
        count = sum(self.documents.pop(id, None) is not None for id in ids)
        self.sequence += bool(count)
        return count, self.sequence

    def explain(self, query, document: Document, leg):
        self._enter("explain", 1)
        return {
            "kind": LEGS[leg][0],
            "score": overlap(query, document.text),
            "passages": [{"text": document.text, "score": 1.0}],
        }

    def missed(self, query, leg, k):
        self._enter("missed", 1)
        return {"k": k, "recall": 1.0, "missed": [], "seconds": {"approximate": 0.001, "exact": 0.002}}

    def embed(self, texts, kind, side):
        self._enter("embed", len(texts))
        if not any(leg.kind == kind for leg in self.facts()):
            raise Misuse(f"no {kind} leg")
        if kind == "dense":
            return Dense(np.array([vector(side + text) for text in texts], np.float32).reshape(-1, DIM))
        if kind == "sparse":
            return Sparse.of(np.maximum(np.array([vector(text) for text in texts]), 0))
        return MultiVector.of(
            [np.array([vector(word) for word in text.split()[:9]]).reshape(-1, DIM) for text in texts], DIM
        )

    def vocabulary(self):
        return [f"term{i}" for i in range(DIM)]

    def token_count(self, texts):
        return sum(len(text.split()) for text in texts)

    def close(self):
        self.closed = True


def toy_documents(n: int = 20) -> list[Document]:
    """Small documents that share words, with metadata."""
    words = ["red", "green", "blue", "fox", "dog", "cat", "runs", "sleeps", "eats", "fast", "slow"]
    return [
        Document(f"d{i}", f"Title {i}", " ".join(words[(i + j * j) % len(words)] for j in range(6)), {"year": 2000 + i, "even": i % 2 == 0})
        for i in range(n)
    ]  # fmt: skip


def serve_fake(retriever, *, started=True, writable=True, **gate):
    """The application over a fake, and its service. `gate` is Gate's and Limits' settings."""
    from flatcoat.app.serve.api import create_app
    from flatcoat.app.serve.guard import Gate
    from flatcoat.app.serve.limits import Limits
    from flatcoat.app.serve.metrics import Metrics
    from flatcoat.app.serve.service import Service

    own = {name: gate.pop(name) for name in list(gate) if name in Limits.__dataclass_fields__}
    limits = Limits(**own)
    service = Service(lambda: retriever, limits=limits, metrics=Metrics(), collection="toy", writable=writable)
    app = create_app(service, Gate(limits, **gate))
    if started:
        service.start()
        end = time.monotonic() + 10
        while service._retriever is None and time.monotonic() < end:
            time.sleep(0.001)
    return app, service
