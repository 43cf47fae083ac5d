"""Measures are trec_eval's own (through pytrec_eval), over random runs with ties, missing queries, negative grades, ids in any script."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.data.trec import read_qrels, read_run, write_qrels, write_run
from flatcoat.evaluation.measures import evaluate, means, parse
from flatcoat.records import Ranking

trec_eval = pytest.importorskip("pytrec_eval")

#: ours -> trec_eval's name
NAMES = {
    "nDCG@1": "ndcg_cut_1", "nDCG@5": "ndcg_cut_5", "nDCG@10": "ndcg_cut_10", "nDCG": "ndcg",
    "AP": "map", "AP@5": "map_cut_5", "RR": "recip_rank", "P@1": "P_1", "P@5": "P_5",
    "R@5": "recall_5", "R@100": "recall_100", "Success@1": "success_1", "Success@5": "success_5", "Rprec": "Rprec",
}  # fmt: skip
ASKED = {"ndcg_cut.1,5,10", "ndcg", "map", "map_cut.5", "recip_rank", "P.1,5", "recall.5,100", "success.1,5", "Rprec"}
IDS = ["d0", "d1", "d10", "D1", "é", "e\u0301", "ж", "漢字", "𝔡", "z-9", "ا", "~", "#", "0", "00", "d:1/2", "ß", "SS"]


@st.composite
def judged_runs(draw):
    """Queries, some of them judged only and some retrieved only; few distinct scores, so that ties are the rule."""
    queries = draw(st.lists(st.sampled_from(["q1", "q2", "q10", "вопрос", "問"]), min_size=1, unique=True))
    document = st.sampled_from(IDS)
    grades = st.integers(-2, 3)
    qrels = {q: draw(st.dictionaries(document, grades, min_size=1, max_size=9)) for q in queries}
    levels = st.sampled_from([0.0, 1.0, 1.0 + 1e-9, -3.5, 0.25, 1e30, 2.0**24 + 1])
    run = {q: draw(st.dictionaries(document, levels, min_size=1, max_size=12)) for q in queries if draw(st.booleans())}
    run |= {"unjudged": {"d0": 1.0}} if draw(st.booleans()) else {}
    return qrels, run


def theirs(qrels, run):
    """trec_eval's value of each measure and judged query; a query the run missed has none there, and 0 here.

    A query of negative grades alone is not shown to it: it would take the process with it.
    """
    shown = {query: judged for query, judged in qrels.items() if max(judged.values()) >= 0}
    found = trec_eval.RelevanceEvaluator(shown, ASKED).evaluate(run) if shown else {}
    return {ours: {q: found.get(q, {}).get(name, 0.0) for q in qrels} for ours, name in NAMES.items()}


def agree(qrels, run):
    ours = evaluate(qrels, {query: Ranking.of(found) for query, found in run.items()}, list(NAMES))
    for name, wanted in theirs(qrels, run).items():
        assert ours[name] == pytest.approx(wanted, abs=1e-12), name
        assert means(ours)[name] == pytest.approx(np.mean(list(wanted.values())), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(judged_runs())
def test_trec_eval_every_measure_over_random_runs_with_ties(data):
    qrels, run = data
    if set(qrels) & set(run):
        agree(qrels, run)


def test_trec_eval_would_crash_on_a_query_of_negative_grades_and_we_give_it_nothing():
    run = {"q": Ranking.of({"a": 1.0, "b": 2.0}), "other": Ranking.of({"a": 1.0})}
    found = evaluate({"q": {"a": -1, "b": -2}, "other": {"a": 1}}, run, list(NAMES))
    assert all(values["q"] == 0.0 for values in found.values())
    assert found["AP"]["other"] == 1.0


@settings(max_examples=80, deadline=None)
@given(judged_runs())
def test_trec_eval_orders_ties_as_our_rankings_do(data):
    """AP of each document alone shows the rank that trec_eval gives it: it is the rank in our ranking."""
    _, run = data
    for query, scored in run.items():
        ranking = Ranking.of(scored)
        for rank, document in enumerate(ranking.doc_ids, start=1):
            found = trec_eval.RelevanceEvaluator({query: {document: 1}}, {"recip_rank"}).evaluate({query: scored})
            assert found[query]["recip_rank"] == pytest.approx(1 / rank), (document, ranking)


@settings(max_examples=40, deadline=None)
@given(judged_runs())
def test_trec_eval_reads_the_files_that_we_write(tmp_path_factory, data):
    qrels, run = data
    if not set(qrels) & set(run):
        return
    folder = tmp_path_factory.mktemp("trec")
    write_qrels(folder / "qrels.txt", qrels)
    write_run(folder / "run.trec", {query: Ranking.of(found) for query, found in run.items()})
    with (folder / "qrels.txt").open(encoding="utf-8") as file:
        assert trec_eval.parse_qrel(file) == qrels
    with (folder / "run.trec").open(encoding="utf-8") as file:
        assert trec_eval.parse_run(file) == run
    assert {q: dict(v) for q, v in read_qrels(folder / "qrels.txt").items()} == qrels
    assert {q: r.as_dict() for q, r in read_run(folder / "run.trec").items()} == run


def test_trec_eval_over_a_large_run_of_graded_documents():
    rng = np.random.default_rng(0)
    documents = [f"d{i}" for i in range(2000)]
    qrels = {
        f"q{i}": {d: int(g) for d, g in zip(rng.permutation(documents)[:60], rng.integers(-1, 4, 60), strict=True)}
        for i in range(40)
    }
    run = {
        f"q{i}": {
            d: float(s) for d, s in zip(rng.permutation(documents)[:1000], rng.integers(0, 200, 1000) / 8, strict=True)
        }
        for i in range(35)
    }
    agree(qrels, run)


def test_trec_eval_rr_at_a_cutoff_is_its_reciprocal_rank_within_it():
    """trec_eval has no RR@k: it is its reciprocal rank of the k first."""
    rng = np.random.default_rng(1)
    documents = [f"d{i}" for i in range(30)]
    for _ in range(50):
        run = {"q": {d: float(s) for d, s in zip(documents, rng.integers(0, 9, 30), strict=True)}}
        qrels = {"q": {d: int(g) for d, g in zip(rng.permutation(documents)[:4], rng.integers(-1, 3, 4), strict=True)}}
        first = {"q": dict(list(Ranking.of(run["q"]).as_dict().items())[:5])}
        wanted = trec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(first)["q"]["recip_rank"]
        assert evaluate(qrels, {"q": Ranking.of(run["q"])}, ["RR@5"])["RR@5"]["q"] == pytest.approx(wanted)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="ir_measures' own reading of names wants an earlier Python")
def test_trec_eval_measures_are_named_as_ir_measures_names_them():
    import ir_measures

    names = [
        "nDCG@10",
        "AP",
        "AP(rel=2)@100",
        "P(rel=2)@5",
        "Success(rel=2)@5",
        "nDCG(gains={1: 3})@5",
        "Judged@10",
    ]
    assert parse(names) == [ir_measures.parse_measure(name) for name in names]
