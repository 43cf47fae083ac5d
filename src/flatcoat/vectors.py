"""Dense vectors on disk: `vectors.npy` (float32, row-major), `ids.txt` (one id a line) and a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_folder, read_manifest, write_manifest
from flatcoat.representations import Dense

KIND, VERSION = "flatcoat-vectors", 1


@dataclass(frozen=True)
class VectorFolder:
    """A folder of vectors, opened memory-mapped. `facts` says which model and corpus they are of."""

    path: Path
    facts: Mapping[str, Any]
    vectors: np.ndarray  # float32 [item, dim]

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> VectorFolder:
        """Open a folder. Raises FlatcoatError where it is not one, or is damaged."""
        facts = read_manifest(path, KIND, VERSION, verify=verify)
        vectors = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) != facts["items"]:
            raise FlatcoatError(f"{path}/vectors.npy: {vectors.dtype}{list(vectors.shape)}, manifest: {facts['items']}")
        return cls(path, facts, vectors)

    @cached_property
    def ids(self) -> list[str]:
        """The ids, in row order."""
        lines = (self.path / "ids.txt").read_text(encoding="utf-8").split("\n")[:-1]
        if len(lines) != len(self.vectors):
            raise FlatcoatError(f"{self.path}/ids.txt: {len(lines)} ids for {len(self.vectors)} vectors")
        return lines

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


def write_ids(folder: Path, ids: list[str]) -> None:
    """Write `ids.txt`. Raises FlatcoatError on an id with a line break."""
    for item in ids:
        if "\n" in item or "\r" in item:
            raise FlatcoatError(f"id {item!r} has a line break; ids are one line each")
    (folder / "ids.txt").write_text("".join(f"{item}\n" for item in ids), encoding="utf-8", newline="\n")
