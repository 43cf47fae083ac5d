"""`flatcoat check`: tells what a thing is and runs the checks that fit it."""

from __future__ import annotations

from pathlib import Path

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
    if kind == "flatcoat-index":
        return _index(path)
    if kind == "flatcoat-vectors":
        return _vectors(path)
    if kind == "flatcoat-sparse":
        return _sparse(path)
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


def _index(path: Path) -> list[Finding]:
    from flatcoat.index.store import open_index

    folder = open_index(path, verify=True)
    found = [ok("hashes", f"{path.name}: every file is as it was written")]
    of = folder.facts["of"]
    if "pooling" in of.get("tower", {}):
        found += pooling(of.get("declared_pooling"), of["tower"]["pooling"])
    return found


def _model(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.best_pooling import pooling_by_measure
    from flatcoat.models.checkpoint import describe, load_dense
    from flatcoat.models.source import resolve
    from flatcoat.models.splade_checkpoint import is_sparse

    if is_sparse(resolve(source)):
        return _sparse_model(source, on)
    declared = describe(resolve(source))[1]
    model = load_dense(source)
    found = pooling(declared.pooling, model.document.settings.pooling)
    one = model.encode_queries(["a", "a longer text than the other"]).vectors
    other = model.encode_documents(["a", "a longer text than the other"]).vectors
    found += normalisation(one, other)
    if on is None:
        return [*found, Finding("warning", "model", "give --on COLLECTION to measure its pooling and what it cuts off")]
    collection = open_collection(on)
    split = next((s for s in ("train", "dev", "test") if s in collection.splits), None)
    if split:
        judged = np.asarray(collection.judgements(split))
        judged = judged[judged[:, 2] > 0]
        _, first = np.unique(judged[:, 0], return_index=True)
        rows = judged[np.sort(np.random.default_rng(0).permutation(first)[:PAIRS])]
        rows = rows[np.unique(rows[:, 1], return_index=True)[1]]
        found += pooling_by_measure(
            model, list(collection.queries.texts(rows[:, 0])), list(collection.documents.texts(rows[:, 1]))
        )
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
