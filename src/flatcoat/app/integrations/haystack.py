"""Flatcoat in Haystack (its components since 2.0): embedders of texts and documents, dense and sparse, a retriever and a ranker.

Each loads its model in `warm_up`, or at its first `run`. A document is embedded as Flatcoat trains on it: the title in
`meta["title"]`, where there is one, before the content. Documents that come in are copied, not changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flatcoat.app.integrations.haystack_filters import translated
from flatcoat.app.integrations.loaded import Found, Held, Where, load_encoder, load_reranker, open_search, ranked
from flatcoat.errors import Misuse, need
from flatcoat.records import full_text
from flatcoat.representations import Sparse

need("haystack", "haystack")

from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402
from haystack.dataclasses import SparseEmbedding  # noqa: E402


class _Encoding:
    """What the embedders share: a model of a kind, loaded when it is first wanted."""

    kind = "dense"

    def __init__(self, model: str, device: str = "auto", precision: str = "fp32"):
        self.model, self.device, self.precision = model, device, precision
        self._held: Held[Any] = Held(lambda: load_encoder(model, (self.kind,), device, precision))

    def warm_up(self) -> None:
        """Load the model."""
        with self._held:
            pass

    def to_dict(self) -> dict[str, Any]:
        """The component as a pipeline's file holds it."""
        return default_to_dict(self, model=self.model, device=self.device, precision=self.precision)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component of a pipeline's file."""
        return default_from_dict(cls, data)

    def _query(self, text: str) -> Any:
        given: Any = text  # a pipeline checks no types
        if not isinstance(given, str):
            raise TypeError(
                f"a text embedder takes a str, not {type(given).__name__}; documents have an embedder of their own"
            )
        with self._held as model:
            return model.encode_queries([text])

    def _documents(self, documents: list[Document]) -> Any:
        texts = _texts(documents, type(self).__name__)
        with self._held as model:
            return model.encode_documents(texts)


@component
class FlatcoatTextEmbedder(_Encoding):
    """A query's vector."""

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Encode a query."""
        return {"embedding": self._query(text).vectors[0].tolist(), "meta": {"model": self.model}}


@component
class FlatcoatDocumentEmbedder(_Encoding):
    """Documents with their vectors."""

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Encode documents. Raises Misuse on one without text."""
        vectors = self._documents(documents).vectors.tolist() if documents else []
        made = [replace(document, embedding=vector) for document, vector in zip(documents, vectors, strict=True)]
        return {"documents": made, "meta": {"model": self.model}}


@component
class FlatcoatSparseTextEmbedder(_Encoding):
    """A query's term weights."""

    kind = "sparse"

    @component.output_types(sparse_embedding=SparseEmbedding, meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Encode a query."""
        return {"sparse_embedding": _terms(self._query(text), 0), "meta": {"model": self.model}}


@component
class FlatcoatSparseDocumentEmbedder(_Encoding):
    """Documents with their term weights."""

    kind = "sparse"

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Encode documents. Raises Misuse on one without text."""
        terms = self._documents(documents) if documents else None
        made = [] if terms is None else [replace(d, sparse_embedding=_terms(terms, i)) for i, d in enumerate(documents)]
        return {"documents": made, "meta": {"model": self.model}}


@component
class FlatcoatRetriever:
    """The documents of a run's folder, or of a model's index over a collection, that answer a question.

    A document's title is in its `meta["title"]`. `legs`, `fuse`, `reranker`, `rerank` and filters are of a run's folder; filters are
    Haystack's own, translated, or Flatcoat's.
    """

    def __init__(
        self, source: str, index: str | None = None, collection: str | None = None, *, top_k: int = 10,
        legs: list[str] | None = None, fuse: str = "rank", reranker: str | None = None, rerank: int | None = None,
        filters: dict[str, Any] | None = None, device: str = "auto", precision: str | None = None,
    ):  # fmt: skip
        if top_k < 1:
            raise Misuse(f"top_k={top_k}: want at least 1")
        where = Where(source, index, collection, tuple(legs or ()), fuse, reranker, rerank, device, precision)
        self.where, self.top_k, self.filters = where, top_k, filters
        self._held: Held[Any] = Held(lambda: open_search(where))

    def warm_up(self) -> None:
        """Open the folder and load its models."""
        with self._held:
            pass

    def to_dict(self) -> dict[str, Any]:
        """The component as a pipeline's file holds it."""
        where = self.where
        return default_to_dict(
            self, source=where.source, index=where.index, collection=where.collection, top_k=self.top_k,
            legs=list(where.legs) or None, fuse=where.fuse, reranker=where.reranker, rerank=where.rerank,
            filters=self.filters, device=where.device, precision=where.precision,
        )  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component of a pipeline's file."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, Any]:
        """The best documents, each with its score. What is said here goes before what was said at the making."""
        wanted = translated(filters or self.filters)
        with self._held as search:
            found = search(query, self.top_k if top_k is None else top_k, wanted)
        return {"documents": [_document(hit) for hit in found]}


@component
class FlatcoatRanker:
    """Documents ordered anew by a cross-encoder, or by any model that scores pairs; `top_k` None keeps all."""

    def __init__(self, model: str, *, top_k: int | None = None, device: str = "auto", precision: str = "fp32"):
        if top_k is not None and top_k < 1:
            raise Misuse(f"top_k={top_k}: want at least 1")
        self.model, self.top_k, self.device, self.precision = model, top_k, device, precision
        self._held: Held[Any] = Held(lambda: load_reranker(model, device, precision))

    def warm_up(self) -> None:
        """Load the model."""
        with self._held:
            pass

    def to_dict(self) -> dict[str, Any]:
        """The component as a pipeline's file holds it."""
        return default_to_dict(self, model=self.model, top_k=self.top_k, device=self.device, precision=self.precision)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component of a pipeline's file."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """The best documents by falling score. Raises Misuse on one without text, or on a top_k below 1."""
        most = self.top_k if top_k is None else top_k
        if most is not None and most < 1:
            raise Misuse(f"top_k={most}: want at least 1")
        texts = _texts(documents, type(self).__name__)
        with self._held as scorer:
            order = ranked(scorer, query, texts)
        return {"documents": [replace(documents[place], score=score) for place, score in order[:most]]}


def _texts(documents: list[Document], who: str) -> list[str]:
    given: Any = documents  # a pipeline checks no types
    if not isinstance(given, list) or any(not isinstance(document, Document) for document in given):
        raise TypeError(f"{who} takes a list of Documents; a single query has a text embedder")
    blank = [document.id for document in documents if document.content is None]
    if blank:
        raise Misuse(f"{who}: document {blank[0]!r} has no text")
    return [_text(document) for document in documents]


def _text(document: Document) -> str:
    title = document.meta.get("title")
    return full_text(title if isinstance(title, str) else "", document.content or "")


def _terms(made: Sparse, item: int) -> SparseEmbedding:
    entries = slice(int(made.start[item]), int(made.start[item + 1]))
    return SparseEmbedding(made.terms[entries].tolist(), made.weights[entries].tolist())


def _document(found: Found) -> Document:
    titled = {"title": found.title} if found.title else {}
    return Document(id=found.id, content=found.text, meta={**found.metadata, **titled}, score=found.score)
