"""Hybrid search: several runs into one.

Reciprocal rank (Cormack, Clarke & Büttcher 2009): s(d) = Σ_r w_r / (k + rank_r(d)), k = 60, ranks from 1.
Normalised score: s(d) = Σ_r w_r · (s_r(d) − min_r) / (max_r − min_r), per query; a document that a run missed adds 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flatcoat.errors import Misuse
from flatcoat.records import Ranking, Run

DEEP, DEEPEST = 100, 1000  # matches of each run that are fused: for ranks up to DEEP, and for those behind


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


def continued(head: Run, tail: Run) -> dict[str, Ranking]:
    """Each ranking of `head`, then those of `tail` that it lacks; they score no higher than its last."""
    made = {}
    for query, first in head.items():
        there, least = set(first.doc_ids), first.scores[-1] if len(first) else np.inf
        more = [(id, min(score, least)) for id, score in tail[query].as_dict().items() if id not in there]
        scores = np.array([score for _, score in more], np.float64)
        made[query] = Ranking((*first.doc_ids, *(id for id, _ in more)), np.concatenate([first.scores, scores]))
    return made


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


WAYS = {"rank": reciprocal_rank, "score": normalised_score}


def fused(
    take: Callable[[int], Sequence[Run]], count: int, way: str, weights: Sequence[float] | None, last: int
) -> tuple[Sequence[Run], Run]:
    """The ranking up to `last` of `count` runs that `take` gives to a depth: the same at its beginning for any `last`.

    The runs it comes from are given too, each `count` of them in order; of what two say, the later holds.
    """
    if count == 1:
        (run,) = take(last)
        return [run], run
    runs = take(DEEP)
    best = WAYS[way](runs, weights)
    if last <= DEEP:
        return runs, best
    deep = take(DEEPEST)
    return [*deep, *runs], continued(best, WAYS[way](deep, weights))
