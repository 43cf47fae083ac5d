"""What is wrong with a run: scores against ranks, distances ranked as similarities, queries or documents that are missing or strange,
ties, lists that are too short.

Results of an L2 index sorted by falling distance once gave nDCG 0.04 in place of 0.37.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.data.lines import text_lines
from flatcoat.data.problems import Problems
from flatcoat.records import Qrels, Run

MOST_TIED = 0.5
SELF = 0.5


def rank_order(path: Path) -> list[Finding]:
    """Whether the rank column and the scores of a TREC run agree; trec_eval obeys the scores alone. Equal ranks say nothing."""
    against, pairs = 0, 0
    last: tuple[str, int, float] | None = None
    for _, line in text_lines(path, Problems()):
        parts = line.split()
        try:
            now = (parts[0], int(parts[3]), float(parts[4]))
        except (ValueError, IndexError):
            continue  # reading the run says what is wrong with such a line
        if last and last[0] == now[0] and last[1] != now[1] and last[2] != now[2]:
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


def strange_queries(run: Run, qrels: Qrels) -> list[Finding]:
    """Queries of a run that nobody judged: they do not count (AmenRa/ranx#27: ids of two sides that do not meet)."""
    strange = [query for query in run if query not in qrels]
    said = f"{len(strange)} of the run's {len(run)} queries are not judged"
    if len(strange) == len(run) and strange:
        return [Finding("error", "strange-queries", said, "is the run of another split?")]
    if len(strange) > len(run) / 2:
        return [Finding("warning", "strange-queries", f"{said}, for example {strange[0]!r}", "is it of another split?")]
    return [ok("strange-queries", said)]


def strange_documents(run: Run, known: Callable[[str], bool]) -> list[Finding]:
    """Documents of a run's first ten that a collection has not: `known` says which it has.

    An index of another corpus, or ids written in two ways, as 7 and 007 (beir-cellar/beir#101 is one such id).
    """
    named = {doc for ranking in run.values() for doc in ranking.doc_ids[:10]}
    strange = sorted(doc for doc in named if not known(doc))
    said = f"{len(strange)} of {len(named)} documents among the first ten are not in the corpus"
    if len(strange) > len(named) / 2:
        return [
            Finding(
                "error", "strange-documents", f"{said}, for example {strange[0]!r}", "is the run of another corpus?"
            )
        ]
    if strange:
        return [
            Finding(
                "warning", "strange-documents", f"{said}, for example {strange[0]!r}", "is the run of an older corpus?"
            )
        ]
    return [ok("strange-documents", said)]


def relevant_found(run: Run, qrels: Qrels) -> list[Finding]:
    """Whether a run finds any relevant document at all: none of many is no bad system, but another naming of ids."""
    asked = [query for query in qrels if query in run and any(grade > 0 for grade in qrels[query].values())]
    hits = sum(any(qrels[query].get(doc, 0) > 0 for doc in run[query].doc_ids) for query in asked)
    said = f"{hits} of {len(asked)} queries have a relevant document in their list"
    if not hits and len(asked) >= 10:
        return [Finding("error", "nothing-relevant", said, "do run and judgements name documents alike?")]
    return [ok("nothing-relevant", said)]


def tied(run: Run) -> list[Finding]:
    """The share of queries whose first ten all have one score: their order is that of their ids.

    trec_eval orders ties by document id, other tools otherwise (usnistgov/trec_eval#22, Lin and Yang 2019, arXiv 1807.05798).
    """
    heads = [ranking.scores[:10].astype(np.float32) for ranking in run.values() if len(ranking) > 1]
    share = float(np.mean([bool((head == head[0]).all()) for head in heads])) if heads else 0.0
    said = f"{share:.0%} of queries have one score for all of their first ten"
    if share > MOST_TIED:
        return [Finding("error", "ties", said, "write the scores with their decimals: the order is now that of ids")]
    return [ok("ties", said)]


def shallow(run: Run, cut: int) -> list[Finding]:
    """Whether lists are as long as a measure's cut-off: R@1000 of lists of 100 is R@100 (stanford-futuredata/ColBERT#280)."""
    longest = max((len(ranking) for ranking in run.values()), default=0)
    if longest < cut:
        message = f"the longest list has {longest} documents, and a measure looks at {cut}"
        return [Finding("warning", "shallow", message, f"search again with -k {cut}, if the corpus has as many")]
    return [ok("shallow", f"lists of up to {longest} documents, measures of up to {cut}")]


def finds_itself(run: Run) -> list[Finding]:
    """Whether queries find a document of their own id first: a query that stands in the corpus is no answer to itself.

    On ArguAna, taking it out turned 31.5 nDCG@10 into 41.4 (beir-cellar/beir#91).
    """
    first = [ranking.doc_ids[0] == query for query, ranking in run.items() if len(ranking)]
    share = float(np.mean(first)) if first else 0.0
    said = f"{share:.0%} of queries find the document of their own id first"
    if share > SELF:
        return [Finding("warning", "self-match", said, "search with --skip-self, unless ids are alike by chance")]
    return [ok("self-match", said)]
