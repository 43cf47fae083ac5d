"""Kinds of vectors side by side, dense, sparse and several a text: their folders, their exact search, their indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app.build import inverted_settings, multi_settings, vector_settings
from flatcoat.app.tables import IndexTable, ModelTable
from flatcoat.checks.base import Finding
from flatcoat.checks.towers import aggregation, lengths, pooling
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import MANIFEST, read_json
from flatcoat.index.exact import ExactIndex
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.store import IndexFolder, write_inverted, write_multivector, write_vector_index
from flatcoat.multi_vectors import KIND as MULTI
from flatcoat.multi_vectors import MultiFolder
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.sparse_vectors import KIND as SPARSE
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.vectors import VectorFolder

SLOW = InvertedSettings(bits=32)


def as_trained(table: ModelTable, used: Any) -> list[Finding]:
    """Pooling, lengths and prompts of a model in use against what its checkpoint was trained with."""
    from flatcoat.models.checkpoint import Overrides, describe, load_dense
    from flatcoat.models.load import load_model
    from flatcoat.models.source import resolve
    from flatcoat.models.splade_checkpoint import describe_sparse, load_splade

    if table.kind == "late":
        return lengths(load_model(table.start), used) if kind_said(table.start) == "late" else []
    if table.kind == "dense":
        declared = describe(resolve(table.start))[1].pooling
        own = load_dense(table.start, Overrides(pooling=table.pooling))
        return pooling(declared, used.document.settings.pooling) + lengths(own, used)
    said = describe_sparse(resolve(table.start))[1].aggregate
    return lengths(load_splade(table.start), used) + aggregation(said, used.document.settings.aggregate)


def kind_said(source: str) -> str:
    """The kind of model that a checkpoint holds."""
    from flatcoat.models.load import kind_of
    from flatcoat.models.source import resolve

    return kind_of(resolve(source))


Folder = VectorFolder | SparseFolder | MultiFolder


def open_vectors(path: Path, *, verify: bool = True) -> Folder:
    """Open a folder of vectors of any kind."""
    manifest = read_json(path / MANIFEST) if (path / MANIFEST).is_file() else {}
    said = manifest.get("format") if isinstance(manifest, dict) else None
    opened: Any = {SPARSE: SparseFolder, MULTI: MultiFolder}.get(str(said), VectorFolder)
    return opened.open(path, verify=verify)


def exact_index(vectors: np.ndarray | Sparse | MultiVector, where: object = "memory") -> Any:
    """Exact search over vectors that are at hand; term weights as they are, not quantised."""
    if isinstance(vectors, MultiVector):
        return MaxSimExact(vectors, where)
    return InvertedIndex.build(vectors, SLOW) if isinstance(vectors, Sparse) else ExactIndex(vectors, where)


def as_queries(vectors: np.ndarray | Sparse | MultiVector) -> Dense | Sparse | MultiVector:
    """Query vectors as an index takes them."""
    return Dense(np.ascontiguousarray(vectors)) if isinstance(vectors, np.ndarray) else vectors


def write_index(path: Path, source: Folder, table: IndexTable | None, *, copy: bool = False) -> IndexFolder:
    """Build an index of a kind that fits the vectors; `table` None is exact search.

    Raises FlatcoatError where it does not fit, and Misuse where a copy is asked for of an index that holds its vectors.
    """
    if isinstance(source, MultiFolder):
        if table is not None and table.kind != "multivector":
            raise FlatcoatError(
                f"{source.path}: several vectors a text; want an index of kind multivector, not {table.kind}"
            )
        return write_multivector(path, source, multi_settings(table) if table else None, copy=copy)
    if isinstance(source, VectorFolder):
        if table is not None and table.kind in ("inverted", "pruned", "multivector"):
            wanted = "several vectors a text" if table.kind == "multivector" else "sparse ones"
            raise FlatcoatError(f"{source.path}: dense vectors; an index of kind {table.kind} wants {wanted}")
        return write_vector_index(path, source, vector_settings(table) if table else None, copy=copy)
    if table is not None and table.kind not in ("inverted", "pruned"):
        raise FlatcoatError(
            f"{source.path}: sparse vectors; want an index of kind inverted or pruned, not {table.kind}"
        )
    if copy:
        raise Misuse("--copy: an inverted index holds its vectors already")
    return write_inverted(path, source, inverted_settings(table) if table else SLOW)
