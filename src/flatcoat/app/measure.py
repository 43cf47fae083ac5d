"""Measuring every system of a run on the test split: quality, significance, latency, size, fidelity."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatcoat.app.recipe import Recipe
from flatcoat.data.store import Collection
from flatcoat.data.trec import write_qrels, write_run
from flatcoat.evaluation.fidelity import Judge
from flatcoat.evaluation.measures import deepest, evaluate, means
from flatcoat.evaluation.significance import compare, holm
from flatcoat.files import write_json
from flatcoat.index.exact import ExactIndex
from flatcoat.index.store import IndexFolder, open_index
from flatcoat.records import Ranking, Track
from flatcoat.representations import Dense
from flatcoat.search.engine import named, search_texts
from flatcoat.search.fuse import reciprocal_rank
from flatcoat.vectors import VectorFolder

if TYPE_CHECKING:
    from flatcoat.models.dense import DenseModel

LOSS = 0.005  # the loss at which an approximate index is as good as exact, for the report's "what removes it"


@dataclass(frozen=True)
class Measured:
    """What the report shows."""

    systems: list[dict[str, Any]]
    fidelity: list[dict[str, Any]]
    fixes: list[dict[str, Any]]
    query_ms: float


def _latency(search: Callable[[int], object], count: int) -> float:
    """Median wall milliseconds of one query."""
    spent = []
    for i in range(min(count, 100)):
        start = time.perf_counter()
        search(i)
        spent.append((time.perf_counter() - start) * 1e3)
    return float(np.median(spent)) if spent else 0.0


class _Bench:
    def __init__(self, recipe: Recipe, collection: Collection, out: Path, track: Track):
        self.recipe, self.out, self.track = recipe, out, track
        rows = collection.query_rows(recipe.collection.test)
        self.texts = collection.queries.texts(rows)
        self.ids = [collection.queries.ids[int(row)] for row in rows]
        self.doc_ids = list(collection.documents.ids)
        self.qrels = collection.qrels(recipe.collection.test)
        self.k = min(max(recipe.evaluation.k, deepest(recipe.evaluation.measures)), len(self.doc_ids))
        self.tables: dict[str, Mapping[str, Mapping[str, float]]] = {}
        self.systems: list[dict[str, Any]] = []

    def add(self, name: str, run: Mapping[str, Ranking], ms: float | None, megabytes: float) -> None:
        slug = "-".join(re.findall(r"[\w.\-]+", name))
        write_run(self.out / "runs" / f"{slug}.trec", run, tag=slug)
        self.tables[name] = evaluate(self.qrels, run, self.recipe.evaluation.measures)
        self.systems.append({"name": name, "means": means(self.tables[name]), "ms": ms, "megabytes": megabytes})

    def vectors(self, name: str, index: Any, queries: np.ndarray, megabytes: float) -> Mapping[str, Ranking]:
        top = search_texts(None, _Rows(index), queries, self.k, track=self.track)  # pyright: ignore[reportArgumentType]
        run = named(top, self.ids, self.doc_ids)
        self.add(
            name, run, _latency(lambda i: index.search(Dense(queries[i : i + 1]), self.k), len(queries)), megabytes
        )
        return run

    def lexical(self, folder: IndexFolder) -> Mapping[str, Ranking]:
        run = named(search_texts(None, folder.index, self.texts, self.k, track=self.track), self.ids, self.doc_ids)
        ms = _latency(lambda i: folder.index.search([self.texts[i]], self.k), len(self.texts))
        self.add("BM25", run, ms, folder.bytes / 1e6)
        return run


class _Rows:
    """An index whose queries are rows of an array."""

    def __init__(self, index: Any):
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def search(self, queries: np.ndarray, k: int) -> Any:
        return self.index.search(Dense(queries), k)


def measure_all(
    recipe: Recipe, collection: Collection, out: Path, before: DenseModel, after: DenseModel, track: Track
) -> Measured:
    """Search the test queries with every system of the run and compare them."""
    bench = _Bench(recipe, collection, out, track)
    write_qrels(out / "runs" / "test.qrels", bench.qrels)
    lexical = bench.lexical(open_index(out / "index" / "bm25"))
    first = VectorFolder.open(out / "before").vectors
    trained = bool(recipe.training.steps)
    baseline = "before, exact" if trained else "exact"
    run = bench.vectors(baseline, ExactIndex(first), before.encode_queries(bench.texts).vectors, first.nbytes / 1e6)
    queries = after.encode_queries(bench.texts).vectors
    exact = open_index(out / "index" / "exact")
    prefix = "after, " if trained else ""
    if trained:
        run = bench.vectors("after, exact", exact.index, queries, exact.bytes / 1e6)
    for table in recipe.indexes:
        folder = open_index(out / "index" / table.label)
        bench.vectors(f"{prefix}{table.label}", folder.index, queries, folder.bytes / 1e6)
    bench.add("hybrid (BM25 + exact)", reciprocal_rank([lexical, run]), None, 0.0)
    _compare(bench, "before, exact" if trained else "BM25")
    fidelity, fixes = _fidelity(recipe, bench, out, exact, queries)
    write_json(out / "runs" / "by-query.json", {name: dict(table) for name, table in bench.tables.items()})
    query_ms = _latency(lambda i: after.encode_queries([bench.texts[i]]), len(bench.texts))
    return Measured(bench.systems, fidelity, fixes, query_ms)


def _compare(bench: _Bench, baseline: str) -> None:
    """Each system against the baseline on the first measure, p values corrected together."""
    measure = bench.recipe.evaluation.measures[0]
    others = [system for system in bench.systems if system["name"] != baseline]
    found = [compare(measure, bench.tables[s["name"]][measure], bench.tables[baseline][measure]) for s in others]
    corrected = holm([c.randomisation_p for c in found])
    for system, comparison, p in zip(others, found, corrected, strict=True):
        system["against"] = {**asdict(comparison), "baseline": baseline, "holm_p": p}


def _fidelity(
    recipe: Recipe, bench: _Bench, out: Path, exact: IndexFolder, queries: np.ndarray
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each approximate index against exact; for one that loses more than LOSS, the setting that does not."""
    measures: Sequence[str] = recipe.evaluation.measures
    judge = Judge(exact.index, queries, ks=(10, 100), qrels=bench.qrels, query_ids=bench.ids, doc_ids=bench.doc_ids,
                  measures=measures)  # fmt: skip
    rows, fixes = [], []
    for table in recipe.indexes:
        index = open_index(out / "index" / table.label).index
        name = index.knob()[0]
        found = judge.measure(index, f"{table.label}: {name}={getattr(index.settings, name)}")
        rows.append({**asdict(found), "cost": found.cost})
        if -found.change[measures[0]][0] > LOSS:
            better, _ = judge.cheapest(index, loss=LOSS, measure=measures[0])
            said = asdict(better) | {"cost": better.cost} if better else None
            fixes.append({"index": table.label, "loss": LOSS, "measure": measures[0], "setting": said})
    return rows, fixes
