"""The contract of every `Engine`: subclass, and give `engine`. What is in an engine is searched as everywhere else, so that
`RemoteIndex`, by `built`, runs the suites of the embedded indexes too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.index.exact import search_slowly
from flatcoat.index.filters import matches, parse
from flatcoat.index.inverted import search_slowly_sparse
from flatcoat.index.multivector_exact import maxsim_slowly
from flatcoat.index.remote.base import Batch, Engine, Field, Payload, RemoteSettings
from flatcoat.index.remote.index import RemoteIndex
from flatcoat.records import Ranking
from flatcoat.representations import Dense, MultiVector, Representation, Sparse
from flatcoat.search.fuse import reciprocal_rank
from flatcoat.testing.index import unit
from flatcoat.testing.multi_index import tokens
from flatcoat.testing.sparse_index import zipfian

ROWS, DIM = 120, 8

METADATA: list[Mapping[str, Any]] = [
    {}, {"a": 1}, {"a": 1.0, "b": "x"}, {"a": True}, {"a": False}, {"a": None}, {"a": []}, {"a": "1"}, {"a": [1, 5]},
    {"a": ["x", "y"]}, {"a": [None]}, {"a": 2.5}, {"a": -3, "b": ["x", 7]}, {"we ird.k'y": "q\"'\\%s é"}, {"a": {"n": 1}},
    {"b": 3}, {"b": "X"}, {"a": [True, 0]}, {"a": "true", "b": 1e15}, {"b": [[1], "z"]}, {"c": 2}, {"c": 2.999}, {"c": 3},
]  # fmt: skip

FILTERS: list[Mapping[str, Any]] = [
    {}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": False}, {"a": 0}, {"a": "1"}, {"a": "x"}, {"a": {"exists": True}},
    {"a": {"exists": False}}, {"a": {"gt": 1}}, {"a": {"gte": 1}}, {"a": {"lt": 1}}, {"a": {"lte": 1}}, {"c": {"gte": 2, "lt": 3}},
    {"a": {"in": [1, "x", True]}}, {"a": {"in": []}}, {"not": {"a": 1}}, {"not": {"a": {"gt": 0}}}, {"a": 1, "b": "x"},
    {"or": [{"a": 1}, {"b": "x"}]}, {"not": {"or": [{"a": {"exists": True}}, {"b": {"exists": True}}]}},
    {"we ird.k'y": "q\"'\\%s é"}, {"b": {"gt": 1e14}}, {"b": {"eq": 7}}, {"b": "z"}, {"missing": 1},
    {"and": [{"a": {"lte": 5}}, {"not": {"a": {"in": [1]}}}]}, {"a": {"lt": -2.5}}, {"b": {"gt": -1e300}},
    {"a": {"in": [1, 5, 9], "gt": 1}}, {"a": {"exists": False, "eq": 1}}, {"c": {"gt": 1, "lte": "x"}}, {"a": {"eq": "1", "in": [1]}},
]  # fmt: skip


def built(
    engine: Engine, vectors: Mapping[str, Representation], settings: RemoteSettings | None = None,
    metadata: list[Mapping[str, Any]] | None = None,
) -> RemoteIndex:  # fmt: skip
    """A new collection of these vectors, searched by the first field; documents are d0, d1 …"""
    settings = settings or RemoteSettings()
    fields = {name: field_of(held) for name, held in vectors.items()}
    rows = len(next(iter(vectors.values())))
    given = metadata or [{}] * rows
    engine.drop()
    engine.create(fields, settings)
    for first in range(0, rows, 64):
        last = min(first + 64, rows)
        payloads = [Payload(f"d{i}", f"title {i}", f"text {i}", given[i]) for i in range(first, last)]
        engine.upsert(Batch(first, {name: held[first:last] for name, held in vectors.items()}, payloads))
    engine.finish(fields, settings)
    return RemoteIndex(engine, next(iter(vectors)), fields, rows, settings, "the engine")


def field_of(vectors: Representation) -> Field:
    """The field that holds these vectors."""
    if isinstance(vectors, Sparse):
        return Field("sparse", vectors.vocab_size)
    return Field("late", vectors.dim) if isinstance(vectors, MultiVector) else Field("dense", vectors.vectors.shape[1])


def everything(engine: Engine) -> dict[str, Representation]:
    """Vectors of each kind that the engine holds, two of them with empty items among them."""
    sparse, none = zipfian(ROWS - 1, 12), Sparse.of(np.zeros((1, 400), np.float32))
    late, nothing = tokens(ROWS - 1, 1, 5, DIM), MultiVector(np.zeros(2, np.int64), np.zeros((0, DIM), np.float32))
    made: dict[str, Representation] = {
        "dense": Dense(unit(ROWS, DIM)), "sparse": Sparse.joined([sparse[:7], none, sparse[7:]], 400),
        "late": MultiVector.joined([late[:7], nothing, late[7:]], DIM),
    }  # fmt: skip
    return {name: held for name, held in made.items() if name in engine.holds}


def asked(fields: Mapping[str, Representation], count: int = 6) -> dict[str, Representation]:
    """Queries of each field."""
    made = {"dense": Dense(unit(count, DIM, 9)), "sparse": zipfian(count, 6, 9), "late": tokens(count, 2, 4, DIM, 9)}
    return {name: made[name] for name in fields}


def slowly(documents: Representation, queries: Representation, k: int) -> Any:
    """Exact search in memory."""
    if isinstance(documents, Dense) and isinstance(queries, Dense):
        return search_slowly(documents.vectors, queries.vectors, k)
    if isinstance(documents, Sparse) and isinstance(queries, Sparse):
        return search_slowly_sparse(documents, queries, k)
    assert isinstance(documents, MultiVector) and isinstance(queries, MultiVector)
    return maxsim_slowly(queries, documents, k)


class EngineContract:
    """What holds for every engine under exact settings."""

    def engine(self) -> Engine:
        """A collection's engine; the collection may be there or not."""
        raise NotImplementedError

    def opened(self) -> Iterator[tuple[RemoteIndex, dict[str, Representation]]]:
        """A collection of every kind of vectors; closed afterwards."""
        engine = self.engine()
        held = everything(engine)
        try:
            yield built(engine, held, metadata=[METADATA[i % len(METADATA)] for i in range(ROWS)]), held
        finally:
            engine.drop()
            engine.close()

    def test_every_field_is_searched_exactly(self) -> None:
        """Rows and scores are those of exact search in memory, field by field."""
        for index, held in self.opened():
            for name, queries in asked(held).items():
                found, truth = index.at(name).search(queries, 20), slowly(held[name], queries, 20)
                np.testing.assert_allclose(found.scores, truth.scores, rtol=2e-6, atol=2e-6)
                assert (found.rows == truth.rows).mean() > 0.98  # near ties may be the other way round

    def test_it_says_what_it_holds(self) -> None:
        """Before, nothing; then the fields and their widths, where the engine knows them; then nothing again."""
        engine = self.engine()
        engine.drop()
        assert engine.describe() is None
        engine.close()
        for index, held in self.opened():
            found = index.engine.describe()
            assert found is not None and set(found) == set(held)
            for name, field in found.items():
                wanted = field_of(held[name])
                assert field.kind == wanted.kind and field.width in (None, wanted.width)

    def test_filters_are_what_they_say(self) -> None:
        """Every filter gives the rows that the plain predicate gives."""
        for index, held in self.opened():
            name = index.field
            queries = asked(held, 1)[name]
            every = index.search(queries, ROWS).rows[0]
            for filter in FILTERS:
                condition = parse(filter)
                wanted = [row for row in every.tolist() if matches(condition, METADATA[row % len(METADATA)])]
                found = index.search(queries, ROWS, filter=filter).rows[0]
                assert sorted(found[found >= 0].tolist()) == sorted(wanted), filter

    def test_filters_hold_for_the_other_kinds(self) -> None:
        """A filter is pushed into every field's search, and the best that pass are given."""
        passing = {row for row in range(ROWS) if matches(parse({"a": {"exists": True}}), METADATA[row % len(METADATA)])}
        for index, held in self.opened():
            for name, queries in asked(held).items():
                found = index.at(name).search(queries, 5, filter={"a": {"exists": True}})
                truth = slowly(held[name], queries, ROWS)
                for rows, scores, every, values in zip(found.rows, found.scores, truth.rows, truth.scores, strict=True):
                    best = [v for row, v in zip(every.tolist(), values, strict=True) if row in passing][:5]
                    assert set(rows.tolist()) - {-1} <= passing
                    np.testing.assert_allclose(scores[: len(best)], best, rtol=2e-6, atol=2e-6)

    def test_hybrids_are_reciprocal_rank_fusion(self) -> None:
        """The engine's fusion has the scores of search/fuse.py, k = 60; with weights too."""
        for index, held in self.opened():
            queries = asked(held)
            depth = 10
            runs = [_run(index.at(name).search(some, depth)) for name, some in queries.items()]
            for weights in (None, {name: 1.0 + i for i, name in enumerate(held)}):
                found = index.hybrid(queries, ROWS, depth=depth, weights=weights)
                truth = reciprocal_rank(runs, None if weights is None else list(weights.values()))
                for q, (rows, scores) in enumerate(zip(found.rows, found.scores, strict=True)):
                    some = {f"d{row}": s for row, s in zip(rows.tolist(), scores.tolist(), strict=True) if row >= 0}
                    wanted = truth[str(q)].as_dict()
                    assert set(some) == set(wanted)
                    np.testing.assert_allclose([some[id] for id in wanted], list(wanted.values()), rtol=2e-6)

    def test_hybrids_take_filters(self) -> None:
        """What a filter refuses is in no leg."""
        for index, held in self.opened():
            found = index.hybrid(asked(held), 30, depth=30, filter={"b": {"exists": True}})
            rows = set(found.rows.ravel().tolist()) - {-1}
            assert rows and all(matches(parse({"b": {"exists": True}}), METADATA[row % len(METADATA)]) for row in rows)

    def test_a_row_written_twice_is_there_once(self) -> None:
        """Writing again changes nothing but what is written."""
        for index, held in self.opened():
            some = {name: vectors[3:9] for name, vectors in held.items()}
            index.engine.upsert(Batch(3, some, [Payload(f"d{i}") for i in range(3, 9)]))
            assert index.engine.count() == ROWS
            queries = asked(held)[index.field]
            truth = slowly(held[index.field], queries, 10)
            np.testing.assert_allclose(index.search(queries, 10).scores, truth.scores, rtol=2e-6, atol=2e-6)

    def test_deleted_rows_are_gone(self) -> None:
        """They are not found, not counted, and deleting them again is nothing."""
        for index, held in self.opened():
            queries = asked(held)[index.field]
            best = sorted(set(index.search(queries, 3).rows.ravel().tolist()))
            for _ in range(2):
                index.engine.delete(best)
                assert index.engine.count() == ROWS - len(best)
            left = index.search(queries, 10).rows
            assert not set(left.ravel().tolist()) & set(best) and (left >= 0).all()

    def test_what_is_read_back_is_what_was_written(self) -> None:
        """Vectors to the bit, ids, rising rows, and nothing of rows that are not there."""
        for index, held in self.opened():
            index.engine.delete([5])
            for name, vectors in held.items():
                page = index.engine.read(name, field_of(vectors), range(2, 40))
                assert page.rows == [row for row in range(2, 40) if row != 5] and page.ids[0] == "d2"
                for i, row in enumerate(page.rows):
                    for mine, theirs in zip(_item(page.vectors, i), _item(vectors, row), strict=True):
                        np.testing.assert_array_equal(mine, theirs)

    def test_another_width_is_refused(self) -> None:
        """Vectors that do not fit are an error that names the engine, and nothing is written."""
        for index, held in self.opened():
            if not isinstance(held["dense"], Dense):
                continue
            wrong = {
                name: Dense(unit(1, DIM + 1)) if name == "dense" else vectors[:1] for name, vectors in held.items()
            }
            try:
                index.engine.upsert(Batch(500, wrong, [Payload("new")]))
            except FlatcoatError as error:
                assert "\n" not in str(error)
            else:
                raise AssertionError("vectors of another width were taken")
            assert index.engine.count() == ROWS


def _item(vectors: Representation, i: int) -> tuple[np.ndarray, ...]:
    if isinstance(vectors, Sparse):
        entries = slice(int(vectors.start[i]), int(vectors.start[i + 1]))
        return vectors.terms[entries], vectors.weights[entries]
    return (vectors.vectors[i] if isinstance(vectors, Dense) else vectors.item(i),)


def _run(top: Any) -> dict[str, Ranking]:
    pairs = [
        [(f"d{row}", float(score)) for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if row >= 0]
        for rows, scores in zip(top.rows, top.scores, strict=True)
    ]
    return {str(q): Ranking.of(some) for q, some in enumerate(pairs)}
