"""A second opinion on Qdrant: the server's own segments, in process (qdrant-edge-py), over the same points."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.index.remote.address import parse_address
from flatcoat.index.remote.connect import connect
from flatcoat.testing.engine import ROWS, asked, built, everything, slowly

edge = pytest.importorskip("qdrant_edge")
pytest.importorskip("qdrant_client")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The client's local mode and a shard, loaded alike."""
    engine = connect(parse_address("qdrant::memory:"), "edge")
    held = everything(engine)
    index = built(engine, held)
    vectors = {
        "dense": edge.EdgeVectorParams(size=8, distance=edge.Distance.Dot),
        "late": edge.EdgeVectorParams(
            size=8,
            distance=edge.Distance.Dot,
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        ),
    }
    config = edge.EdgeConfig(vectors=vectors, sparse_vectors={"sparse": edge.EdgeSparseVectorParams()})
    folder = tmp_path_factory.mktemp("edge") / "shard"
    folder.mkdir()
    shard = edge.EdgeShard.create(str(folder), config)
    points, _ = engine.client.scroll("edge", limit=ROWS, with_vectors=True)
    shard.update(
        edge.UpdateOperation.upsert_points([edge.Point(p.id, of_edge(p.vector), {"id": str(p.id)}) for p in points])
    )
    yield index, held, shard
    shard.close()


def of_edge(vector):
    return {
        name: edge.SparseVector(values.indices, values.values) if hasattr(values, "indices") else values
        for name, values in vector.items()
    }


@pytest.mark.parametrize("name", ["dense", "sparse", "late"])
def test_the_engine_itself_answers_alike(both, name):
    index, held, shard = both
    queries = asked(held)[name]
    ours, truth = index.at(name).search(queries, 10), slowly(held[name], queries, 10)
    for i in range(len(queries)):
        query = edge.Query.Nearest(plain(index.engine, queries, i), using=name)
        params = None if name == "sparse" else edge.SearchParams(exact=True)
        found = shard.query(edge.QueryRequest(query=query, limit=10, params=params))
        np.testing.assert_allclose(
            [point.score for point in found], truth.scores[i][: len(found)], rtol=2e-6, atol=2e-6
        )
        assert [point.id for point in found] == ours.rows[i][: len(found)].tolist()


def plain(engine, queries, i):
    from flatcoat.index.remote.base import lists_of

    values = lists_of(queries, i)
    return edge.SparseVector(*values) if isinstance(values, tuple) else values
