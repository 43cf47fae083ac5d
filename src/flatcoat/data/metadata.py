"""What a document carries beside its text: one JSON object, as its source had it.

A record's own `metadata` object comes first; its further fields that no reader knows are added. What JSON has no word for is
written as text (dates as ISO 8601, whole numbers of more than 2,048 bits in hexadecimal); a field that is null or not a number
counts as absent.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from flatcoat.data.problems import Problems

MOST_BITS = 2048  # of a whole number; Python writes and reads longer ones in digits only up to a limit


def plain(value: Any) -> Any:
    """A value as JSON has it; None where it is absent (null, not a number, infinite).

    Raises:
        RecursionError: it is nested too deep.
    """
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return hex(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(inner) for inner in value), key=str)
    return _written(value)


def _key(key: Any) -> str:
    return str(plain(key) if isinstance(key, int | tuple | frozenset) else key)


def _written(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    for turn in ("isoformat", "tolist"):  # dates; scalars and arrays of numpy
        if hasattr(value, turn):
            return plain(getattr(value, turn)())
    return str(value)


def as_json(metadata: Mapping[str, Any] | None) -> str:
    """The JSON text that a store keeps; empty where there is nothing to keep.

    Raises:
        RecursionError: it is nested too deep.
    """
    kept = {_key(name): plain(value) for name, value in (metadata or {}).items()}
    kept = {name: value for name, value in kept.items() if value is not None}
    return json.dumps(kept, ensure_ascii=False) if kept else ""


def of_record(record: Mapping[str, Any], known: Collection[str], place: str, problems: Problems) -> dict[str, Any]:
    """A record's `metadata` object, and its fields that are not among `known`; another kind of metadata is reported."""
    own = object_of(record.get("metadata"), place, problems)
    rest = {name: value for name, value in record.items() if name not in known and name != "metadata"}
    return {**own, **{name: value for name, value in rest.items() if name not in own}}


def object_of(value: Any, place: str, problems: Problems) -> dict[str, Any]:
    """The object that a field `metadata` holds, be it as JSON text; {} where it is absent, or reported as none."""
    if isinstance(value, str) and value.strip():
        with contextlib.suppress(ValueError, RecursionError):  # reported below, as text
            value = json.loads(value)
    if isinstance(value, Mapping):
        return {_key(name): inner for name, inner in value.items()}
    if value is not None and value != "" and value != []:
        problems.add("bad metadata", place, f"metadata is a {type(value).__name__}; an object is right, left out")
    return {}
