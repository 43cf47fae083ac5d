"""What is wrong with a run: scores against ranks, distances ranked as similarities, queries that are missing.

Results of an L2 index sorted by falling distance once gave nDCG 0.04 in place of 0.37.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.records import Qrels, Run


def rank_order(path: Path) -> list[Finding]:
    """Whether the rank column and the scores of a TREC run agree; trec_eval obeys the scores alone."""
    against, pairs = 0, 0
    last: tuple[str, int, float] | None = None
    with path.open(encoding="utf-8") as file:
        for line in file:
            parts = line.split()
            try:
                now = (parts[0], int(parts[3]), float(parts[4]))
            except (ValueError, IndexError):
                continue  # reading the run says what is wrong with such a line
            if last and last[0] == now[0] and last[2] != now[2]:
                pairs += 1
                against += (now[1] > last[1]) == (now[2] > last[2])
            last = now
    if pairs and against / pairs > 0.5:
        message = f"{against} of {pairs} neighbours have the better rank with the lower score"
        return [Finding("error", "rank-order", message, "scores look like distances: negate them")]
    return [ok("rank-order", "ranks and scores agree")]


def upside_down(run: Run, qrels: Qrels) -> list[Finding]:
    """Whether relevant documents gather at the foot of the lists: a distance ranked as a similarity."""
    places = []
    for query, judged in qrels.items():
        if query not in run or len(run[query]) < 5:
            continue
        for rank, doc in enumerate(run[query].doc_ids):
            if judged.get(doc, 0) > 0:
                places.append(rank / (len(run[query]) - 1))
    if len(places) >= 10:
        error = 2.5 / np.sqrt(12 * len(places))  # of a uniform place's mean, at about 1 %
        if np.mean(places) > 0.5 + error:
            message = (
                f"{len(places)} relevant documents stand at {np.mean(places):.0%} of their list's depth on average"
            )
            return [
                Finding("error", "upside-down", message, "the best are last: is a distance ranked as a similarity?")
            ]
    return [ok("upside-down", f"{len(places)} relevant documents found where they should be")]


def missing_queries(run: Run, qrels: Qrels) -> list[Finding]:
    """Judged queries that the run has not: each scores 0."""
    missing = [query for query in qrels if query not in run or not len(run[query])]
    if missing:
        message = (
            f"{len(missing)} of {len(qrels)} judged queries have no answer and score 0, for example {missing[0]!r}"
        )
        return [Finding("warning", "missing-queries", message)]
    return [ok("missing-queries", "every judged query is answered")]
