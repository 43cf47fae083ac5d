"""`flatcoat check` of folders: collections, vectors, indexes, and all that a run has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app import ready
from flatcoat.app.family import SLOW, open_vectors
from flatcoat.app.inspect_files import of_judged_run
from flatcoat.checks.base import Finding, ok
from flatcoat.checks.belongs import belongs
from flatcoat.checks.collection import leakage, only_judged
from flatcoat.checks.index import ASKED, loses, unique_ids
from flatcoat.checks.judgements import read_well
from flatcoat.checks.late import alike, even_rows, unit_length
from flatcoat.checks.results import same_numbers
from flatcoat.checks.run import shallow
from flatcoat.checks.sampling import evenly
from flatcoat.checks.sparse import health
from flatcoat.checks.towers import pooling
from flatcoat.checks.vectors import every_vector
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.data.trec import read_qrels, read_run
from flatcoat.files import read_json
from flatcoat.index.exact import ExactIndex
from flatcoat.index.inverted import InvertedIndex
from flatcoat.index.multivector import MultiVectorIndex
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.store import IndexFolder, open_index
from flatcoat.index.vector import VectorIndex
from flatcoat.models.hygiene import STOPWORDS, is_punctuation, plain
from flatcoat.multi_vectors import MultiFolder
from flatcoat.representations import Dense, MultiVector
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.vectors import VectorFolder

LOOKED = 20_000
INTACT = "every file is as it was written"


def of_collection(collection: Collection) -> list[Finding]:
    """The checks of a collection: what its reader mended, its texts, each split, and train against the others."""
    found = read_well(collection) + ready.of_texts(collection)
    for split in collection.splits:
        if split == "train":
            continue
        found += only_judged(collection, split) + ready.of_split(collection, split)
        if "train" in collection.splits:
            found += leakage(collection, "train", split)
    return found


def _of(facts: Any, path: Path, on: str | None) -> list[Finding]:
    """Whether a folder is of the collection that is named."""
    return belongs(path, facts, corpus=open_collection(on).documents.fingerprint) if on else []


def dense_vectors(folder: VectorFolder) -> list[Finding]:
    """The checks of a folder of dense vectors, whoever made it."""
    tower = folder.facts.get("tower") or {}
    found = pooling(folder.facts.get("declared_pooling"), tower["pooling"]) if tower else []
    found += unique_ids(folder.ids, folder.path)
    return found + every_vector(folder.vectors, _side(folder), unit=bool(tower.get("normalise")))


def sparse_vectors(folder: SparseFolder) -> list[Finding]:
    """The checks of a folder of sparse vectors, whoever made it."""
    names = folder.vocabulary
    special = [n.startswith(("[", "<")) and n.endswith(("]", ">")) and len(n) > 2 for n in names]
    words = [is_punctuation(n) or (plain(n).lower() in STOPWORDS and not n.startswith("##")) for n in names]
    noise = np.array(special) | np.array(words)
    what = _side(folder) if len(folder) <= LOOKED else f"the first {LOOKED} {_side(folder)}"
    return unique_ids(folder.ids, folder.path) + health(folder.vectors[:LOOKED], names, noise, what)


def multi_vectors(folder: MultiFolder) -> list[Finding]:
    """The checks of a folder of several vectors a text, whoever made it."""
    found = unique_ids(folder.ids, folder.path) + unit_length(folder.vectors, _side(folder))
    return found + alike(folder.vectors, _side(folder))


def _side(folder: Any) -> str:
    return str(folder.facts.get("side", "texts"))


def of_vectors(path: Path, on: str | None) -> list[Finding]:
    """The checks of dense vectors, the sha256 of every file first."""
    folder = VectorFolder.open(path, verify=True)
    return [ok("hashes", INTACT), *dense_vectors(folder), *_of(folder.facts, path, on)]


def of_sparse(path: Path, on: str | None) -> list[Finding]:
    """The checks of sparse vectors, the sha256 of every file first."""
    folder = SparseFolder.open(path, verify=True)
    return [ok("hashes", INTACT), *sparse_vectors(folder), *_of(folder.facts, path, on)]


def of_multi(path: Path, on: str | None) -> list[Finding]:
    """The checks of several vectors a text, the sha256 of every file first."""
    folder = MultiFolder.open(path, verify=True)
    return [ok("hashes", INTACT), *multi_vectors(folder), *_of(folder.facts, path, on)]


def before_indexing(folder: Any) -> list[Finding]:
    """The checks of vectors that are to be indexed."""
    if isinstance(folder, VectorFolder):
        return dense_vectors(folder)
    return sparse_vectors(folder) if isinstance(folder, SparseFolder) else multi_vectors(folder)


def of_index(path: Path, on: str | None) -> list[Finding]:
    """The checks of an index: its files, its ids, what it loses, and whether it is of the collection that is named."""
    folder = open_index(path, verify=True)
    found = [ok("hashes", f"{path.name}: {INTACT}"), *unique_ids(folder.ids, path.name)]
    of = folder.facts["of"]
    if "pooling" in of.get("tower", {}):
        found += pooling(of.get("declared_pooling"), of["tower"]["pooling"])
    if "engine" not in folder.facts:
        found += _loss(folder) + (_token_vectors(folder.index) if "tokens" in folder.facts else [])
    return found + _of(of, path, on)


def _loss(folder: IndexFolder) -> list[Finding]:
    """What an approximate index loses, asked for a few of its own vectors."""
    index, where = folder.index, folder.path.name
    if isinstance(index, VectorIndex):
        rows = evenly(len(index), ASKED)
        asked = Dense(np.ascontiguousarray(index.vectors[rows], np.float32))
        return loses(index, ExactIndex(index.vectors, folder.path), asked, where)
    if isinstance(index, MultiVectorIndex) and index.full is not None and not len(index.dead):
        rows = evenly(len(index), ASKED // 4)
        heads = MultiVector.of([index.full.item(row)[:ASKED] for row in rows.tolist()], index.dim)
        return loses(index, MaxSimExact(index.full, folder.path), heads, where)
    return []


def _token_vectors(index: Any) -> list[Finding]:
    """The vectors that an index of several a text searches: the full ones where it has them, else what its codes stand for."""
    if not isinstance(index, MultiVectorIndex):
        return unit_length(index.vectors, "documents") + alike(index.vectors, "documents")
    living = np.flatnonzero(index.dead == 0) if len(index.dead) else np.arange(len(index))
    rows = living[even_rows(len(living))]
    if index.full is not None or not len(rows):
        full = index.full
        some = MultiVector.of([full.item(row) for row in rows.tolist()] if full is not None else [], index.dim)
        return unit_length(some, "documents") + alike(some, "documents")
    gone = np.setdiff1d(np.arange(len(index)), rows)  # codes have only about the length of what they stand for
    return alike(index.delete(gone).compacted()[0].decoded(), "documents")


def of_run_folder(path: Path) -> list[Finding]:
    """The checks of all that a run has made: collection, vectors, indexes, rankings, and the table of its numbers."""
    collection = Collection.open(path / "store", verify=True)
    found = of_collection(collection)
    look: Any = {VectorFolder: of_vectors, SparseFolder: of_sparse, MultiFolder: of_multi}
    for vectors in [path / "before", *sorted(path.glob("vectors*"))]:
        if (vectors / "manifest.json").is_file():
            found += _named(vectors.name, look[type(open_vectors(vectors, verify=False))](vectors, None))
    for name in sorted((path / "index").glob("*")):
        found += of_index(name, None) + _sparse_loss(path, name)
    return found + _rankings(path)


def _sparse_loss(path: Path, name: Path) -> list[Finding]:
    """What a run's inverted index loses, compared with exact search over the vectors that it was built from."""
    folder = open_index(name)
    if not isinstance(folder.index, InvertedIndex):
        return []
    for place in [path / "vectors", path / "vectors-sparse", path / "before"]:
        source = open_vectors(place, verify=False) if (place / "manifest.json").is_file() else None
        if isinstance(source, SparseFolder) and source.facts.get("model") == folder.facts["of"].get("model"):
            return loses(folder.index, InvertedIndex.build(source.vectors, SLOW), source.vectors[:ASKED], name.name)
    return []


def _named(name: str, findings: list[Finding]) -> list[Finding]:
    return [Finding(f.level, f.check, f"{name}: {f.message}", f.cure) for f in findings]


def _rankings(path: Path) -> list[Finding]:
    """The checks of a run's rankings, and of the table beside them."""
    from flatcoat.app.measure import slug
    from flatcoat.evaluation.measures import deepest, evaluate, means

    if not (path / "runs" / "test.qrels").is_file() or not (path / "results.json").is_file():
        return []
    qrels = read_qrels(path / "runs" / "test.qrels")
    said = {system["name"]: system["means"] for system in read_json(path / "results.json")["systems"]}
    found: list[Finding] = []
    measured: dict[str, Any] = {}
    documents = len(Collection.open(path / "store").documents)
    for system, numbers in said.items():
        file = path / "runs" / f"{slug(system)}.trec"
        if not file.is_file():
            continue
        run = read_run(file)
        own = of_judged_run(file, run, qrels) + shallow(run, min(documents, deepest(list(numbers))))
        found += _named(file.name, own)
        measured[system] = means(evaluate(qrels, run, list(numbers)))
    return found + same_numbers(said, measured)
