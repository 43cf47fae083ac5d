"""What every tool's components stand on: a model, a scorer or a search, opened at its first use, used by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from flatcoat.errors import Misuse

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A document that a search found. `score` is higher for a better answer."""

    id: str
    title: str
    text: str
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Search(Protocol):
    """A question in, its best documents out."""

    def __call__(self, query: str, k: int, filter: Mapping[str, Any] | None = None) -> list[Found]:
        """At most `k` documents, best first. Raises Misuse where `k` or the filter cannot be answered."""
        ...


class Held(Generic[T]):
    """Something heavy: made once, at its first use, and used by one thread at a time."""

    def __init__(self, make: Callable[[], T]):
        self._make, self._made, self._lock = make, None, threading.RLock()

    @property
    def ready(self) -> bool:
        """Whether it is made."""
        return self._made is not None

    def __enter__(self) -> T:
        self._lock.acquire()
        try:
            if self._made is None:
                self._made = self._make()
            return self._made
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def load_encoder(source: str, kinds: Sequence[str], device: str = "auto", precision: str = "fp32") -> Any:
    """A model of one of `kinds` (dense, sparse, late), ready to encode. Raises Misuse where it is of another."""
    from flatcoat.models.base import runtime_of
    from flatcoat.models.load import kind_of, load_model
    from flatcoat.models.source import resolve

    kind = kind_of(resolve(source))
    if kind not in kinds:
        raise Misuse(f"{source} is a {kind} model; want a {' or '.join(kinds)} one")
    model: Any = load_model(source)
    if getattr(model.query, "fresh", False):
        raise Misuse(f"{source} has no weights for a lookup of queries; give the model that was trained")
    model.runtime = runtime_of(device, precision)
    return model.to(model.runtime.device)


def load_reranker(source: str, device: str = "auto", precision: str = "fp32") -> Any:
    """What scores pairs: a cross-encoder, or any model by its own score."""
    from flatcoat.app.verbs_rerank import load_scorer
    from flatcoat.models.base import runtime_of

    return load_scorer(source, runtime_of(device, precision))


def ranked(scorer: Any, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
    """(place in `texts`, score) of each, by falling score, equal ones as they were given."""
    scores = scorer.score([query] * len(texts), list(texts)).tolist() if texts else []
    return sorted(enumerate(scores), key=lambda pair: -pair[1])


class RunSearch:
    """The search of a run's folder that is opened as it is served; several legs are fused, the best re-ranked where asked."""

    def __init__(self, retriever: Any, legs: Sequence[str] = (), fuse: str = "rank", rerank: int | None = None):
        known = list(retriever.legs)
        odd = [leg for leg in legs if leg not in known]
        if odd:
            raise Misuse(f"no retriever {odd[0]!r}; there are {', '.join(known)}")
        self.retriever, self.legs, self.fuse, self.rerank = retriever, tuple(legs) or (known[0],), fuse, rerank

    def __call__(self, query: str, k: int, filter: Mapping[str, Any] | None = None) -> list[Found]:
        """The best documents that pass the filter, of those alive now."""
        from flatcoat.search.retriever import Asked

        _checked(query, k)
        self.retriever.catch_up()
        most = min(k, len(self.retriever))
        if not most:
            return []
        asked = Asked(self.legs, k=most, fuse=self.fuse, filter=filter, rerank=self.rerank)
        found = []
        for hit in self.retriever.search([query], asked).rankings[0]:
            document = self.retriever.document(hit.id)
            if document is not None:  # deleted since
                found.append(Found(hit.id, document.title, document.text, hit.score, dict(document.metadata)))
        return found


class IndexSearch:
    """The search of one index by the model that encoded it, texts from the collection; nothing is filtered or re-ranked."""

    def __init__(self, encode: Callable[[Sequence[str]], Any] | None, folder: Any, collection: Any):
        self.encode, self.folder, self.documents = encode, folder, collection.documents

    def __call__(self, query: str, k: int, filter: Mapping[str, Any] | None = None) -> list[Found]:
        """The best documents; `filter` must be None."""
        from flatcoat.search.engine import named, search_texts

        _checked(query, k)
        if filter:
            raise Misuse("an index alone cannot filter; open the folder of a run")
        top = search_texts(self.encode, self.folder.index, [query], k)
        ranking = named(top, [query], self.folder.ids)[query]
        return [self._found(id, score) for id, score in ranking.as_dict().items()]

    def _found(self, id: str, score: float) -> Found:
        row = self.documents.lookup.row(id)  # an updated index has rows of its own
        if row is None:
            return Found(id, "", "", score)
        documents = self.documents
        return Found(id, documents.titles[row], documents.bodies[row], score, documents.metadata(row))


def _checked(query: str, k: int) -> None:
    if k < 1:
        raise Misuse(f"k={k}: want at least 1")
    if not query.strip():
        raise Misuse("the query is empty; ask something")


@dataclass(frozen=True)
class Where:
    """What to search: the folder of a run, or a model, its index and its collection, as `flatcoat search` takes them.

    Of runs alone: `legs`, its retrievers by name (the first of its own where empty); `fuse`, by rank or by score, where they are
    several; `rerank`, how many of the best are read again, by `reranker` or by what learnt beside the model.
    """

    source: str
    index: str | None = None
    collection: str | None = None
    legs: tuple[str, ...] = ()
    fuse: str = "rank"
    reranker: str | None = None
    rerank: int | None = None
    device: str = "auto"
    precision: str | None = None

    def __post_init__(self) -> None:
        if (self.index is None) != (self.collection is None):
            raise Misuse("say a run's folder alone, or a model with its index and its collection")
        if self.index is not None and (self.legs or self.reranker or self.rerank):
            raise Misuse("legs, reranker and rerank are of a run's folder; an index is searched alone")
        if self.reranker and not self.rerank:
            raise Misuse(
                f"reranker {self.reranker!r} without rerank; say how many of the best it reads again, as rerank=20"
            )


def open_search(where: Where) -> RunSearch | IndexSearch:
    """Open what is to be searched.

    Raises:
        Misuse: no such folder, model or index.
        FlatcoatError: an index of another model or another collection.
    """
    return _open_run(where) if where.index is None else _open_index(where, Path(where.index))


def _open_run(where: Where) -> RunSearch:
    from flatcoat.app.serve.open import open_served

    retriever = open_served(
        Path(where.source), legs=list(where.legs) or None, reranker=where.reranker if where.rerank else "none",
        precision=where.precision, device=where.device,
    )  # fmt: skip
    return RunSearch(retriever, where.legs, where.fuse, where.rerank)


def _open_index(where: Where, path: Path) -> IndexSearch:
    from flatcoat.app.opening import model_of
    from flatcoat.checks.base import enforce
    from flatcoat.checks.belongs import belongs
    from flatcoat.data.collection import open_collection
    from flatcoat.index.store import open_index

    folder, collection = open_index(path), open_collection(str(where.collection))
    enforce(belongs(path, folder.facts["of"], corpus=collection.documents.fingerprint), None)
    if folder.kind == "bm25":
        if where.source != "bm25":
            raise Misuse(f"{path} is a BM25 index: say bm25 in place of {where.source}")
        return IndexSearch(None, folder, collection)
    return IndexSearch(model_of(where.source, folder, where.precision, where.device).encode_queries, folder, collection)
