"""What is wrong with negatives that are given: answers among them, queries without any."""

from __future__ import annotations

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.data.pairs import Pairs

MOST_RIGHT = 0.05
FEWEST = 0.5


def false_negatives(given: np.ndarray, pairs: Pairs) -> list[Finding]:
    """The share of given negatives, [n, 2] rows of query and document, that are judged answers, or have the text of one.

    They are left out in training; a file full of them was made of something else (AnswerDotAI/RAGatouille#100,
    huggingface/sentence-transformers#3279).
    """
    own = given[np.isin(given[:, 0], pairs.queries)] if len(given) else given
    right = [pairs.keys[document] in pairs.known[int(query)] for query, document in own]
    share = float(np.mean(right)) if right else 0.0
    said = f"{share:.1%} of {len(own)} given negatives are answers, or have the text of one"
    if share > MOST_RIGHT:
        level = "error" if share > 0.5 else "warning"
        return [Finding(level, "false-negatives", said, "mine again, with the split's judgements")]
    return [ok("false-negatives", said)]


def for_all(given: np.ndarray, pairs: Pairs) -> list[Finding]:
    """The share of training queries that have negatives given.

    What mining could not find was counted fifteen times over (huggingface/sentence-transformers#3504).
    """
    wanted = np.unique(pairs.queries)
    have = int(np.isin(wanted, given[:, 0]).sum()) if len(given) else 0
    said = f"{have} of {len(wanted)} training queries have negatives"
    if not have:
        return [Finding("error", "negatives-cover", said, "the file is of another split or collection")]
    if have < FEWEST * len(wanted):
        return [Finding("warning", "negatives-cover", said, "mine for the others too, or a negatives.kind that mines")]
    return [ok("negatives-cover", said)]
