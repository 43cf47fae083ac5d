"""PostgreSQL with pgvector: a table a collection, a column a field; dense (`vector`), sparse (`sparsevec`), and several vectors
an item (`vector[]`, MaxSim written in SQL).

pgvector's `<#>` is the inner product with its sign turned; here it is turned back. Kind `exact` scans the table. Kind `hnsw` has a
graph over dense columns; a search looks at `ef` of it, and goes on where a filter or a greater k wants more (`hnsw.iterative_scan`).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse, need
from flatcoat.index.filters import All, Condition, Has, Not
from flatcoat.index.remote.address import Address
from flatcoat.index.remote.base import FUSE_K, OWN, Batch, Engine, Field, Found, Leg, Page, RemoteSettings, lists_of
from flatcoat.index.remote.base import of_lists as together
from flatcoat.representations import Dense, Representation, Sparse

TYPES = {"vector": "dense", "sparsevec": "sparse", "vector[]": "late"}
WIDEST = 16_000  # dimensions of a column
WIDEST_GRAPH = 2_000  # dimensions of one with a graph
MOST_TERMS = 16_000  # entries of one sparse vector
COLUMNS = 'row bigint PRIMARY KEY, id text NOT NULL, title text NOT NULL, "text" text NOT NULL, metadata jsonb NOT NULL'
OPERATORS = {"eq": "==", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
ZERO = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # the character of code 0 in JSON, not a text that writes of it
Params = list[Any]


def open_postgres(address: Address, name: str) -> Engine:
    """Connect, and see that pgvector is there.

    Raises:
        FlatcoatError: it does not answer, refuses the password, or cannot have the extension.
    """
    library: Any = need("psycopg", "engines")
    with _talking(address):
        own = {"password": address.secret} if address.secret else {}
        connection = library.connect(address.url, autocommit=True, connect_timeout=10, **own)
    try:
        with _talking(address, "needs the extension vector (pgvector 0.7 or later, for kind hnsw 0.8)"):
            connection.execute("SET client_min_messages = warning")
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except FlatcoatError:
        connection.close()
        raise
    return PostgresEngine(connection, address, name)


class PostgresEngine:
    """One table, in the first schema of the search path."""

    holds: tuple[str, ...] = ("dense", "sparse", "late")

    def __init__(self, connection: Any, address: Address, name: str):
        self.connection, self.address, self.name = connection, address, name

    def _all(self, statement: str, params: Sequence[Any] = ()) -> list[Any]:
        with _talking(self.address):
            return self.connection.execute(statement, params).fetchall()

    def _do(self, statement: str, params: Sequence[Any] = ()) -> None:
        with _talking(self.address):
            self.connection.execute(statement, params)

    def describe(self) -> dict[str, Field] | None:
        """The vector columns of the table."""
        columns = self._all(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped", [f'"{self.name}"'],
        )  # fmt: skip
        if not columns:
            return None
        said = ((name, re.fullmatch(r"(?:\w+\.)?(vector|sparsevec)\((\d+)\)(\[\])?", kind)) for name, kind in columns)
        return {name: Field(TYPES[f"{m[1]}{m[3] or ''}"], int(m[2])) for name, m in said if m and name not in OWN}  # pyright: ignore[reportArgumentType]

    def create(self, fields: Mapping[str, Field], settings: RemoteSettings) -> None:
        """Make the table. Raises Misuse where a field is wider than pgvector holds, or shards or replicas are asked for."""
        if settings.shards or settings.replicas:
            raise Misuse(
                "postgresql: shards and replicas are the server's own (Citus, streaming replication); leave them out"
            )
        if settings.kind == "hnsw":
            self._check_version()
        for name, field in fields.items():
            most = WIDEST_GRAPH if settings.kind == "hnsw" else WIDEST
            if field.kind != "sparse" and int(field.width or 0) > most:
                raise Misuse(f"{name}: pgvector holds {most} dimensions at most in an index of kind {settings.kind}")
        columns = [COLUMNS, *(f'"{name}" {_type(field)}' for name, field in fields.items())]
        self._do(f'CREATE TABLE "{self.name}" ({", ".join(columns)})')

    def _check_version(self) -> None:
        ((said,),) = self._all("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        if tuple(int(part) for part in re.findall(r"\d+", said)[:2]) < (0, 8):
            raise FlatcoatError(
                f"{self.address}: pgvector {said}; kind hnsw wants 0.8 or later (update it there, or say --kind exact)"
            )

    def drop(self) -> None:
        """Remove the table."""
        self._do(f'DROP TABLE IF EXISTS "{self.name}"')

    def upsert(self, batch: Batch) -> None:
        """Copy the rows beside the table, then take them over: all of them or none."""
        names = [*OWN, *batch.vectors]
        columns = ", ".join(f'"{name}"' for name in names)
        given = ", ".join(f'"{name}"{_cast(batch.vectors.get(name))}' for name in names)
        taken = ", ".join(f'"{name}" = excluded."{name}"' for name in names[1:])
        typed = ", ".join(f'"{name}" {"bigint" if name == "row" else "text"}' for name in names)
        with _talking(self.address), self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute(f"CREATE TEMP TABLE arriving ({typed}) ON COMMIT DROP")
            with cursor.copy(f"COPY arriving ({columns}) FROM STDIN") as copy:
                for i in range(len(batch)):
                    copy.write_row([batch.first + i, *_texts(batch, i)])
            given = given.replace('"metadata"', '"metadata"::jsonb')
            cursor.execute(
                f'INSERT INTO "{self.name}" ({columns}) SELECT {given} FROM arriving ON CONFLICT (row) DO UPDATE SET {taken}'
            )

    def finish(self, fields: Mapping[str, Field], settings: RemoteSettings) -> None:
        """Build graphs over dense columns where they are asked for."""
        for name, field in fields.items():
            if field.kind == "dense" and settings.kind == "hnsw" and name not in self.graphs():
                self._do(
                    f'CREATE INDEX ON "{self.name}" USING hnsw ("{name}" vector_ip_ops) '
                    f"WITH (m = {settings.links}, ef_construction = {max(settings.build, 2 * settings.links)})"
                )
        self._do(f'ANALYZE "{self.name}"')

    def graphs(self) -> set[str]:
        """The columns that have a graph. The server names the graphs: names of ours could be cut, and then be one."""
        found = self._all(
            "SELECT a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
            "WHERE i.indrelid = to_regclass(%s) AND i.indisvalid AND m.amname = 'hnsw'", [f'"{self.name}"'],
        )  # fmt: skip
        return {name for (name,) in found}

    def count(self) -> int:
        """How many rows there are."""
        return int(self._all(f'SELECT count(*) FROM "{self.name}"')[0][0])

    def nearest(self, leg: Leg, settings: RemoteSettings, condition: Condition | None) -> Found:
        """The best rows of each query, a statement each."""
        found: Found = []
        with self._set(settings):
            for i in range(len(leg.queries)):
                said = self._leg(leg, i, settings, condition)
                found.append([] if said is None else [(int(row), score) for row, score in self._all(*said)])
        return found

    def fused(self, legs: Sequence[Leg], k: int, settings: RemoteSettings, condition: Condition | None) -> Found:
        """One statement: a common table expression a leg, ranks by windows, and their reciprocals added up."""
        found: Found = []
        with self._set(settings):
            for i in range(len(legs[0].queries)):
                said = [self._leg(leg, i, settings, condition) for leg in legs]
                some = [one for one in said if one is not None]
                found.append([(int(row), score) for row, score in self._all(*_fusing(some, k))] if some else [])
        return found

    @contextlib.contextmanager
    def _set(self, settings: RemoteSettings) -> Generator[None, None, None]:
        """A transaction in which the graph is searched as the settings say, or not at all."""
        with _talking(self.address), self.connection.transaction():
            if settings.kind == "hnsw":
                self._do(f"SET LOCAL hnsw.ef_search = {min(settings.ef, 1000)}")
                self._do("SET LOCAL hnsw.iterative_scan = strict_order")
            else:
                self._do("SET LOCAL enable_indexscan = off")
            yield

    def _leg(
        self, leg: Leg, i: int, settings: RemoteSettings, condition: Condition | None
    ) -> tuple[str, Params] | None:
        """A statement that gives (row, score), best first; None where the query is empty."""
        values = lists_of(leg.queries, i)
        if values is None:
            return None
        where, asked = ("TRUE", []) if condition is None else to_sql(condition)
        column, query = f'"{leg.field}"', _text(leg.queries, i)
        if leg.kind == "late":
            best = f"SELECT max(-(d <#> q)) AS best FROM unnest({column}) d, unnest(%s::vector[]) WITH ORDINALITY u(q, n) GROUP BY n"
            one = f'SELECT row, (SELECT sum(best) FROM ({best}) m) AS score FROM "{self.name}" WHERE {column} IS NOT NULL AND {where}'
            return f"SELECT row, score FROM ({one}) s ORDER BY score DESC, row LIMIT %s", [query, *asked, leg.k]
        kind = "sparsevec" if leg.kind == "sparse" else "vector"
        distance = f"{column} <#> %s::{kind}"
        params: Params = [query]
        if leg.kind == "sparse":  # what shares no term is no match
            where, asked = f"{distance} < 0 AND {where}", [query, *asked]
        order = "" if leg.kind == "dense" and settings.kind == "hnsw" else ", row"  # a graph gives its own order only
        statement = (
            f'SELECT row, -({distance}) AS score FROM "{self.name}" WHERE {where} ORDER BY {distance}{order} LIMIT %s'
        )
        return statement, [*params, *asked, query, leg.k]

    def delete(self, rows: Sequence[int]) -> None:
        """Remove rows."""
        self._do(f'DELETE FROM "{self.name}" WHERE row = ANY(%s)', [list(rows)])

    def read(self, field: str, kind: Field, rows: range) -> Page:
        """Those of these rows that are there, to the bit."""
        sent = {
            "dense": f'vector_send("{field}")',
            "sparse": f'sparsevec_send("{field}")',
            "late": f'(SELECT array_agg(vector_send(v) ORDER BY n) FROM unnest("{field}") WITH ORDINALITY u(v, n))',
        }[kind.kind]
        found = self._all(
            f'SELECT row, id, {sent} FROM "{self.name}" WHERE row >= %s AND row < %s ORDER BY row',
            [rows.start, rows.stop],
        )
        items = [_received(value, kind) for _, _, value in found]
        return Page([int(row) for row, _, _ in found], [id for _, id, _ in found], together(items, kind))

    def close(self) -> None:
        """End the connection."""
        self.connection.close()


def _fusing(legs: Sequence[tuple[str, Params]], k: int) -> tuple[str, Params]:
    ranked = [
        f"leg{n} AS (SELECT row, row_number() OVER (ORDER BY score::real DESC, row) AS rank FROM ({statement}) s)"
        for n, (statement, _) in enumerate(legs)
    ]
    parts = " UNION ALL ".join(
        f"SELECT row, 1.0::float8 / ({FUSE_K} + rank) AS part FROM leg{n}" for n in range(len(legs))
    )
    statement = f"WITH {', '.join(ranked)} SELECT row, sum(part) AS score FROM ({parts}) p GROUP BY row ORDER BY 2 DESC, 1 LIMIT %s"
    return statement, [*(param for _, params in legs for param in params), k]


def _type(field: Field) -> str:
    return {"dense": "vector({})", "sparse": "sparsevec({})", "late": "vector({})[]"}[field.kind].format(field.width)


def _cast(vectors: Representation | None) -> str:
    if vectors is None:
        return ""
    return "::vector" if isinstance(vectors, Dense) else "::sparsevec" if isinstance(vectors, Sparse) else "::vector[]"


def _texts(batch: Batch, i: int) -> list[str | None]:
    own = batch.payloads[i]
    plain = [own.id, own.title, own.text, json.dumps(dict(own.metadata), ensure_ascii=False)]
    if any("\0" in part for part in plain) or ZERO.search(plain[3]):
        raise FlatcoatError(f"document {own.id!r}: has a character of code 0, which PostgreSQL does not hold")
    return [*plain, *(_text(vectors, i) for vectors in batch.vectors.values())]


def _text(vectors: Representation, i: int) -> str | None:
    """A vector as pgvector reads it; None of an empty one."""
    values = lists_of(vectors, i)
    if values is None:
        return None
    if isinstance(vectors, Dense):
        return _bracketed(values)
    if not isinstance(vectors, Sparse):
        return "{" + ",".join(f'"{_bracketed(one)}"' for one in values) + "}"
    if len(values[0]) > MOST_TERMS:
        raise FlatcoatError(f"a sparse vector of {len(values[0])} entries; pgvector holds {MOST_TERMS}")
    entries = ",".join(f"{term + 1}:{weight!r}" for term, weight in zip(*values, strict=True))
    return f"{{{entries}}}/{vectors.vocab_size}"


def _bracketed(values: Sequence[float]) -> str:
    return "[" + ",".join(map(repr, values)) + "]"


def _received(value: Any, kind: Field) -> Any:
    """What `vector_send` and its like give: counts, then big-endian numbers."""
    if value is None:
        return None
    if kind.kind == "late":
        return np.stack([np.frombuffer(one, ">f4", offset=4) for one in value])
    if kind.kind == "dense":
        return np.frombuffer(value, ">f4", offset=4)
    n = int(np.frombuffer(value, ">i4", count=2)[1])
    return np.frombuffer(value, ">i4", n, 12), np.frombuffer(value, ">f4", n, 12 + 4 * n)


def to_sql(condition: Condition) -> tuple[str, Params]:
    """A filter as an SQL expression over `metadata`, and its parameters."""
    if isinstance(condition, Has):
        return _has(condition)
    if isinstance(condition, Not):
        inner, params = to_sql(condition.part)
        return f"NOT ({inner})", params
    word, empty = ("AND", "TRUE") if isinstance(condition, All) else ("OR", "FALSE")
    parts = [to_sql(part) for part in condition.parts]
    joined = f" {word} ".join(text for text, _ in parts)
    return f"({joined or empty})", [param for _, params in parts for param in params]


def _has(condition: Has) -> tuple[str, Params]:
    if condition.operator == "exists":
        held = "coalesce(metadata -> %s, 'null'::jsonb) NOT IN ('null'::jsonb, '[]'::jsonb)"
        return held, [condition.field]
    tests = (("eq", condition.value),) if condition.operator == "eq" else condition.value
    first = tests[0][1]
    kind = "string" if isinstance(first, str) else "boolean" if isinstance(first, bool) else "number"
    wanted = " && ".join(f"@ {OPERATORS[name]} $v{i}" for i, (name, _) in enumerate(tests))
    path = f'$.{json.dumps(condition.field)} ? (@.type() == "{kind}" && {wanted})'
    values = json.dumps({f"v{i}": value for i, (_, value) in enumerate(tests)})
    return "jsonb_path_exists(metadata, %s::jsonpath, %s::jsonb)", [path, values]


@contextlib.contextmanager
def _talking(address: Address, wanted: str = "") -> Generator[None, None, None]:
    """What goes wrong while talking to the engine, in one line without secrets."""
    errors: Any = need("psycopg", "engines").errors
    try:
        yield
    except (errors.ConnectionTimeout, errors.OperationalError, errors.ProgrammingError) as error:
        said = address.hide(str(error))
        if "password" in said or "authentication" in said:
            raise FlatcoatError(
                f"{address} refuses the password of user {address.user!r}; give it in the URL or ~/.pgpass"
            ) from None
        if getattr(error, "sqlstate", None) is None:
            raise FlatcoatError(f"{address} does not answer ({said}); is it running?") from None
        raise FlatcoatError(f"{address}: {wanted or said}" + (f" ({said})" if wanted else "")) from None
    except errors.Error as error:
        raise FlatcoatError(f"{address}: {wanted or address.hide(str(error))}") from None
