"""Haystack's filters, in Flatcoat's words.

{"field": "meta.year", "operator": ">", "value": 2000}            {"year": {"gt": 2000}}
{"operator": "AND", "conditions": [...]}                          {"and": [...]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flatcoat.errors import Misuse

COMPARISONS = {"==": "eq", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "in": "in"}
NEGATED = {"!=": "==", "not in": "in"}


def translated(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A filter as Flatcoat's search takes it; what is not Haystack's is taken for Flatcoat's and handed on. None is none.

    Raises:
        Misuse: an operator that is not known, or one that lacks its field, value or conditions.
    """
    if not filters:
        return None
    return _translated(filters) if "operator" in filters else dict(filters)


def _translated(node: Any) -> dict[str, Any]:
    if not isinstance(node, Mapping) or "operator" not in node:
        raise Misuse(f"filter {node!r}: want an operator, with a field and a value or with conditions")
    operator = node["operator"]
    if "conditions" in node:
        return _joined(str(operator).upper(), node["conditions"])
    if "field" not in node or "value" not in node:
        raise Misuse(f"filter {dict(node)!r}: operator {operator!r} wants a field and a value")
    field = str(node["field"]).removeprefix("meta.")
    if operator in NEGATED:
        return {"not": _compared(field, NEGATED[operator], node["value"])}
    return _compared(field, operator, node["value"])


def _compared(field: str, operator: Any, value: Any) -> dict[str, Any]:
    if operator not in COMPARISONS:
        raise Misuse(f"filter operator {operator!r}: want one of {', '.join([*COMPARISONS, *NEGATED])}")
    if value is None and operator == "==":
        return {field: {"exists": False}}
    return {field: {COMPARISONS[operator]: value}}


def _joined(operator: str, conditions: Any) -> dict[str, Any]:
    if operator not in ("AND", "OR", "NOT"):
        raise Misuse(f"filter operator {operator!r}: want AND, OR or NOT of conditions")
    if not conditions:
        raise Misuse(f"filter operator {operator!r} without conditions; want at least one")
    inner = [_translated(condition) for condition in conditions]
    return {"or": inner} if operator == "OR" else {"and": inner} if operator == "AND" else {"not": {"and": inner}}
