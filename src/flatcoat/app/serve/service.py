"""The service: a retriever, the one thread that computes with it, and what may be asked of it. HTTP is api.py's."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flatcoat.app.serve.batching import Batcher
from flatcoat.app.serve.failures import Refused
from flatcoat.app.serve.limits import Limits
from flatcoat.app.serve.metrics import Metrics
from flatcoat.app.serve.schemas import (
    AddBody,
    EmbeddingsBody,
    ExplainBody,
    MissedBody,
    RerankBody,
    SearchBody,
    TextBody,
)
from flatcoat.errors import Misuse, nearest

if TYPE_CHECKING:
    from flatcoat.search.retriever import Asked, Retriever

TOGETHER = 64  # queries or texts in one batch, together
AGAIN = 600.0  # seconds until tidying that failed is tried again


class Service:
    """What is served. `open` is called once, in the compute thread; until it is done every question gets 503.

    `everyone_ready` tells whether the other worker processes are ready too; `on_failure` is told what `open` raised.
    """

    def __init__(
        self, open: Callable[[], Retriever], *, limits: Limits, metrics: Metrics, collection: str, writable: bool = True,
        everyone_ready: Callable[[], bool] | None = None, on_ready: Callable[[Retriever], None] | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ):  # fmt: skip
        self.limits, self.metrics, self.collection, self.writable = limits, metrics, collection, writable
        self._open, self._everyone = open, everyone_ready
        self._on_ready, self._on_failure = on_ready, on_failure
        self._retriever: Retriever | None = None
        self._vocabulary: list[str] | None = None
        self.batcher = Batcher(
            waiting=limits.max_concurrent, most=TOGETHER, before=self._follow, between=self._between,
            observe=metrics.batch, queued=metrics.queue,
        )  # fmt: skip
        self.opened = threading.Event()  # or given up
        self._wrong: Exception | None = None  # what the last look at the journal met
        self._tidy_from = 0.0
        self._started = False

    def start(self) -> None:
        """Start the compute thread, which opens the retriever. A second call does nothing."""
        if not self._started:
            self._started = True
            self.batcher.start(self._begin)

    def stop(self) -> None:
        """Finish what was asked, and close the retriever."""
        self.batcher.close()
        if self._retriever is not None:
            self._retriever.close()

    def _begin(self) -> None:
        try:
            self._retriever = self._open()
            self._follow()
            if self._on_ready is not None:
                self._on_ready(self.retriever)
        except Exception as error:
            if self._on_failure is not None:
                self._on_failure(error)
            raise
        finally:
            self.opened.set()

    def _follow(self) -> None:
        """Take in what other processes wrote."""
        retriever = self.retriever
        try:
            retriever.catch_up()
        except Exception as error:
            if str(error) != str(self._wrong):  # once, not at each look
                logging.getLogger("flatcoat.serve").error("what others wrote cannot be read: %s", error)
            self._wrong = error
            raise
        self._wrong = None
        self.metrics.state(len(retriever), retriever.sequence)

    def _between(self) -> None:
        """What is done while nobody waits: take in what others wrote, and rewrite the journal where much of it is undone."""
        self._follow()
        if not self.writable or time.monotonic() < self._tidy_from:
            return
        try:
            if self.retriever.tidy():
                self._follow()
        except Exception as error:  # noqa: BLE001 - nobody asked for it, and everything goes on without it
            self._tidy_from = time.monotonic() + AGAIN
            logging.getLogger("flatcoat.serve").error("the journal cannot be rewritten: %s", error)

    @property
    def retriever(self) -> Retriever:
        """The retriever. Raises Refused (503) until it is open."""
        if self._retriever is None:
            raise Refused(503, "opening the folder; ask again in a second", headers={"retry-after": "1"})
        return self._retriever

    def ready(self) -> dict[str, Any]:
        """That questions can be answered. Raises Refused (503) while they cannot."""
        retriever = self.retriever
        if self._wrong is not None or self.batcher.closed:
            raise Refused(
                503, "questions cannot be answered now; the server's log says why", headers={"retry-after": "1"}
            )
        if self._everyone is not None and not self._everyone():
            raise Refused(503, "other workers are opening the folder", headers={"retry-after": "1"})
        return {"status": "ready", "documents": len(retriever), "sequence": retriever.sequence}

    async def _alone(self, work: Callable[[], Any]) -> Any:
        """Something computed by itself."""
        return await self.batcher.ask(None, lambda _: [work()], None)

    async def retrievers(self) -> dict[str, Any]:
        """What is served."""
        from flatcoat.app.serve.answers import served

        found = await self._alone(partial(served, self.retriever))
        return {**found, "collection": self.collection, "writable": self.writable}

    def _leg(self, name: str | None) -> str:
        legs = list(self.retriever.legs)
        if name is None:
            return legs[0]
        if name not in legs:
            raise Misuse(f"retriever {name!r} is not served; there are {', '.join(legs)}{nearest(name, legs)}")
        return name

    async def search(self, body: SearchBody) -> dict[str, Any]:
        """Answer a search. Raises Misuse for what cannot be asked."""
        began = time.perf_counter()
        queries = [body.query] if isinstance(body.query, str) else body.query
        for query in queries:
            self.limits.query(query)
        self.limits.ranking(len(queries), body.k, body.offset, body.rerank)
        self.limits.filter(body.filter)
        asked = self._asked(body)
        key = ("search", body.text, asked.retrievers, asked.k, asked.offset, asked.fuse, asked.weights, asked.rerank,
               _canonical(body.filter))  # fmt: skip
        answer = await self.batcher.ask(key, partial(self._searched, asked, body.text), queries, len(queries))
        answer["seconds"]["total"] = time.perf_counter() - began
        return answer

    def _searched(self, asked: Asked, text: bool, requests: list[list[str]]) -> list[dict[str, Any]]:
        from flatcoat.app.serve.answers import search

        made = search(self.retriever, asked, text, requests)
        self.metrics.stages(made[0]["seconds"])  # each of them has the whole batch's
        return made

    def _asked(self, body: SearchBody) -> Asked:
        from flatcoat.search.retriever import Asked

        names = body.retrievers or [self._leg(None)]
        for name in names:
            self._leg(name)
        if len(set(names)) != len(names):
            raise Misuse(f"retrievers {', '.join(names)}: name each once")
        if body.weights is not None and (len(body.weights) != len(names) or not any(body.weights)):
            raise Misuse(f"{len(body.weights)} weights for {len(names)} retrievers; want one each, not all of them 0")
        if body.rerank is not None and self.retriever.scorer is None:
            raise Misuse("no re-ranker is served here; start the server with --reranker MODEL")
        weights = None if body.weights is None else tuple(body.weights)
        return Asked(tuple(names), body.k, body.offset, body.fuse, weights, body.filter, body.rerank)

    async def explain(self, body: ExplainBody) -> dict[str, Any]:
        """Why a document is found. Raises Refused (404) where there is none of that id."""
        from flatcoat.app.serve.answers import explained

        self.limits.query(body.query)
        leg = self._leg(body.retriever)
        found = await self._alone(partial(explained, self.retriever, body.query, leg, body.id, body.document))
        return _there(found, body.id)

    async def missed(self, body: MissedBody) -> dict[str, Any]:
        """What an approximate index did not give."""
        from flatcoat.app.serve.answers import missed

        self.limits.query(body.query)
        self.limits.ranking(1, body.k, 0, None)
        return await self._alone(partial(missed, self.retriever, body.query, self._leg(body.retriever), body.k))

    async def embeddings(self, kind: str, body: EmbeddingsBody) -> dict[str, Any]:
        """Texts encoded by the dense, sparse or late model. Raises Misuse where there is none."""
        from flatcoat.app.serve.answers import dense, embed, model_name, several

        model = model_name(self.retriever, kind, body.model)
        texts = [body.input] if isinstance(body.input, str) else body.input
        if body.input_type == "query":
            for text in texts:
                self.limits.query(text)
        renders = {"dense": partial(dense, encoding=body.encoding_format), "sparse": self._sparse,
                   "late": partial(several, encoding=body.encoding_format)}  # fmt: skip
        work = partial(embed, self.retriever, kind, body.input_type, renders[kind])
        key = ("embed", kind, body.input_type, body.encoding_format)
        data, tokens = await self.batcher.ask(key, work, texts, len(texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": model, "usage": usage}

    def _sparse(self, made: Any) -> list[dict[str, Any]]:
        from flatcoat.app.serve.answers import sparse

        if self._vocabulary is None:
            self._vocabulary = list(self.retriever.vocabulary())
        return sparse(made, self._vocabulary)

    async def rerank(self, body: RerankBody) -> dict[str, Any]:
        """Texts by falling score. Raises Misuse where there is no re-ranker."""
        from flatcoat.app.serve.answers import as_asked, rerank, reranker_name

        self.limits.query(body.query)
        name = reranker_name(self.retriever)
        if name is not None:
            as_asked(name, body.model)
        texts = [document.text if isinstance(document, TextBody) else document for document in body.documents]
        work = partial(rerank, self.retriever)
        order, tokens = await self.batcher.ask("rerank", work, (body.query, texts), len(texts))
        results: list[dict[str, Any]] = [
            {"index": place, "relevance_score": score} for place, score in order[: body.top_n]
        ]
        if body.return_documents:
            results = [{**result, "document": {"text": texts[result["index"]]}} for result in results]
        return {"results": results, "model": name, "usage": {"total_tokens": tokens}}

    async def add(self, body: AddBody) -> dict[str, Any]:
        """Documents added, and on disk. Raises Conflict where one of that id is there and `replace` is not said."""
        from flatcoat.search.retriever import Document

        ids = [document.id for document in body.documents]
        if len(set(ids)) != len(ids):
            raise Misuse(f"id {next(id for id in ids if ids.count(id) > 1)!r} is there twice in the request")
        for number, document in enumerate(body.documents):
            self.limits.metadata(document.metadata, f"documents.{number}.metadata")
        documents = [Document(d.id, d.title, d.text, d.metadata) for d in body.documents]
        sequence = await self._alone(partial(self.retriever.add, documents, replace=body.replace))
        return {"added": len(documents), "sequence": sequence}

    async def delete(self, ids: list[str]) -> dict[str, Any]:
        """Documents deleted, and on disk so."""
        count, sequence = await self._alone(partial(self.retriever.delete, list(dict.fromkeys(ids))))
        return {"deleted": count, "sequence": sequence}

    async def document(self, id: str) -> dict[str, Any]:
        """One document. Raises Refused (404) where there is none."""
        from flatcoat.app.serve.answers import document

        return _there(await self._alone(partial(document, self.retriever, id)), id)


def _there(found: Any, id: str | None) -> dict[str, Any]:
    if found is None:
        raise Refused(404, f"no document {id!r}", "id")
    return found


def _canonical(value: Any) -> bytes | None:
    from pydantic_core import to_json

    return None if value is None else to_json(value)


async def stopped(service: Service) -> None:
    """Stop a service without holding the event loop up."""
    await asyncio.get_running_loop().run_in_executor(None, service.stop)
