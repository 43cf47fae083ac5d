"""`flatcoat check` of models: by themselves, and on a collection."""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.app.ready import of_lengths, of_model
from flatcoat.checks.base import Finding
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.models.load import kind_of
from flatcoat.models.source import resolve

PAIRS = 200
SAMPLE = 500


def of_model_at(source: str, on: str | None) -> list[Finding]:
    """The checks of a model, `on` a collection where one is named."""
    look: Any = {"dense": _dense, "sparse": _sparse, "late": _late, "cross": _cross}
    return look[kind_of(resolve(source))](source, on)


def _hint(what: str) -> Finding:
    return Finding("warning", "hint", f"give --on COLLECTION {what}")


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


def _dense(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.best_pooling import pooling_by_measure
    from flatcoat.checks.towers import normalisation, pooling
    from flatcoat.models.checkpoint import describe, load_dense

    declared = describe(resolve(source))[1]
    model = load_dense(source)
    found = pooling(declared.pooling, model.document.settings.pooling)
    one = model.encode_queries(["a", "a longer text than the other"]).vectors
    other = model.encode_documents(["a", "a longer text than the other"]).vectors
    found += normalisation(one, other) + of_model("dense", source, model)
    if on is None:
        return [*found, _hint("to measure its pooling and what it cuts off")]
    collection = open_collection(on)
    queries, documents = judged_pairs(collection)
    if queries:
        found += pooling_by_measure(model, queries, documents)
    return found + of_lengths(model, collection)


def _sparse(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.sampling import evenly
    from flatcoat.checks.sparse import health
    from flatcoat.models.hygiene import GROUPS, members
    from flatcoat.models.splade_checkpoint import load_splade

    model = load_splade(source)
    found = of_model("sparse", source, model)
    if on is None:
        return [*found, _hint("to look at its documents' terms too")]
    collection = open_collection(on)
    rows = evenly(len(collection.documents), SAMPLE)
    noise = members(model.document.tokenizer, model.vocabulary, GROUPS)
    found += health(model.encode_documents(collection.documents.texts(rows)), model.vocabulary, noise, "documents")
    return found + of_lengths(model, collection)


def _late(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.cross import related
    from flatcoat.checks.late import cut_queries
    from flatcoat.models.colbert_checkpoint import load_late

    model = load_late(source)
    found = of_model("late", source, model)
    if on is None:
        return [*found, _hint("to see what it cuts off and how it ranks")]
    collection = open_collection(on)
    queries, documents = judged_pairs(collection)
    if queries:
        found += related(model, queries, documents)
    return found + cut_queries(model.query, collection) + of_lengths(model, collection)


def _cross(source: str, on: str | None) -> list[Finding]:
    from flatcoat.checks.cross import cut_pairs, one_label, related
    from flatcoat.models.cross_checkpoint import load_cross

    found = one_label(resolve(source))
    if found[0].level == "error":
        return found
    model = load_cross(source)
    found += of_model("cross", source, model)
    if on is None:
        return [*found, _hint("to see how it ranks judged pairs")]
    collection = open_collection(on)
    queries, documents = judged_pairs(collection)
    if not queries:
        return [*found, Finding("warning", "related", f"{on} has no judgements; give a collection that has")]
    found += related(model, queries, documents) + cut_pairs(model, queries, documents)
    return found + of_lengths(model, collection)
