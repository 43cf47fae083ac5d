"""Fusing is ranx's, over random runs: reciprocal rank, and sums of scores brought to 0…1. Where ranx is absent its formulas stand alone."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.records import Ranking
from flatcoat.search.fuse import normalised_score, reciprocal_rank

SEEDS = range(6)


def runs(seed):
    """Three runs of distinct scores over the same queries, of different lengths, and partly different documents."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(3):
        run = {}
        for query in ("q1", "q2", "ж"):
            documents = rng.permutation([f"d{i}" for i in range(20)])[: rng.integers(2, 15)]
            scores = np.round(rng.permutation(40)[: len(documents)] * rng.uniform(0.1, 9) - 3, 6)
            run[query] = dict(zip(documents.tolist(), scores.tolist(), strict=True))
        found.append(run)
    return found


def ours(given):
    return [{query: Ranking.of(scored) for query, scored in run.items()} for run in given]


def close(fused, wanted):
    assert fused.keys() == wanted.keys()
    for query, ranking in fused.items():
        found = ranking.as_dict()
        assert found.keys() == wanted[query].keys()
        for document, score in found.items():
            assert score == pytest.approx(wanted[query][document], abs=1e-6), (query, document)


def rrf_formula(given, weights, k):
    found = {}
    for query in given[0]:
        total: dict[str, float] = {}
        for run, weight in zip(given, weights, strict=True):
            order = sorted(run[query], key=lambda d: -run[query][d])
            for document in order:
                total[document] = total.get(document, 0.0) + weight / (k + order.index(document) + 1)
        found[query] = total
    return found


def sum_formula(given, weights):
    found = {}
    for query in given[0]:
        total: dict[str, float] = {}
        for run, weight in zip(given, weights, strict=True):
            low, high = min(run[query].values()), max(run[query].values())
            for document, score in run[query].items():
                total[document] = total.get(document, 0.0) + weight * (score - low) / (high - low)
        found[query] = total
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_ranx_formulas_of_fusion_over_random_runs(seed):
    given, weights = runs(seed), [0.5, 2.0, 1.0]
    close(reciprocal_rank(ours(given), weights, k=60), rrf_formula(given, weights, 60))
    close(reciprocal_rank(ours(given), None, k=3), rrf_formula(given, [1.0] * 3, 3))
    close(normalised_score(ours(given), weights), sum_formula(given, weights))


@pytest.mark.slow  # its first fusions compile
@pytest.mark.parametrize("seed", SEEDS)
def test_ranx_rrf_and_weighted_min_max_sum_over_random_runs(seed):
    ranx = pytest.importorskip("ranx", reason="pip install 'flatcoat[bench]'")
    given = runs(seed)
    theirs = [ranx.Run(run) for run in given]
    close(reciprocal_rank(ours(given), None, k=60), ranx.fuse(runs=theirs, method="rrf", params={"k": 60}).to_dict())
    params = {"weights": (0.2, 0.5, 0.3)}
    fused = ranx.fuse(runs=[ranx.Run(run) for run in given], norm="min-max", method="wsum", params=params).to_dict()
    close(normalised_score(ours(given), list(params["weights"])), fused)
