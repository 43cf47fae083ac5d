"""Encoding a collection's documents or queries into a folder of vectors, with the facts that later checks compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatcoat.data.store import Collection
from flatcoat.records import Track

if TYPE_CHECKING:
    from flatcoat.app.family import Folder
    from flatcoat.models.load import Model


def facts_of(model: Model, source: str, side: str, corpus: str) -> dict[str, Any]:
    """What a folder of vectors says of the model that made it."""
    from flatcoat.models.checkpoint import describe, fingerprint
    from flatcoat.models.dense import DenseModel
    from flatcoat.models.source import resolve
    from flatcoat.models.splade import LookupTower, SpladeModel

    tower = model.query if side == "queries" else model.document
    facts: dict[str, Any] = {
        "side": side,
        "model": fingerprint(source),
        "model_source": source,
        "corpus": corpus,
        "tower": asdict(tower.settings),
        "query_tower": asdict(model.query.settings),
        "precision": model.runtime.precision,
    }
    if isinstance(model, SpladeModel):
        lookup = isinstance(model.query, LookupTower)
        facts["queries"] = "lookup" if lookup else "shared" if model.shared else "separate"
    if isinstance(model, DenseModel):
        facts["declared_pooling"] = describe(resolve(source))[0 if side == "queries" else 1].pooling
    return facts


def encode_documents(
    path: Path, model: Model, source: str, collection: Collection, *, track: Track, label: str = "encode"
) -> Folder:
    """Encode the corpus of a collection with the model that was loaded from `source`."""
    table = collection.documents
    facts = facts_of(model, source, "documents", table.fingerprint)
    return _encode_to(path, model, "documents", table.texts(), table.ids, facts, track, label)


def encode_queries(
    path: Path, model: Model, source: str, collection: Collection, split: str, *, track: Track
) -> Folder:
    """Encode the queries of a split."""
    rows = collection.query_rows(split)
    texts, ids = collection.queries.texts(rows), [collection.queries.ids[int(row)] for row in rows]
    facts = {
        **facts_of(model, source, "queries", collection.documents.fingerprint),
        "split": split,
        "queries": collection.queries.fingerprint,
    }
    return _encode_to(path, model, "queries", texts, ids, facts, track, "encode queries")


def _encode_to(
    path: Path, model: Model, side: str, texts: Sequence[str], ids: Sequence[str], facts: dict[str, Any], track: Track, label: str
) -> Folder:  # fmt: skip
    from flatcoat.models.colbert import LateModel
    from flatcoat.models.encode_multi import encode_multi_to
    from flatcoat.models.encode_sparse import encode_sparse_to
    from flatcoat.models.encode_to import encode_to
    from flatcoat.models.splade import SpladeModel

    if isinstance(model, SpladeModel):
        tower = model.query if side == "queries" else model.document
        words = model.vocabulary
        return encode_sparse_to(path, tower, texts, ids, words, facts, model.runtime, track=track, label=label)
    tower: Any = model.query if side == "queries" else model.document
    write: Any = encode_multi_to if isinstance(model, LateModel) else encode_to
    return write(path, tower, texts, ids, facts, model.runtime, track=track, label=label)
