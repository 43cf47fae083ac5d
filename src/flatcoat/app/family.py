"""Dense and sparse side by side: their folders, their exact search, their indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app.build import inverted_settings, vector_settings
from flatcoat.app.tables import IndexTable, ModelTable
from flatcoat.checks.base import Finding
from flatcoat.checks.towers import lengths, pooling
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import MANIFEST, read_json
from flatcoat.index.exact import ExactIndex
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.store import IndexFolder, write_inverted, write_vector_index
from flatcoat.representations import Dense, Sparse
from flatcoat.sparse_vectors import KIND as SPARSE
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.vectors import VectorFolder

SLOW = InvertedSettings(bits=32)


def as_trained(table: ModelTable, used: Any) -> list[Finding]:
    """Pooling, lengths and prompts of a model in use against what its checkpoint was trained with."""
    from flatcoat.models.checkpoint import Overrides, describe, load_dense
    from flatcoat.models.source import resolve
    from flatcoat.models.splade_checkpoint import describe_sparse, load_splade

    if table.kind == "dense":
        declared = describe(resolve(table.start))[1].pooling
        own = load_dense(table.start, Overrides(pooling=table.pooling))
        return pooling(declared, used.document.settings.pooling) + lengths(own, used)
    said = describe_sparse(resolve(table.start))[1].aggregate
    found = lengths(load_splade(table.start), used)
    if said != used.document.settings.aggregate:
        message = (
            f"term weights are the {used.document.settings.aggregate} over positions, but the checkpoint says {said}"
        )
        found.append(Finding("warning", "aggregate", message, "leave model.aggregate out, unless it is trained anew"))
    return found


def open_vectors(path: Path, *, verify: bool = False) -> VectorFolder | SparseFolder:
    """Open a folder of dense or of sparse vectors."""
    manifest = read_json(path / MANIFEST) if (path / MANIFEST).is_file() else {}
    opened = SparseFolder if isinstance(manifest, dict) and manifest.get("format") == SPARSE else VectorFolder
    return opened.open(path, verify=verify)


def exact_index(vectors: np.ndarray | Sparse, where: object = "memory") -> Any:
    """Exact search over vectors that are at hand; term weights as they are, not quantised."""
    return InvertedIndex.build(vectors, SLOW) if isinstance(vectors, Sparse) else ExactIndex(vectors, where)


def as_queries(vectors: np.ndarray | Sparse) -> Dense | Sparse:
    """Query vectors as an index takes them."""
    return vectors if isinstance(vectors, Sparse) else Dense(np.ascontiguousarray(vectors))


def write_index(
    path: Path, source: VectorFolder | SparseFolder, table: IndexTable | None, *, copy: bool = False
) -> IndexFolder:
    """Build an index of a kind that fits the vectors; `table` None is exact search."""
    if isinstance(source, VectorFolder):
        if table is not None and table.kind in ("inverted", "pruned"):
            raise FlatcoatError(f"{source.path}: dense vectors; an index of kind {table.kind} wants sparse ones")
        return write_vector_index(path, source, vector_settings(table) if table else None, copy=copy)
    if table is not None and table.kind not in ("inverted", "pruned"):
        raise FlatcoatError(
            f"{source.path}: sparse vectors; want an index of kind inverted or pruned, not {table.kind}"
        )
    if copy:
        raise Misuse("--copy: an inverted index holds its vectors already")
    return write_inverted(path, source, inverted_settings(table) if table else SLOW)
