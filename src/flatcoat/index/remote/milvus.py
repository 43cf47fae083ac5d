"""Milvus: dense and sparse vectors in one collection, on a cluster, a server, or in a file of this machine (milvus-lite).

Metadata are kept twice: as they are, and as `facets`, made to be asked about. An engine that takes 1, 1.0 and true for equal, and compares
no number inside a list, then answers as `filters.matches` does: equality is a token in a list, a range a bound on the greatest or least
item. A text or a document's metadata is of 65,535 bytes at most, and a sparse item that is empty has the one term past the vocabulary.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse, need
from flatcoat.index.filters import All, Condition, Has, Not, is_number
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
from flatcoat.representations import Sparse

MOST = 16_384  # rows of an answer
LONGEST = 65_535  # bytes of a text, or of metadata
TOGETHER = 64  # queries in one request
VARCHARS = ("id", "title", "text")


def open_milvus(address: Address, name: str) -> Engine:
    """Connect to a server, or open a file.

    Raises:
        FlatcoatError: it does not answer, or refuses the password.
        Misuse: a file that does not end in .db.
    """
    library: Any = need("pymilvus", "engines")
    if address.url == MEMORY or (not address.remote and not address.url.endswith(".db")):
        raise Misuse(f"--engine milvus:{address.url}: want a URL, or a file that ends in .db")
    if not address.remote:
        need("milvus_lite", "engines")
        Path(address.url).parent.mkdir(parents=True, exist_ok=True)
    token = {"token": f"{address.user}:{address.secret}" if address.user else address.secret} if address.secret else {}
    with _talking(address):
        return MilvusEngine(library.MilvusClient(uri=address.bare, timeout=10, **token), address, name)


class MilvusEngine:
    """One collection. `client` is a MilvusClient."""

    holds: tuple[str, ...] = ("dense", "sparse")

    def __init__(self, client: Any, address: Address, name: str):
        self.client, self.address, self.name = client, address, name
        self.library: Any = need("pymilvus", "engines")

    def describe(self) -> dict[str, Field] | None:
        """The vector fields; Milvus does not say how many terms a sparse one has."""
        with _talking(self.address):
            if not self.client.has_collection(self.name):
                return None
            fields = self.client.describe_collection(self.name)["fields"]
        types = self.library.DataType
        dense = {f["name"]: Field("dense", int(f["params"]["dim"])) for f in fields if f["type"] == types.FLOAT_VECTOR}
        return dense | {f["name"]: Field("sparse", None) for f in fields if f["type"] == types.SPARSE_FLOAT_VECTOR}

    def create(self, fields: Mapping[str, Field], settings: RemoteSettings) -> None:
        """Make the collection, its indexes, and load it; answers follow every write that came before them."""
        types = self.library.DataType
        schema = self.library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", types.INT64, is_primary=True)
        for name in VARCHARS:
            schema.add_field(name, types.VARCHAR, max_length=LONGEST)
        for name in ("metadata", "facets"):
            schema.add_field(name, types.JSON)
        indexes = self.client.prepare_index_params()
        for name, field in fields.items():
            if field.kind == "dense":
                schema.add_field(name, types.FLOAT_VECTOR, dim=field.width)
                graph = {"M": settings.links, "efConstruction": settings.build}
                kind, params = ("HNSW", graph) if settings.kind == "hnsw" else ("FLAT", {})
            else:
                schema.add_field(name, types.SPARSE_FLOAT_VECTOR)
                kind, params = "SPARSE_INVERTED_INDEX", {}
            indexes.add_index(name, index_type=kind, metric_type="IP", params=params)
        machines = {"num_shards": settings.shards} if settings.shards else {}
        with _talking(self.address):
            self.client.create_collection(
                self.name, schema=schema, index_params=indexes, consistency_level="Strong", **machines
            )
            if settings.replicas:
                self.client.release_collection(self.name)
                self.client.load_collection(self.name, replica_number=settings.replicas)

    def drop(self) -> None:
        """Remove the collection."""
        with _talking(self.address):
            self.client.drop_collection(self.name)

    def upsert(self, batch: Batch) -> None:
        """Write rows."""
        rows = [self._row(batch, i) for i in range(len(batch))]
        with _talking(self.address):
            self.client.upsert(self.name, rows)

    def _row(self, batch: Batch, i: int) -> dict[str, Any]:
        own = batch.payloads[i]
        held = {"metadata": dict(own.metadata), "facets": facets(own.metadata)}
        for name, text in (*zip(VARCHARS, own[:3], strict=True), *((k, json.dumps(v)) for k, v in held.items())):
            size = len(text.encode())
            if size > LONGEST:
                raise FlatcoatError(
                    f"document {own.id!r}: {name} of {size} bytes; Milvus holds {LONGEST}. Load it without --collection"
                )
        vectors = {name: _given(values, i) for name, values in batch.vectors.items()}
        return {"row": batch.first + i, **dict(zip(VARCHARS, own[:3], strict=True)), **held, **vectors}

    def finish(self, fields: Mapping[str, Field], settings: RemoteSettings) -> None:
        """Write what is in memory, so that it is indexed."""
        with _talking(self.address):
            self.client.flush(self.name)

    def count(self) -> int:
        """How many rows there are."""
        with _talking(self.address):
            return int(self.client.query(self.name, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def nearest(self, leg: Leg, settings: RemoteSettings, condition: Condition | None) -> Found:
        """The best rows of each query, several queries a request."""
        _check_most(leg.k)
        where = self._where(condition)
        asked = {i: _asked(leg, i) for i in range(len(leg.queries))}
        found: Found = [[] for _ in asked]
        order = [i for i, query in asked.items() if query is not None]
        for first in range(0, len(order), TOGETHER):
            some = order[first : first + TOGETHER]
            with _talking(self.address):
                answers = self.client.search(
                    self.name, data=[asked[i] for i in some], anns_field=leg.field, limit=leg.k, output_fields=["row"],
                    filter=where, search_params=_params(leg, settings),
                )  # fmt: skip
            for i, hits in zip(some, answers, strict=True):
                found[i] = [pair for pair in map(_pair, hits) if leg.kind != "sparse" or pair[1] > 0]
        return found

    def fused(self, legs: Sequence[Leg], k: int, settings: RemoteSettings, condition: Condition | None) -> Found:
        """A hybrid search a query, fused by the engine."""
        for leg in legs:
            _check_most(leg.k)
        found: Found = []
        where = self._where(condition)
        for i in range(len(legs[0].queries)):
            asked = [(leg, _asked(leg, i)) for leg in legs]
            requests = [
                self.library.AnnSearchRequest([query], leg.field, _params(leg, settings), leg.k, expr=where or None)
                for leg, query in asked if query is not None
            ]  # fmt: skip
            if not requests:
                found.append([])
                continue
            ranker = self.library.RRFRanker(FUSE_K)
            with _talking(self.address):
                hits = self.client.hybrid_search(
                    self.name, requests, ranker, limit=min(k, MOST), output_fields=["row"]
                )[0]
            found.append([_pair(hit) for hit in hits])
        return found

    def _where(self, condition: Condition | None) -> str:
        """The filter, where it can be answered: two bounds are tested on the greatest and the least value, which must be one."""
        for field, several in crowded(condition).items():
            with _talking(self.address):
                found = self.client.query(self.name, filter=several, output_fields=["row"], limit=1)
            if found:
                raise Misuse(
                    f"field {field!r} holds lists; here Milvus cannot hold one item to two bounds, ask for one bound"
                )
        return to_milvus(condition)

    def delete(self, rows: Sequence[int]) -> None:
        """Remove rows."""
        with _talking(self.address):
            self.client.delete(self.name, ids=list(rows))

    def read(self, field: str, kind: Field, rows: range) -> Page:
        """Those of these rows that are there."""
        where = f"row >= {rows.start} and row < {rows.stop}"
        with _talking(self.address):
            found = self.client.query(self.name, filter=where, output_fields=["row", "id", field])
        found = sorted(found, key=lambda one: one["row"])
        items = [_taken(one[field], kind) for one in found]
        return Page([int(one["row"]) for one in found], [one["id"] for one in found], of_lists(items, kind))

    def close(self) -> None:
        """End the connection."""
        self.client.close()


def _check_most(k: int) -> None:
    if k > MOST:
        raise Misuse(f"k={k}: Milvus answers with {MOST} rows at most")


def _pair(hit: Any) -> tuple[int, float]:
    return int(hit["row"] if "row" in hit else hit["id"]), float(hit["distance"])


def _params(leg: Leg, settings: RemoteSettings) -> dict[str, Any]:
    graph = leg.kind == "dense" and settings.kind == "hnsw"
    return {"metric_type": "IP", "params": {"ef": max(settings.ef, leg.k)} if graph else {}}


def _asked(leg: Leg, i: int) -> Any:
    values: Any = lists_of(leg.queries, i)
    return dict(zip(*cast("tuple[Any, Any]", values), strict=True)) if isinstance(values, tuple) else values


def _given(vectors: Any, i: int) -> Any:
    values = lists_of(vectors, i)
    if not isinstance(vectors, Sparse):
        return values
    return {vectors.vocab_size: 1.0} if values is None else dict(zip(*values, strict=True))


def _taken(value: Any, kind: Field) -> Any:
    if kind.kind != "sparse":
        return value
    terms = sorted(term for term in value if term < int(kind.width or 0))
    return (np.array(terms, np.int32), np.array([value[term] for term in terms], np.float32)) if terms else None


def facets(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What filters ask: `has`, fields and values as tokens; the greatest and least number (n) or text (s) as `most n FIELD`."""
    has: list[str] = []
    bounds: dict[str, Any] = {}
    for field, held in metadata.items():
        items = cast("list[Any]", held) if isinstance(held, list) else [held]
        if held is not None and items:
            has.append(_token(field))
        has += [_token(field, item) for item in items if isinstance(item, str | int | float)]
        each: dict[str, list[Any]] = {
            "n": [i for i in items if is_number(i)],
            "s": [i for i in items if isinstance(i, str)],
        }
        for kind, some in each.items():
            if some:
                has += [_token(field, None, kind), *([_token(field, None, kind, "several")] * (len(some) > 1))]
                bounds |= {f"most {kind} {field}": max(some), f"least {kind} {field}": min(some)}
    return {"has": has, **bounds}


