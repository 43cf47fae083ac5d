"""Sparse vectors as Anserini and Pyserini read them: JSON lines of `{"id", "contents", "vector": {token: whole number}}`.

impact = max(1, round(weight × scale)). Written and read a line at a time.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_file
from flatcoat.index.ciff import check_parts, impacts_of
from flatcoat.representations import Sparse

AT_ONCE = 4096  # items quantised at a time


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
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", json.loads(line)
    except FileNotFoundError as error:
        raise FlatcoatError(f"{path}: no such file") from error
    except json.JSONDecodeError as error:
        raise FlatcoatError(f"{path}, line {number}: not valid JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise FlatcoatError(f"{path}, after line {number}: not valid UTF-8") from error


def read_anserini(
    path: Path, scale: float = 100.0, vocabulary: Sequence[str] | None = None
) -> tuple[Sparse, list[str], list[str]]:
    """The vectors (weight = number / scale), their ids, and the terms: as `vocabulary` has them, or as they come.

    Raises:
        FlatcoatError: the file is absent or a line of it is wrong; the message names the line.
    """
    known = {term: number for number, term in enumerate(vocabulary or [])}
    ids, edges, terms, weights = [], array("q", [0]), array("i"), array("f")
    for place, said in _lines(path):
        if not isinstance(said, dict) or not isinstance(said.get("vector"), dict) or "id" not in said:
            raise FlatcoatError(f'{place}: want {{"id": …, "contents": …, "vector": {{token: number}}}}')
        for token, value in said["vector"].items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise FlatcoatError(f"{place}: token {token!r} has the weight {value!r}; want a number above 0")
            if vocabulary is not None and token not in known:
                raise FlatcoatError(f"{place}: token {token!r} is not of the vocabulary given")
            terms.append(known.setdefault(token, len(known)))
            weights.append(value / scale)
        ids.append(str(said["id"]))
        edges.append(len(terms))
    arrays = np.array(edges, np.int64), np.array(terms, np.int32), np.array(weights, np.float32)
    return Sparse(*arrays, len(known)), ids, list(known)
