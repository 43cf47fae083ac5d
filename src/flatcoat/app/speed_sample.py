"""What precisions are measured on: some queries, the documents that answer them, and others beside.

Documents are those judged for the sampled queries and random others. Where a split has too few judged queries, queries are
the collection's own, or first sentences of documents, and what fp32 finds is what is to be found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flatcoat.data.passages import sentences
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.records import Qrels, Run

DOCUMENTS, QUERIES = 20, 10  # fewer tell nothing of a ranking's first ten
CANDIDATES = 16  # documents a query that are read with it


class TooFew(FlatcoatError):
    """There is not enough to tell one precision's ranking from another's."""


class Sample(NamedTuple):
    """Texts by id. `qrels` None: nobody judged (`why`), and fp32's own answers are what is to be found."""

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    qrels: Qrels | None
    why: str  # which split judged, or why none did


class Pairs(NamedTuple):
    """A sample for what reads pairs: each query's candidates."""

    sample: Sample
    candidates: Mapping[str, Sequence[str]]


def sample_of(collection: Collection, split: str, documents: int, queries: int, seed: int = 0) -> Sample:
    """At most so many documents and queries, drawn by `seed`.

    Raises:
        Misuse: fewer than 20 documents, or no query, are asked for.
        TooFew: the collection has fewer than 20 documents.
    """
    if documents < DOCUMENTS:
        raise Misuse(f"--documents {documents}: too few to rank; want at least {DOCUMENTS}")
    if queries < 1:
        raise Misuse(f"--queries {queries}: want at least 1")
    if len(collection.documents) < DOCUMENTS:
        name = collection.facts["source"].get("spec")
        raise TooFew(f"{name}: {len(collection.documents)} documents are too few to rank; want at least {DOCUMENTS}")
    rng = np.random.default_rng(seed)
    asked, pool, why = _judged(collection, split, documents, queries, rng)
    if len(asked) < min(QUERIES, queries):
        texts = _questions(collection, split, queries, rng)
        return Sample(texts, _documents(collection, {}, documents, rng), None, why)
    ids, rows = collection.queries.ids, collection.judgements(split)
    found = _documents(collection, pool, documents, rng)
    qrels: dict[str, dict[str, int]] = {ids[row]: {} for row in asked}
    for query, document, grade in np.asarray(rows)[np.isin(rows[:, 0], asked)].tolist():
        if (id := collection.documents.ids[document]) in found:
            qrels[ids[query]][id] = grade
    return Sample({ids[row]: collection.queries.text(row) for row in asked}, found, qrels, f"split {split!r}")


def _judged(
    collection: Collection, split: str, most: int, queries: int, rng: np.random.Generator
) -> tuple[list[int], dict[int, None], str]:
    """Queries whose answers fit into a pool of `most` documents, and the judged documents in it, answers first."""
    if split not in collection.splits:
        return [], {}, f"no split {split!r}"
    table = np.asarray(collection.judgements(split))
    table = table[np.argsort(table[:, 0], kind="stable")]
    taken: list[int] = []
    pool: dict[int, None] = {}
    rest: list[int] = []
    for query in rng.permutation(np.unique(table[table[:, 2] > 0, 0]))[: 20 * queries].tolist():
        own = table[slice(*np.searchsorted(table[:, 0], [query, query + 1]))]
        answers = dict.fromkeys(own[own[:, 2] > 0, 1].tolist())
        if len(taken) < queries and len(pool | answers) <= most:
            taken.append(query)
            pool |= answers
            rest += own[own[:, 2] <= 0, 1].tolist()
    pool = dict.fromkeys([*pool, *rest][:most])
    return taken, pool, f"{len(taken)} judged queries of split {split!r} are too few"


def _documents(collection: Collection, pool: Mapping[int, None], most: int, rng: np.random.Generator) -> dict[str, str]:
    """The pool and random others, in random order, so that every part of them is like the whole."""
    table, count = collection.documents, min(most, len(collection.documents))
    others = rng.choice(len(table), count, replace=False).tolist()  # as many again as may be in the pool
    rows = rng.permutation(list(dict.fromkeys([*pool, *others]))[:count])
    return {table.ids[int(row)]: table.text(int(row)) for row in rows}


def _questions(collection: Collection, split: str, most: int, rng: np.random.Generator) -> dict[str, str]:
    """Queries of the collection, the split's first; first sentences of documents where it has too few."""
    table = collection.queries
    rows = collection.query_rows(split) if split in collection.splits else np.zeros(0, np.int64)
    rows = rows if len(rows) >= QUERIES else np.arange(len(table))
    if len(rows) >= min(QUERIES, most):
        chosen = rng.permutation(rows)[:most].tolist()
        return {table.ids[row]: table.text(row) for row in chosen}
    documents, found = collection.documents, {}
    for row in rng.choice(len(documents), min(most, len(documents)), replace=False).tolist():
        spans = sentences(text := documents.text(row))
        if spans:
            found[documents.ids[row]] = text[slice(*spans[0])]
    if not found:
        raise TooFew(f"{collection.facts['source'].get('spec')}: no document has a sentence to ask for")
    return found


def pairs_of(sample: Sample) -> Pairs:
    """Each query with its answers and what BM25 finds beside them, 16 in all: about a pair a document, of at least 10 queries."""
    from flatcoat.index.bm25 import Bm25Index

    ids = list(sample.documents)
    queries = list(sample.queries)[: max(QUERIES, len(ids) // CANDIDATES)]
    top = Bm25Index.build(list(sample.documents.values())).search([sample.queries[q] for q in queries], CANDIDATES)
    candidates = {}
    for query, rows in zip(queries, top.rows.tolist(), strict=True):
        judged = (sample.qrels or {}).get(query, {})
        answers = [id for id, grade in judged.items() if grade > 0][: CANDIDATES // 2]
        found = [ids[row] for row in rows if row >= 0]
        candidates[query] = list(dict.fromkeys([*answers, *found, *ids[:CANDIDATES]]))[:CANDIDATES]
    return Pairs(sample._replace(queries={q: sample.queries[q] for q in queries}), candidates)


def pairs_of_run(run: Run, collection: Collection, split: str | None, k: int, most: int) -> Pairs:
    """Pairs that re-ranking would read: at most `most`, of queries that are judged where there are enough.

    Raises:
        TooFew: the run has fewer than 10 queries with two documents or more.
    """
    judges = split or "test"
    known = collection.qrels(judges) if judges in collection.splits else {}
    width = min(k, CANDIDATES)
    asked = sorted((q for q, ranking in run.items() if len(ranking) > 1), key=lambda q: q not in known)
    if len(asked) < QUERIES or width < 2:
        raise TooFew(f"{len(asked)} queries of {width} documents are too few to rank; want at least {QUERIES} of 2")
    candidates = {q: run[q].doc_ids[:width] for q in asked[: max(QUERIES, most // width)]}
    names = dict.fromkeys(id for ids in candidates.values() for id in ids)
    texts = [
        {id: table.text(row) for id in some if (row := table.lookup.row(id)) is not None}
        for table, some in ((collection.queries, candidates), (collection.documents, names))
    ]
    judged = {q: known[q] for q in candidates if any(known.get(q, {}).get(id, 0) > 0 for id in candidates[q])}
    enough = len(judged) >= QUERIES
    why = f"split {judges!r}" if enough else f"{len(judged)} judged queries of split {judges!r} are too few"
    return Pairs(Sample(texts[0], texts[1], judged if enough else None, why), candidates)
