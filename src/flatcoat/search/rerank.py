"""Re-ranking: the best of a run, read again by a `Scorer` (two stages: Nogueira & Cho 2019, arXiv 1901.04085)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.base import Encoder, Scorer
from flatcoat.records import Ranking, Run, Track, silent
from flatcoat.representations import Dense, Sparse

WINDOW = 1024  # pairs scored at once: bounds the texts held, and lets progress show


class EncodedScorer:
    """A dense or sparse encoder as a `Scorer`: the dot product of a pair's vectors."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Scores [pair] of queries[i] with documents[i]; each distinct text is encoded once."""
        if not len(queries):
            return np.zeros(0, np.float32)
        left = _vectors(self.encoder.encode_queries, queries)
        right = _vectors(self.encoder.encode_documents, documents)
        return np.concatenate(
            [np.einsum("pv,pv->p", left(part), right(part)) for part in np.array_split(np.arange(len(queries)), 16)]
        )


def _vectors(encode: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    """A function from places in `texts` to their vectors."""
    numbers: dict[str, int] = {}
    at = np.array([numbers.setdefault(text, len(numbers)) for text in texts])
    made = encode(list(numbers))
    if isinstance(made, Dense):
        return lambda places: made.vectors[at[places]]
    if isinstance(made, Sparse):
        return lambda places: Sparse.joined([made[row : row + 1] for row in at[places]], made.vocab_size).array()
    raise Misuse(f"{type(made).__name__} vectors have no dot product; a late-interaction model scores pairs itself")


def rerank(
    run: Run,
    scorer: Scorer,
    query_text: Callable[[str], str],
    document_text: Callable[[str], str],
    k: int,
    *,
    track: Track = silent,
) -> dict[str, Ranking]:
    """Each query's first `k` documents by the scorer's scores, texts asked for by id.

    Documents past `k` keep their order below: the n-th of them has the least new score less n (more where scores are so
    large that float32 could not tell). Memory is that of a run and of WINDOW pairs.

    Raises:
        Misuse: k below 1.
        FlatcoatError: a score that is not finite.
    """
    if k < 1:
        raise Misuse(f"k={k} re-ranks nothing; use k >= 1")
    pairs = ((query, doc) for query, ranking in run.items() for doc in ranking.doc_ids[:k])
    count = sum(min(k, len(ranking)) for ranking in run.values())
    scores = np.empty(count, dtype=np.float64)
    starts = range(0, count, WINDOW)
    for start in track(starts, len(starts), "rerank"):
        window = list(islice(pairs, WINDOW))
        found = scorer.score([query_text(query) for query, _ in window], [document_text(doc) for _, doc in window])
        if not np.isfinite(found).all():
            query, doc = window[int(np.flatnonzero(~np.isfinite(found))[0])]
            raise FlatcoatError(
                f"the score of query {query!r} with document {doc!r} is not finite; is the model damaged?"
            )
        scores[start : start + len(window)] = found
    return dict(_joined(run, scores, k))


def _joined(run: Run, scores: np.ndarray, k: int) -> Iterator[tuple[str, Ranking]]:
    start = 0
    for query, ranking in run.items():
        own = scores[start : start + min(k, len(ranking))]
        start += len(own)
        rest = len(ranking) - len(own)
        least = own.min() if len(own) else 0.0
        step = max(1.0, 2.0 * float(np.spacing(np.float32(abs(least) + 2 * rest))))
        past = least - step * np.arange(1, rest + 1)
        yield query, Ranking.of(list(zip(ranking.doc_ids, np.concatenate([own, past]).tolist(), strict=True)))
