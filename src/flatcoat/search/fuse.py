"""Hybrid search: several runs into one.

Reciprocal rank (Cormack, Clarke & Büttcher 2009): s(d) = Σ_r w_r / (k + rank_r(d)), k = 60, ranks from 1.
Normalised score: s(d) = Σ_r w_r · (s_r(d) − min_r) / (max_r − min_r), per query; a document that a run missed adds 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from flatcoat.errors import Misuse
from flatcoat.records import Ranking, Run


def _weights(runs: Sequence[Run], weights: Sequence[float] | None) -> Sequence[float]:
    if not runs:
        raise Misuse("nothing to fuse: give at least one run")
    if weights is not None and len(weights) != len(runs):
        raise Misuse(f"{len(weights)} weights for {len(runs)} runs; give one each")
    return weights or [1.0] * len(runs)


def _queries(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(query for run in runs for query in run))


def reciprocal_rank(runs: Sequence[Run], weights: Sequence[float] | None = None, k: int = 60) -> dict[str, Ranking]:
    """Fuse by ranks; scores need no common scale."""
    fused = {}
    for query in _queries(runs):
        total: dict[str, float] = {}
        for run, weight in zip(runs, _weights(runs, weights), strict=True):
            for rank, doc in enumerate(run[query].doc_ids if query in run else (), start=1):
                total[doc] = total.get(doc, 0.0) + weight / (k + rank)
        fused[query] = Ranking.of(total)
    return fused


def normalised_score(runs: Sequence[Run], weights: Sequence[float] | None = None) -> dict[str, Ranking]:
    """Fuse by scores brought to 0…1 per query and run; a run of one score gives it 1."""
    fused = {}
    for query in _queries(runs):
        total: dict[str, float] = {}
        for run, weight in zip(runs, _weights(runs, weights), strict=True):
            ranking = run.get(query)
            if ranking is None or not len(ranking):
                continue
            low, high = float(ranking.scores.min()), float(ranking.scores.max())
            for doc, score in ranking.as_dict().items():
                total[doc] = total.get(doc, 0.0) + weight * ((score - low) / (high - low) if high > low else 1.0)
        fused[query] = Ranking.of(total)
    return fused
