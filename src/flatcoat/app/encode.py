"""Encoding a collection's documents or queries into a vector folder, with the facts that later checks compare."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatcoat.data.store import Collection
from flatcoat.records import Track
from flatcoat.vectors import VectorFolder

if TYPE_CHECKING:
    from flatcoat.models.dense import DenseModel, Tower


def _facts(model: DenseModel, tower: Tower, source: str, side: str, corpus: str) -> dict[str, Any]:
    from flatcoat.models.checkpoint import describe, fingerprint
    from flatcoat.models.source import resolve

    return {
        "side": side,
        "model": fingerprint(source),
        "model_source": source,
        "corpus": corpus,
        "tower": asdict(tower.settings),
        "query_tower": asdict(model.query.settings),
        "declared_pooling": describe(resolve(source))[0 if side == "queries" else 1].pooling,
        "precision": model.runtime.precision,
    }


def encode_documents(
    path: Path, model: DenseModel, source: str, collection: Collection, *, track: Track, label: str = "encode"
) -> VectorFolder:
    """Encode the corpus of a collection with the model that was loaded from `source`."""
    from flatcoat.models.encode_to import encode_to

    table = collection.documents
    facts = _facts(model, model.document, source, "documents", table.fingerprint)
    return encode_to(path, model.document, table.texts(), table.ids, facts, model.runtime, track=track, label=label)


def encode_queries(
    path: Path, model: DenseModel, source: str, collection: Collection, split: str, *, track: Track
) -> VectorFolder:
    """Encode the queries of a split."""
    from flatcoat.models.encode_to import encode_to

    rows = collection.query_rows(split)
    texts, ids = collection.queries.texts(rows), [collection.queries.ids[int(row)] for row in rows]
    facts = {
        **_facts(model, model.query, source, "queries", collection.documents.fingerprint),
        "split": split,
        "queries": collection.queries.fingerprint,
    }
    return encode_to(path, model.query, texts, ids, facts, model.runtime, track=track, label="encode queries")
