"""Filters: the syntax, the definition, and what an engine cannot answer."""

from __future__ import annotations

import pytest

from flatcoat.errors import Misuse
from flatcoat.index.filters import DEEPEST, matches, parse
from flatcoat.index.remote.address import parse_address
from flatcoat.index.remote.connect import connect
from flatcoat.representations import Dense
from flatcoat.testing.engine import built
from flatcoat.testing.index import unit

METADATA = [{"t": "ant"}, {"t": "bee"}, {"t": ["ant", "cat"]}, {"t": "é"}, {"t": 5}, {"t": [1, 9]}, {}, {"t": "Bee"}]
TEXT = [{"t": {"gt": "ant"}}, {"t": {"lte": "bee"}}, {"t": {"gte": "é"}}, {"not": {"t": {"lt": "b"}}}]


@pytest.mark.parametrize(("filter", "rows"), [
    ({}, [0, 1, 2, 3, 4, 5, 6, 7]), ({"t": "ant"}, [0, 2]), ({"t": {"gt": "ant", "lt": "d"}}, [1, 2]),
    ({"t": {"gt": 1, "lt": 9}}, [4]), ({"t": {"exists": False}}, [6]), ({"t": {"in": ["ant", 9], "gt": "a"}}, [0, 2]),
    ({"or": [{"t": 5}, {"t": "bee"}]}, [1, 4]), ({"not": {"t": {"exists": True}}}, [6]), ({"t": {"gt": "é"}}, []),
])  # fmt: skip
def test_the_definition(filter, rows):
    assert [i for i, metadata in enumerate(METADATA) if matches(parse(filter), metadata)] == rows


@pytest.mark.parametrize(("filter", "said"), [
    ({"and": [[1]]}, "want an object"), ({"a": {"gte": None}}, "null equals nothing"), ({"a": {"gt": True}}, "want a number or text"),
    ({"a": {"gx": 1}}, "no operator 'gx'; did you mean"), ({"a": {}}, "says nothing"), ({"a": [1]}, "want text, a number"),
    ({"a": {"in": 1}}, "want a list"), ({"a": {"exists": 1}}, "want true or false"), ({"or": []}, "want a list of filters"),
    ({"and": {"a": 1}}, "want a list of filters"), ({"not": 1}, "filter.not: want an object"), ({"": 1}, "no field's name"),
    ({"a": float("nan")}, "want text, a number"), ({"and": [{"b": {"in": [None]}}]}, r"filter.and\[0\].b.in: null"),
])  # fmt: skip
def test_what_is_not_of_the_syntax(filter, said):
    with pytest.raises(Misuse, match=said):
        parse(filter)


def test_depth_is_bounded():
    deep = {"a": 1}
    for _ in range(DEEPEST + 1):
        deep = {"not": deep}
    with pytest.raises(Misuse, match="deeper than"):
        parse(deep)


def test_milvus_orders_text_and_refuses_two_bounds_on_lists(tmp_path):
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    engine = connect(parse_address(f"milvus:{tmp_path}/x.db"), "filters")
    index = built(engine, {"dense": Dense(unit(len(METADATA), 4))}, metadata=METADATA)
    query = Dense(unit(1, 4, 3))
    for filter in [*TEXT, {"missing": {"gt": 1, "lt": 2}}]:
        found = index.search(query, len(METADATA), filter=filter).rows[0]
        assert sorted(found[found >= 0].tolist()) == [i for i, m in enumerate(METADATA) if matches(parse(filter), m)], (
            filter
        )
    for bounds in ({"gt": 1, "lt": 9}, {"gt": "a", "lt": "b"}):
        with pytest.raises(Misuse, match="field 't' holds lists; here Milvus cannot hold one item to two bounds"):
            index.search(query, 3, filter={"not": {"t": bounds}})
    engine.close()


def test_qdrant_says_what_it_cannot_ask():
    pytest.importorskip("qdrant_client")
    index = built(connect(parse_address("qdrant::memory:"), "filters"), {"dense": Dense(unit(8, 4))}, metadata=METADATA)
    with pytest.raises(Misuse, match="Qdrant has no order of text"):
        index.search(Dense(unit(1, 4)), 3, filter={"t": {"gt": "ant"}})
    with pytest.raises(Misuse, match="cannot ask for a name with a quote"):
        index.search(Dense(unit(1, 4)), 3, filter={'a"b': 1})
    found = index.search(Dense(unit(1, 4)), 8, filter={"t": {"gt": 1, "lt": 9}}).rows[0]
    assert found[found >= 0].tolist() == [4]  # one item is held to both bounds
