"""From a recipe's tables to the things they describe."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import ValidationError

from flatcoat.app.tables import (
    IndexTable,
    LexicalTable,
    ModelTable,
    NegativesTable,
    RuntimeTable,
    Table,
    TrainingTable,
)
from flatcoat.data.store import Collection
from flatcoat.errors import Misuse
from flatcoat.index.bm25 import Bm25Settings
from flatcoat.index.inverted import InvertedSettings
from flatcoat.index.vector import VectorSettings
from flatcoat.records import silent

if TYPE_CHECKING:
    from flatcoat.index.multivector import MultiVectorSettings
    from flatcoat.models.base import Runtime
    from flatcoat.models.load import Model
    from flatcoat.training.loop import LoopSettings

T = TypeVar("T", bound=Table)


def runtime(table: RuntimeTable, *, training: bool = False) -> Runtime:
    """The runtime of encoding or of training."""
    from flatcoat.models.base import Runtime, best_device

    device = best_device(table.device)
    if training:
        return Runtime(device, table.training_precision, table.training_batch_tokens)
    return Runtime(device, table.precision, table.batch_tokens)


def _load(table: ModelTable) -> Any:
    from flatcoat.models.checkpoint import Overrides, load_dense
    from flatcoat.models.colbert_checkpoint import LateOverrides, load_late
    from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross
    from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade

    if table.kind == "cross":
        wanted = CrossOverrides(table.document_length, table.query_length, prompt=table.query_prompt)
        return load_cross(table.start, wanted)
    known: dict[str, Any] = {"dense": (Overrides, load_dense), "sparse": (SparseOverrides, load_splade),
                             "late": (LateOverrides, load_late)}  # fmt: skip
    kind, load = known[table.kind]
    return load(table.start, kind(**{name: getattr(table, name) for name in kind._fields}))


def model(table: ModelTable, run: RuntimeTable) -> Any:
    """The model where a recipe starts."""
    loaded: Any = _load(table)
    settle(loaded, table, run)
    loaded.runtime = runtime(run)
    return loaded.to(loaded.runtime.device)


def settle(loaded: Any, table: ModelTable, run: RuntimeTable) -> None:
    """Dropout, checkpointing and what is held, as the recipe has them."""
    if table.dropout is not None:
        set_dropout(loaded, table.dropout)
    towers = [loaded.tower] if hasattr(loaded, "tower") else [loaded.query, loaded.document]
    for tower in towers:
        backbone: Any = getattr(tower, "backbone", None)
        if backbone is not None and run.gradient_checkpointing:
            backbone.gradient_checkpointing_enable()
        if backbone is not None and table.freeze != "none":
            freeze(backbone, table.freeze)


def from_options(kind: type[T], values: dict[str, Any], sign: str = "--") -> T:
    """A table from a verb's options, checked as in a recipe; `sign` stands before the name of one. Raises Misuse."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of the table as a whole
            raise Misuse(message) from error
        name = str(first["loc"][0])
        raise Misuse(
            f"{sign}{name.replace('_', '-') if sign == '--' else name}: {message}, not {first['input']!r}"
        ) from error


def freeze(backbone: Any, what: str) -> None:
    """Hold a network's `embeddings` as they are, or the whole `encoder` below its head."""
    held = backbone.get_input_embeddings() if what == "embeddings" else backbone.base_model
    for parameter in held.parameters():
        parameter.requires_grad_(False)


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
    from flatcoat.training.loop import LoopSettings

    shared = {f.name: getattr(table, f.name) for f in fields(LoopSettings) if hasattr(table, f.name)}
    return LoopSettings(**shared, negatives=0 if negatives.kind == "none" else negatives.per_query)


def vector_settings(table: IndexTable) -> VectorSettings:
    """An approximate dense index's settings."""
    return VectorSettings(**table.given())


def inverted_settings(table: IndexTable) -> InvertedSettings:
    """An inverted index's settings."""
    return InvertedSettings(**table.given())


def multi_settings(table: IndexTable) -> MultiVectorSettings:
    """A multi-vector index's settings."""
    from flatcoat.index.multivector import MultiVectorSettings

    given: dict[str, Any] = table.given()
    if given.get("rescore") == 0:
        given["rescore"] = None
    return MultiVectorSettings(**given)


def lexical_settings(table: LexicalTable) -> Bm25Settings:
    """BM25's settings."""
    return Bm25Settings(**table.model_dump())


class ModelEncode:
    """The model in training as `mining` sees it; `first` is the untrained model's corpus where it is at hand."""

    def __init__(self, model: Model, run: Runtime, collection: Collection, track: Any, first: Any = None):
        self.model, self.run, self.collection, self.track, self.first = model, run, collection, track, first

    def queries(self, rows: np.ndarray) -> Any:
        """Vectors of query rows, or their term weights."""
        from flatcoat.models.load import encode_texts

        texts = self.collection.queries.texts(rows)
        return encode_texts(self.model.query, texts, self.run, track=self.track, label="encode queries")

    def documents(self, rows: np.ndarray | None = None) -> Any:
        """Vectors of these documents, or of the corpus; the first time, those of it that were made before training began."""
        from flatcoat.models.load import encode_texts

        if rows is None and self.first is not None:
            vectors, self.first = self.first, None
            return vectors
        texts = self.collection.documents.texts(rows)
        track = self.track if rows is None else silent
        return encode_texts(self.model.document, texts, self.run, track=track, label="encode to mine")
