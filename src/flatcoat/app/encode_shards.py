"""Encoding by workers: what one does of a shard, and how parts become the folder that one process writes, byte for byte.

A shard is one of the encoder's windows: texts of a window are batched together and never with others', so a text's vector
is the same whoever makes it, on processors of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app.shards import Part, seen_collection, seen_model, settle, write_part
from flatcoat.app.workers import Do
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_folder, write_json, write_manifest
from flatcoat.multi_vectors import TYPES, MultiFolder, Precision, write_multi_parts
from flatcoat.representations import MultiVector
from flatcoat.sparse_vectors import KIND as SPARSE
from flatcoat.sparse_vectors import VERSION as SPARSE_VERSION
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.vectors import KIND, VERSION, VectorFolder, write_ids


def query_rows(collection: Collection, split: str, asked: str) -> np.ndarray:
    """Rows of a split's queries, int64, rising: all that are `judged`, or those `answered` by a document."""
    if asked == "judged":
        return collection.query_rows(split)
    judged = np.asarray(collection.judgements(split))
    return np.unique(judged[judged[:, 2] > 0, 0])


def encoding(job: Mapping[str, Any]) -> Do:
    """What a worker does of an encoding. Raises FlatcoatError where its model, collection, folder or versions are others."""
    plan, collection, model = settle(job), seen_collection(job), seen_model(job)
    if job["split"] is None:
        tower, texts, ids = model.document, collection.documents.texts(), collection.documents.ids
    else:
        rows = query_rows(collection, job["split"], job["asked"])
        tower, texts = model.query, collection.queries.texts(rows)
        ids = [collection.queries.ids[int(row)] for row in rows]
    tower.train(False)

    def do(shard: int) -> None:
        span = plan.span(shard)
        part = _part(job, tower, texts[span], model.runtime)
        _refuse_broken(part, ids, span.start)
        write_part(plan, shard, part)

    return do


def _part(job: Mapping[str, Any], tower: Any, texts: Sequence[str], runtime: Any) -> Part:
    from flatcoat.models.encode import encode_window
    from flatcoat.models.encode_multi import encode_multi_window
    from flatcoat.models.encode_sparse import encode_sparse_window

    if job["kind"] == "sparse":
        found = encode_sparse_window(tower, texts, runtime)
        return {"start": found.start, "terms": found.terms, "values": found.weights}
    if job["kind"] == "late":
        made = encode_multi_window(tower, texts, runtime)
        with np.errstate(over="ignore"):
            return {"start": made.start, "values": made.vectors.astype(TYPES[job["stored"]])}
    return {"values": encode_window(tower, texts, runtime)}


def _refuse_broken(part: Part, ids: Sequence[str], first: int) -> None:
    values = part["values"]
    broken = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1)) if values.size else []
    if len(broken):
        place = int(np.searchsorted(part["start"], broken[0], "right")) - 1 if "start" in part else int(broken[0])
        raise FlatcoatError(
            f"the vector of {ids[first + place]!r} is not finite; is the model damaged or trained to NaN?"
        )


def assemble_dense(
    path: Path, parts: Iterable[Part], ids: Sequence[str], dim: int, facts: Mapping[str, Any]
) -> VectorFolder:
    """Write dense parts as one folder of vectors; memory holds a part."""
    with atomic_folder(path) as folder:
        with (folder / "vectors.npy").open("wb") as file:
            _head(file, "<f4", (len(ids), dim))
            for part in parts:
                file.write(np.ascontiguousarray(part["values"], dtype="<f4").tobytes())
        write_ids(folder, list(ids))
        write_manifest(folder, KIND, VERSION, {**facts, "items": len(ids), "dim": dim})
    return VectorFolder.open(path)


def assemble_sparse(
    path: Path, parts: Iterable[Part], ids: Sequence[str], vocabulary: Sequence[str], facts: Mapping[str, Any]
) -> SparseFolder:
    """Write sparse parts as one folder of term weights; memory holds a part, and eight bytes an item.

    Raises FlatcoatError where the header of `terms.npy` would change its length.
    """
    sizes = [np.zeros(1, np.int64)]
    with atomic_folder(path) as folder:
        with (folder / "terms.npy").open("wb") as terms, (folder / "weights.npy").open("wb") as weights:
            heads = _head(terms, "<i4", (0,)), _head(weights, "<f4", (0,))
            for part in parts:
                terms.write(part["terms"].astype("<i4", copy=False).tobytes())
                weights.write(part["values"].astype("<f4", copy=False).tobytes())
                sizes.append(np.diff(part["start"]))
            start = np.cumsum(np.concatenate(sizes))
            for file in (terms, weights):
                file.seek(0)
            whole = (int(start[-1]),)
            if (
                _head(terms, "<i4", whole),
                _head(weights, "<f4", whole),
            ) != heads:  # numpy leaves room for the count to grow
                raise FlatcoatError(f"{path}: the header of terms.npy changed its length")
        np.save(folder / "start.npy", start)
        write_ids(folder, list(ids))
        write_json(folder / "vocabulary.json", list(vocabulary))
        said = {"items": len(ids), "vocab_size": len(vocabulary), "entries": int(start[-1])}
        write_manifest(folder, SPARSE, SPARSE_VERSION, {**facts, **said})
    return SparseFolder.open(path)


def assemble_multi(
    path: Path, parts: Iterable[Part], ids: Sequence[str], dim: int, facts: Mapping[str, Any], stored: Precision
) -> MultiFolder:
    """Write parts of several vectors a text as one folder; memory holds a part, and eight bytes an item."""
    items: Iterator[MultiVector] = (MultiVector(part["start"], part["values"]) for part in parts)
    return write_multi_parts(path, items, ids, dim, facts, stored)


def _head(file: Any, kind: str, shape: tuple[int, ...]) -> int:
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.tell()