def _token(field: str, *value: Any) -> str:
    """A field, or a field and its value, or what kinds it holds. A whole number is written one way only."""
    one = [int(item) if isinstance(item, float) and item.is_integer() else item for item in value]
    return json.dumps([field, *one])


def crowded(condition: Condition | None) -> dict[str, str]:
    """The fields that two bounds are asked of, and the expression of the documents that hold several values there."""
    if isinstance(condition, Has):
        two = condition.operator == "range" and len(condition.value) > 1
        return {condition.field: _contains(_token(condition.field, None, _kind(condition), "several"))} if two else {}
    parts = (condition.part,) if isinstance(condition, Not) else condition.parts if condition is not None else ()
    return {field: expression for part in parts for field, expression in crowded(part).items()}


def _kind(condition: Has) -> str:
    return "s" if isinstance(condition.value[0][1], str) else "n"


def to_milvus(condition: Condition | None) -> str:
    """A filter as the engine's boolean expression over `facets`; '' is none."""
    if condition is None:
        return ""
    if isinstance(condition, Has):
        return _has(condition)
    if isinstance(condition, Not):
        return f"(not {to_milvus(condition.part)})"
    word, empty = ("and", "row >= 0") if isinstance(condition, All) else ("or", "row < 0")
    return f"({f' {word} '.join(to_milvus(part) for part in condition.parts) or empty})"


