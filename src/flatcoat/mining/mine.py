"""Hard negatives from any index: the query's own ranking, less its positives, cut to a window and by margins.

Rank windows skip the first ranks, where unjudged positives hide. Margins are positive-aware (NV-Retriever: Moreira et
al. 2024, arXiv 2407.15831): with s⁺ the lowest score of the query's positives, keep a document of score s when
s < s⁺ − absolute_margin, and when s < s⁺ − (1 − relative) · |s⁺|, which is s < relative · s⁺ for scores above 0.
A cross-encoder, or any judge of pairs, may refuse more (RocketQA's denoising: Qu et al. 2021, arXiv 2010.08191).
Queries are taken a block at a time; scores of the whole corpus are never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from flatcoat.errors import Misuse
from flatcoat.records import Track, silent
from flatcoat.representations import Dense, MultiVector, Sparse

BLOCK = 256


@dataclass(frozen=True)
class MineSettings:
    """Which of a ranking's documents count as hard negatives. Ranks count from 1 after the positives are out."""

    first: int = 1
    last: int = 50
    absolute_margin: float | None = None
    relative: float | None = None
    max_score: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last:
            raise Misuse(f"ranks {self.first} to {self.last}: want 1 <= first <= last")

    @property
    def wants_positive_scores(self) -> bool:
        """Whether a margin against the positive is asked for."""
        return self.absolute_margin is not None or self.relative is not None


class Mined(NamedTuple):
    """Negatives of each query, in rank order; -1 and -inf past the last."""

    rows: np.ndarray  # int64 [query, last - first + 1]
    scores: np.ndarray  # float32, likewise


Refuse = Callable[[int, np.ndarray], np.ndarray]


def mine(
    index: Any,
    queries: Any,
    positives: Sequence[np.ndarray],
    settings: MineSettings,
    *,
    vectors: np.ndarray | Sparse | MultiVector | None = None,
    keys: np.ndarray | None = None,
    refuse: Refuse | None = None,
    track: Track = silent,
) -> Mined:
    """Mine negatives for each query.

    Args:
        index: anything with `search(queries, k)`.
        queries: vectors [query, dim], term weights, token vectors, or texts for a lexical index.
        positives: each query's positive document rows.
        vectors: the corpus's vectors, for the positives' scores; wanted by margins.
        keys: text hashes of documents: a document equal to a positive is no negative.
        refuse: (query, candidate rows) to a mask of those that must go.

    Raises:
        Misuse: a margin is asked for where positives have no scores.
    """
    if settings.wants_positive_scores and vectors is None:
        raise Misuse("a margin against the positive needs its score: mine from a dense index, or set no margin")
    size = len(positives)
    width = settings.last - settings.first + 1
    out = Mined(np.full((size, width), -1, np.int64), np.full((size, width), -np.inf, np.float32))
    most = max((len(own) for own in positives), default=0)
    depth = min(len(index), settings.last + most + (8 if keys is not None else 0))
    for start in track(range(0, size, BLOCK), -(-size // BLOCK), "mine"):
        block = queries[start : start + BLOCK]
        dense = isinstance(block, np.ndarray)
        top = index.search(Dense(np.ascontiguousarray(cast(np.ndarray, block))) if dense else block, depth)
        for offset, (rows, scores) in enumerate(zip(top.rows, top.scores, strict=True)):
            query = start + offset
            own = positives[query]
            keep = (rows >= 0) & ~_answers(rows, own, keys)
            rows, scores = (
                rows[keep][settings.first - 1 : settings.last],
                scores[keep][settings.first - 1 : settings.last],
            )
            fine = _within(scores, _lowest(block, offset, own, vectors, settings), settings)
            if refuse is not None:
                fine &= ~refuse(query, rows)
            rows, scores = rows[fine], scores[fine]
            out.rows[query, : len(rows)], out.scores[query, : len(rows)] = rows, scores
    return out


def _answers(rows: np.ndarray, own: np.ndarray, keys: np.ndarray | None) -> np.ndarray:
    """Which rows are positives, or equal to one in text."""
    if keys is None:
        return np.isin(rows, own)
    return np.isin(keys[np.maximum(rows, 0)], keys[own])


def _lowest(block: Any, offset: int, own: np.ndarray, vectors: Any, settings: MineSettings) -> float | None:
    if not settings.wants_positive_scores or vectors is None:
        return None
    if isinstance(vectors, Sparse):
        query = block[offset : offset + 1].array()[0]
        return min(_dot(vectors, int(row), query) for row in own)
    if isinstance(vectors, MultiVector):
        asked = block.item(offset).astype(np.float32)
        return min(float((asked @ vectors.item(int(row)).T.astype(np.float32)).max(1).sum()) for row in own)
    return float((vectors[own] @ block[offset]).min())


def _dot(documents: Sparse, row: int, query: np.ndarray) -> float:
    entries = slice(int(documents.start[row]), int(documents.start[row + 1]))
    return float(documents.weights[entries] @ query[documents.terms[entries]])


def _within(scores: np.ndarray, positive: float | None, settings: MineSettings) -> np.ndarray:
    fine = np.ones(len(scores), dtype=bool)
    if settings.max_score is not None:
        fine &= scores <= settings.max_score
    if positive is not None and settings.absolute_margin is not None:
        fine &= scores < positive - settings.absolute_margin
    if positive is not None and settings.relative is not None:
        fine &= scores < positive - (1 - settings.relative) * abs(positive)
    return fine


def as_pairs(mined: Mined, query_rows: Iterable[Any]) -> np.ndarray:
    """Mined negatives as int64 [n, 2]: query row, document row."""
    parts: list[np.ndarray] = []
    for query, rows in zip(query_rows, mined.rows, strict=True):
        rows = rows[rows >= 0]
        parts.append(np.stack([np.full(len(rows), query), rows], axis=1))
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros((0, 2), np.int64)
