"""What is wrong with a split's judgements: queries that nothing answers, documents that the corpus has not."""

from __future__ import annotations

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.data.store import Collection

UNKNOWN = "judgement of an unknown document"  # the reader's word for it


def answered(collection: Collection, split: str) -> list[Finding]:
    """Queries of a split that no judgement above 0 answers: trec_eval gives them 0, whoever ranks.

    Some tools leave such queries out of the mean and others do not (joaopalotti/trectools#25): numbers that cannot be compared.
    """
    rows = collection.query_rows(split)
    judged = np.asarray(collection.judgements(split))
    qrels = collection.qrels(split) if UNKNOWN in collection.facts["problems"] else {}
    right = {int(row) for row in np.unique(judged[judged[:, 2] > 0, 0])}
    right |= {row for row in rows.tolist() if any(g > 0 for g in qrels.get(collection.queries.ids[row], {}).values())}
    without = len(rows) - len(right)
    said = f"{without} of {len(rows)} queries of {split!r} have no answer"
    if without:
        level = "error" if without == len(rows) else "warning"
        return [Finding(level, "no-positive", said, "are grades above 0 for what is relevant?")]
    return [ok("no-positive", said)]


def absent(collection: Collection, split: str) -> list[Finding]:
    """Answers that the corpus has not: they count against every system, and no system can find them.

    BEIR's ArguAna judges a document that is not there (beir-cellar/beir#101, beir-cellar/beir#172); ids written in two ways do it to all.
    """
    if UNKNOWN not in collection.facts["problems"]:
        return [ok("absent", f"every judged document of {split!r} is in the corpus")]
    answers = [doc for judged in collection.qrels(split).values() for doc, grade in judged.items() if grade > 0]
    lost = [doc for doc in answers if collection.documents.lookup.row(doc) is None]
    said = f"{len(lost)} of {len(answers)} answers of {split!r} are not in the corpus"
    if lost:
        level = "error" if len(lost) > len(answers) / 2 else "warning"
        return [Finding(level, "absent", f"{said}, for example {lost[0]!r}", "are ids written alike in both files?")]
    return [ok("absent", said)]


def read_well(collection: Collection) -> list[Finding]:
    """What the reader had to skip or mend, a line a kind (an id that comes twice: castorini/pyserini#1902)."""
    found = [
        Finding("warning", "reading", f"{facts['count']} × {kind}, for example {facts['examples'][0]}")
        for kind, facts in collection.facts["problems"].items()
    ]
    return found or [ok("reading", f"{len(collection.documents)} documents, {len(collection.queries)} queries")]
