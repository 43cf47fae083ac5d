"""What every index offers."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from flatcoat.errors import Misuse
from flatcoat.representations import Dense

Queries = TypeVar("Queries", contravariant=True)


class TopK(NamedTuple):
    """Best rows of each query by falling score; `-1` and `-inf` past the last match."""

    rows: Int64[np.ndarray, "query k"]
    scores: Float32[np.ndarray, "query k"]


@runtime_checkable
class Index(Protocol[Queries]):
    """Rows to be found: documents by their row number."""

    def __len__(self) -> int: ...

    def search(self, queries: Queries, k: int) -> TopK:
        """The k best rows of each query. Raises Misuse where k is not 1 to `len(self)`, or the queries do not fit."""
        ...


@runtime_checkable
class Knobs(Protocol):
    """An index whose approximation can be set when it searches."""

    def knob(self) -> tuple[str, list[int]]:
        """The setting's name and its sensible values, cheapest first."""
        ...

    def with_knob(self, value: int) -> Any:
        """The same index under another setting; nothing is rebuilt."""
        ...


def check_k(k: int, size: int, where: object) -> None:
    """Raise Misuse where `k` cannot be answered."""
    if k < 1:
        raise Misuse(f"k={k}: want at least 1")
    if k > size:
        raise Misuse(f"k={k} asks for more than the {size} documents indexed in {where}; use k <= {size}")


def check_dim(given: int, dim: int, where: object) -> None:
    """Raise Misuse where query vectors have another width than the index."""
    if given != dim:
        raise Misuse(f"queries of {given} dimensions do not fit {where}, built from vectors of {dim}: another model?")


def asked(queries: Dense, k: int, shape: tuple[int, ...], where: object) -> Float32[np.ndarray, "query dim"]:
    """The queries' vectors, to be held against vectors of a shape [row, dim]. Raises Misuse where `k` or their width does not fit."""
    check_k(k, shape[0], where)
    check_dim(queries.vectors.shape[1], shape[1], where)
    return np.ascontiguousarray(queries.vectors, dtype=np.float32)
