"""An index as a folder: manifest (kind, settings, format version, hashes, which vectors and corpus), ids, and data.

The full vectors are memory-mapped from the vector folder named at building, or copied in where `copy` is asked.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.arrays import read_array, taking_apart
from flatcoat.errors import FlatcoatError, need
from flatcoat.files import MANIFEST, atomic_folder, lines_of, read_json, read_manifest, steady, sum_of, write_manifest
from flatcoat.index.bm25 import Bm25Index, Bm25Settings
from flatcoat.index.exact import ExactIndex
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.multivector import MultiVectorIndex, MultiVectorSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.vector import VectorIndex, VectorSettings, build
from flatcoat.multi_vectors import TYPES, MultiFolder
from flatcoat.representations import MultiVector
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.vectors import VectorFolder, write_ids

KIND, VERSION = "flatcoat-index", 1
VECTOR_KINDS = ("exact", "scan", "bits", "sq", "hnsw", "ivf")
SPARSE_KINDS = ("inverted", "pruned")
MULTI_KINDS = ("multivector",)


class IndexFolder:
    """An opened index: `index` searches, `ids` names rows, `facts` is the manifest."""

    def __init__(self, path: Path, facts: Mapping[str, Any], index: Any, ids: Sequence[str]):
        self.path, self.facts, self.index, self.ids = path, facts, index, ids

    @property
    def kind(self) -> str:
        """exact, scan, bits, sq, hnsw, ivf, inverted, pruned, multivector or bm25."""
        return self.facts["kind"]

    @property
    def bytes(self) -> int:
        """Size on disk, the full vectors it reads included."""
        own = sum(file["bytes"] for file in self.facts["files"].values())
        linked = self.facts.get("vectors")
        return own + (0 if linked is None else int(linked["bytes"]))


def write_vector_index(
    path: Path, source: VectorFolder, settings: VectorSettings | None, *, copy: bool = False
) -> IndexFolder:
    """Build over a vector folder; `settings` None is exact search."""
    with atomic_folder(path) as folder:
        if settings is not None:
            _write_faiss(build(source.vectors, settings), folder / "index.faiss")
        if copy:
            shutil.copyfile(source.path / "vectors.npy", folder / "vectors.npy")
        write_ids(folder, list(source.ids))
        facts = {
            "kind": settings.kind if settings else "exact",
            "settings": asdict(settings) if settings else {},
            "items": len(source),
            "dim": int(source.vectors.shape[1]),
            "of": {k: v for k, v in source.facts.items() if k not in ("files", "format", "version")},
            "vectors": None if copy else _link(source, path),
        }
        write_manifest(folder, KIND, VERSION, facts)
    return open_index(path)


def _write_faiss(index: Any, path: Path) -> None:
    """Write a faiss index through a file of Python's: faiss's own writes to stderr where a disk is full."""
    faiss: Any = need("faiss", "search")
    refused: list[OSError] = []
    with path.open("wb") as file:

        def write(data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                refused.append(error)
                raise

        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(write, 1 << 20))
        except (RuntimeError, OSError) as error:
            raise refused[0] if refused else error from None


def write_multivector(
    path: Path, source: MultiFolder, settings: MultiVectorSettings | None, *, copy: bool = False
) -> IndexFolder:
    """Build over a folder of several vectors an item; `settings` None is exact search."""
    reads = settings is None or (bool(settings.rescore) and settings.kept == "full")
    with atomic_folder(path) as folder:
        if settings is None:
            np.save(folder / "start.npy", source.vectors.start)
        else:
            MultiVectorIndex.build(source.vectors, settings).save(folder, vectors=False)
        if reads and copy:
            shutil.copyfile(source.path / "vectors.npy", folder / "vectors.npy")
        write_ids(folder, list(source.ids))
        facts = {
            "kind": settings.kind if settings else "exact",
            "settings": asdict(settings) if settings else {},
            **{name: source.facts[name] for name in ("items", "tokens", "dim", "stored")},
            "of": {k: v for k, v in source.facts.items() if k not in ("files", "format", "version")},
            "vectors": _link(source, path) if reads and not copy else None,
        }
        write_manifest(folder, KIND, VERSION, facts)
    return open_index(path)


def _link(source: VectorFolder | MultiFolder, index: Path) -> dict[str, Any]:
    facts = source.facts["files"]["vectors.npy"]
    file = (source.path / "vectors.npy").resolve()
    return {"path": str(file), "beside": os.path.relpath(file, index.resolve()), **facts}


def write_bm25(
    path: Path, texts: Sequence[str], ids: Sequence[str], facts: Mapping[str, Any], settings: Bm25Settings
) -> IndexFolder:
    """Build a lexical index over texts."""
    with atomic_folder(path) as folder:
        Bm25Index.build(texts, settings).save(folder)
        write_ids(folder, list(ids))
        described = {"kind": "bm25", "settings": asdict(settings), "items": len(ids), "of": dict(facts)}
        write_manifest(folder, KIND, VERSION, described)
    return open_index(path)


def write_inverted(path: Path, source: SparseFolder, settings: InvertedSettings) -> IndexFolder:
    """Build over a folder of sparse vectors."""
    with atomic_folder(path) as folder:
        InvertedIndex.build(source.vectors, settings).save(folder)
        write_ids(folder, list(source.ids))
        shutil.copyfile(source.path / "vocabulary.json", folder / "vocabulary.json")
        facts = {
            "kind": settings.kind,
            "settings": asdict(settings),
            "items": len(source),
            "postings": len(source.vectors.terms),
            "of": {k: v for k, v in source.facts.items() if k not in ("files", "format", "version")},
        }
        write_manifest(folder, KIND, VERSION, facts)
    return open_index(path)


def open_index(path: Path, *, verify: bool = True, counted: bool = False) -> IndexFolder:
    """Open an index, memory-mapped; its files are hashed once a process unless `verify` is false.

    `counted` asks an engine how many rows it holds, too.

    Raises:
        FlatcoatError: not an index, of another version, damaged, or its vectors were moved or altered.
    """
    with taking_apart(path):
        return steady(path, lambda: _opened(path, verify, counted))


def _opened(path: Path, verify: bool, counted: bool) -> IndexFolder:
    facts = read_manifest(path, KIND, VERSION, verify=verify)
    if "engine" in facts:
        from flatcoat.index.remote.store import open_remote

        return open_remote(path, verify=counted)
    ids = lines_of(path, "ids.txt", facts)
    if facts["kind"] == "bm25":
        return IndexFolder(path, facts, Bm25Index.load(path), ids)
    if facts["kind"] in SPARSE_KINDS:
        return IndexFolder(path, facts, InvertedIndex.load(path, InvertedSettings(**facts["settings"])), ids)
    if "tokens" in facts:
        return IndexFolder(path, facts, _multi(path, facts, verify), ids)
    vectors = _vectors(path, facts, verify)
    if facts["kind"] == "exact":
        return IndexFolder(path, facts, ExactIndex(vectors, path), ids)
    faiss: Any = need("faiss", "search")
    try:
        index = faiss.read_index(str(path / "index.faiss"), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise FlatcoatError(f"{path}/index.faiss: cannot be read; build the index again") from error
    settings = VectorSettings(**facts["settings"])
    return IndexFolder(path, facts, VectorIndex(index, vectors, settings, path), ids)


def _multi(path: Path, facts: Mapping[str, Any], verify: bool) -> MaxSimExact | MultiVectorIndex:
    """An index over several vectors an item, and the full vectors where it reads them."""
    full = None
    if facts["vectors"] is not None or "vectors.npy" in facts["files"]:
        vectors = _vectors(path, facts, verify)
        start = read_array(path / "start.npy", mapped=False)
        if vectors.dtype != TYPES.get(facts["stored"]) or len(start) != facts["items"] + 1 or start[-1] != len(vectors):
            raise FlatcoatError(f"{path}: its vectors do not fit what its manifest says; build the index again")
        full = MultiVector(start, vectors)
    if facts["kind"] in MULTI_KINDS:
        return MultiVectorIndex.load(path, MultiVectorSettings(**facts["settings"]), full)
    if full is None:
        raise FlatcoatError(f"{path}: exact search without vectors; build the index again")
    return MaxSimExact(full, path)


def _vectors(path: Path, facts: Mapping[str, Any], verify: bool) -> np.ndarray:
    link = facts["vectors"]
    file = path / "vectors.npy"
    if link is not None:
        # where it lies from here comes first: a run's folder may have been moved or copied whole
        found = [place for place in ((path.resolve() / link["beside"]), Path(link["path"])) if place.is_file()]
        if not found:
            raise FlatcoatError(f"{path}: its vectors {link['path']} are gone; index again, or build with --copy")
        file = found[0]
        if file.stat().st_size != link["bytes"] or (sum_of(file) if verify else _said_hash(file)) != link["sha256"]:
            raise FlatcoatError(f"{file}: altered since {path} was built from it; index again")
    vectors = read_array(file)
    if link is not None and verify and sum_of(file) != link["sha256"]:  # replaced between the two lines above
        raise FlatcoatError(f"{file}: encoded anew while {path} was opened; index again")
    wanted = facts.get("tokens", facts["items"]), facts["dim"]
    if vectors.shape != wanted:
        raise FlatcoatError(f"{file}: shape {vectors.shape} where {path} wants {wanted}")
    return vectors


def _said_hash(file: Path) -> str:
    """The hash that the manifest beside a file of vectors has for it."""
    return read_json(file.with_name(MANIFEST))["files"][file.name]["sha256"]
