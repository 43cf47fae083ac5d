"""Flatcoat in LangChain: `Embeddings`, a retriever over a run's folder or an index, and a document compressor that re-ranks.

Models are loaded at their first use. The asynchronous methods are the base classes': the same work in an executor's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from flatcoat.app.integrations.loaded import (
    Found,
    Held,
    Search,
    Where,
    load_encoder,
    load_reranker,
    open_search,
    ranked,
)
from flatcoat.errors import need
from flatcoat.records import full_text

need("langchain_core", "langchain")

from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks  # noqa: E402
from langchain_core.documents import BaseDocumentCompressor, Document  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402
from langchain_core.retrievers import BaseRetriever  # noqa: E402


class FlatcoatEmbeddings(BaseModel, Embeddings):
    """A dense model's vectors; queries and documents each go through their own side, with its prompt and length."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    device: str = "auto"
    precision: str = "fp32"
    _held: Held[Any] = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Note what is to be loaded."""
        self._held = Held(lambda: load_encoder(self.model, ("dense",), self.device, self.precision))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in the order given."""
        with self._held as model:
            return model.encode_documents(texts).vectors.tolist()

    def embed_query(self, text: str) -> list[float]:
        """A query's vector."""
        with self._held as model:
            return model.encode_queries([text]).vectors[0].tolist()


class FlatcoatRetriever(BaseRetriever):
    """The documents of a run's folder, or of a model's index over a collection, that answer a question.

    A document's title, score and own metadata are in its `metadata`, under `title`, `score` and their own names. `filter`, `legs`,
    `fuse`, `reranker` and `rerank` are of a run's folder; `filter` is written as the service takes it. `k` and `filter` may also
    be said with each call, as in `retriever.invoke("question", k=3)`.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    source: str
    index: str | None = None
    collection: str | None = None
    k: int = Field(default=10, ge=1)
    legs: tuple[str, ...] = ()
    fuse: str = "rank"
    reranker: str | None = None
    rerank: int | None = Field(default=None, ge=1)
    filter: dict[str, Any] | None = None
    device: str = "auto"
    precision: str | None = None
    _held: Held[Search] = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Note what is to be opened. Raises Misuse where it is not one thing."""
        where = Where(self.source, self.index, self.collection, self.legs, self.fuse, self.reranker, self.rerank,
                      self.device, self.precision)  # fmt: skip
        self._held = Held(lambda: open_search(where))

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: dict[str, Any] | None = None,
    ) -> list[Document]:
        with self._held as search:
            return [_document(found) for found in search(query, self.k if k is None else k, filter or self.filter)]


class FlatcoatReranker(BaseDocumentCompressor):
    """The documents that a cross-encoder, or any model that scores pairs, finds best; `top_n` None keeps all.

    The score is in `metadata["relevance_score"]`; documents are copied, not changed.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    top_n: int | None = Field(default=None, ge=1)
    device: str = "auto"
    precision: str = "fp32"
    _held: Held[Any] = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Note what is to be loaded."""
        self._held = Held(lambda: load_reranker(self.model, self.device, self.precision))

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best of `documents` by falling score."""
        with self._held as scorer:
            order = ranked(scorer, query, [_text(document) for document in documents])
        return [_scored(documents[place], score) for place, score in order[: self.top_n]]


def _document(found: Found) -> Document:
    titled = {"title": found.title} if found.title else {}
    metadata = {**found.metadata, **titled, "score": found.score}
    return Document(id=found.id, page_content=found.text, metadata=metadata)


def _text(document: Document) -> str:
    """A document as models were trained on it: its title, where it has one, before its text."""
    title = document.metadata.get("title")
    return full_text(title if isinstance(title, str) else "", document.page_content)


def _scored(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
