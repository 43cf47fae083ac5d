"""An inverted or multi-vector index that grows and shrinks where it lies: rows are added at its end, deleted ones are left out of answers.

Rows keep their numbers until so many are deleted that the index is written anew (`COMPACT`). The folder is replaced whole.
An updated multi-vector index keeps a copy of its full vectors, where it reads any: they lie in no one folder any more.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_folder, only_writer, read_json, write_manifest
from flatcoat.index.store import KIND, MULTI_KINDS, SPARSE_KINDS, VERSION, IndexFolder, open_index
from flatcoat.multi_vectors import MultiFolder
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.vectors import write_ids

COMPACT = 0.25  # share of deleted rows from which on the index is compacted


def update_inverted(path: Path, add: SparseFolder | None = None, delete: Sequence[str] = ()) -> IndexFolder:
    """Delete documents by id, then add those of a folder of sparse vectors.

    Raises:
        Misuse: not an inverted index, or nothing to do.
        FlatcoatError: vectors of another model or vocabulary, an id that is there already, or one to delete that is not.
    """
    return _alone(path, SPARSE_KINDS, "inverted and pruned", add, delete)


def update_multivector(path: Path, add: MultiFolder | None = None, delete: Sequence[str] = ()) -> IndexFolder:
    """Delete documents by id, then add those of a folder of several vectors an item; centroids and codes stay.

    Raises:
        Misuse: not a multi-vector index, or nothing to do.
        FlatcoatError: vectors of another model or width, an id that is there already, or one to delete that is not.
    """
    return _alone(path, MULTI_KINDS, "multivector", add, delete)


def _alone(
    path: Path, kinds: Sequence[str], said: str, add: SparseFolder | MultiFolder | None, delete: Sequence[str]
) -> IndexFolder:
    with only_writer(path.with_name(f".{path.name}.update")):
        folder = open_index(path)
        if folder.kind not in kinds:
            raise Misuse(f"{path} is of kind {folder.kind}; only {said} indexes are updated so, build it again")
        made = _updated(path, folder, add, delete)
    shutil.rmtree(path.with_name(f".{path.name}.update"), ignore_errors=True)
    return made


def _updated(
    path: Path, folder: IndexFolder, add: SparseFolder | MultiFolder | None, delete: Sequence[str]
) -> IndexFolder:
    if add is None and not delete:
        raise Misuse("nothing to add and nothing to delete")
    index, ids = folder.index, list(folder.ids)
    places = _alive(index, ids)
    for gone in delete:
        if gone not in places:
            raise FlatcoatError(f"{path}: no document {gone!r} to delete")
    if delete:
        index = index.delete([places[gone] for gone in dict.fromkeys(delete)])
    if add is not None:
        _fits(folder, add, places.keys() - set(delete))
        index, ids = index.add(add.vectors), ids + list(add.ids)
    if len(index.dead) and index.dead.mean() > COMPACT and not index.dead.all():
        index, kept = index.compacted()
        ids = [ids[int(row)] for row in kept]
    return _write(path, folder, index, ids)


def _alive(index: Any, ids: list[str]) -> dict[str, int]:
    """The rows of documents that are not deleted, by id."""
    rows = np.flatnonzero(index.dead == 0) if len(index.dead) else np.arange(len(ids))
    return {ids[row]: row for row in rows.tolist()}


def _fits(folder: IndexFolder, add: SparseFolder | MultiFolder, there: Set[str]) -> None:
    seen = set(there)
    for item in add.ids:
        if item in seen:
            cure = "delete it in the same call to replace it" if item in there else "ids are unique"
            where = (
                f"{folder.path} has document {item!r} already" if item in there else f"{add.path} has {item!r} twice"
            )
            raise FlatcoatError(f"{where}; {cure}")
        seen.add(item)
    of = folder.facts["of"]
    for name in ("model", "side", "tower", "precision", "imported"):
        if of.get(name) != add.facts.get(name):
            said = "another model" if name == "model" else f"{name} {add.facts.get(name)!r}, the index {of.get(name)!r}"
            raise FlatcoatError(f"{add.path} is of {said}; encode documents as those of {folder.path} were")
    if isinstance(add, SparseFolder) and read_json(folder.path / "vocabulary.json") != add.vocabulary:
        raise FlatcoatError(f"{add.path} has another vocabulary than {folder.path}")


def _write(path: Path, folder: IndexFolder, index: Any, ids: list[str]) -> IndexFolder:
    stale = ("corpus", "items", "entries", "tokens")  # of the vectors that it was first built from
    with atomic_folder(path) as made:
        index.save(made)
        write_ids(made, ids)
        if folder.kind in SPARSE_KINDS:
            shutil.copyfile(folder.path / "vocabulary.json", made / "vocabulary.json")
        of = {key: value for key, value in folder.facts["of"].items() if key not in stale}
        facts = {key: folder.facts[key] for key in ("kind", "settings")}
        deleted = int(index.dead.sum()) if len(index.dead) else 0
        if folder.kind in MULTI_KINDS:
            facts |= {"tokens": int(index.parts.start[-1]), "vectors": None}
            facts |= {key: folder.facts[key] for key in ("dim", "stored")}
        described = {**facts, "items": len(ids), "deleted": deleted, "of": {**of, "updated": True}}
        write_manifest(made, KIND, VERSION, described)
    return open_index(path)
