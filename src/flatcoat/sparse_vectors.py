"""Sparse vectors on disk: `start.npy` (int64), `terms.npy` (int32), `weights.npy` (float32), `ids.txt`,
`vocabulary.json` (each term's text, by its number), and a manifest. Item i holds entries start[i] to start[i+1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.arrays import read_array, taking_apart
from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_folder, read_json, read_manifest, steady, write_json, write_manifest
from flatcoat.representations import Sparse
from flatcoat.vectors import read_ids, write_ids

KIND, VERSION = "flatcoat-sparse", 1
PARTS = ("start.npy", "terms.npy", "weights.npy")


@dataclass(frozen=True)
class SparseFolder:
    """A folder of sparse vectors, opened memory-mapped. `facts` says which model and corpus they are of."""

    path: Path
    facts: Mapping[str, Any]
    vectors: Sparse

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> SparseFolder:
        """Open a folder. Raises FlatcoatError where it is not one, or is damaged."""
        with taking_apart(path):
            return steady(path, lambda: cls._opened(path, verify))

    @classmethod
    def _opened(cls, path: Path, verify: bool) -> SparseFolder:
        facts = read_manifest(path, KIND, VERSION, verify=verify)
        start, terms, weights = (read_array(path / name) for name in PARTS)
        if len(start) != facts["items"] + 1 or len(terms) != int(start[-1]) or len(weights) != len(terms):
            raise FlatcoatError(f"{path}: {len(start) - 1} items of {len(terms)} entries; manifest: {facts['items']}")
        return cls(path, facts, Sparse(np.asarray(start), terms, weights, int(facts["vocab_size"])))

    @cached_property
    def ids(self) -> list[str]:
        """The ids, in row order. Raises FlatcoatError where they are not one a vector."""
        return read_ids(self.path, self.facts, len(self))

    @cached_property
    def vocabulary(self) -> list[str]:
        """Each term's text, by its number."""
        return read_json(self.path / "vocabulary.json")

    def __len__(self) -> int:
        return len(self.vectors)


def write_sparse(
    path: Path, vectors: Sparse, ids: Sequence[str], vocabulary: Sequence[str], facts: Mapping[str, Any]
) -> SparseFolder:
    """Write sparse vectors that are in memory.

    Raises:
        FlatcoatError: not one id a row, or a vocabulary of another size than the vectors'.
    """
    if len(ids) != len(vectors) or len(vocabulary) != vectors.vocab_size:
        raise FlatcoatError(
            f"{len(vectors)} vectors over {vectors.vocab_size} terms, but {len(ids)} ids and {len(vocabulary)} terms"
        )
    with atomic_folder(path) as folder:
        for name, array in zip(PARTS, (vectors.start, vectors.terms, vectors.weights), strict=True):
            np.save(folder / name, array)
        write_ids(folder, list(ids))
        write_json(folder / "vocabulary.json", list(vocabulary))
        described = {**facts, "items": len(ids), "vocab_size": vectors.vocab_size, "entries": len(vectors.terms)}
        write_manifest(folder, KIND, VERSION, described)
    return SparseFolder.open(path)
