"""Dense vectors on disk: `vectors.npy` (float32, row-major), `ids.txt` (one id a line) and a manifest."""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.arrays import read_array, taking_apart
from flatcoat.errors import FlatcoatError, is_utf8
from flatcoat.files import atomic_folder, lines_of, read_manifest, steady, write_manifest
from flatcoat.representations import Dense

KIND, VERSION = "flatcoat-vectors", 1
OF_THE_FILE = (None, errno.EINVAL)  # an OSError without a number, or of a place that the file does not have


@dataclass(frozen=True)
class VectorFolder:
    """A folder of vectors, opened memory-mapped. `facts` says which model and corpus they are of."""

    path: Path
    facts: Mapping[str, Any]
    vectors: np.ndarray  # float32 [item, dim]

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> VectorFolder:
        """Open a folder. Raises FlatcoatError where it is not one, or is damaged."""
        with taking_apart(path):
            return steady(path, lambda: cls._opened(path, verify))

    @classmethod
    def _opened(cls, path: Path, verify: bool) -> VectorFolder:
        facts = read_manifest(path, KIND, VERSION, verify=verify)
        vectors = read_array(path / "vectors.npy")
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) != facts["items"]:
            raise FlatcoatError(f"{path}/vectors.npy: {vectors.dtype}{list(vectors.shape)}, manifest: {facts['items']}")
        return cls(path, facts, vectors)

    @cached_property
    def ids(self) -> list[str]:
        """The ids, in row order. Raises FlatcoatError where they are not one a vector."""
        return read_ids(self.path, self.facts, len(self))

    def dense(self) -> Dense:
        """All vectors, still memory-mapped."""
        return Dense(self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)


def write_vectors(path: Path, vectors: np.ndarray, ids: list[str], facts: Mapping[str, Any]) -> VectorFolder:
    """Write vectors that are in memory; `flatcoat.models.encode` writes those that are not."""
    with atomic_folder(path) as folder:
        np.save(folder / "vectors.npy", np.ascontiguousarray(vectors, dtype=np.float32))
        write_ids(folder, ids)
        write_manifest(folder, KIND, VERSION, {**facts, "items": len(ids), "dim": int(vectors.shape[1])})
    return VectorFolder.open(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a part in work (`.npz`, which has a CRC of each). A damaged part is removed, so that it is made again.

    Raises:
        FlatcoatError: it is damaged.
        OSError: it is not there, or the machine does not give it.
    """
    damage = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, LookupError, OSError, RuntimeError, AttributeError)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except damage as error:
        if isinstance(error, OSError) and error.errno not in OF_THE_FILE:
            raise
        path.unlink(missing_ok=True)
        raise FlatcoatError(f"{path}: damaged, and removed; run the same command again to make it again") from error


def read_ids(folder: Path, facts: Mapping[str, Any], items: int) -> list[str]:
    """The ids of a folder's items, in row order. Raises FlatcoatError where they are not one an item, or another folder's by now."""
    lines = lines_of(folder, "ids.txt", facts)
    if len(lines) != items:
        raise FlatcoatError(f"{folder}/ids.txt: {len(lines)} ids for {items} items")
    return lines


def write_ids(folder: Path, ids: list[str]) -> None:
    """Write `ids.txt`. Raises FlatcoatError on an id with a line break."""
    for item in ids:
        if "\n" in item or "\r" in item or not is_utf8(item):
            raise FlatcoatError(f"id {item!r} has a line break, or is no UTF-8; ids are one line each")
    (folder / "ids.txt").write_text("".join(f"{item}\n" for item in ids), encoding="utf-8", newline="\n")
