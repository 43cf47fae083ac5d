"""From a recipe's tables to the things they describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import ValidationError

from flatcoat.app.denoise import refusing
from flatcoat.app.tables import (
    IndexTable,
    LexicalTable,
    ModelTable,
    NegativesTable,
    Recipe,
    RuntimeTable,
    Table,
    TrainingTable,
)
from flatcoat.data.lines import json_lines
from flatcoat.data.pairs import Pairs
from flatcoat.data.problems import Problems
from flatcoat.data.store import Collection
from flatcoat.data.trec import read_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.bm25 import Bm25Settings
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.mining.mine import MineSettings

if TYPE_CHECKING:
    from flatcoat.index.multivector import MultiVectorSettings
    from flatcoat.mining.base import NegativeSampler
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
    return MultiVectorSettings(**{**given, "rescore": None} if given.get("rescore") == 0 else given)


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
        own = (
            np.asarray(collection.negatives(pairs.split))
            if table.file is None
            else read_negatives(Path(table.file), collection)
        )
        # a teacher's list has the positives too; they are no negatives
        answers = pairs.queries * documents + pairs.documents
        own = own[~np.isin(own[:, 0] * documents + own[:, 1], answers)]
        return Given(own, len(collection.queries), documents)
    rows, positives = positives_by_query(pairs)
    refuse = None
    if table.judge is not None:
        refuse = refusing(table.judge, table.judge_above, collection, rows, runtime(recipe.runtime))
    if table.kind == "bm25":
        texts = collection.queries.texts(rows)
        mined = mine(bm25(), texts, positives, mine_settings(table), keys=pairs.keys, refuse=refuse)
        return Given(as_pairs(mined, rows), len(collection.queries), documents)
    if table.kind == "model":
        note(f"negatives mined with {table.model}")
        return Given(
            _mined_with(recipe, collection, rows, positives, pairs, refuse), len(collection.queries), documents
        )
    return Periodic(
        rows, positives, documents, mine_settings(table),
        every=table.every, index=mining_index(recipe.model.kind, table.approximate), keys=pairs.keys, note=note, refuse=refuse,
    )  # fmt: skip


def _mined_with(
    recipe: Recipe, collection: Collection, rows: np.ndarray, positives: Any, pairs: Pairs, refuse: Any
) -> np.ndarray:
    """Negatives that another model finds."""
    from flatcoat.mining.mine import as_pairs, mine
    from flatcoat.models.load import kind_of, load_model
    from flatcoat.models.source import resolve
    from flatcoat.records import silent

    table, source = recipe.negatives, str(recipe.negatives.model)
    kind = kind_of(resolve(source))
    if kind == "cross":
        raise Misuse(
            f"negatives.model {source}: a cross-encoder cannot search; name a dense, sparse or late-interaction model"
        )
    other: Any = load_model(source)
    other.runtime = runtime(recipe.runtime)
    encode = ModelEncode(other.to(other.runtime.device), other.runtime, collection, silent)
    vectors = encode.documents()
    index = mining_index(kind, table.approximate)(vectors)
    asked = encode.queries(rows)
    found = mine(index, asked, positives, mine_settings(table), vectors=vectors, keys=pairs.keys, refuse=refuse)
    return as_pairs(found, rows)


def mining_index(kind: str, approximate: bool) -> Callable[[Any], Any]:
    """What builds the index that negatives are mined from."""
    from flatcoat.index.exact import ExactIndex

    if kind == "late":
        from flatcoat.index.multivector import MultiVectorIndex, MultiVectorSettings

        return (lambda vectors: MultiVectorIndex.build(vectors, MultiVectorSettings())) if approximate else MaxSimExact
    if kind == "sparse":  # the weights as they are, or rounded to 8 bits
        settings = InvertedSettings() if approximate else InvertedSettings(bits=32)
        return lambda vectors: InvertedIndex.build(vectors, settings)
    return (lambda vectors: VectorIndex.build(vectors, VectorSettings())) if approximate else ExactIndex


def read_negatives(path: Path, collection: Collection) -> np.ndarray:
    """Mined negatives of a file as int64 [n, 2]: query row, document row.

    Raises:
        FlatcoatError: a line without query_id and negatives, or an id that the collection has not.
    """
    rows: list[tuple[int, int]] = []
    for place, query_id, doc_ids in _negatives(path):
        query = collection.queries.lookup.row(query_id)
        if query is None:
            raise FlatcoatError(f"{place}: query {query_id!r} is not of this collection")
        for doc_id in doc_ids:
            document = collection.documents.lookup.row(doc_id)
            if document is None:
                raise FlatcoatError(f"{place}: document {doc_id!r} is not of this collection")
            rows.append((query, document))
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _negatives(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    if path.suffix in (".trec", ".run"):
        for query_id, ranking in read_run(path).items():
            yield str(path), query_id, list(ranking.doc_ids)
        return
    for place, record in json_lines(path, Problems(strict=True)):
        listed = record.get("negatives", record.get("document_ids"))
        if not isinstance(record.get("query_id"), str) or not isinstance(listed, list):
            raise FlatcoatError(
                f"{place}: want query_id and negatives, as flatcoat mine writes them, or a teacher's document_ids"
            )
        yield place, record["query_id"], [str(doc_id) for doc_id in listed]


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
        return encode_texts(self.model.document, texts, self.run, track=self.track, label="encode to mine")
