"""Filters on metadata: `{"year": {"gte": 2020}, "tags": "otter"}`, read once, and checked before an engine sees them.

    {"field": value}                          equal
    {"field": {"eq": v} | {"in": [v…]}}       text, a number, true or false
    {"field": {"gt"|"gte"|"lt"|"lte": v}}     a number, or text by its code points
    {"field": {"exists": true|false}}         there, and neither null nor an empty list
    {"and": […]}  {"or": […]}  {"not": {…}}   several fields are all wanted

A field that holds a list matches where one of its items fulfils all of the field's operators. Numbers are compared with numbers and text
with text; true is no number. `matches` is the definition: each engine's translation is held to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flatcoat.errors import Misuse, nearest

RANGES = ("gt", "gte", "lt", "lte")
OPERATORS = ("eq", "in", *RANGES, "exists")
DEEPEST, MOST = 16, 1024  # conditions within conditions, and in all


@dataclass(frozen=True)
class Has:
    """One field's condition: `eq` and a value, `exists`, or `range` and bounds (operator, value), all numbers or all text."""

    field: str
    operator: str
    value: Any


@dataclass(frozen=True)
class All:
    """Every part holds."""

    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Some:
    """At least one part holds; of no parts, none does."""

    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Any


Condition = Has | All | Some | Not


def parse(filter: Mapping[str, Any] | None) -> Condition | None:
    """Read a filter; None and `{}` are none. Raises Misuse naming what is not of the syntax."""
    if filter is None or filter == {}:
        return None
    condition = _object(filter, "filter", 0)
    if _count(condition) > MOST:
        raise Misuse(f"filter: more than {MOST} conditions; use fewer")
    return condition


def _count(condition: Condition) -> int:
    """The conditions on fields that one is made of."""
    if isinstance(condition, Not):
        return _count(condition.part)
    return sum(map(_count, condition.parts)) if isinstance(condition, All | Some) else 1


def _object(value: Any, where: str, depth: int) -> Condition:
    if depth > DEEPEST:
        raise Misuse(f"filter: conditions within conditions deeper than {DEEPEST}; use fewer")
    if not isinstance(value, Mapping):
        raise Misuse(f'{where}: want an object as {{"field": value}}, not {value!r}')
    entries = cast("Mapping[Any, Any]", value)
    parts = [_entry(key, wanted, where, depth) for key, wanted in entries.items()]
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _entry(key: Any, wanted: Any, where: str, depth: int) -> Condition:
    if key in ("and", "or"):
        if not isinstance(wanted, list | tuple) or not wanted:
            raise Misuse(f"{where}.{key}: want a list of filters, not {wanted!r}")
        several = cast("Sequence[Any]", wanted)
        parts = tuple(_object(part, f"{where}.{key}[{i}]", depth + 1) for i, part in enumerate(several))
        return All(parts) if key == "and" else Some(parts)
    if key == "not":
        return Not(_object(wanted, f"{where}.not", depth + 1))
    if not isinstance(key, str) or not key:
        raise Misuse(f"{where}: {key!r} is no field's name")
    said = cast("Mapping[str, Any]", wanted) if isinstance(wanted, Mapping) else {"eq": wanted}
    return _field(key, said, f"{where}.{key}")


def _field(field: str, said: Mapping[str, Any], where: str) -> Condition:
    if not said:
        raise Misuse(f"{where}: says nothing; want one of {', '.join(OPERATORS)}")
    for name, value in said.items():
        _check(name, value, where)
    parts: list[Condition] = []
    if "exists" in said:
        there = Has(field, "exists", True)
        parts.append(there if said["exists"] else Not(there))
    bounds = tuple((name, value) for name, value in said.items() if name in RANGES)
    values = [said["eq"]] if "eq" in said else said.get("in")
    if values is not None:
        also = said.get("in", values)
        fine = [v for v in values if any(_same(v, other) for other in also) and _within(v, bounds)]
        parts.append(_one(tuple(Has(field, "eq", value) for value in fine)))
    elif bounds:
        kinds = {isinstance(value, str) for _, value in bounds}
        parts.append(Has(field, "range", bounds) if len(kinds) == 1 else Some(()))
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _one(parts: tuple[Has, ...]) -> Condition:
    return parts[0] if len(parts) == 1 else Some(parts)


def _check(name: Any, value: Any, where: str) -> None:
    if name not in OPERATORS:
        raise Misuse(f"{where}: no operator {name!r}{nearest(str(name), list(OPERATORS))}; want {', '.join(OPERATORS)}")
    if name == "in":
        if not isinstance(value, list | tuple):
            raise Misuse(f"{where}.in: want a list, not {value!r}")
        for item in cast("Sequence[Any]", value):
            _check_value(item, f"{where}.in")
    elif name == "exists":
        if not isinstance(value, bool):
            raise Misuse(f"{where}.exists: want true or false, not {value!r}")
    else:
        _check_value(value, f"{where}.{name}")
        if name in RANGES and isinstance(value, bool):
            raise Misuse(f"{where}.{name}: want a number or text, not {value!r}")


def _check_value(value: Any, where: str) -> None:
    if value is None:
        raise Misuse(f'{where}: null equals nothing; want {{"exists": false}}')
    if not isinstance(value, str | int | float) or value != value:
        raise Misuse(f"{where}: want text, a number, true or false, not {value!r}")


def matches(condition: Condition | None, metadata: Mapping[str, Any]) -> bool:
    """Whether a document's metadata fulfil a filter. The definition."""
    if condition is None:
        return True
    if isinstance(condition, All):
        return all(matches(part, metadata) for part in condition.parts)
    if isinstance(condition, Some):
        return any(matches(part, metadata) for part in condition.parts)
    if isinstance(condition, Not):
        return not matches(condition.part, metadata)
    held = metadata.get(condition.field)
    if condition.operator == "exists":
        return held is not None and held != []
    items = cast("list[Any]", held) if isinstance(held, list) else [held]
    if condition.operator == "eq":
        return any(_same(item, condition.value) for item in items)
    return any(_within(item, condition.value) for item in items)


def _same(item: Any, value: Any) -> bool:
    if is_number(item) and is_number(value):
        return item == value
    return type(item) is type(value) and item == value


def _within(item: Any, bounds: tuple[tuple[str, Any], ...]) -> bool:
    for operator, value in bounds:
        if not (is_number(item) and is_number(value)) and not (isinstance(item, str) and isinstance(value, str)):
            return False
        if not {"gt": item > value, "gte": item >= value, "lt": item < value, "lte": item <= value}[operator]:
            return False
    return True


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
