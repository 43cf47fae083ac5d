"""From a recipe's tables to the things they describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from flatcoat.app.recipe import (
    IndexTable,
    LexicalTable,
    ModelTable,
    NegativesTable,
    Recipe,
    RuntimeTable,
    TrainingTable,
)
from flatcoat.data.pairs import Pairs
from flatcoat.data.store import Collection
from flatcoat.index.bm25 import Bm25Settings
from flatcoat.index.vector import VectorSettings
from flatcoat.mining.mine import MineSettings

if TYPE_CHECKING:
    from flatcoat.mining.base import NegativeSampler
    from flatcoat.models.base import Runtime
    from flatcoat.models.dense import DenseModel
    from flatcoat.training.loop import LoopSettings


def runtime(table: RuntimeTable, *, training: bool = False) -> Runtime:
    """The runtime of encoding or of training."""
    from flatcoat.models.base import Runtime, best_device

    device = best_device(table.device)
    if training:
        return Runtime(device, table.training_precision, table.training_batch_tokens)
    return Runtime(device, table.precision, table.batch_tokens)


def model(table: ModelTable, run: RuntimeTable) -> DenseModel:
    """The model where a recipe starts."""
    from flatcoat.models.checkpoint import Overrides, load_dense

    fields = {name: getattr(table, name) for name in Overrides._fields}
    loaded = load_dense(table.start, Overrides(**fields))
    if table.dropout is not None:
        set_dropout(loaded, table.dropout)
    loaded.runtime = runtime(run)
    return loaded.to(loaded.runtime.device)


def set_dropout(module: Any, rate: float) -> None:
    """Set every dropout rate of a network."""
    from torch import nn

    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
        elif isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = rate


def loop_settings(table: TrainingTable, negatives: NegativesTable) -> LoopSettings:
    """The loop's settings."""
    from dataclasses import fields

    from flatcoat.training.loop import LoopSettings

    shared = {f.name: getattr(table, f.name) for f in fields(LoopSettings) if hasattr(table, f.name)}
    return LoopSettings(**shared, negatives=0 if negatives.kind == "none" else negatives.per_query)


def vector_settings(table: IndexTable) -> VectorSettings:
    """An approximate index's settings."""
    return VectorSettings(**table.model_dump(exclude={"name"}))


def lexical_settings(table: LexicalTable) -> Bm25Settings:
    """BM25's settings."""
    return Bm25Settings(**table.model_dump())


def mine_settings(table: NegativesTable) -> MineSettings:
    """The window and margins of mining."""
    return MineSettings(table.first, table.last, table.absolute_margin, table.relative, table.max_score)


def positives_by_query(pairs: Pairs) -> tuple[np.ndarray, list[np.ndarray]]:
    """Training queries' rows, rising, and each one's positive rows."""
    order = np.argsort(pairs.queries, kind="stable")
    rows, starts = np.unique(pairs.queries[order], return_index=True)
    return rows, np.split(pairs.documents[order], starts[1:])


def sampler(
    recipe: Recipe, collection: Collection, pairs: Pairs, bm25: Callable[[], Any], note: Callable[[str], None]
) -> NegativeSampler | None:
    """The negatives that a recipe asks for; `bm25` gives the lexical index where that is what mines."""
    from flatcoat.mining.given import Given
    from flatcoat.mining.mine import as_pairs, mine
    from flatcoat.mining.periodic import Periodic
    from flatcoat.mining.uniform import Uniform

    table, documents = recipe.negatives, len(collection.documents)
    if table.kind == "none":
        return None
    if table.kind == "uniform":
        return Uniform(documents)
    if table.kind == "given":
        return Given(np.asarray(collection.negatives(pairs.split)), len(collection.queries), documents)
    rows, positives = positives_by_query(pairs)
    if table.kind == "bm25":
        mined = mine(bm25(), collection.queries.texts(rows), positives, mine_settings(table), keys=pairs.keys)
        return Given(as_pairs(mined, rows), len(collection.queries), documents)
    return Periodic(
        rows, positives, documents, mine_settings(table),
        every=table.every, index=VectorSettings() if table.approximate else None, keys=pairs.keys, note=note,
    )  # fmt: skip


class ModelEncode:
    """The model in training as `mining` sees it; `first` is the untrained model's corpus where it is at hand."""

    def __init__(self, model: DenseModel, run: Runtime, collection: Collection, track: Any, first: Any = None):
        self.model, self.run, self.collection, self.track, self.first = model, run, collection, track, first

    def queries(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of query rows."""
        from flatcoat.models.encode import encode_all

        texts = self.collection.queries.texts(rows)
        return encode_all(self.model.query, texts, self.run, track=self.track, label="encode queries")

    def documents(self) -> np.ndarray:
        """Vectors of the corpus; the first time, those that were made before training began."""
        from flatcoat.models.encode import encode_all

        if self.first is not None:
            vectors, self.first = self.first, None
            return vectors
        texts = self.collection.documents.texts()
        return encode_all(self.model.document, texts, self.run, track=self.track, label="encode to mine")
