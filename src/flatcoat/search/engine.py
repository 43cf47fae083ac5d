"""From questions to runs: encode, search, name the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flatcoat.index.base import TopK
from flatcoat.records import Ranking, Track, silent

CHUNK = 256  # queries searched at once: bounds memory, and lets progress show


def named(
    top: TopK, query_ids: Sequence[str], doc_ids: Sequence[str], *, skip_self: bool = False
) -> dict[str, Ranking]:
    """Rows as a run; `skip_self` drops a document whose id is the query's (ArguAna, Quora)."""
    run = {}
    for query_id, rows, scores in zip(query_ids, top.rows.tolist(), top.scores.tolist(), strict=True):
        pairs: list[tuple[str, float]] = [
            (str(doc_ids[row]), score) for row, score in zip(rows, scores, strict=True) if row >= 0
        ]
        run[query_id] = Ranking.of([pair for pair in pairs if not (skip_self and pair[0] == query_id)])
    return run


def search_texts(
    encode: Callable[[Sequence[str]], Any] | None, index: Any, texts: Any, k: int, *, track: Track = silent
) -> TopK:
    """Search texts a chunk at a time; `encode` None hands them to the index as they are (BM25's texts, or vectors)."""
    starts = range(0, len(texts), CHUNK)
    parts = []
    for start in track(starts, len(starts), "search"):
        chunk = texts[start : start + CHUNK]
        parts.append(index.search(encode(chunk) if encode else chunk, min(k, len(index))))
    if not parts:
        width = min(k, len(index))
        return TopK(np.zeros((0, width), np.int64), np.zeros((0, width), np.float32))
    return TopK(np.concatenate([p.rows for p in parts]), np.concatenate([p.scores for p in parts]))
