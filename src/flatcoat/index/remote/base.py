"""What every search engine offers: one collection of rows, each with vectors under names, an id, texts and metadata.

Rows are the same numbers as in a folder of vectors, and the engine's primary key, so that writing a row twice does no harm. A score
is the dot product (for several vectors an item, MaxSim), higher is better, whatever sign the engine has for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from flatcoat.errors import Misuse
from flatcoat.index.base import TopK
from flatcoat.index.filters import Condition
from flatcoat.representations import Dense, MultiVector, Representation, Sparse

FUSE_K = 60  # the k of reciprocal rank fusion, as in search/fuse.py
NAMES = re.compile(r"[A-Za-z_]\w{0,47}", re.ASCII)
OWN = ("row", "id", "title", "text", "metadata")  # columns that are no vectors

#: Of each query, (row, score) pairs, best first.
Found = list[list[tuple[int, float]]]


@dataclass(frozen=True)
class Field:
    """Vectors under a name: their kind, and their dimensions or terms (None where an engine does not say)."""

    kind: Literal["dense", "sparse", "late"]
    width: int | None


@dataclass(frozen=True)
class RemoteSettings:
    """How an engine searches dense vectors: every one (`exact`), or by a graph (`hnsw`), approximately.

    `links` and `build` are the graph's M and efConstruction, `ef` what a search looks at. Sparse vectors and token vectors are
    searched exactly. `shards` and `replicas` are of an engine of several machines; None leaves them to it.
    """

    kind: Literal["exact", "hnsw"] = "exact"
    links: int = 16
    build: int = 200
    ef: int = 100
    shards: int | None = None
    replicas: int | None = None


class Payload(NamedTuple):
    """What is kept beside a row's vectors."""

    id: str
    title: str = ""
    text: str = ""
    metadata: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Batch:
    """Rows from `first` on: vectors by field, and payloads."""

    first: int
    vectors: Mapping[str, Representation]
    payloads: Sequence[Payload]

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def rows(self) -> range:
        """The numbers of its rows."""
        return range(self.first, self.first + len(self))


class Page(NamedTuple):
    """Rows that were read back, by rising number, and one field's vectors of them."""

    rows: list[int]
    ids: list[str]
    vectors: Representation


@dataclass(frozen=True)
class Leg:
    """One field's part of a search: queries, and how many rows of each are wanted."""

    field: str
    kind: str
    queries: Representation
    k: int


@runtime_checkable
class Engine(Protocol):
    """One collection of an engine. Every method raises FlatcoatError where the engine does not answer or refuses."""

    holds: tuple[str, ...]

    def describe(self) -> dict[str, Field] | None:
        """The fields of the collection; None where there is no such collection."""
        ...

    def create(self, fields: Mapping[str, Field], settings: RemoteSettings) -> None:
        """Make the collection, empty."""
        ...

    def drop(self) -> None:
        """Remove the collection, where it is there."""
        ...

    def upsert(self, batch: Batch) -> None:
        """Write rows, over those of the same numbers; done when it returns."""
        ...

    def finish(self, fields: Mapping[str, Field], settings: RemoteSettings) -> None:
        """After loading: build the graph, wait until everything is found."""
        ...

    def count(self) -> int:
        """How many rows there are."""
        ...

    def nearest(self, leg: Leg, settings: RemoteSettings, condition: Condition | None) -> Found:
        """The best rows of each query."""
        ...

    def fused(self, legs: Sequence[Leg], k: int, settings: RemoteSettings, condition: Condition | None) -> Found:
        """The best rows by reciprocal rank (k = 60, ranks from 1, equal weights) over the legs, in one request a query."""
        ...

    def delete(self, rows: Sequence[int]) -> None:
        """Remove rows; one that is not there is passed over."""
        ...

    def read(self, field: str, kind: Field, rows: range) -> Page:
        """Those of these rows that are there."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


def check_name(name: str) -> str:
    """The name, where it can be a collection's in every engine. Raises Misuse."""
    if not NAMES.fullmatch(name):
        raise Misuse(f"name {name!r}: want letters, digits and _, a letter first, 48 at most")
    return name


def top_of(found: Found, k: int) -> TopK:
    """Pairs as arrays: by falling score, equal scores by rising row, as 32-bit floats."""
    rows = np.full((len(found), k), -1, np.int64)
    scores = np.full((len(found), k), -np.inf, np.float32)
    for i, pairs in enumerate(found):
        some = np.array([row for row, _ in pairs], np.int64)
        values = np.array([score for _, score in pairs], np.float32)
        order = np.lexsort((some, -values))[:k]
        rows[i, : len(order)], scores[i, : len(order)] = some[order], values[order]
    return TopK(rows, scores)


def fused_slowly(legs: Sequence[Found], weights: Sequence[float], k: int) -> Found:
    """Reciprocal rank over answers that are at hand: Σ weight / (60 + rank), ranks from 1. The twin of `Engine.fused`."""
    fused: Found = []
    for answers in zip(*legs, strict=True):
        total: dict[int, float] = {}
        for pairs, weight in zip(answers, weights, strict=True):
            ordered = sorted(pairs, key=lambda pair: (-np.float32(pair[1]), pair[0]))
            for rank, (row, _) in enumerate(ordered, start=1):
                total[row] = total.get(row, 0.0) + weight / (FUSE_K + rank)
        fused.append(sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))[:k])
    return fused


def lists_of(vectors: Representation, row: int) -> Any:
    """One item as plain numbers: a list, (terms, weights), or a list of lists. None where it is empty."""
    if isinstance(vectors, Dense):
        return vectors.vectors[row].tolist()
    if isinstance(vectors, MultiVector):
        return vectors.item(row).astype(np.float32).tolist() or None
    entries = slice(int(vectors.start[row]), int(vectors.start[row + 1]))
    return (
        (vectors.terms[entries].tolist(), vectors.weights[entries].tolist()) if entries.stop > entries.start else None
    )


def of_lists(items: Sequence[Any], field: Field) -> Representation:
    """What `lists_of` (or arrays of the same shapes) made, together again."""
    width = int(field.width or 0)
    if field.kind == "dense":
        return Dense(np.array(items, np.float32).reshape(len(items), width))
    if field.kind == "late":
        made = [np.zeros((0, width)) if item is None else np.asarray(item).reshape(-1, width) for item in items]
        return MultiVector.of([item.astype(np.float32) for item in made], width)
    start = np.cumsum([0, *(0 if item is None else len(item[0]) for item in items)], dtype=np.int64)
    terms = [np.asarray(item[0], np.int32) for item in items if item is not None]
    weights = [np.asarray(item[1], np.float32) for item in items if item is not None]
    return Sparse(
        start,
        np.concatenate([np.zeros(0, np.int32), *terms]),
        np.concatenate([np.zeros(0, np.float32), *weights]),
        width,
    )
