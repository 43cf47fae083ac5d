"""What is wrong with an index: ids that come twice, and what exact search finds and it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.errors import FlatcoatError

ASKED, DEPTH = 32, 10  # rows that are searched for, and how deep
LOST, UPSIDE_DOWN = 0.9, 0.1


def unique_ids(ids: Sequence[str], where: object) -> list[Finding]:
    """Whether each row has an id of its own: of two rows of one id, a run can hold one (castorini/pyserini#1902)."""
    twice = len(ids) - len(set(ids))
    if twice:
        seen: set[str] = set()
        first = next(id for id in ids if id in seen or seen.add(id))
        message = f"{where}: {twice} rows have the id of another, for example {first!r}"
        return [Finding("error", "ids", message, "give each document an id of its own, and index again")]
    return [ok("ids", f"{where}: {len(ids)} ids, each once")]


def loses(index: Any, exact: Any, queries: Any, where: object) -> list[Finding]:
    """The share of exact search's best that an index finds for a few of its own vectors: `exact` searches the same rows.

    Documents are easier to find than questions are to answer: what is lost here is lost there, and `flatcoat fidelity` measures with
    questions. Ten cells of which one is searched lost 5 points (deepset-ai/haystack#747, facebookresearch/faiss#1244), and an L2 index
    sorted the wrong way gave 0.04 in place of 0.37.
    """
    k = min(DEPTH, len(index))
    try:
        right, found = exact.search(queries, k).rows, index.search(queries, k).rows
    except FlatcoatError as error:
        return [Finding("error", "index-recall", f"{where}: cannot be searched ({error})", "index again")]
    wanted = [set(row[row >= 0].tolist()) for row in right]
    share = [len(own & set(row.tolist())) / len(own) for own, row in zip(wanted, found, strict=True) if own]
    recall = float(np.mean(share)) if share else 1.0
    said = f"{where}: finds {recall:.1%} of what exact search does (best {k}, {len(share)} of its own vectors asked)"
    if recall < UPSIDE_DOWN:
        return [Finding("error", "index-recall", said, "sorted the wrong way, or of other vectors? index again")]
    if recall < LOST:
        return [Finding("warning", "index-recall", said, "flatcoat fidelity finds the setting that meets a target")]
    return [ok("index-recall", said)]
