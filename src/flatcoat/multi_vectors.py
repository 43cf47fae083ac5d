"""Several vectors an item on disk: `start.npy` (int64), `vectors.npy` (float16 or float32, [token, dim]), `ids.txt`, and a
manifest (its fact `stored`: fp16 or fp32). Item i holds vectors start[i] to start[i+1]; an item may hold none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flatcoat.arrays import read_array, taking_apart
from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_folder, read_manifest, steady, write_manifest
from flatcoat.representations import MultiVector
from flatcoat.vectors import read_ids, write_ids

KIND, VERSION = "flatcoat-multi", 1
TYPES = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}

Precision = Literal["fp16", "fp32"]


@dataclass(frozen=True)
class MultiFolder:
    """A folder of items of several vectors, opened memory-mapped. `facts` says which model and corpus they are of."""

    path: Path
    facts: Mapping[str, Any]
    vectors: MultiVector

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> MultiFolder:
        """Open a folder. Raises FlatcoatError where it is not one, or is damaged."""
        with taking_apart(path):
            return steady(path, lambda: cls._opened(path, verify))

    @classmethod
    def _opened(cls, path: Path, verify: bool) -> MultiFolder:
        facts = read_manifest(path, KIND, VERSION, verify=verify)
        return cls(path, facts, open_multi(path / "start.npy", path / "vectors.npy", facts))

    @cached_property
    def ids(self) -> list[str]:
        """The ids, in row order. Raises FlatcoatError where they are not one an item."""
        return read_ids(self.path, self.facts, len(self))

    def __len__(self) -> int:
        return len(self.vectors)


def open_multi(start: Path, vectors: Path, facts: Mapping[str, Any]) -> MultiVector:
    """Open the two arrays, memory-mapped.

    Raises:
        FlatcoatError: they do not fit each other, or the `items`, `dim` and `stored` of `facts`.
    """
    begins, values = (read_array(file) for file in (start, vectors))
    wanted = TYPES.get(facts["stored"])
    if begins.ndim != 1 or len(begins) != facts["items"] + 1 or values.ndim != 2 or values.dtype != wanted:
        raise FlatcoatError(
            f"{vectors}: {values.dtype}{list(values.shape)} of {len(begins) - 1} items, "
            f"manifest: {facts['stored']} of {facts['items']}"
        )
    begins = np.asarray(begins)
    if begins.dtype != np.int64 or begins[0] or begins[-1] != len(values) or (np.diff(begins) < 0).any():
        raise FlatcoatError(f"{start}: not rising from 0 to the {len(values)} vectors; make the folder again")
    if values.shape[1] != facts["dim"]:
        raise FlatcoatError(f"{vectors}: vectors of {values.shape[1]} dimensions, manifest: {facts['dim']}")
    return MultiVector(begins, values)


def write_multi(
    path: Path, vectors: MultiVector, ids: Sequence[str], facts: Mapping[str, Any], precision: Precision = "fp16"
) -> MultiFolder:
    """Write items that are in memory; `write_multi_parts` writes those that are not.

    Raises:
        FlatcoatError: not one id an item, or a value that is not finite, or would not be as float16.
    """
    return write_multi_parts(path, [vectors], ids, vectors.dim, facts, precision)


def write_multi_parts(
    path: Path,
    parts: Iterable[MultiVector],
    ids: Sequence[str],
    dim: int,
    facts: Mapping[str, Any],
    precision: Precision = "fp16",
) -> MultiFolder:
    """Write items as they come, one part after another; memory holds one part, and eight bytes an item.

    Raises:
        FlatcoatError: not one id an item, another width than `dim`, or a value that `precision` cannot hold.
    """
    sizes = [np.zeros(1, np.int64)]
    with atomic_folder(path) as folder:
        with (folder / "vectors.npy").open("wb") as file:
            head = _head(file, 0, dim, precision)
            for part in parts:
                file.write(_stored(part, dim, precision, sum(map(len, sizes)) - 1))
                sizes.append(np.diff(part.start))
            start = np.cumsum(np.concatenate(sizes))
            file.seek(0)
            if _head(file, int(start[-1]), dim, precision) != head:  # numpy leaves room for the count to grow
                raise FlatcoatError(f"{path}: the header of vectors.npy changed its length")
        if len(ids) != len(start) - 1:
            raise FlatcoatError(f"{len(start) - 1} items, but {len(ids)} ids")
        np.save(folder / "start.npy", start)
        write_ids(folder, list(ids))
        said = {"items": len(ids), "tokens": int(start[-1]), "dim": dim, "stored": precision}
        write_manifest(folder, KIND, VERSION, {**facts, **said})
    return MultiFolder.open(path)


def _head(file: Any, count: int, dim: int, precision: Precision) -> int:
    said = {"descr": TYPES[precision].str, "fortran_order": False, "shape": (count, dim)}
    np.lib.format.write_array_header_1_0(file, said)
    return file.tell()


def _stored(part: MultiVector, dim: int, precision: Precision, first: int) -> bytes:
    if part.dim != dim:
        raise FlatcoatError(f"items from {first} on have vectors of {part.dim} dimensions, those before of {dim}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(part.vectors, dtype=TYPES[precision])
    wrong = np.flatnonzero(~np.isfinite(values).all(1)) if len(values) else np.zeros(0, np.int64)
    if len(wrong):
        item = first + int(np.searchsorted(part.start, int(wrong[0]), side="right")) - 1
        raise FlatcoatError(f"item {item} has a value that is not finite in {precision}; check the model that made it")
    return values.tobytes()
