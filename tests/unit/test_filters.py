"""Filters on metadata, against the condition written again by hand."""

from __future__ import annotations

import numpy as np
import pytest

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
