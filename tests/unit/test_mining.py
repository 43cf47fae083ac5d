from __future__ import annotations

import numpy as np
import pytest

from flatcoat.errors import Misuse
from flatcoat.index.bm25 import Bm25Index
from flatcoat.index.exact import ExactIndex
from flatcoat.mining.mine import MineSettings, as_pairs, mine
from flatcoat.testing.index import unit

DOCS, QUERIES = unit(60, 16), unit(9, 16, seed=1)
POSITIVES = [np.array([i, i + 20]) for i in range(9)]


def by_hand(query, settings):
    """The definition, one query at a time."""
    scores = DOCS @ QUERIES[query]
    order = [int(d) for d in np.argsort(-scores) if d not in POSITIVES[query]]
    window = order[settings.first - 1 : settings.last]
    low = min(float(scores[d]) for d in POSITIVES[query])
    kept = []
    for d in window:
        s = float(scores[d])
        if settings.max_score is not None and s > settings.max_score:
            continue
        if settings.absolute_margin is not None and not s < low - settings.absolute_margin:
            continue
        if settings.relative is not None and not s < low - (1 - settings.relative) * abs(low):
            continue
        kept.append(d)
    return kept


@pytest.mark.parametrize(
    "settings",
    [
        MineSettings(1, 5),
        MineSettings(4, 12),
        MineSettings(1, 40, relative=0.95),
        MineSettings(1, 40, absolute_margin=0.1),
        MineSettings(2, 58, max_score=0.2),
    ],
)
def test_mining_is_its_definition(settings):
    mined = mine(ExactIndex(DOCS), QUERIES, POSITIVES, settings, vectors=DOCS)
    for query in range(9):
        rows = mined.rows[query]
        assert rows[rows >= 0].tolist() == by_hand(query, settings)


def test_a_document_equal_to_a_positive_is_no_negative():
    keys = np.arange(60)
    best = int(np.argmax(np.where(np.isin(np.arange(60), POSITIVES[0]), -9, DOCS @ QUERIES[0])))
    keys[best] = keys[POSITIVES[0][0]]
    mined = mine(ExactIndex(DOCS), QUERIES, POSITIVES, MineSettings(1, 5), keys=keys)
    assert best not in mined.rows[0]


def test_a_judge_may_refuse():
    mined = mine(ExactIndex(DOCS), QUERIES, POSITIVES, MineSettings(1, 9), refuse=lambda query, rows: rows % 2 == 0)
    assert all(row % 2 for row in mined.rows[mined.rows >= 0])


def test_from_bm25_and_its_margin_is_refused():
    texts = ["red fox", "red hen", "red dog", "blue cat"]
    index = Bm25Index.build(texts)
    mined = mine(index, ["red fox"], [np.array([0])], MineSettings(1, 3))
    assert sorted(as_pairs(mined, [7]).tolist()) == [[7, 1], [7, 2]]
    with pytest.raises(Misuse, match="margin"):
        mine(index, ["red fox"], [np.array([0])], MineSettings(1, 3, relative=0.9))


def test_ranks_are_checked():
    with pytest.raises(Misuse, match="ranks 5 to 2"):
        MineSettings(5, 2)
