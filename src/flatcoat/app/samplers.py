"""From a recipe to the negatives it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatcoat.app.build import ModelEncode, runtime
from flatcoat.app.denoise import refusing
from flatcoat.app.negative_tables import LISTED, WITH_QUERIES, DynnibalTable, NegativesTable
from flatcoat.app.tables import Recipe
from flatcoat.data.lines import json_lines
from flatcoat.data.pairs import Pairs
from flatcoat.data.problems import Problems
from flatcoat.data.store import Collection
from flatcoat.data.trec import names_run, read_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.mining.mine import MineSettings

if TYPE_CHECKING:
    from flatcoat.mining.base import Encode, NegativeSampler
    from flatcoat.mining.dynnibal import DynnibalSettings


def mine_settings(table: NegativesTable) -> MineSettings:
    """The window and margins of mining."""
    return MineSettings(table.first, table.last, table.absolute_margin, table.relative, table.max_score)


def positives_by_query(pairs: Pairs) -> tuple[np.ndarray, list[np.ndarray]]:
    """Training queries' rows, rising, and each one's positive rows."""
    order = np.argsort(pairs.queries, kind="stable")
    rows, starts = np.unique(pairs.queries[order], return_index=True)
    return rows, np.split(pairs.documents[order], starts[1:])


def sampler(
    recipe: Recipe, collection: Collection, pairs: Pairs, bm25: Callable[[], Any], note: Callable[[str], None], encode: Encode
) -> NegativeSampler | None:  # fmt: skip
    """The negatives that a recipe asks for; `bm25` gives the lexical index where that is what mines, `encode` is the model in training."""
    from flatcoat.mining.given import Given
    from flatcoat.mining.uniform import Uniform

    table, documents = recipe.negatives, len(collection.documents)
    if table.kind == "none":
        return None
    if table.kind == "uniform":
        return Uniform(documents)
    if table.kind in LISTED:
        return _listed(recipe, collection, pairs, bm25, note)
    if table.kind in WITH_QUERIES:
        rows, positives = positives_by_query(pairs)
        known: Any = lambda query: positives[np.searchsorted(rows, query)]  # noqa: E731
        return drawing(table, documents, encode, 1 / recipe.training.temperature, recipe.training.seed, known, note)
    own = (
        np.asarray(collection.negatives(pairs.split))
        if table.file is None
        else read_negatives(Path(table.file), collection)
    )
    # a teacher's list has the positives too; they are no negatives
    answers = pairs.queries * documents + pairs.documents
    own = own[~np.isin(own[:, 0] * documents + own[:, 1], answers)]
    return Given(own, len(collection.queries), documents)


def drawing(
    table: NegativesTable, documents: int, encode: Encode, beta: float, seed: int, known: Any, note: Callable[[str], None]
) -> NegativeSampler:  # fmt: skip
    """A sampler that draws by the queries' present vectors; `beta` is the inverse temperature of training."""
    made = _drawing(table, documents, encode, beta, seed, known, note)
    if not table.warmup:
        return made
    from flatcoat.mining.warmup import Warmed

    return Warmed(made, documents, table.warmup)


def _drawing(
    table: NegativesTable, documents: int, encode: Encode, beta: float, seed: int, known: Any, note: Callable[[str], None]
) -> NegativeSampler:  # fmt: skip
    from flatcoat.mining.cache import NegativeCache
    from flatcoat.mining.draws import Choosing
    from flatcoat.mining.dynnibal import Dynnibal
    from flatcoat.mining.exhaustive import Exhaustive
    from flatcoat.mining.stochastic import Stochastic

    choosing, size = Choosing(table.choose, beta, table.pool), min(table.size or documents, documents)
    if table.kind == "stochastic":
        return Stochastic(
            documents, encode, every=table.every or 100, size=size, seed=seed, choosing=choosing, known=known
        )
    if table.kind == "cache":
        return NegativeCache(
            documents, encode, size=size, refresh=min(table.renew, size), replace=table.replace, beta=beta, seed=seed
        )
    if table.kind == "exhaustive":
        return Exhaustive(documents, encode, every=table.every, choosing=choosing, known=known)
    return Dynnibal(documents, encode, dynnibal_settings(table, beta), seed=seed, note=note)


def dynnibal_settings(table: NegativesTable, beta: float) -> DynnibalSettings:
    """DyNNIBAL's settings of a recipe's table."""
    from flatcoat.mining.dynnibal import DynnibalSettings
    from flatcoat.mining.sg_tree import TreeSettings
    from flatcoat.mining.softmax_tree import SoftmaxSettings

    said = (table.dynnibal or DynnibalTable()).model_dump()
    of: Any = lambda kind: {f.name: said[f.name] for f in fields(kind) if f.name in said}  # noqa: E731
    draw = SoftmaxSettings(**of(SoftmaxSettings), beta=beta)
    return DynnibalSettings(
        **of(DynnibalSettings), every=table.every or 100, tree=TreeSettings(**of(TreeSettings)), draw=draw
    )


def _listed(
    recipe: Recipe, collection: Collection, pairs: Pairs, bm25: Callable[[], Any], note: Callable[[str], None]
) -> NegativeSampler:  # fmt: skip
    """A sampler with a list for each query."""
    from flatcoat.mining.given import Given
    from flatcoat.mining.mine import as_pairs, mine
    from flatcoat.mining.periodic import Periodic
    from flatcoat.mining.simans import SimANS

    table, documents = recipe.negatives, len(collection.documents)
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
    index = mining_index(recipe.model.kind, table.approximate)
    if table.kind == "simans":
        return SimANS(
            rows, positives, documents, mine_settings(table), a=table.a, b=table.b, beta=1 / recipe.training.temperature,
            every=table.every, index=index, keys=pairs.keys, note=note, refuse=refuse,
        )  # fmt: skip
    return Periodic(
        rows, positives, documents, mine_settings(table),
        every=table.every, index=index, keys=pairs.keys, note=note, refuse=refuse,
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
    if names_run(path):
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
