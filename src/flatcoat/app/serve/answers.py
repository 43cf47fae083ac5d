"""What a retriever makes of requests: many that ask alike in, as many answers out. No HTTP in here; each runs in the compute thread."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.representations import Dense, MultiVector, Representation, Sparse
from flatcoat.search.retriever import Asked, Document, Hit, Retriever

STAGES = ("encode", "search", "rerank")


def search(retriever: Retriever, asked: Asked, text: bool, requests: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Answer requests of one or more queries each, all encoded and searched at once."""
    queries = [query for request in requests for query in request]
    answers = retriever.search(queries, asked)
    results = iter(
        {"query": query, "hits": [_hit(retriever, hit, asked.offset + i, text) for i, hit in enumerate(hits, start=1)]}
        for query, hits in zip(queries, answers.rankings, strict=True)
    )
    seconds = {stage: float(answers.seconds.get(stage, 0.0)) for stage in STAGES}
    return [
        {"results": [next(results) for _ in request], "seconds": dict(seconds), "sequence": answers.sequence}
        for request in requests
    ]


def _hit(retriever: Retriever, hit: Hit, rank: int, text: bool) -> dict[str, Any]:
    found = {name: {"rank": int(place), "score": float(score)} for name, (place, score) in hit.found_by.items()}
    made = {"id": hit.id, "score": float(hit.score), "rank": rank, "found_by": found}
    document = retriever.document(hit.id) if text else None
    return made if document is None else made | _texts(document)


def _texts(document: Document) -> dict[str, Any]:
    return {"title": document.title, "text": document.text, "metadata": dict(document.metadata)}


def document(retriever: Retriever, id: str) -> dict[str, Any] | None:
    """One document, None where there is none of that id."""
    found = retriever.document(id)
    return None if found is None else {"id": found.id, **_texts(found)}


def served(retriever: Retriever) -> dict[str, Any]:
    """What is served, without what only the server knows."""
    legs = [{"name": leg.name, "kind": leg.kind, "index": leg.index, "model": _public(leg.model),
             "approximate": leg.approximate, "documents": leg.documents} for leg in retriever.facts()]  # fmt: skip
    return {"retrievers": legs, "reranker": reranker_name(retriever), "documents": len(retriever),
            "sequence": retriever.sequence, "fields": list(retriever.fields())}  # fmt: skip


def reranker_name(retriever: Retriever) -> str | None:
    """What the re-ranker is called, None where there is none."""
    if retriever.scorer is None:
        return None
    return _public(retriever.reranker) or "reranker"


def _public(name: str | None) -> str | None:
    """A model's name without the folders of this machine."""
    return name.rstrip("/").rpartition("/")[2] if name and name.startswith(("/", ".", "~")) else name


def model_name(retriever: Retriever, kind: str, wanted: str | None) -> str:
    """The model behind a kind of vectors.

    Raises:
        Misuse: nothing of that kind is served, or `wanted` is another model.
    """
    legs = [leg for leg in retriever.facts() if leg.kind == kind]
    if not legs:
        raise Misuse(f"no {kind} retriever is served here, so that there is no {kind} model to encode with")
    name = _public(legs[0].model) or legs[0].name
    return as_asked(name, wanted, legs[0].name)


def as_asked(name: str, wanted: str | None, *also: str) -> str:
    """The name of a model that is there. Raises Misuse where `wanted` is another; the last part of a name will do."""
    if wanted is not None and wanted not in (name, name.rstrip("/").rpartition("/")[2], *also):
        raise Misuse(f"model {wanted[:100]!r} is not served here; leave it out, or ask for {name!r}")
    return name


def embed(
    retriever: Retriever, kind: str, side: str, render: Callable[[Any], list[Any]], requests: Sequence[Any]
) -> list[Any]:
    """Encode requests' texts at once; give each its rendered rows, and the tokens it had."""
    texts = [text for request in requests for text in request]
    made = retriever.embed(texts, kind, side)
    ends = np.cumsum([0, *(len(request) for request in requests)]).tolist()
    return [
        (render(made[low:high]), int(retriever.token_count(request)))
        for (low, high), request in zip(pairwise(ends), requests, strict=True)
    ]


def as_bytes(vector: np.ndarray) -> str:
    """A vector as OpenAI's base64: its float32 numbers, little-endian."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def dense(made: Representation, encoding: str) -> list[dict[str, Any]]:
    """One vector a text. Raises FlatcoatError where the model gives something else."""
    if not isinstance(made, Dense):
        raise FlatcoatError(f"the dense model gave {type(made).__name__}")
    rows = [as_bytes(row) for row in made.vectors] if encoding == "base64" else made.vectors.tolist()
    return [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]


def sparse(made: Representation, vocabulary: Sequence[str]) -> list[dict[str, Any]]:
    """Term weights of each text, heaviest first, equal ones by term number. Raises FlatcoatError where the model gives something else."""
    if not isinstance(made, Sparse):
        raise FlatcoatError(f"the sparse model gave {type(made).__name__}")
    rows = []
    for i in range(len(made)):
        entries = slice(int(made.start[i]), int(made.start[i + 1]))
        terms, weights = made.terms[entries], made.weights[entries]
        order = np.lexsort((terms, -weights))
        ids = terms[order].tolist()
        words = [vocabulary[term] for term in ids]
        rows.append({"index": i, "terms": words, "ids": ids, "weights": weights[order].tolist()})
    return rows


def several(made: Representation, encoding: str) -> list[dict[str, Any]]:
    """Several vectors a text, one a token. Raises FlatcoatError where the model gives something else."""
    if not isinstance(made, MultiVector):
        raise FlatcoatError(f"the late-interaction model gave {type(made).__name__}")
    items = [made.item(i).astype(np.float32) for i in range(len(made))]
    render = (lambda item: [as_bytes(row) for row in item]) if encoding == "base64" else np.ndarray.tolist
    return [{"index": i, "embedding": render(item)} for i, item in enumerate(items)]


def rerank(retriever: Retriever, requests: Sequence[tuple[str, Sequence[str]]]) -> list[Any]:
    """Score requests' pairs at once; give each its (place, score) by falling score, equal ones by place, and its tokens.

    Raises:
        Misuse: there is no re-ranker.
        FlatcoatError: a score that is not finite.
    """
    scorer = retriever.scorer
    if scorer is None:
        raise Misuse("no re-ranker is served here; start the server with --reranker MODEL")
    queries = [query for query, texts in requests for _ in texts]
    documents = [text for _, texts in requests for text in texts]
    scores = np.asarray(scorer.score(queries, documents), dtype=np.float64)
    if not np.isfinite(scores).all():
        raise FlatcoatError(f"the score of document {int(np.argmin(np.isfinite(scores)))} is not finite")
    made, start = [], 0
    for query, texts in requests:
        own = scores[start : start + len(texts)]
        start += len(texts)
        order = np.argsort(-own, kind="stable").tolist()
        tokens = int(retriever.token_count([query, *texts]))
        made.append(([(place, float(own[place])) for place in order], tokens))
    return made


def explained(retriever: Retriever, query: str, leg: str, id: str | None, text: str | None) -> dict[str, Any] | None:
    """Why a document is found, None where there is none of that id."""
    found = retriever.document(id) if id is not None else Document("", "", text or "", {})
    return None if found is None else {"retriever": leg, **retriever.explain(query, found, leg)}


def missed(retriever: Retriever, query: str, leg: str, k: int) -> dict[str, Any]:
    """What exact search has among its best k and the index does not give."""
    return {"retriever": leg, **retriever.missed(query, leg, k)}
