"""One way of finding documents that come and go: a base index that stays as it is, and rows added beside it.

    top_k((base ∪ added) ∖ gone) = best k of top_k(base ∖ gone) and top_k(added ∖ gone)

Rows are numbered through: those of the base, then those added. Which may be answers is a mask over them. A view is immutable:
adding rows gives another, and who searches the one before never sees half a write. Answers are those of an index that is built
anew over the rows allowed, equal scores by rising row; for kinds that approximate, of one that loses what the base loses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from flatcoat.index.base import TopK
from flatcoat.index.exact import ExactIndex, merge
from flatcoat.index.inverted import InvertedIndex
from flatcoat.index.multivector import MultiVectorIndex
from flatcoat.index.multivector_exact import BLOCK, TOGETHER, MaxSimExact, best_rows, exact_scores, lanes_of
from flatcoat.index.vector import VectorIndex
from flatcoat.representations import Dense, MultiVector, Representation, Sparse
from flatcoat.search.packing import Grown, Items

Kind = Literal["dense", "sparse", "late", "lexical"]
T = TypeVar("T", Dense, Sparse, MultiVector)

FEW = 4096  # rows that are always scored one by one where only they may be answers
FEWER = 32  # and so is this part of the base
GATHERED = 65536  # vectors read at once


@dataclass(frozen=True)
class Encoding:
    """A model as several legs share it. `stored` is the type in which token vectors are kept."""

    key: str
    kind: Kind
    name: str
    model: Any
    stored: np.dtype | None = None

    def queries(self, texts: Sequence[str]) -> Any:
        """A representation of queries."""
        return self.model.encode_queries(texts)

    def documents(self, texts: Sequence[str]) -> Any:
        """A representation of documents, as the base has them."""
        made = self.model.encode_documents(texts)
        if isinstance(made, MultiVector) and self.stored is not None:
            return MultiVector(made.start, made.vectors.astype(self.stored, copy=False))
        return made


@dataclass(frozen=True)
class Added:
    """New rows: their full texts, and their vectors by encoding's key."""

    texts: Sequence[str]
    vectors: Mapping[str, Representation]


class View(Protocol):
    """Rows of a base and rows added, as one leg sees them."""

    def __len__(self) -> int: ...

    def extended(self, added: Added) -> View:
        """The same with more rows at its end."""
        ...

    def search(self, queries: Any, k: int, allowed: np.ndarray | None) -> TopK:
        """The best rows of each query, k at most, -1 and -inf past the last; `allowed` (bool [row]) None is every row."""
        ...


@dataclass(frozen=True)
class Leg:
    """A way of finding documents; `twin` makes the exact index of its base, None where it is exact itself."""

    name: str
    kind: Kind
    index: str
    view: View
    encoding: Encoding | None = None
    approximate: bool = False
    twin: Callable[[], Any] | None = None


def nothing(queries: int, k: int) -> TopK:
    """An answer of no matches."""
    return TopK(np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32))


def widened(top: TopK, k: int) -> TopK:
    """An answer k wide, its first k."""
    missing = k - top.rows.shape[1]
    if missing <= 0:
        return TopK(np.ascontiguousarray(top.rows[:, :k]), np.ascontiguousarray(top.scores[:, :k]))
    rest = nothing(len(top.rows), missing)
    return TopK(np.concatenate([top.rows, rest.rows], 1), np.concatenate([top.scores, rest.scores], 1))


def both(base: TopK, added: TopK, first: int, k: int) -> TopK:
    """The k best of the base and of rows that are numbered from `first` on."""
    shifted = TopK(np.where(added.rows >= 0, added.rows + first, -1), added.scores)
    return widened(merge(base, shifted, k), k)


def once(view: View, of: Any, make: Callable[[Any], Any], name: str = "_made") -> Any:
    """What was made of the same mask (or other object) the last time; a view's searches share it."""
    held = vars(view).get(name)
    if held is None or held[0] is not of:
        held = vars(view)[name] = (of, make(of))
    return held[1]


