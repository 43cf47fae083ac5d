"""An index whose rows an engine searches: the same `search(queries, k)` as any other, with filters and hybrids on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flatcoat.errors import Misuse
from flatcoat.index.base import TopK, check_dim, check_k
from flatcoat.index.filters import Condition, parse
from flatcoat.index.remote.base import Engine, Field, Found, Leg, RemoteSettings, fused_slowly, top_of
from flatcoat.representations import Dense, MultiVector, Representation, Sparse

TYPES = {"dense": Dense, "sparse": Sparse, "late": MultiVector}


class RemoteIndex:
    """One field of a collection. `rows` counts every row that was given a number, deleted ones among them."""

    exact_scores = True  # an approximation finds other rows; it scores those it finds exactly

    def __init__(
        self,
        engine: Engine,
        field: str,
        fields: Mapping[str, Field],
        rows: int,
        settings: RemoteSettings,
        where: object,
    ):
        self.engine, self.field, self.fields, self.rows = engine, field, fields, rows
        self.settings, self.where = settings, where

    def __len__(self) -> int:
        return self.rows

    def search(self, queries: Representation, k: int, *, filter: Mapping[str, Any] | None = None) -> TopK:
        """The k best rows of each query, among those whose metadata fulfil `filter`."""
        check_k(k, len(self), self.where)
        leg = self._leg(self.field, queries, k)
        return top_of(self._own(self.engine.nearest(leg, self.settings, parse(filter)) if len(queries) else []), k)

    def hybrid(
        self, queries: Mapping[str, Representation], k: int, *, depth: int = 100, weights: Mapping[str, float] | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> TopK:  # fmt: skip
        """Several fields' answers, `depth` deep each, in one ranking by reciprocal rank, as search/fuse.py has it.

        The engine fuses them; with `weights`, for which engines have formulas of their own, its answers are fused here.

        Raises Misuse where no field is asked, or not the same number of queries of each.
        """
        check_k(k, len(self), self.where)
        if not queries or len({len(asked) for asked in queries.values()}) != 1:
            raise Misuse("a hybrid search wants at least one field, and as many queries of each")
        legs = [self._leg(field, asked, min(depth, len(self))) for field, asked in queries.items()]
        condition = parse(filter)
        if not len(next(iter(queries.values()))):
            return top_of([], k)
        if weights is not None:
            return top_of(self._weighted(legs, weights, k, condition), k)
        everything = min(len(self), sum(leg.k for leg in legs))  # equal sums are put in order here
        return top_of(self._own(self.engine.fused(legs, everything, self.settings, condition)), k)

    def _own(self, found: Found) -> Found:
        """Without rows that have no id yet: those of a change that was killed. Until it is repeated, answers may be short of them."""
        return [[pair for pair in pairs if pair[0] < self.rows] for pairs in found]

    def _weighted(self, legs: Sequence[Leg], weights: Mapping[str, float], k: int, condition: Condition | None) -> Any:
        if set(weights) != {leg.field for leg in legs}:
            raise Misuse(
                f"weights of {', '.join(weights)}; want one for each of {', '.join(leg.field for leg in legs)}"
            )
        found = [self._own(self.engine.nearest(leg, self.settings, condition)) for leg in legs]
        return fused_slowly(found, [weights[leg.field] for leg in legs], k)

    def _leg(self, name: str, queries: Representation, k: int) -> Leg:
        field = self.fields.get(name)
        if field is None:
            raise Misuse(f"{self.where}: no field {name!r}; it has {', '.join(self.fields)}")
        if not isinstance(queries, TYPES[field.kind]):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise Misuse(f"{self.where}: {name} holds {field.kind} vectors, the queries are {type(queries).__name__}")
        width = int(field.width or 0)
        if isinstance(queries, Sparse):
            if queries.vocab_size != width:
                raise Misuse(
                    f"queries over {queries.vocab_size} terms do not fit {self.where}, over {width}: another model?"
                )
        else:
            check_dim(queries.vectors.shape[1], width, self.where)
        return Leg(name, field.kind, queries, k)

    def at(self, field: str) -> RemoteIndex:
        """The same collection, searched by another field. Raises Misuse where it has none of that name."""
        if field not in self.fields:
            raise Misuse(f"{self.where}: no field {field!r}; it has {', '.join(self.fields)}")
        return RemoteIndex(self.engine, field, self.fields, self.rows, self.settings, self.where)

    @property
    def approximate(self) -> bool:
        """Whether an answer may miss rows."""
        return self.settings.kind == "hnsw" and self.fields[self.field].kind == "dense"

    def knob(self) -> tuple[str, list[int]]:
        """What a search looks at in the graph; exact search has but one setting, its kind."""
        return ("ef", [16, 32, 64, 128, 256, 512, 1000]) if self.approximate else ("kind", [1])

    def with_knob(self, value: int) -> RemoteIndex:
        """The same index, looking at more or less of the graph."""
        if not self.approximate:
            return self
        return RemoteIndex(
            self.engine, self.field, self.fields, self.rows, replace(self.settings, ef=value), self.where
        )
