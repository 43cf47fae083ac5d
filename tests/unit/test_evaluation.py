from __future__ import annotations

import itertools

import numpy as np
import pytest

from flatcoat.errors import Misuse
from flatcoat.evaluation.fidelity import Judge, recall_at
from flatcoat.evaluation.measures import evaluate, means
from flatcoat.evaluation.significance import bootstrap, compare, holm, randomisation_p
from flatcoat.index.base import TopK
from flatcoat.index.exact import ExactIndex
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.records import Ranking
from flatcoat.representations import Dense
from flatcoat.testing.index import unit


def test_measures_by_hand():
    qrels = {"q": {"a": 1, "b": 2}, "missed": {"a": 1}}
    run = {"q": Ranking.of({"x": 3.0, "b": 2.0, "a": 1.0}), "unjudged": Ranking.of({"a": 1.0})}
    table = evaluate(qrels, run, ["nDCG@10", "RR@10", "R@1", "P@2"])
    gain = 2 / np.log2(3) + 1 / np.log2(4)
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    assert table["nDCG@10"] == {"q": pytest.approx(gain / ideal), "missed": 0.0}
    assert table["RR@10"]["q"] == 0.5 and table["R@1"]["q"] == 0.0 and table["P@2"]["q"] == 0.5
    assert means(table)["RR@10"] == 0.25


def test_unknown_measures_and_other_splits_are_refused():
    qrels, run = {"q": {"a": 1}}, {"q": Ranking.of({"a": 1.0})}
    with pytest.raises(Misuse, match="'ndgc@10' is not known"):
        evaluate(qrels, run, ["ndgc@10"])
    with pytest.raises(Misuse, match="another split"):
        evaluate({"other": {"a": 1}}, run)


def test_randomisation_against_every_sign():
    differences = np.array([0.3, -0.1, 0.2, 0.4, 0.05, -0.02, 0.1])
    observed = abs(differences.sum())
    sums = [abs((np.array(s) * differences).sum()) for s in itertools.product([-1, 1], repeat=7)]
    exact = np.mean([value >= observed - 1e-12 for value in sums])
    assert randomisation_p(differences) == pytest.approx(exact, abs=0.015)
    assert randomisation_p(np.zeros(5)) == 1.0


def test_randomisation_holds_its_level():
    rng = np.random.default_rng(0)
    rejected = [randomisation_p(rng.standard_normal(20), rounds=400) < 0.05 for _ in range(400)]
    assert 0.02 < np.mean(rejected) < 0.09


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_compare_and_its_interval():
    rng = np.random.default_rng(1)
    base = {str(i): float(v) for i, v in enumerate(rng.random(200))}
    better = {q: v + 0.1 + 0.05 * float(rng.standard_normal()) for q, v in base.items()}
    found = compare("m", better, base)
    assert found.low < 0.1 < found.high and found.significant and found.t_p < 1e-6 and found.effect > 1
    assert not compare("m", base, base).significant
    with pytest.raises(Misuse, match="one system only"):
        compare("m", {"a": 1.0}, {"b": 1.0})


def test_the_bootstrap_covers():
    rng = np.random.default_rng(2)
    hits = []
    for seed in range(200):
        low, high = bootstrap(rng.standard_normal(40), rounds=300, seed=seed)
        hits.append(low <= 0 <= high)
    assert np.mean(hits) > 0.88


def test_recall_counts_equal_scores_as_equal():
    exact = TopK(np.array([[1, 2]]), np.array([[0.9, 0.5]], np.float32))
    twin = TopK(np.array([[1, 7]]), np.array([[0.9, 0.5]], np.float32))
    worse = TopK(np.array([[1, 7]]), np.array([[0.9, 0.4]], np.float32))
    assert recall_at(exact, twin, 2) == 1.0 and recall_at(exact, worse, 2) == 0.5


@pytest.fixture(scope="module")
def clustered():
    rng = np.random.default_rng(3)
    centres = unit(40, 24, seed=9)
    vectors = (centres[rng.integers(0, 40, 2000)] + 0.35 * rng.standard_normal((2000, 24))).astype(np.float32)
    queries = (vectors[:60] + 0.3 * rng.standard_normal((60, 24))).astype(np.float32)
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(60)}
    names = {"qrels": qrels, "query_ids": [f"q{i}" for i in range(60)], "doc_ids": [f"d{i}" for i in range(2000)]}
    return vectors, Judge(ExactIndex(vectors), Dense(queries), **names)


def test_one_cell_of_ten_loses_and_the_setting_that_removes_it_is_found(clustered):
    vectors, judge = clustered
    index = VectorIndex.build(vectors, VectorSettings("ivf", cells=10, nprobe=1))
    lost = judge.measure(index, "nprobe=1")
    assert lost.recall[10] < 0.9 and lost.change["nDCG@10"][0] < -0.1
    best, tried = judge.cheapest(index, loss=0.005)
    assert best is not None and best.change["nDCG@10"][0] >= -0.005 and len(tried) > 1
    best, _ = judge.cheapest(index, recall=0.999)
    assert best is not None and best.recall[10] >= 0.999


def test_a_target_that_nothing_meets(clustered):
    vectors, judge = clustered
    index = VectorIndex.build(vectors, VectorSettings("hnsw", links=2, ef_build=2))
    best, tried = judge.cheapest(index, recall=1.1)
    assert best is None and len(tried) == len(index.knob()[1])


def test_one_measure_under_two_names():
    table = evaluate({"q": {"a": 1}}, {"q": Ranking.of({"a": 1.0})}, ["RR@10", "MRR@10"])
    assert table["RR@10"] == table["MRR@10"] == {"q": 1.0}


def test_fidelity_judges_at_the_depth_of_its_measures():
    vectors, queries = unit(50, 8), unit(20, 8, seed=1)
    ids = {"query_ids": [f"q{i}" for i in range(20)], "doc_ids": [f"d{i}" for i in range(50)]}
    judge = Judge(
        ExactIndex(vectors), Dense(queries), qrels={f"q{i}": {f"d{i}": 1} for i in range(20)}, measures=["R@100"], **ids
    )
    assert judge.measure(ExactIndex(vectors), "exact").exact["R@100"] == 1.0
