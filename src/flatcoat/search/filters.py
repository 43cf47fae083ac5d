"""Which documents may be answers: a condition on metadata (`index/filters.py`) as a function, and masks of the filters used last.

What a filter costs: the first on a field reads all metadata once (microseconds a row); after that, a condition is two binary searches
and one pass over the rows' numbers in numpy, and a filter used lately costs nothing but the rows that came since.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from typing import Any

import numpy as np

from flatcoat.index.filters import All, Condition, Has, Not, Some, is_number, matches, parse

Predicate = Callable[[Mapping[str, Any]], bool]
KEPT = 8  # masks of the filters used last
FEW = 1024  # rows that are looked at one by one
HELD = (
    16_000_000  # rows of columns and 8 × their different values, in all; the column used longest ago is forgotten first
)


def compile_filter(given: Mapping[str, Any]) -> Predicate:
    """A filter as a function of metadata. Raises Misuse where it is none, saying which part."""
    return partial(matches, parse(given))


class Column:
    """One field of every row: the number of its value, and what the different values hold, in order."""

    def __init__(self):
        self.codes = array("i")  # [row]
        self._numbers: dict[Any, int] = {}
        self._values: list[Any] = []
        self._sorted: dict[type, tuple[list[Any], np.ndarray]] | None = None

    @property
    def size(self) -> int:
        """What it takes of `HELD`."""
        return len(self.codes) + 8 * len(self._values)

    def append(self, value: Any) -> None:
        """One more row."""
        plain = value is None or isinstance(value, str | int | float)
        key = (type(value), value if plain else json.dumps(value, sort_keys=True))
        code = self._numbers.get(key)
        if code is None:
            code = self._numbers[key] = len(self._values)
            self._values.append(value)
            self._sorted = None
        self.codes.append(code)

    def passing(self, condition: Has, rows: int) -> np.ndarray:
        """Which of the first rows a condition on this field lets through."""
        if condition.operator == "exists":
            fine = np.array([value is not None and value != [] for value in self._values], bool)
        else:
            fine = np.zeros(len(self._values), bool)
            fine[self._holding(condition)] = True
        return fine[np.frombuffer(self.codes, np.int32, rows)]

    def _holding(self, condition: Has) -> np.ndarray:
        """The numbers of the values that hold an item which is equal, or within the bounds."""
        bounds = (("gte", condition.value), ("lte", condition.value))
        if condition.operator == "range":
            bounds = condition.value
        if self._sorted is None:
            self._sorted = _by_kind(self._values)
        items, codes = self._sorted[_kind(bounds[0][1])]
        side = {"gt": bisect_right, "gte": bisect_left, "lt": bisect_left, "lte": bisect_right}
        low = max((side[name](items, value) for name, value in bounds if name in ("gt", "gte")), default=0)
        high = min((side[name](items, value) for name, value in bounds if name in ("lt", "lte")), default=len(items))
        return codes[low:high]


def _kind(item: Any) -> type:
    """Numbers are compared with numbers, text with text, truth with truth; NoneType stands for what equals nothing."""
    return float if is_number(item) and item == item else type(item) if isinstance(item, str | bool) else type(None)


def _by_kind(values: Iterable[Any]) -> dict[type, tuple[list[Any], np.ndarray]]:
    """The items of values, rising, and the numbers of the values that hold them."""
    pairs: dict[type, list[tuple[Any, int]]] = {float: [], str: [], bool: [], type(None): []}
    for code, value in enumerate(values):
        for item in value if isinstance(value, list) else (value,):
            pairs[_kind(item)].append((item, code))
    del pairs[type(None)]
    for some in pairs.values():
        some.sort(key=lambda pair: pair[0])
    return {
        kind: ([item for item, _ in some], np.array([code for _, code in some], np.int64))
        for kind, some in pairs.items()
    }


class Masks:
    """Which rows pass, of the filters used last; many rows by columns of the fields asked for, few by reading each.

    `metadata` gives a row's; it may be asked from the thread that searches, and only one may search.
    """

    def __init__(
        self, metadata: Callable[[int], Mapping[str, Any]], keep: int = KEPT, few: int = FEW, most: int = HELD
    ):
        self.metadata, self.keep, self.few, self.most = metadata, keep, few, most
        self._held: dict[str, tuple[Condition | None, np.ndarray]] = {}
        self._columns: dict[str, Column] = {}  # the one used last is the last
        self._names: set[str] = set()  # fields of the first `_seen` rows
        self._seen = 0

    def of(self, given: Mapping[str, Any], rows: int) -> np.ndarray:
        """Whether each of the first `rows` rows passes: bool [row]. Raises Misuse where the filter is none."""
        key = json.dumps(given, sort_keys=True, default=str)
        held = self._held.pop(key, None)
        test, mask = held if held is not None else (parse(given), np.zeros(0, bool))
        if rows - len(mask) > self.few:
            mask = self._by_columns(test, rows)
        if len(mask) < rows:
            more = (matches(test, self.metadata(row)) for row in range(len(mask), rows))
            mask = np.concatenate([mask, np.fromiter(more, bool, rows - len(mask))])
        self._held[key] = (test, mask)
        for oldest in list(self._held)[: -self.keep]:
            del self._held[oldest]
        return mask if len(mask) == rows else mask[:rows]

    def _by_columns(self, test: Condition | None, rows: int) -> np.ndarray:
        """The mask of the first `rows` rows, less at most `few` of them."""
        fields = _fields(test)
        columns = {field: self._columns.pop(field, None) or Column() for field in fields}
        covered = min((len(column.codes) for column in columns.values()), default=rows)
        if rows - covered > self.few:
            self._read(columns, rows)
            covered = rows
        self._columns |= columns
        while sum(column.size for column in self._columns.values()) > self.most and len(self._columns) > len(columns):
            del self._columns[next(iter(self._columns))]
        return _mask(test, columns, min(covered, rows))

    def _read(self, columns: Mapping[str, Column], rows: int) -> None:
        """Bring columns up to a row; of a field that no row has, no metadata is read again."""
        for field in columns.keys() - self._names:
            for _ in range(self._seen - len(columns[field].codes)):
                columns[field].append(None)
        first = min(len(column.codes) for column in columns.values())
        for row in range(first, rows):
            held = self.metadata(row)
            self._names.update(held)
            for field, column in columns.items():
                if len(column.codes) == row:
                    column.append(held.get(field))
        if first <= self._seen:
            self._seen = max(self._seen, rows)


def _fields(test: Condition | None) -> set[str]:
    if isinstance(test, All | Some):
        return set().union(*map(_fields, test.parts))
    return _fields(test.part) if isinstance(test, Not) else set() if test is None else {test.field}


def _mask(test: Condition | None, columns: Mapping[str, Column], rows: int) -> np.ndarray:
    """`matches` for the first rows at once."""
    if isinstance(test, Has):
        return columns[test.field].passing(test, rows)
    if isinstance(test, Not):
        return ~_mask(test.part, columns, rows)
    parts = () if test is None else test.parts
    join, begin = (np.logical_or, False) if isinstance(test, Some) else (np.logical_and, True)
    return reduce(lambda made, part: join(made, _mask(part, columns, rows)), parts, np.full(rows, begin))