@dataclass(frozen=True)
class DenseView:
    """One vector a row. Few allowed rows are scored one by one; else the base is asked for more until k are allowed."""

    base: ExactIndex | VectorIndex
    key: str
    added: Grown

    @classmethod
    def of(cls, base: ExactIndex | VectorIndex, key: str) -> DenseView:
        """No rows added so far."""
        return cls(base, key, Grown(np.empty((0, base.vectors.shape[1]), np.float32)))

    def __len__(self) -> int:
        return len(self.base) + self.added.length

    def extended(self, added: Added) -> DenseView:
        """The same with more rows at its end."""
        made = added.vectors[self.key]
        assert isinstance(made, Dense)
        return replace(self, added=self.added.extended(made.vectors))

    def search(self, queries: Dense, k: int, allowed: np.ndarray | None) -> TopK:
        """The best rows of each query."""
        n, width = len(self.base), min(k, len(self.base))
        if allowed is None or allowed[:n].all():
            best = self.base.search(queries, width)
        else:
            rows = np.flatnonzero(allowed[:n])
            if len(rows) <= max(FEW, n // FEWER):
                best = score_rows(self.base.vectors, rows, queries, k)
            else:
                best = search_on(self.base, queries, width, allowed[:n])
        alone = np.arange(self.added.length) if allowed is None else np.flatnonzero(allowed[n:])
        return both(best, score_rows(self.added.array, alone, queries, k), n, k)


def score_rows(vectors: np.ndarray, rows: np.ndarray, queries: Dense, k: int) -> TopK:
    """Exact search among some rows (rising)."""
    best = nothing(len(queries), 0)
    for start in range(0, len(rows), GATHERED):
        some = rows[start : start + GATHERED]
        scores = (queries.vectors @ np.asarray(vectors[some]).T).astype(np.float32, copy=False)
        best = merge(best, best_rows(scores, some, min(k, len(some))), k)
    return best


def search_on(index: Any, queries: Any, k: int, allowed: np.ndarray) -> TopK:
    """Ask an index for more and more until k rows are allowed ones, or it has no more to give."""
    share = max(1, int(allowed.sum())) / len(allowed)
    ask = min(len(allowed), int(1.25 * k / share) + 16)
    out, left = nothing(len(queries), k), np.arange(len(queries))
    while len(left):
        top = index.search(rows_of(queries, left), ask)
        good = (top.rows >= 0) & allowed[np.maximum(top.rows, 0)]
        order = np.argsort(~good, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(good, order, 1)
        done = (good.sum(1) >= k) | (top.rows[:, -1] < 0) | (ask == len(allowed))
        at = left[done]
        out.rows[at, : order.shape[1]] = np.where(found, np.take_along_axis(top.rows, order, 1), -1)[done]
        out.scores[at, : order.shape[1]] = np.where(found, np.take_along_axis(top.scores, order, 1), -np.inf)[done]
        left, ask = left[~done], min(len(allowed), 2 * ask)
    return out


def rows_of(queries: T, rows: np.ndarray) -> T:
    """Some of the queries."""
    if len(rows) == len(queries):
        return queries
    if isinstance(queries, Dense):
        return Dense(queries.vectors[rows])
    parts: Any = [queries[row : row + 1] for row in rows.tolist()]
    return (
        Sparse.joined(parts, queries.vocab_size)
        if isinstance(queries, Sparse)
        else MultiVector.joined(parts, queries.dim)
    )


@dataclass(frozen=True)
class SparseView:
    """Term weights: added rows are further segments of the base, weighed by its units."""

    index: InvertedIndex
    key: str
    base: int
    added: Items

    @classmethod
    def of(cls, base: InvertedIndex, key: str) -> SparseView:
        """No rows added so far."""
        return cls(base, key, len(base), Items.of(np.zeros(0, np.int32), np.zeros(0, np.float32)))

    def __len__(self) -> int:
        return len(self.index)

    def extended(self, added: Added) -> SparseView:
        """The same with more rows at its end."""
        made = added.vectors[self.key]
        assert isinstance(made, Sparse)
        grown = self.added.extended(made.start, made.terms, made.weights)
        return replace(self, index=self.index.add(made), added=grown)

    def on(self, twin: InvertedIndex) -> SparseView:
        """The same rows over another index of the base; made once."""
        return once(self, twin, lambda base: replace(self, index=base.add(self.added.sparse(base.vocab_size))), "_on")

    def search(self, queries: Sparse, k: int, allowed: np.ndarray | None) -> TopK:
        """The best rows of each query; rows that share no term with it are no matches."""
        index = self.index
        if allowed is not None and not allowed.all():
            index = once(self, allowed, self._among)
        return widened(index.search(queries, min(k, len(index))), k)

    def _among(self, allowed: np.ndarray) -> InvertedIndex:
        own, dead = self.index, (~allowed).astype(np.uint8)
        return InvertedIndex(own.segments, dead, own.vocab_size, own.settings, own.where, own.threads)


@dataclass(frozen=True)
class LateView:
    """Several vectors a row: the base by its index, added rows by exact MaxSim."""

    base: MultiVectorIndex | MaxSimExact
    key: str
    added: Items

    @classmethod
    def of(cls, base: MultiVectorIndex | MaxSimExact, key: str) -> LateView:
        """No rows added so far."""
        dim = base.dim if isinstance(base, MultiVectorIndex) else base.vectors.dim
        return cls(base, key, Items.of(np.zeros((0, dim), stored(base))))

    def __len__(self) -> int:
        return len(self.base) + len(self.added)

    def extended(self, added: Added) -> LateView:
        """The same with more rows at its end."""
        made = added.vectors[self.key]
        assert isinstance(made, MultiVector)
        return replace(self, added=self.added.extended(made.start, made.vectors))

    def search(self, queries: MultiVector, k: int, allowed: np.ndarray | None) -> TopK:
        """The best rows of each query."""
        n, width = len(self.base), min(k, len(self.base))
        if allowed is None or allowed[:n].all():
            best = self.base.search(queries, width)
        elif isinstance(self.base, MultiVectorIndex):
            best = once(self, allowed, self._among).search(queries, width)
        else:
            best = maxsim_rows(self.base.vectors, np.flatnonzero(allowed[:n]), queries, k)
        alone = np.arange(len(self.added)) if allowed is None else np.flatnonzero(allowed[n:])
        return both(best, maxsim_rows(self._kept, alone, queries, k), n, k)

    def _among(self, allowed: np.ndarray) -> MultiVectorIndex:
        own, dead = self.base, (~allowed[: len(self.base)]).astype(np.uint8)
        assert isinstance(own, MultiVectorIndex)
        return MultiVectorIndex(own.parts, dead, own.settings, own.full, own.where, own.threads)

    @cached_property
    def _kept(self) -> MultiVector:
        return self.added.multi()


def stored(base: MultiVectorIndex | MaxSimExact) -> np.dtype:
    """The type in which the base's token vectors are kept, and those added are to be."""
    full = base.full if isinstance(base, MultiVectorIndex) else base.vectors
    return np.dtype(np.float32) if full is None else full.vectors.dtype


def maxsim_rows(documents: MultiVector, rows: np.ndarray, queries: MultiVector, k: int) -> TopK:
    """Exact MaxSim search among some rows (rising)."""
    parts = [nothing(0, k)]
    for first in range(0, len(queries), TOGETHER):
        some = queries[first : first + TOGETHER]
        asked, best = lanes_of(some), nothing(len(some), 0)
        for start in range(0, len(rows), BLOCK):
            chosen = rows[start : start + BLOCK].astype(np.int32)
            scores = exact_scores(documents, chosen, *asked)
            best = merge(best, best_rows(scores, chosen, min(k, len(chosen))), k)
        parts.append(widened(best, k))
    return TopK(np.concatenate([p.rows for p in parts]), np.concatenate([p.scores for p in parts]))
