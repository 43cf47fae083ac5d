"""Measuring every system of a run on the test split: quality, significance, latency, size, fidelity."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatcoat.app.family import Folder, exact_index, open_vectors
from flatcoat.app.measure_beside import add_beside, add_reranked
from flatcoat.app.tables import Recipe
from flatcoat.data.store import Collection
from flatcoat.data.trec import read_run, write_qrels, write_run
from flatcoat.evaluation.fidelity import Judge, setting_of
from flatcoat.evaluation.measures import deepest, evaluate, means
from flatcoat.evaluation.significance import compare, holm
from flatcoat.files import read_json, write_json
from flatcoat.index.store import IndexFolder, open_index
from flatcoat.records import Ranking, Run, Track
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.search.engine import named, search_texts
from flatcoat.search.fuse import reciprocal_rank

if TYPE_CHECKING:
    from flatcoat.models.load import Model

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


def slug(name: str) -> str:
    """A system's name as a file's."""
    return "-".join(re.findall(r"[\w.\-]+", name))


class Bench:
    """The test queries, and a row for each system that answers them."""

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
        """A row from a run."""
        write_run(self.out / "runs" / f"{slug(name)}.trec", run, tag=slug(name))
        self.tables[name] = evaluate(self.qrels, run, self.recipe.evaluation.measures)
        self.systems.append({"name": name, "means": means(self.tables[name]), "ms": ms, "megabytes": megabytes})

    def vectors(
        self, name: str, index: Any, queries: Dense | Sparse | MultiVector, megabytes: float
    ) -> Mapping[str, Ranking]:
        """The row of an index that is asked with vectors."""
        top = search_texts(None, index, queries, self.k, track=self.track)
        run = named(top, self.ids, self.doc_ids)
        self.add(name, run, _latency(lambda i: index.search(queries[i : i + 1], self.k), len(queries)), megabytes)
        return run

    def lexical(self, folder: IndexFolder) -> Mapping[str, Ranking]:
        """BM25's row."""
        run = named(search_texts(None, folder.index, self.texts, self.k, track=self.track), self.ids, self.doc_ids)
        ms = _latency(lambda i: folder.index.search([self.texts[i]], self.k), len(self.texts))
        self.add("BM25", run, ms, folder.bytes / 1e6)
        return run


def measure_all(
    recipe: Recipe, collection: Collection, out: Path, before: Model, after: Model, track: Track
) -> Measured:
    """Search the test queries with every system of the run and compare them."""
    bench = Bench(recipe, collection, out, track)
    write_qrels(out / "runs" / "test.qrels", bench.qrels)
    lexical = bench.lexical(open_index(out / "index" / "bm25"))
    first = open_vectors(out / "before")
    trained = bool(recipe.training.steps)
    baseline = "before, exact" if trained else "exact"
    run = bench.vectors(baseline, exact_index(first.vectors), before.encode_queries(bench.texts), _megabytes(first))
    queries = after.encode_queries(bench.texts)
    exact = open_index(out / "index" / "exact")
    prefix = "after, " if trained else ""
    if trained:
        run = bench.vectors("after, exact", exact.index, queries, exact.bytes / 1e6)
    for table in recipe.indexes:
        folder = open_index(out / "index" / table.label)
        bench.vectors(f"{prefix}{table.label}", folder.index, queries, folder.bytes / 1e6)
    if trained:
        add_beside(bench, recipe, collection, out, run, track)
    bench.add("hybrid (BM25 + exact)", reciprocal_rank([lexical, run]), None, 0.0)
    for other in recipe.also:
        _join(bench, out / "also" / other.name, other.name, lexical, run)
    _compare(bench, "before, exact" if trained else "BM25")
    fidelity, fixes = _fidelity(recipe, bench, out, exact, queries)
    write_json(out / "runs" / "by-query.json", {name: dict(table) for name, table in bench.tables.items()})
    query_ms = _latency(lambda i: after.encode_queries([bench.texts[i]]), len(bench.texts))
    return Measured(bench.systems, fidelity, fixes, query_ms)


def measure_cross(recipe: Recipe, collection: Collection, out: Path, model: Any, track: Track) -> Measured:
    """Re-rank BM25's answers to the test queries with a cross-encoder."""
    bench = Bench(recipe, collection, out, track)
    write_qrels(out / "runs" / "test.qrels", bench.qrels)
    lexical = bench.lexical(open_index(out / "index" / "bm25"))
    add_reranked(bench, recipe, collection, model, lexical, "BM25", track)
    _compare(bench, "BM25")
    write_json(out / "runs" / "by-query.json", {name: dict(table) for name, table in bench.tables.items()})
    return Measured(bench.systems, [], [], 0.0)


def _megabytes(folder: Folder) -> float:
    return sum(file["bytes"] for name, file in folder.facts["files"].items() if name.endswith(".npy")) / 1e6


def _join(bench: Bench, folder: Path, name: str, lexical: Run, run: Run) -> None:
    """Take over another recipe's systems, and make hybrids of its best with this one's."""
    theirs = read_json(folder / "results.json")["systems"]
    own = [s for s in theirs if s["name"] != "BM25" and not s["name"].startswith("hybrid")]
    found = {s["name"]: read_run(folder / "runs" / f"{slug(s['name'])}.trec") for s in own}
    for system in own:
        bench.add(f"{name}: {system['name']}", found[system["name"]], system["ms"], system["megabytes"])
    last = next(found[n] for n in ("after, exact", "exact") if n in found)
    bench.add(f"hybrid (exact + {name})", reciprocal_rank([run, last]), None, 0.0)
    bench.add(f"hybrid (BM25 + exact + {name})", reciprocal_rank([lexical, run, last]), None, 0.0)


def _compare(bench: Bench, baseline: str) -> None:
    """Each system against the baseline on the first measure, p values corrected together."""
    measure = bench.recipe.evaluation.measures[0]
    others = [system for system in bench.systems if system["name"] != baseline]
    found = [compare(measure, bench.tables[s["name"]][measure], bench.tables[baseline][measure]) for s in others]
    corrected = holm([c.randomisation_p for c in found])
    for system, comparison, p in zip(others, found, corrected, strict=True):
        system["against"] = {**asdict(comparison), "baseline": baseline, "holm_p": p}


def _fidelity(
    recipe: Recipe, bench: Bench, out: Path, exact: IndexFolder, queries: Dense | Sparse | MultiVector
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each approximate index against exact; for one that loses more than LOSS, the setting that does not."""
    measures: Sequence[str] = recipe.evaluation.measures
    judge = Judge(exact.index, queries, ks=(10, 100), qrels=bench.qrels, query_ids=bench.ids, doc_ids=bench.doc_ids,
                  measures=measures)  # fmt: skip
    rows, fixes = [], []
    for table in recipe.indexes:
        index = open_index(out / "index" / table.label).index
        found = judge.measure(index, f"{table.label}: {setting_of(index)}")
        rows.append({**asdict(found), "cost": found.cost})
        if table.kind != "inverted" and -found.change[measures[0]][0] > LOSS:
            better, _ = judge.cheapest(index, loss=LOSS, measure=measures[0])
            said = asdict(better) | {"cost": better.cost} if better else None
            fixes.append({"index": table.label, "loss": LOSS, "measure": measures[0], "setting": said})
    return rows, fixes