def _has(condition: Has) -> str:
    field, value = condition.field, condition.value
    if condition.operator == "exists":
        return _contains(_token(field))
    if condition.operator == "eq":
        return _contains(_token(field, value))
    kind = _kind(condition)
    tests = [_contains(_token(field, None, kind))]
    for operator, bound in value:
        end, sign = ("most", ">") if operator.startswith("g") else ("least", "<")
        sign += "=" * operator.endswith("e")
        tests.append(f"facets[{_literal(f'{end} {kind} {field}')}] {sign} {_literal(bound)}")
    return f"({' and '.join(tests)})"


def _contains(token: str) -> str:
    return f'(json_contains(facets["has"], {_literal(token)}))'


def _literal(value: str | int | float) -> str:
    return json.dumps(value, ensure_ascii=False)


@contextlib.contextmanager
def _talking(address: Address) -> Generator[None, None, None]:
    """What goes wrong while talking to the engine, in one line without secrets; the library's own logging of it is held back."""
    library: Any = need("pymilvus", "engines")
    rpc: Any = need("grpc", "engines")
    loggers = [
        logging.getLogger(name) for name in ("pymilvus", "pymilvus.decorators", "pymilvus.client", "grpc._server")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except library.MilvusException as error:
        said = address.hide(str(error.message))
        if "auth" in said.lower():
            raise FlatcoatError(
                f"{address} refuses the password of user {address.user!r}; give it in the URL or ~/.netrc"
            ) from None
        if error.code in (1, 2) or "connect" in said.lower():
            raise FlatcoatError(f"{address} does not answer ({said}); is it running?") from None
        raise FlatcoatError(f"{address}: {said}") from None
    except (rpc.RpcError, rpc.FutureTimeoutError, OSError, ValueError) as error:
        raise FlatcoatError(f"{address}: {address.hide(str(error))}") from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
