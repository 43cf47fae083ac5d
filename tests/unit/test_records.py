from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatcoat.records import Ranking, full_text


def test_ties_fall_by_document_id_as_in_trec_eval():
    assert Ranking.of([("a", 1.0), ("c", 1.0), ("b", 2.0)]).doc_ids == ("b", "c", "a")


def test_scores_equal_as_float32_are_ties():
    assert Ranking.of([("a", 1.0 + 1e-12), ("b", 1.0)]).doc_ids == ("b", "a")


def test_nan_is_refused_and_extremes_are_not():
    with pytest.raises(ValueError, match="'a' is not a number"):
        Ranking.of([("a", float("nan"))])
    assert Ranking.of([("a", -1e30), ("b", 1e300), ("c", 1e30)]).doc_ids == ("b", "c", "a")


def test_title_rule():
    assert full_text("T", "x") == "T x"
    assert full_text("", "x") == "x"
    assert full_text("T", "") == "T"


@given(st.dictionaries(st.text(min_size=1), st.floats(-1e6, 1e6, width=32)))
def test_a_ranking_is_sorted_and_keeps_everything(scored):
    ranking = Ranking.of(scored)
    assert set(ranking.doc_ids) == set(scored)
    assert (np.diff(ranking.scores) <= 0).all()
