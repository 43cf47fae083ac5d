"""`flatcoat check`: tells what a thing is and runs the checks that fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app.recipe import load_recipe
from flatcoat.checks.base import Finding, ok
from flatcoat.checks.collection import leakage, only_judged, truncated
from flatcoat.checks.run import missing_queries, rank_order, upside_down
from flatcoat.checks.towers import normalisation, pooling
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.data.trec import read_qrels, read_run
from flatcoat.files import MANIFEST, read_json

PAIRS = 200
SAMPLE = 500
LOOKED = 20_000


def inspect(thing: str, qrels: Path | None, on: str | None) -> list[Finding]:
    """Everything there is to say of a model, collection, vectors, index, run or recipe."""
    path = Path(thing)
    if path.suffix == ".toml":
        load_recipe(path)
        return [ok("recipe", "every key is known and every value is right")]
    if path.is_file() and path.suffix in (".trec", ".run", ".txt"):
        return _run(path, qrels)
    if (path / "recipe.toml").is_file():
        return _folder_of_run(path)
    kind = read_json(path / MANIFEST).get("format") if (path / MANIFEST).is_file() else None
    folders = {
        "flatcoat-index": _index,
        "flatcoat-vectors": _vectors,
        "flatcoat-sparse": _sparse,
        "flatcoat-multi": _multi,
    }
    if kind in folders:
        return folders[kind](path)
    model_like = thing.startswith("pypi:") or (path / "config.json").is_file() or (path / "modules.json").is_file()
    if model_like or (not path.exists() and ":" not in thing):
        return _model(thing, on)
    return _collection(open_collection(thing))


def _run(path: Path, qrels: Path | None) -> list[Finding]:
    found = rank_order(path)
    if qrels is None:
        return [*found, Finding("warning", "run", "give --qrels to check it against judgements")]
    run, judged = read_run(path), read_qrels(qrels)
    return [*found, *upside_down(run, judged), *missing_queries(run, judged)]


def _folder_of_run(path: Path) -> list[Finding]:
    found = _collection(Collection.open(path / "store", verify=True))
    for name in sorted((path / "index").glob("*")):
        found += _index(name)
    for run in sorted((path / "runs").glob("*.trec")):
        found += [
            Finding(f.level, f"{run.name}: {f.check}", f.message, f.cure)
            for f in _run(run, path / "runs" / "test.qrels")
        ]
    return found


def _collection(collection: Collection) -> list[Finding]:
    found = [Finding("warning", kind, f"{facts['count']}, for example {facts['examples'][0]}")
             for kind, facts in collection.facts["problems"].items()]  # fmt: skip
    others = [split for split in collection.splits if split != "train"]
    for split in others:
        found += only_judged(collection, split)
        if "train" in collection.splits:
            found += leakage(collection, "train", split)
    return found or [ok("collection", f"{len(collection.documents)} documents, {len(collection.queries)} queries")]


def _vectors(path: Path) -> list[Finding]:
    from flatcoat.vectors import VectorFolder

    folder = VectorFolder.open(path, verify=True)
    found = [ok("hashes", "every file is as it was written")]
    tower = folder.facts.get("tower")
    if tower:
        found += pooling(folder.facts.get("declared_pooling"), tower["pooling"])
        norms = np.linalg.norm(folder.vectors[:1000], axis=1)
        if tower["normalise"] and not np.allclose(norms, 1, atol=1e-2):
            found.append(
                Finding(
                    "error", "normalisation", f"said to be unit vectors, lengths {norms.min():.3f} to {norms.max():.3f}"
                )
            )
    same = int((np.ptp(folder.vectors[:1000], axis=0) < 1e-7).all()) if len(folder) > 1 else 0
    if same:
        found.append(Finding("error", "collapse", "the first vectors are all the same", "the model has collapsed"))
    return found


def _sparse(path: Path) -> list[Finding]:
    from flatcoat.checks.sparse import health
    from flatcoat.models.hygiene import STOPWORDS, is_punctuation, plain
    from flatcoat.sparse_vectors import SparseFolder

    folder = SparseFolder.open(path, verify=True)
    found = [ok("hashes", "every file is as it was written")]
    names = folder.vocabulary
    special = [n.startswith(("[", "<")) and n.endswith(("]", ">")) and len(n) > 2 for n in names]
    words = [is_punctuation(n) or (plain(n).lower() in STOPWORDS and not n.startswith("##")) for n in names]
    noise = np.array(special) | np.array(words)
    side = str(folder.facts.get("side", "texts"))
    what = side if len(folder) <= LOOKED else f"the first {LOOKED} {side}"
    return found + health(folder.vectors[:LOOKED], names, noise, what)


def _multi(path: Path) -> list[Finding]:
    from flatcoat.checks.late import alike, unit_length
    from flatcoat.multi_vectors import MultiFolder

    folder = MultiFolder.open(path, verify=True)
    what = str(folder.facts.get("side", "texts"))
    hashes = ok("hashes", "every file is as it was written")
    return [hashes, *unit_length(folder.vectors, what), *alike(folder.vectors, what)]


def _index(path: Path) -> list[Finding]:
    from flatcoat.index.store import open_index

    folder = open_index(path, verify=True)
    found = [ok("hashes", f"{path.name}: every file is as it was written")]
    of = folder.facts["of"]
    if "pooling" in of.get("tower", {}):
        found += pooling(of.get("declared_pooling"), of["tower"]["pooling"])
    return found + (_token_vectors(folder.index) if "tokens" in folder.facts and "engine" not in folder.facts else [])


def _token_vectors(index: Any) -> list[Finding]:
    """The vectors that an index of several a text searches: the full ones where it has them, else what its codes stand for."""
    from flatcoat.checks.late import alike, even_rows, unit_length
    from flatcoat.index.multivector import MultiVectorIndex
    from flatcoat.representations import MultiVector

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


def _model(source: str, on: str | None) -> list[Finding]:
    from flatcoat.models.load import kind_of
    from flatcoat.models.source import resolve

    look = {"dense": _dense_model, "sparse": _sparse_model, "late": _late_model, "cross": _cross_model}
    return look[kind_of(resolve(source))](source, on)


def judged_pairs(collection: Collection) -> tuple[list[str], list[str]]:
    """Queries and documents that answer them, each text once; none where nothing is judged."""
    split = next((s for s in ("train", "dev", "test") if s in collection.splits), None)
    if split is None:
        return [], []
    judged = np.asarray(collection.judgements(split))
    judged = judged[judged[:, 2] > 0]
    _, first = np.unique(judged[:, 0], return_index=True)
    rows = judged[np.sort(np.random.default_rng(0).permutation(first)[:PAIRS])]
    rows = rows[np.unique(rows[:, 1], return_index=True)[1]]
    return list(collection.queries.texts(rows[:, 0])), list(collection.documents.texts(rows[:, 1]))


def _dense_model(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.best_pooling import pooling_by_measure
    from flatcoat.models.checkpoint import describe, load_dense
    from flatcoat.models.source import resolve

    declared = describe(resolve(source))[1]
    model = load_dense(source)
    found = pooling(declared.pooling, model.document.settings.pooling)
    one = model.encode_queries(["a", "a longer text than the other"]).vectors
    other = model.encode_documents(["a", "a longer text than the other"]).vectors
    found += normalisation(one, other)
    if on is None:
        return [*found, Finding("warning", "model", "give --on COLLECTION to measure its pooling and what it cuts off")]
    collection = open_collection(on)
    queries, documents = judged_pairs(collection)
    if queries:
        found += pooling_by_measure(model, queries, documents)
    return [*found, *truncated(model.document.lengths, collection, model.document.settings.max_length)]


def _sparse_model(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.sparse import health, sparse_model
    from flatcoat.models.hygiene import GROUPS, members
    from flatcoat.models.splade_checkpoint import load_splade

    model = load_splade(source)
    found = sparse_model(model)
    if on is None:
        return [*found, Finding("warning", "model", "give --on COLLECTION to look at its documents' terms too")]
    collection = open_collection(on)
    rows = np.unique(np.linspace(0, len(collection.documents) - 1, min(SAMPLE, len(collection.documents))).astype(int))
    noise = members(model.document.tokenizer, model.vocabulary, GROUPS)
    found += health(model.encode_documents(collection.documents.texts(rows)), model.vocabulary, noise, "documents")
    return [*found, *truncated(model.document.lengths, collection, model.document.settings.max_length)]


def _late_model(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.cross import related
    from flatcoat.checks.late import cut_queries, late_model
    from flatcoat.models.colbert_checkpoint import load_late
    from flatcoat.models.colbert_layouts import describe_late
    from flatcoat.models.source import resolve

    model = load_late(source)
    found = late_model(describe_late(resolve(source)), model)
    if on is None:
        return [*found, Finding("warning", "model", "give --on COLLECTION to see what it cuts off and how it ranks")]
    collection = open_collection(on)
    queries, documents = judged_pairs(collection)
    if queries:
        found += related(model, queries, documents)
    found += cut_queries(model.query, collection)
    return [*found, *truncated(model.document.lengths, collection, model.document.settings.max_length)]


def _cross_model(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.cross import cut_pairs, one_label, related, spread
    from flatcoat.models.cross_checkpoint import load_cross
    from flatcoat.models.source import resolve

    found = one_label(resolve(source))
    if found[0].level == "error":
        return found
    model = load_cross(source)
    found += spread(model)
    if on is None:
        return [*found, Finding("warning", "model", "give --on COLLECTION to see how it ranks judged pairs")]
    queries, documents = judged_pairs(open_collection(on))
    if not queries:
        return [*found, Finding("warning", "related", f"{on} has no judgements; give a collection that has")]
    return [*found, *related(model, queries, documents), *cut_pairs(model, queries, documents)]
