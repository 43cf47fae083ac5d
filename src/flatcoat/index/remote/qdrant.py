"""Qdrant: dense, sparse and several vectors an item in one collection, by named vectors.

Dense vectors are compared by the dot product. Kind `exact` keeps no graph and asks for a full scan; sparse vectors go through the
engine's inverted index, which loses nothing; several vectors an item are compared by MaxSim, every one.

Its reciprocal rank fusion counts ranks from 0 and gives 1 / (k + rank), so its k is ours plus 1.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse, need
from flatcoat.index.filters import All, Condition, Has, Not
from flatcoat.index.remote.address import MEMORY, Address
from flatcoat.index.remote.base import (
    FUSE_K,
    Batch,
    Engine,
    Field,
    Found,
    Leg,
    Page,
    RemoteSettings,
    lists_of,
    of_lists,
)
from flatcoat.representations import Representation

WAIT = 600  # seconds until a graph that is being built is given up
TOGETHER = 64  # queries in one request


def open_qdrant(address: Address, name: str) -> Engine:
    """Connect to a server, to a folder of the client's local mode, or to memory.

    Raises:
        FlatcoatError: it does not answer, or another process holds the folder.
    """
    library: Any = need("qdrant_client", "engines")
    with warnings.catch_warnings(), _talking(address):
        warnings.simplefilter("ignore")  # of keys over http, and of versions; a lost key is an error below
        if address.url == MEMORY:
            client = library.QdrantClient(MEMORY)
        elif not address.remote:
            client = library.QdrantClient(path=address.url, force_disable_check_same_thread=True)
        else:
            client = library.QdrantClient(
                url=address.bare, api_key=address.secret, timeout=60, check_compatibility=False
            )
        return QdrantEngine(client, address, name)


class QdrantEngine:
    """One collection. `client` is a QdrantClient, of a server or local."""

    holds: tuple[str, ...] = ("dense", "sparse", "late")

    def __init__(self, client: Any, address: Address, name: str):
        self.client, self.address, self.name = client, address, name
        self.models: Any = need("qdrant_client", "engines").models

    def describe(self) -> dict[str, Field] | None:
        """The fields of the collection; Qdrant does not say how many terms a sparse one has."""
        with _talking(self.address):
            if not self.client.collection_exists(self.name):
                return None
            said: Any = self.client.get_collection(self.name).config.params
        held: Any = said.vectors
        dense = cast("dict[str, Any]", held) if isinstance(held, dict) else {"": held} if held else {}
        found: dict[str, Field] = {
            key: Field("late" if value.multivector_config else "dense", value.size) for key, value in dense.items()
        }
        return found | {key: Field("sparse", None) for key in cast("dict[str, Any]", said.sparse_vectors or {})}

    def create(self, fields: Mapping[str, Field], settings: RemoteSettings) -> None:
        """Make the collection."""
        models = self.models
        dense = {
            key: models.VectorParams(
                size=value.width, distance=models.Distance.DOT, hnsw_config=self._graph(value, settings),
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
                if value.kind == "late" else None,
            )
            for key, value in fields.items() if value.kind != "sparse"
        }  # fmt: skip
        sparse = {key: models.SparseVectorParams() for key, value in fields.items() if value.kind == "sparse"}
        with _talking(self.address):
            self.client.create_collection(
                self.name, vectors_config=dense, sparse_vectors_config=sparse, shard_number=settings.shards,
                replication_factor=settings.replicas,
            )  # fmt: skip

    def _graph(self, field: Field, settings: RemoteSettings) -> Any:
        if field.kind == "dense" and settings.kind == "hnsw":
            return self.models.HnswConfigDiff(m=settings.links, ef_construct=settings.build)
        return self.models.HnswConfigDiff(m=0)

    def drop(self) -> None:
        """Remove the collection."""
        with _talking(self.address):
            self.client.delete_collection(self.name)

    def upsert(self, batch: Batch) -> None:
        """Write rows; an item that is empty has no vector of that name."""
        points = [self._point(batch, i) for i in range(len(batch))]
        with _talking(self.address):
            self.client.upsert(self.name, points=points, wait=True)

    def _point(self, batch: Batch, i: int) -> Any:
        held = {key: self._vector(lists_of(vectors, i)) for key, vectors in batch.vectors.items()}
        own = batch.payloads[i]
        payload = {"id": own.id, "title": own.title, "text": own.text, "metadata": dict(own.metadata)}
        vectors = {key: vector for key, vector in held.items() if vector is not None}
        return self.models.PointStruct(id=batch.first + i, vector=vectors, payload=payload)

    def _vector(self, values: Any) -> Any:
        if isinstance(values, tuple):
            return self.models.SparseVector(indices=values[0], values=values[1])
        return values

    def finish(self, fields: Mapping[str, Field], settings: RemoteSettings) -> None:
        """Wait until the server has optimised what it was given. Raises FlatcoatError where it fails, or takes too long."""
        until = time.monotonic() + WAIT
        while True:
            with _talking(self.address):
                status = self.client.get_collection(self.name).status
            if status == self.models.CollectionStatus.GREEN:
                return
            if status == self.models.CollectionStatus.RED or time.monotonic() > until:
                raise FlatcoatError(
                    f"{self.address}: collection {self.name} is {status.value}, not green; look at its log"
                )
            time.sleep(0.5)

    def count(self) -> int:
        """How many points there are, counted exactly."""
        with _talking(self.address):
            return self.client.count(self.name, exact=True).count

    def nearest(self, leg: Leg, settings: RemoteSettings, condition: Condition | None) -> Found:
        """The best rows of each query, several queries a request."""
        asked = self._condition(condition)
        requests: dict[int, Any] = {}
        for i in range(len(leg.queries)):
            query = self._vector(lists_of(leg.queries, i))
            if query is not None:
                requests[i] = self.models.QueryRequest(
                    query=query, using=leg.field, limit=leg.k, filter=asked, params=self._params(leg, settings)
                )
        found: Found = [[] for _ in range(len(leg.queries))]
        order = list(requests)
        for first in range(0, len(order), TOGETHER):
            some = order[first : first + TOGETHER]
            with _talking(self.address):
                answers = self.client.query_batch_points(self.name, requests=[requests[i] for i in some])
            for i, answer in zip(some, answers, strict=True):
                found[i] = [(int(p.id), p.score) for p in answer.points if leg.kind != "sparse" or p.score > 0]
        return found

    def _params(self, leg: Leg, settings: RemoteSettings) -> Any:
        if leg.kind == "sparse" or not self.address.remote:
            return None  # an inverted index is exact, and so is the local mode
        exact = settings.kind == "exact" or leg.kind == "late"
        return self.models.SearchParams(exact=exact, hnsw_ef=None if exact else settings.ef)

    def fused(self, legs: Sequence[Leg], k: int, settings: RemoteSettings, condition: Condition | None) -> Found:
        """Prefetch of every leg, fused by the engine."""
        models, asked = self.models, self._condition(condition)
        found: Found = []
        for i in range(len(legs[0].queries)):
            queries = [(leg, self._vector(lists_of(leg.queries, i))) for leg in legs]
            prefetch = [
                models.Prefetch(query=q, using=leg.field, limit=leg.k, filter=asked, params=self._params(leg, settings))
                for leg, q in queries if q is not None
            ]  # fmt: skip
            if not prefetch:
                found.append([])
                continue
            query = models.RrfQuery(rrf=models.Rrf(k=FUSE_K + 1))
            with _talking(self.address):
                points = self.client.query_points(self.name, prefetch=prefetch, query=query, limit=k).points
            found.append([(int(point.id), point.score) for point in points])
        return found

    def delete(self, rows: Sequence[int]) -> None:
        """Remove rows."""
        with _talking(self.address):
            self.client.delete(self.name, points_selector=self.models.PointIdsList(points=list(rows)), wait=True)

    def read(self, field: str, kind: Field, rows: range) -> Page:
        """Those of these rows that are there."""
        with _talking(self.address):
            points = self.client.retrieve(self.name, ids=list(rows), with_payload=["id"], with_vectors=[field])
        points: list[Any] = sorted(points, key=lambda point: point.id)
        items = [_plain(cast("dict[str, Any]", point.vector or {}).get(field)) for point in points]
        return Page([int(point.id) for point in points], [point.payload["id"] for point in points], _of(items, kind))

    def close(self) -> None:
        """End the connection; a local folder is free again."""
        self.client.close()

    def _condition(self, condition: Condition | None) -> Any:
        return None if condition is None else self.models.Filter(must=[to_qdrant(condition, self.models)])


def _plain(vector: Any) -> Any:
    return (vector.indices, vector.values) if hasattr(vector, "indices") else vector


def _of(items: Sequence[Any], kind: Field) -> Representation:
    sorted_items: list[Any] = []
    for item in items:
        if kind.kind == "sparse" and item is not None:
            order = np.argsort(item[0], kind="stable")
            item = np.asarray(item[0])[order], np.asarray(item[1])[order]
        sorted_items.append(item)
    return of_lists(sorted_items, kind)


def to_qdrant(condition: Condition, models: Any) -> Any:
    """A filter as the engine has it. Numbers equal as ranges: there a whole number and a float are of two kinds."""
    if isinstance(condition, Has):
        return _has(condition, models)
    if isinstance(condition, Not):
        return models.Filter(must_not=[to_qdrant(condition.part, models)])
    parts = [to_qdrant(part, models) for part in condition.parts]
    if isinstance(condition, All):
        return models.Filter(must=parts)
    return models.Filter(should=parts) if parts else models.HasIdCondition(has_id=[])


def _has(condition: Has, models: Any) -> Any:
    if not set('"\\').isdisjoint(condition.field):
        raise Misuse(f"field {condition.field!r}: Qdrant cannot ask for a name with a quote or a backslash")
    key = f'metadata."{condition.field}"'
    if condition.operator == "exists":
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        return models.Filter(must_not=[empty])
    if condition.operator == "range":
        bounds = dict(condition.value)
        if any(isinstance(value, str) for value in bounds.values()):
            raise Misuse(f"field {condition.field!r}: Qdrant has no order of text; want bounds that are numbers")
        return models.FieldCondition(key=key, range=models.Range(**bounds))
    if isinstance(condition.value, str | bool):
        return models.FieldCondition(key=key, match=models.MatchValue(value=condition.value))
    return models.FieldCondition(key=key, range=models.Range(gte=condition.value, lte=condition.value))


@contextlib.contextmanager
def _talking(address: Address) -> Generator[None, None, None]:
    """What goes wrong while talking to the engine, in one line without secrets."""
    errors: Any = need("qdrant_client.http.exceptions", "engines")
    try:
        yield
    except errors.ResponseHandlingException as error:
        raise FlatcoatError(f"{address} does not answer ({address.hide(str(error))}); is it running?") from None
    except errors.UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise FlatcoatError(
                f"{address} refuses the key (or there is none); give it in the URL or ~/.netrc"
            ) from None
        said = error.content.decode("utf-8", "replace") if error.content else error.reason_phrase
        raise FlatcoatError(f"{address}: {error.status_code}, {address.hide(said)}") from None
    except (ValueError, RuntimeError, OSError) as error:
        raise FlatcoatError(f"{address}: {address.hide(str(error))}") from None
