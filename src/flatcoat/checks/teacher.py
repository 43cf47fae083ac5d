"""What is wrong with a teacher: scores that say nothing, the wrong order, another scale than its student's, other queries.

Scores are given as [query, document], not a number where the teacher says nothing; column 0 is a document that answers the query.
"""

from __future__ import annotations

import numpy as np

from flatcoat.checks.base import Finding, ok

NARROW, WIDE = 0.1, 10.0
WEAKER = 0.1
COVERED = 0.5


def says_something(scores: np.ndarray) -> list[Finding]:
    """Whether a teacher tells a query's documents apart.

    One label read through a softmax is 1 for every pair (rohitg00/agentmemory#724), and a distillation from it teaches nothing.
    """
    rows = np.isfinite(scores).sum(1) > 1
    if not rows.any():
        message = "no query has two documents with a score: there is nothing to learn"
        return [Finding("error", "teacher-constant", message, "score each query's positive and its negatives")]
    some = scores[rows]
    same = np.nanmax(some, 1) - np.nanmin(some, 1) <= 1e-6 * np.maximum(1, np.nanmax(np.abs(some), 1))
    said = f"{same.mean():.0%} of {len(some)} queries have one score for all documents"
    if same.mean() > 0.5:
        return [Finding("error", "teacher-constant", said, "raw scores are wanted, before any softmax or rounding")]
    return [ok("teacher-constant", said)]


def right_way_up(scores: np.ndarray) -> list[Finding]:
    """Whether a query's answer scores above its other documents.

    A distance, or the label "not relevant" of a classifier of two (huggingface/sentence-transformers#568), is upside down.
    """
    right, others = scores[:, :1], scores[:, 1:]
    known = np.isfinite(right) & np.isfinite(others)
    if known.sum() < 10:
        return [ok("teacher-order", f"{int(known.sum())} pairs: too few to compare")]
    share = float(((right > others) + 0.5 * (right == others))[known].mean())
    error = 2.5 * 0.5 / np.sqrt(known.any(1).sum())  # of the share under chance, at about 1 %, a query as one
    said = f"an answer scores above another document in {share:.0%} of {int(known.sum())} pairs"
    if share < 0.5 - error:
        return [Finding("error", "teacher-order", said, "upside down: are they distances, or of the wrong label?")]
    if share <= 0.5 + error:
        return [Finding("warning", "teacher-order", f"{said}, which is chance", "are ids those of this collection?")]
    return [ok("teacher-order", said)]


def same_scale(teacher: np.ndarray, student: np.ndarray, *, margins: bool) -> list[Finding]:
    """How far apart the two put a query's documents; `student` as its loss has it. `margins` where MarginMSE compares differences.

    A teacher's sigmoid, 0 … 1, breaks MarginMSE (huggingface/sentence-transformers#3540); whether to normalise a teacher's scores was
    changed back and forth elsewhere (lightonai/pylate#59, lightonai/pylate#66, lightonai/pylate#142).
    """
    known = np.isfinite(teacher) & np.isfinite(student)
    rows = known.sum(1) > 1
    if not rows.any():
        return [ok("teacher-scale", "too few scores to compare")]
    spread = [
        float(np.mean([own[k].std() for own, k in zip(scores[rows], known[rows], strict=True)]))
        for scores in (teacher, student)
    ]
    if not all(spread):
        return [ok("teacher-scale", "one of the two has one score for all documents: nothing to compare")]
    ratio = spread[0] / spread[1]
    low, high = float(np.nanmin(teacher)), float(np.nanmax(teacher))
    said = f"the teacher's scores, {low:.3g} to {high:.3g}, are spread {ratio:.2g} times as wide as the student's"
    if NARROW <= ratio <= WIDE:
        return [ok("teacher-scale", said)]
    squeezed = "; between 0 and 1, were they put through a sigmoid?" if low >= 0 and high <= 1 else ""
    level = "error" if margins else "warning"
    return [Finding(level, "teacher-scale", said + squeezed, f"teacher.scale times about {1 / ratio:.2g}, or fit")]


def squeezed(scores: np.ndarray) -> list[Finding]:
    """Whether scores of a file lie in 0 … 1, where MarginMSE wants logits (huggingface/sentence-transformers#3540)."""
    low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
    said = f"scores from {low:.3g} to {high:.3g}"
    if low >= 0 and high <= 1:
        return [Finding("warning", "teacher-range", f"{said}: were they put through a sigmoid?",
                        "MarginMSE wants raw scores; KL a teacher.scale of about 20")]  # fmt: skip
    return [ok("teacher-range", said)]


def stronger(teacher: np.ndarray, student: np.ndarray) -> list[Finding]:
    """Whether a teacher ranks judged documents better than its student does before it learns.

    Which model may teach is asked again and again (FlagOpen/FlagEmbedding#815, FlagOpen/FlagEmbedding#949): one that knows more.
    """
    known = np.isfinite(teacher).all(1) & np.isfinite(student).all(1)
    if known.sum() < 10:
        return [ok("teacher-weaker", f"{int(known.sum())} queries: too few to compare")]
    ranks = [
        1 + (s[known, 1:] > s[known, :1]).sum(1) + 0.5 * (s[known, 1:] == s[known, :1]).sum(1)
        for s in (teacher, student)
    ]
    good = [float((1 / rank).mean()) for rank in ranks]
    said = f"RR {good[0]:.3f} of the teacher, {good[1]:.3f} of the student, on {int(known.sum())} judged queries"
    if good[0] < good[1] - WEAKER:
        return [Finding("warning", "teacher-weaker", said, "the student knows more: what is it to learn?")]
    return [ok("teacher-weaker", said)]


def covers(scored: int, wanted: int) -> list[Finding]:
    """The share of the training queries that a teacher's file has scores for (FlagOpen/FlagEmbedding#1170: no scores, a crash)."""
    said = f"{scored} of {wanted} training queries have a teacher's scores"
    if not scored:
        return [Finding("error", "teacher-covers", said, "the file is of another split or collection")]
    if scored < COVERED * wanted:
        return [Finding("warning", "teacher-covers", said, "score the others too; they learn from judgements alone")]
    return [ok("teacher-covers", said)]
