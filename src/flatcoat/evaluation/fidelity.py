"""What an approximation costs: recall against exact search, the change of each measure, processor time, size.

    recall@k = |{d found: s(q, d) ≥ the k-th score of exact search}| / k

Recall@k is the share of the exact top k, equal scores being interchangeable: a document counts that exact search scores
as high as its k-th. An index that scores its candidates exactly says that score itself; of one whose scores are rounded
(`exact_scores` false) only documents within the depth of the exact answer are known.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flatcoat.evaluation.measures import DEFAULT, deepest, evaluate, means
from flatcoat.evaluation.significance import bootstrap, paired
from flatcoat.index.base import TopK
from flatcoat.records import Qrels, Ranking
from flatcoat.representations import Dense, MultiVector, Sparse

TIMED = 200  # queries timed one by one


Changes = dict[str, tuple[float, float, float]]  # of each measure, relative: mean, low, high


@dataclass(frozen=True)
class Fidelity:
    """One index under one setting against exact search. Times are processor milliseconds of one query, one thread."""

    setting: str
    recall: dict[int, float]
    change: Changes = field(default_factory=Changes)
    exact: dict[str, float] = field(default_factory=dict[str, float])
    cpu_ms: float = 0.0
    exact_cpu_ms: float = 0.0

    @property
    def cost(self) -> float:
        """Processor time as a share of exact search's."""
        return self.cpu_ms / self.exact_cpu_ms if self.exact_cpu_ms else float("nan")


def recall_at(exact: TopK, approximate: TopK, k: int, *, exact_scores: bool = True) -> float:
    """Mean share of the exact top k found in the approximate top k, ties interchangeable (relative 1e-5).

    Queries with fewer than k matches are counted over those they have.
    """
    if not len(exact.rows):
        return 1.0
    matches = (exact.rows[:, :k] >= 0).sum(1)
    last = np.maximum(matches, 1)[:, None] - 1
    floor = np.take_along_axis(exact.scores, last, 1)
    least = floor - 1e-5 * np.abs(floor)
    if exact_scores:
        reached = approximate.scores[:, :k] >= least
    else:
        good = np.where(exact.scores >= least, exact.rows, -1)
        reached = np.stack(
            [np.isin(found, fine[fine >= 0]) for found, fine in zip(approximate.rows[:, :k], good, strict=True)]
        )
    share = np.minimum(reached.sum(1), matches) / np.maximum(matches, 1)
    return float(np.where(matches > 0, share, 1.0).mean())


def cpu_ms(index: Any, queries: Dense | Sparse | MultiVector, k: int) -> float:
    """Median processor milliseconds of one query on one thread."""
    import faiss
    from threadpoolctl import threadpool_limits

    if len(queries):
        index.search(queries[:1], k)  # the first search may compile or read from disk

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        with threadpool_limits(1):
            spent: list[float] = []
            for i in range(min(TIMED, len(queries))):
                query = queries[i : i + 1]
                start = time.process_time()
                index.search(query, k)
                spent.append(time.process_time() - start)
    finally:
        faiss.omp_set_num_threads(threads)
    return float(np.median(spent) * 1e3) if spent else 0.0


def relative_change(
    approximate: Mapping[str, Mapping[str, float]], exact: Mapping[str, Mapping[str, float]]
) -> dict[str, tuple[float, float, float]]:
    """Of each measure: change as a share of exact's mean, with its 95 % bootstrap interval."""
    result: Changes = {}
    for name, mean in means(exact).items():
        differences = paired(approximate[name], exact[name])
        scale = mean or 1.0
        low, high = bootstrap(differences)
        result[name] = (float(differences.mean()) / scale, low / scale, high / scale)
    return result


def _tables(
    top: TopK, query_ids: Sequence[str], doc_ids: Sequence[str], qrels: Qrels, measures: Sequence[str]
) -> dict[str, dict[str, float]]:
    run: dict[str, Ranking] = {}
    for query, rows, scores in zip(query_ids, top.rows.tolist(), top.scores.tolist(), strict=True):
        run[query] = Ranking.of(
            [(str(doc_ids[int(row)]), score) for row, score in zip(rows, scores, strict=True) if row >= 0]
        )
    return evaluate(qrels, run, measures)


def setting_of(index: Any) -> str:
    """An index's present setting, as a table has it."""
    settings = index.settings
    kind = getattr(settings, "kind", None)
    name = "bits" if kind == "inverted" else index.knob()[0]
    said = {name: getattr(settings, name)}
    if kind == "multivector":  # each stage loses its own
        said = {key: getattr(settings, key) for key in ("bits", "nprobe", "candidates", "rescore")}
    if kind in ("inverted", "pruned"):  # what else makes them approximate
        said |= {key: getattr(settings, key) for key in ("query_terms", "query_share") if getattr(settings, key)}
    return ", ".join(f"{key}={value}" for key, value in said.items())


class Judge:
    """Holds the exact answer once and measures indexes against it."""

    def __init__(
        self,
        exact: Any,
        queries: Dense | Sparse | MultiVector,
        *,
        ks: Sequence[int] = (10, 100),
        qrels: Qrels | None = None,
        query_ids: Sequence[str] = (),
        doc_ids: Sequence[str] = (),
        measures: Sequence[str] = DEFAULT,
        timed: bool = True,
    ):
        self.ks = [k for k in ks if k <= len(exact)] or [len(exact)]
        self.queries, self.qrels, self.timed = queries, qrels, timed
        self.query_ids, self.doc_ids, self.measures = query_ids, doc_ids, measures
        self.depth = min(len(exact), max(*self.ks, deepest(measures) if qrels is not None else 0))
        self.top = exact.search(queries, self.depth)
        self.exact_ms = cpu_ms(exact, queries, self.ks[0]) if timed else 0.0
        self.exact_table = _tables(self.top, query_ids, doc_ids, qrels, measures) if qrels is not None else {}

    def measure(self, index: Any, setting: str) -> Fidelity:
        """Everything about one index under its present setting."""
        found = index.search(self.queries, self.depth)
        change = {}
        if self.qrels is not None:
            table = _tables(found, self.query_ids, self.doc_ids, self.qrels, self.measures)
            change = relative_change(table, self.exact_table)
        return Fidelity(
            setting,
            {k: recall_at(self.top, found, k, exact_scores=getattr(index, "exact_scores", True)) for k in self.ks},
            change,
            means(self.exact_table),
            cpu_ms(index, self.queries, self.ks[0]) if self.timed else 0.0,
            self.exact_ms,
        )

    def cheapest(
        self, index: Any, *, recall: float | None = None, loss: float | None = None, measure: str = "nDCG@10"
    ) -> tuple[Fidelity | None, list[Fidelity]]:
        """The first setting, cheapest first, whose recall@k (least k) or relative loss meets the target; all that were tried."""
        name, values = index.knob()
        tried: list[Fidelity] = []
        for value in values:
            tried.append(self.measure(index.with_knob(value), f"{name}={value}"))
            if recall is not None and tried[-1].recall[self.ks[0]] < recall:
                continue
            if loss is not None and -tried[-1].change[measure][0] > loss:
                continue
            return tried[-1], tried
        return None, tried
