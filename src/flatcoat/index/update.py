"""An inverted index that grows and shrinks where it lies: rows are added at its end, deleted ones are left out of answers.

Rows keep their numbers until so many are deleted that the index is written anew (`COMPACT`). The folder is replaced whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_folder, only_writer, write_manifest
from flatcoat.index.store import KIND, SPARSE_KINDS, VERSION, IndexFolder, open_index
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.vectors import write_ids

COMPACT = 0.25  # share of deleted rows from which on the index is compacted


def update_inverted(path: Path, add: SparseFolder | None = None, delete: Sequence[str] = ()) -> IndexFolder:
    """Delete documents by id, then add those of a folder of sparse vectors.

    Raises:
        Misuse: not an inverted index, or nothing to do.
        FlatcoatError: vectors of another model or vocabulary, an id that is there already, or one to delete that is not.
    """
    folder = open_index(path)
    if folder.kind not in SPARSE_KINDS:
        raise Misuse(f"{path} is of kind {folder.kind}; only inverted and pruned indexes are updated, build it again")
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
        ids = [ids[row] for row in kept.tolist()]
    return _write(path, folder, index, ids)


def _alive(index: Any, ids: list[str]) -> dict[str, int]:
    """The rows of documents that are not deleted, by id."""
    rows = np.flatnonzero(index.dead == 0) if len(index.dead) else np.arange(len(ids))
    return {ids[row]: row for row in rows.tolist()}


def _fits(folder: IndexFolder, add: SparseFolder, there: Set[str]) -> None:
    double = next((item for item in add.ids if item in there), None)
    if double is not None:
        raise FlatcoatError(f"{folder.path} has document {double!r} already; delete it in the same call to replace it")
    of = folder.facts["of"]
    if of.get("model") != add.facts.get("model"):
        raise FlatcoatError(f"{add.path} is of another model than {folder.path}; encode it with the model of the index")
    if json.loads((folder.path / "vocabulary.json").read_text(encoding="utf-8")) != add.vocabulary:
        raise FlatcoatError(f"{add.path} has another vocabulary than {folder.path}")


def _write(path: Path, folder: IndexFolder, index: Any, ids: list[str]) -> IndexFolder:
    with only_writer(path.with_name(f".{path.name}.update")), atomic_folder(path) as made:
        index.save(made)
        write_ids(made, ids)
        shutil.copyfile(folder.path / "vocabulary.json", made / "vocabulary.json")
        of = {key: value for key, value in folder.facts["of"].items() if key != "corpus"}
        facts = {key: folder.facts[key] for key in ("kind", "settings")}
        deleted = int(index.dead.sum()) if len(index.dead) else 0
        write_manifest(
            made, KIND, VERSION, {**facts, "items": len(ids), "deleted": deleted, "of": {**of, "updated": True}}
        )
    shutil.rmtree(path.with_name(f".{path.name}.update"), ignore_errors=True)
    return open_index(path)
