"""Filters on metadata, against the condition written again by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from flatcoat.errors import Misuse
from flatcoat.search.filters import Masks, compile_filter

ROWS = [
    {"year": 2019, "lang": "en", "tags": ["a", "b"], "open": True},
    {"year": 2021.5, "lang": "de", "tags": ["b"], "open": False},
    {"year": "2021", "lang": "fr", "tags": []},
    {"lang": None, "tags": "a", "n": 1},
    {},
]


def passing(given) -> list[int]:
    test = compile_filter(given)
    return [i for i, row in enumerate(ROWS) if test(row)]


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"lang": "en"}, [0]),
        ({"lang": {"eq": "de"}}, [1]),
        ({"lang": {"in": ["en", "fr", "xx"]}}, [0, 2]),
        ({"lang": {"in": []}}, []),
        ({"year": {"gt": 2019}}, [1]),
        ({"year": {"gte": 2019, "lt": 2021}}, [0]),
        ({"year": {"gte": "2020"}}, [2]),
        ({"year": {"lte": 3000}}, [0, 1]),
        ({"tags": "a"}, [0, 3]),
        ({"tags": {"in": ["b"]}}, [0, 1]),
        ({"tags": {"exists": True}}, [0, 1, 3]),
        ({"lang": {"exists": False}}, [3, 4]),
        ({"lang": {"exists": False, "eq": "en"}}, []),
        ({"open": True}, [0]),
        ({"open": 1}, []),
        ({"n": True}, []),
        ({"n": 1.0}, [3]),
        ({"lang": "en", "year": 2019}, [0]),
        ({"lang": "en", "year": 2020}, []),
        ({"or": [{"lang": "en"}, {"lang": "de"}]}, [0, 1]),
        ({"and": [{"tags": "b"}, {"not": {"lang": "en"}}]}, [1]),
        ({"not": {"tags": "a"}}, [1, 2, 4]),
        ({"not": {}}, []),
    ],
)
def test_what_passes(given, rows):
    assert passing(given) == rows


def test_operators_of_a_list_hold_for_one_item_together():
    test = compile_filter({"n": {"gt": 2, "lt": 5}})
    assert test({"n": [1, 3]}) and not test({"n": [1, 7]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"year": {"gt": None}}, "null equals nothing"),
        ({"year": {"gte": True}}, "want a number or text, not True"),
        ({"year": {"gr": 1}}, "no operator 'gr'; did you mean 'gt'"),
        ({"year": {}}, "says nothing"),
        ({"lang": ["en"]}, "want text, a number, true or false, not ['en']"),
        ({"lang": {"in": "en"}}, "want a list, not 'en'"),
        ({"lang": {"in": [["en"]]}}, "want text, a number, true or false"),
        ({"lang": {"exists": 1}}, "want true or false, not 1"),
        ({"and": {"a": 1}}, "want a list of filters"),
        ({"or": []}, "want a list of filters"),
        ({"not": 3}, "not 3"),
        ({"or": [{"a": 1}] * 2000}, "more than 1024 conditions"),
    ],
)
def test_what_is_no_filter_is_refused(given, said):
    with pytest.raises(Misuse, match="filter") as error:
        compile_filter(given)
    assert said in str(error.value)


def test_too_deep_is_refused():
    given: dict = {"a": 1}
    for _ in range(40):
        given = {"not": given}
    with pytest.raises(Misuse, match="deeper than 16"):
        compile_filter(given)


def test_masks_read_a_row_once_a_filter_and_forget_the_oldest():
    asked: list[int] = []

    def metadata(row):
        asked.append(row)
        return {"n": row}

    masks = Masks(metadata, keep=2)
    even = {"n": {"in": [0, 2, 4]}}
    np.testing.assert_array_equal(masks.of(even, 3), [True, False, True])
    np.testing.assert_array_equal(masks.of(even, 5), [True, False, True, False, True])
    np.testing.assert_array_equal(masks.of(even, 2), [True, False])
    assert asked == [0, 1, 2, 3, 4]
    masks.of({"n": 1}, 5), masks.of(even, 5), masks.of({"n": 2}, 5)
    assert len(asked) == 15
    masks.of(even, 5)
    assert len(asked) == 15  # it was used later than the one that is forgotten
    masks.of({"n": 1}, 5)
    assert len(asked) == 20


SCALARS = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from([2**53, 2**53 + 1, 0.5, -0.0, 2.0**53]), st.sampled_from("aäb")
)
VALUES = st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=3), st.just({"a": 1}))
FIELDS = st.sampled_from(["x", "y", "nowhere"])
BOUNDS = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), SCALARS.filter(lambda v: not isinstance(v, bool)))
SAID = st.one_of(
    st.fixed_dictionaries({}, optional={"eq": SCALARS, "in": st.lists(SCALARS, max_size=3), "exists": st.booleans()}),
    BOUNDS,
).filter(bool)
FILTERS = st.recursive(
    st.dictionaries(FIELDS, SAID, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@drawn(
    st.lists(st.dictionaries(st.sampled_from(["x", "y"]), VALUES), min_size=1, max_size=12),
    st.lists(st.tuples(FILTERS, st.integers(1, 12)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_columns_say_what_the_definition_says(rows, asked, few):
    masks = Masks(lambda row: rows[row], keep=2, few=few, most=40)
    for given, count in asked:
        count = min(count, len(rows))
        test = compile_filter(given)
        assert masks.of(given, count).tolist() == [test(row) for row in rows[:count]]


def test_columns_are_read_once_a_field_and_not_for_fields_that_nobody_has():
    asked: list[int] = []

    def metadata(row):
        asked.append(row)
        return {"n": row, "even": row % 2 == 0}

    masks = Masks(metadata, keep=1, few=2)
    for number in range(20):
        assert np.flatnonzero(masks.of({"n": number}, 50)).tolist() == [number]
    assert len(asked) == 50
    assert not masks.of({"other": 1}, 50).any() and masks.of({"n": {"lt": 7}}, 52).sum() == 7
    assert len(asked) == 52  # two rows more, one by one
    assert masks.of({"even": True}, 60).sum() == 30 and masks.of({"n": {"gte": 55}}, 60).sum() == 5
    assert len(asked) == 52 + 60 + 10


def test_columns_used_longest_ago_are_forgotten():
    masks = Masks(lambda row: {"a": row, "b": row, "c": row}, keep=1, few=0, most=250)
    for field in "abac":
        masks.of({field: 1}, 10)
    assert list(masks._columns) == ["a", "c"]
