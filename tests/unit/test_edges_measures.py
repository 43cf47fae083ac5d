"""What the other tests of the measures leave open: numbers by hand, edges, what is timed, and where a search for a setting ends."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from flatcoat.errors import Misuse
from flatcoat.evaluation import fidelity
from flatcoat.evaluation.fidelity import TIMED, Fidelity, Judge, cpu_ms, recall_at, relative_change, setting_of
from flatcoat.evaluation.measures import DEFAULT, deepest, evaluate, means, parse
from flatcoat.evaluation.significance import Comparison, bootstrap, compare, holm, paired, randomisation_p
from flatcoat.index.base import TopK
from flatcoat.records import Ranking
from flatcoat.representations import Dense


def top(rows, scores):
    return TopK(np.array(rows, np.int64), np.array(scores, np.float32))


# ---- measures


def test_every_judged_query_has_a_value_and_no_other():
    qrels = {"a": {"x": 1}, "b": {"y": 1}, "c": {"z": 1}}
    run = {"a": Ranking.of({"x": 2.0}), "b": Ranking.of({}), "stranger": Ranking.of({"x": 1.0})}
    assert evaluate(qrels, run, ["RR@10", "R@100"]) == {
        "RR@10": {"a": 1.0, "b": 0.0, "c": 0.0},
        "R@100": {"a": 1.0, "b": 0.0, "c": 0.0},
    }


def test_the_default_measures():
    found = evaluate({"a": {"x": 1, "y": -1}}, {"a": Ranking.of({"x": 1.0})})
    assert found == {key: {"a": 1.0} for key in DEFAULT} and tuple(found) == DEFAULT == ("nDCG@10", "RR@10", "R@100")


@pytest.mark.parametrize("name", ["P(5)", "P(rel=x)@5", "ndgc@10", "nDCG@", "", "R@ten", "P(", "1 + 1", "nDCG@10@10"])
def test_what_is_no_measure_is_refused_with_its_name(name):
    with pytest.raises(Misuse) as caught:
        parse(["nDCG@10", name])
    assert str(caught.value).startswith(f"measure {name!r} is not known; examples: nDCG@10")


def test_a_measure_that_is_known_and_that_nothing_here_can_take_is_refused():
    import ir_measures

    m = ir_measures
    known = {"BPM(T=1,min_rel=1)@10": m.BPM(T=1, min_rel=1) @ 10, "ERR_IA@10": m.ERR_IA @ 10}
    absent = [name for name, measure in known.items() if not _taken(measure)]
    for name in absent:  # each wants a library of its own
        with pytest.raises(Misuse, match=re.escape(f"measure {name!r} is not known")):
            parse([name])
    if not absent:
        pytest.skip("every library of measures is installed")


def _taken(measure):
    import ir_measures

    try:
        ir_measures.evaluator([measure], {"q": {"d": 1}}).calc_aggregate({"q": {"d": 1.0}})
    except (ValueError, ImportError, RuntimeError, AssertionError):
        return False
    return True


def test_a_run_of_another_split_says_how_many_are_judged():
    run = {"a": Ranking.of({"x": 1.0}), "b": Ranking.of({"x": 1.0})}
    with pytest.raises(Misuse, match="none of the run's 2 queries is among the 1 judged"):
        evaluate({"other": {"x": 1}}, run)
    assert evaluate({"a": {"x": 1}}, run, ["P@1"]) == {"P@1": {"a": 1.0}}  # one is enough


def test_the_deepest_cutoff():
    assert deepest(["nDCG@10", "R@100", "AP"]) == 100 and deepest(["AP"]) == 0 and deepest([]) == 0
    assert deepest(["P@5"]) == 5 and deepest(["AP(rel=2)@20"]) == 20 and deepest(["@10x"]) == 0


def test_means_of_none_are_nothing():
    assert means({"m": {"a": 1.0, "b": 0.5}, "n": {}}) == {"m": 0.75, "n": 0.0}


# ---- significance


def test_differences_are_system_less_baseline_by_query():
    assert paired({"b": 1.0, "a": 0.5}, {"a": 0.25, "b": 0.5}).tolist() == [0.25, 0.5]
    with pytest.raises(Misuse, match="2 queries are judged for one system only"):
        paired({"a": 1.0, "c": 0.0}, {"b": 1.0, "c": 0.0})


def test_randomisation_of_few_differences_is_exact_in_the_limit():
    """Three equal differences: of the eight assignments of signs the two that are all alike are as far out."""
    assert randomisation_p(np.full(3, 0.25)) == pytest.approx(2 / 8, abs=0.02)
    assert randomisation_p(np.array([1.0])) == 1.0
    assert randomisation_p(np.array([0.0, -0.5, 0.0])) == 1.0  # zeros are no evidence
    assert randomisation_p(np.array([])) == 1.0


def test_randomisation_counts_the_observed_and_its_rounds():
    """Twenty equal differences: no random assignment of a thousand is as far out (chance 2e-3)."""
    differences = np.full(20, 0.1)
    assert randomisation_p(differences, rounds=1000) == 1 / 1001
    assert randomisation_p(differences) == 1 / 10_001
    assert randomisation_p(differences, rounds=7) == 1 / 8
    assert randomisation_p(-differences, rounds=1000) == 1 / 1001  # both sides


def test_randomisation_rounds_are_made_in_parts_that_change_nothing(monkeypatch):
    from flatcoat.evaluation import significance

    differences = np.array([0.3, -0.2, 0.1, 0.25, -0.05])
    whole = randomisation_p(differences, rounds=1200, seed=3)
    asked = []
    plain = np.random.default_rng

    class Counting:
        def __init__(self, seed):
            self.rng = plain(seed)

        def integers(self, low, high, shape, dtype):
            asked.append(shape)
            return self.rng.integers(low, high, shape, dtype=dtype)

    monkeypatch.setattr(significance.np.random, "default_rng", Counting)
    assert randomisation_p(differences, rounds=1200, seed=3) == whole
    assert asked == [(500, 5), (500, 5), (200, 5)]
    assert randomisation_p(differences, rounds=1200, seed=4) != whole


def test_bootstrap_by_its_quantiles():
    """Of zeros and ones the mean is binomial: the percentile interval is that of its quantiles."""
    differences = np.repeat([0.0, 1.0], 50)
    low, high = bootstrap(differences)
    assert (low, high) == pytest.approx(tuple(stats.binom.ppf([0.025, 0.975], 100, 0.5) / 100), abs=0.011)
    low, high = bootstrap(differences, level=0.5, rounds=4000)
    assert (low, high) == pytest.approx(tuple(stats.binom.ppf([0.25, 0.75], 100, 0.5) / 100), abs=0.011)
    assert bootstrap(np.array([])) == (0.0, 0.0) and bootstrap(np.array([0.5])) == (0.5, 0.5)


def test_bootstrap_is_of_its_seed_and_its_rounds():
    differences = np.random.default_rng(0).standard_normal(30)
    rng = np.random.default_rng(7)
    found = np.quantile([differences[rng.integers(0, 30, 30)].mean() for _ in range(50)], [0.05, 0.95])
    assert bootstrap(differences, level=0.9, rounds=50, seed=7) == pytest.approx(tuple(found), rel=1e-12)
    default = bootstrap(differences)
    assert default == bootstrap(differences, 0.95, 2000, 0) != bootstrap(differences, 0.95, 2001, 0)


def test_a_comparison_by_hand():
    system = {"a": 0.5, "b": 0.75, "c": 1.0, "d": 0.25}
    baseline = {"a": 0.25, "b": 0.5, "c": 0.25, "d": 0.5}
    found = compare("nDCG@10", system, baseline)
    apart = np.array([0.25, 0.25, 0.75, -0.25])
    assert found.measure == "nDCG@10" and found.queries == 4 and found.difference == 0.25
    assert found.t_p == pytest.approx(stats.ttest_rel([0.5, 0.75, 1.0, 0.25], [0.25, 0.5, 0.25, 0.5]).pvalue)
    assert found.effect == pytest.approx(0.25 / apart.std(ddof=1))
    assert (found.low, found.high) == bootstrap(apart) and found.randomisation_p == randomisation_p(apart)


def test_comparisons_without_spread():
    alike = compare("m", {"a": 1.0, "b": 0.5}, {"a": 0.5, "b": 0.0})  # every query better by the same
    assert (alike.difference, alike.t_p, alike.effect) == (0.5, 1.0, 0.0)
    alone = compare("m", {"a": 1.0}, {"a": 0.5})
    assert (alone.difference, alone.low, alone.high, alone.t_p, alone.effect, alone.queries) == (
        0.5,
        0.5,
        0.5,
        1.0,
        0.0,
        1,
    )


def test_significant_is_below_five_in_a_hundred():
    one = Comparison("m", 0.1, 0.0, 0.2, 0.9, 0.05, 0.5, 10)
    assert not one.significant and replace(one, randomisation_p=0.0499, t_p=0.9).significant


def test_holm_edges():
    assert holm([]) == [] and holm([0.2]) == [0.2]
    assert holm([0.02, 0.02, 0.5]) == pytest.approx([0.06, 0.06, 0.5])
    assert holm([0.9, 0.6]) == [1.0, 1.0] and holm([0.001, 0.6]) == pytest.approx([0.002, 0.6])
    assert holm([0.01, 0.9, 0.011]) == pytest.approx([0.03, 0.9, 0.03])  # never below what comes before


# ---- recall


def test_recall_counts_within_the_depth_of_k():
    exact = top([[1, 2, 3], [4, 5, 6]], [[0.9, 0.5, 0.25], [0.9, 0.5, 0.25]])
    found = top([[1, 9, 2], [4, 5, 6]], [[0.9, 0.2, 0.1], [0.9, 0.5, 0.25]])
    assert recall_at(exact, found, 1) == 1.0
    assert recall_at(exact, found, 2) == pytest.approx((1 / 2 + 1) / 2)
    assert recall_at(exact, found, 3) == pytest.approx((1 / 3 + 1) / 2)


def test_recall_of_queries_with_fewer_matches_counts_those_they_have():
    exact = top([[1, -1], [-1, -1], [3, 4]], [[0.9, -np.inf], [-np.inf, -np.inf], [0.5, 0.25]])
    found = top([[7, 8], [7, 8], [3, 9]], [[0.95, 0.9], [0.5, 0.4], [0.5, 0.1]])
    assert recall_at(exact, found, 2) == pytest.approx((1 + 1 + 0.5) / 3)  # no more than there are
    missed = top([[7, -1], [7, -1], [-1, -1]], [[0.1, -np.inf], [0.1, -np.inf], [-np.inf, -np.inf]])
    assert recall_at(exact, missed, 2) == pytest.approx((0 + 1 + 0) / 3)


def test_recall_of_the_first_row_and_of_rows_below_the_least():
    exact = top([[0, 1]], [[0.9, 0.5]])
    assert recall_at(exact, top([[0, 9]], [[0.9, 0.1]]), 2) == 0.5
    assert recall_at(exact, top([[0, 1]], [[9.0, 8.0]]), 2, exact_scores=False) == 1.0
    assert recall_at(top([[4, 5]], [[0.9, 0.5]]), top([[1, 4]], [[9.0, 8.0]]), 1, exact_scores=False) == 0.0


def test_recall_of_no_query_is_whole():
    none = TopK(np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32))
    assert recall_at(none, none, 3) == 1.0


@pytest.mark.parametrize("floor", [0.5, -0.5])
def test_recall_forgives_rounding_and_no_more(floor):
    exact = top([[1, 2]], [[0.9, floor]])
    for share, wanted in ((0.5e-5, 1.0), (2e-5, 0.5)):
        assert recall_at(exact, top([[1, 7]], [[0.9, floor - abs(floor) * share]]), 2) == wanted


def test_recall_of_rounded_scores_goes_by_rows():
    exact = top([[1, 2, 3], [4, 5, 6]], [[0.9, 0.5, 0.5], [0.9, 0.5, 0.1]])
    found = top([[3, 1, 8], [6, 8, -1]], [[9.0, 8.0, 7.0], [9.0, 8.0, -np.inf]])
    said = {k: recall_at(exact, found, k, exact_scores=False) for k in (1, 2, 3)}
    # k = 2, first query: 3 scores as high as the second best; second query: 6 does not
    assert said == {1: 0.0, 2: pytest.approx((1 + 0) / 2), 3: pytest.approx((2 / 3 + 1 / 3) / 2)}
    short = top([[1, -1]], [[0.9, -np.inf]])
    assert recall_at(short, top([[-1, -1]], [[-np.inf, -np.inf]]), 2, exact_scores=False) == 0.0


# ---- fidelity


@dataclass
class Answers:
    """An index that gives what it is told, and remembers what it was asked."""

    rows: list
    scores: list
    settings: object = None
    asked: list = field(default_factory=list)
    exact_scores: bool = True

    def __len__(self):
        return 6

    def search(self, queries, k):
        self.asked.append((len(queries), k))
        return TopK(np.array(self.rows)[: len(queries), :k], np.array(self.scores, np.float32)[: len(queries), :k])

    def knob(self):
        return "nprobe", [1, 2, 4]

    def with_knob(self, value):
        kept = len(self.rows) if value > 1 else 1
        rows = [row if i < kept else [0] * len(row) for i, row in enumerate(self.rows)]
        scores = [row if i < kept else [-9.0] * len(row) for i, row in enumerate(self.scores)]
        return replace(self, rows=rows, scores=scores, settings=value)


ROWS = [[1, 2, 3, 4, 5, 0], [2, 3, 4, 5, 0, 1]]
FALLING = [[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]] * 2
QUERIES = Dense(np.zeros((2, 3), np.float32))
NAMES = {"query_ids": ["q0", "q1"], "doc_ids": [f"d{i}" for i in range(6)]}
QRELS = {"q0": {"d1": 1}, "q1": {"d3": 1}}


def test_time_is_the_median_of_single_searches_in_milliseconds(monkeypatch):
    clock = iter([0.0, 0.001, 1.0, 1.005])
    monkeypatch.setattr(fidelity.time, "process_time", lambda: next(clock))
    index = Answers(ROWS, FALLING)
    assert cpu_ms(index, QUERIES, 3) == pytest.approx(3.0)
    assert index.asked == [(1, 3)] * 3  # the first is not timed
    assert cpu_ms(index, QUERIES[:0], 3) == 0.0 and len(index.asked) == 3


def test_no_more_queries_are_timed_than_said():
    index = Answers(ROWS, FALLING)
    many = Dense(np.zeros((TIMED + 5, 3), np.float32))
    assert cpu_ms(index, many, 2) >= 0 and len(index.asked) == 1 + TIMED and TIMED == 200


def test_threads_are_given_back():
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    seen = []
    index = Answers(ROWS, FALLING)
    index.search = lambda queries, k: seen.append(faiss.omp_get_max_threads())  # pyright: ignore[reportAttributeAccessIssue]
    cpu_ms(index, QUERIES, 2)
    assert seen == [3, 1, 1] and faiss.omp_get_max_threads() == 3
    faiss.omp_set_num_threads(before)


def test_cost_is_a_share_of_exact_search():
    assert Fidelity("s", {}, cpu_ms=1.0, exact_cpu_ms=4.0).cost == 0.25
    assert (
        np.isnan(Fidelity("s", {}, cpu_ms=1.0).cost)
        and Fidelity("s", {}).cpu_ms == Fidelity("s", {}).exact_cpu_ms == 0.0
    )


def test_relative_change_by_hand():
    exact = {"m": {"a": 0.5, "b": 1.0}, "n": {"a": 0.0, "b": 0.0}}
    found = {"m": {"a": 0.5, "b": 0.25}, "n": {"a": 0.5, "b": 0.5}}
    said = relative_change(found, exact)
    low, high = bootstrap(np.array([0.0, -0.75]))
    assert said["m"] == pytest.approx((-0.375 / 0.75, low / 0.75, high / 0.75))
    assert said["n"] == (0.5, 0.5, 0.5)  # of nothing there is no share


def test_a_judge_without_judgements():
    judge = Judge(Answers(ROWS, FALLING), QUERIES, ks=(2, 5, 9), timed=False)
    assert judge.ks == [2, 5] and judge.depth == 5 and judge.exact_ms == 0.0 and judge.exact_table == {}
    found = judge.measure(Answers(ROWS, FALLING), "this")
    assert found == Fidelity("this", {2: 1.0, 5: 1.0}, {}, {}, 0.0, 0.0)


def test_a_judge_of_fewer_documents_than_any_k_takes_them_all():
    judge = Judge(Answers(ROWS, FALLING), QUERIES, timed=False)
    assert judge.ks == [6] and judge.depth == 6 and inspect.signature(Judge).parameters["ks"].default == (10, 100)
    assert Judge(Answers(ROWS, FALLING), QUERIES, ks=(6,), timed=False).ks == [6]


def test_a_judge_searches_as_deep_as_its_measures():
    exact = Answers(ROWS, FALLING)
    judge = Judge(exact, QUERIES, ks=(2,), qrels=QRELS, measures=["RR@4"], timed=False, **NAMES)
    assert judge.depth == 4 and exact.asked == [(2, 4)]
    assert judge.exact_table == {"RR@4": {"q0": 1.0, "q1": 0.5}}
    lost = judge.measure(Answers([ROWS[0], [0, -1, -1, -1, -1, -1]], FALLING), "lost")
    assert lost.exact == {"RR@4": 0.75} and lost.change["RR@4"][0] == pytest.approx(-0.25 / 0.75)


def test_times_are_of_the_least_k():
    exact, index = Answers(ROWS, FALLING), Answers(ROWS, FALLING)
    judge = Judge(exact, QUERIES, ks=(2, 5))
    assert exact.asked == [(2, 5), (1, 2), (1, 2), (1, 2)]
    found = judge.measure(index, "s")
    assert index.asked == [(2, 5), (1, 2), (1, 2), (1, 2)]
    assert found.exact_cpu_ms == judge.exact_ms and found.setting == "s"


def test_an_index_of_rounded_scores_is_judged_by_rows():
    judge = Judge(Answers(ROWS, FALLING), QUERIES, ks=(2,), timed=False)
    rounded = Answers(ROWS, [[0.1] * 6] * 2)
    assert judge.measure(rounded, "s").recall == {2: 0.0}
    rounded.exact_scores = False
    assert judge.measure(rounded, "s").recall == {2: 1.0}
    del rounded.exact_scores
    plain = SimpleNamespace(search=rounded.search)  # says nothing of its scores: exact
    assert judge.measure(plain, "s").recall == {2: 0.0}


def test_the_cheapest_setting_that_is_good_enough():
    judge = Judge(
        Answers(ROWS, FALLING), QUERIES, ks=(2, 4), qrels=QRELS, measures=["RR@10", "nDCG@10"], timed=False, **NAMES
    )
    index = Answers(ROWS, FALLING)
    best, tried = judge.cheapest(index, recall=1.0)
    assert best is tried[-1] and [one.setting for one in tried] == ["nprobe=1", "nprobe=2"]
    assert tried[0].recall[2] == 0.5
    assert judge.cheapest(index, recall=0.5)[1][-1].setting == "nprobe=1"  # just met
    assert judge.cheapest(index, loss=0.0)[1][-1].setting == "nprobe=2"
    assert judge.cheapest(index, loss=-tried[0].change["nDCG@10"][0])[1][-1].setting == "nprobe=1"  # just met
    assert judge.cheapest(index, loss=-tried[0].change["RR@10"][0], measure="RR@10")[1][-1].setting == "nprobe=1"
    assert judge.cheapest(index)[0] is not None
    none, every = judge.cheapest(index, loss=-0.5)
    assert none is None and len(every) == 3


def test_settings_as_a_table_has_them():
    def index(kind, name="nprobe", **said):
        settings = SimpleNamespace(kind=kind, **said)
        return SimpleNamespace(settings=settings, knob=lambda: (name, []))

    assert setting_of(index("ivf", nprobe=4)) == "nprobe=4"
    assert setting_of(index("inverted", bits=8, query_terms=None, query_share=0.0)) == "bits=8"
    assert (
        setting_of(index("inverted", bits=8, query_terms=5, query_share=0.5))
        == "bits=8, query_terms=5, query_share=0.5"
    )
    assert setting_of(index("pruned", "mass", mass=70, query_terms=5, query_share=None)) == "mass=70, query_terms=5"
    made = index("multivector", bits=4, nprobe=8, candidates=64, rescore=None)
    assert setting_of(made) == "bits=4, nprobe=8, candidates=64, rescore=None"
    del made.settings.kind
    assert setting_of(made) == "nprobe=8"
