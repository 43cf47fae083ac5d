"""Sparse vectors as Anserini and Pyserini read them: JSON lines of `{"id", "contents", "vector": {token: whole number}}`.

impact = max(1, round(weight × scale)). Written and read a line at a time.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_file
from flatcoat.index.ciff import check_parts, impacts_of
from flatcoat.representations import Sparse

AT_ONCE = 4096  # items quantised at a time
GREATEST = 1e300  # of a weight; whole numbers of JSON may be past what a float holds
TINY, HUGE = 1.2e-38, 3.4e38  # of float32


def write_anserini(
    path: Path, vectors: Sparse, ids: Sequence[str], vocabulary: Sequence[str], scale: float = 100.0,
    texts: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Write one line an item; `contents` is its text, or empty. Whole or not at all.

    Raises:
        FlatcoatError: sizes that differ, a weight that is not above 0, or one too great for `scale`.
    """
    check_parts(vectors, ids, vocabulary)
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for first in range(0, len(vectors), AT_ONCE):
            part = vectors[first : first + AT_ONCE]
            impacts, terms, edges = impacts_of(part, scale).tolist(), part.terms.tolist(), part.start.tolist()
            for i, (low, high) in enumerate(pairwise(edges)):
                vector = {vocabulary[terms[j]]: impacts[j] for j in range(low, high)}
                contents = texts[first + i] if texts is not None else ""
                line = {"id": ids[first + i], "contents": contents, "vector": vector}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield (place := f"{path}:{number}"), _value(line, place)
    except OSError as error:
        raise FlatcoatError(f"{path}: {'no such file' if not path.exists() else error.strerror}") from error


def _value(line: bytes, place: str) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise FlatcoatError(f"{place}: not valid UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError
        raise FlatcoatError(f"{place}: not valid JSON ({error})") from error


def _weight(token: str, value: Any, scale: float, place: str) -> float:
    """A token's weight. Raises FlatcoatError where it is no number above 0, or none that float32 holds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < GREATEST:
        raise FlatcoatError(f"{place}: token {token[:100]!r} has the weight {value!r:.40}; want a number above 0")
    if not TINY <= value / scale <= HUGE:
        raise FlatcoatError(
            f"{place}: token {token[:100]!r} has the weight {value!r} / {scale:g}, which float32 has not"
        )
    return value / scale


def _id(value: Any, known: set[str], place: str) -> str:
    """An item's id, a text or number that no line before had."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise FlatcoatError(f"{place}: id {value!r}; want a text")
    if str(value) in known:
        raise FlatcoatError(f"{place}: id {value!r} came before; ids are to differ")
    known.add(str(value))
    return str(value)


def read_anserini(
    path: Path, scale: float = 100.0, vocabulary: Sequence[str] | None = None
) -> tuple[Sparse, list[str], list[str]]:
    """The vectors (weight = number / scale), their ids, and the terms: as `vocabulary` has them, or as they come.

    Raises:
        FlatcoatError: the file is absent or a line of it is wrong; the message names the line.
    """
    known = {term: number for number, term in enumerate(vocabulary or [])}
    edges, terms, weights = array("q", [0]), array("i"), array("f")
    ids: list[str] = []
    named: set[str] = set()
    for place, said in _lines(path):
        record = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
        if not isinstance(record.get("vector"), dict) or "id" not in record:
            raise FlatcoatError(f'{place}: want {{"id": …, "contents": …, "vector": {{token: number}}}}')
        for token, value in cast("dict[str, Any]", record["vector"]).items():
            weights.append(_weight(token, value, scale, place))
            if vocabulary is not None and token not in known:
                raise FlatcoatError(f"{place}: token {token[:100]!r} is not of the vocabulary given")
            terms.append(known.setdefault(token, len(known)))
        ids.append(_id(record["id"], named, place))
        edges.append(len(terms))
    arrays = np.array(edges, np.int64), np.array(terms, np.int32), np.array(weights, np.float32)
    return Sparse(*arrays, len(known)), ids, list(known)
