"""TREC runs and qrels, in and out. What Flatcoat wrote, it reads and writes again to the same bytes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from flatcoat.data.lines import text_lines, whole_number
from flatcoat.data.problems import Problems
from flatcoat.errors import FlatcoatError, is_utf8
from flatcoat.files import write_text
from flatcoat.records import Qrels, Ranking, Run

RUNS = (".trec", ".run", ".txt", ".tsv")


def names_run(path: Path | str) -> bool:
    """Whether a file is a run by its name, packed or not; neither a folder nor a model ends so."""
    return str(path).removesuffix(".gz").endswith(RUNS)


def _number(value: float) -> str:
    """A float32 value by its shortest decimal, any other by float64's; read and written again it is the same text."""
    if not math.isfinite(value):
        raise FlatcoatError(f"score {value} is not finite; a run of it could not be read")
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return repr(float(str(single))) if float(single) == value else repr(float(value))


def _one_word(id: str) -> str:
    if not id or id.split() != [id]:
        raise FlatcoatError(f"id {id!r} has white space; TREC's columns are split by it, so it cannot be written")
    if not is_utf8(id) or id.startswith("\ufeff"):
        raise FlatcoatError(f"id {id!r} cannot be written as UTF-8 text; rename it")
    return id


def format_run(run: Run, tag: str = "flatcoat") -> str:
    """`qid Q0 docid rank score tag` a line, ranks from 1."""
    lines = []
    for query_id, ranking in run.items():
        for rank, (doc_id, score) in enumerate(zip(ranking.doc_ids, ranking.scores.tolist(), strict=True), start=1):
            lines.append(f"{_one_word(query_id)} Q0 {_one_word(doc_id)} {rank} {_number(score)} {_one_word(tag)}\n")
    return "".join(lines)


def write_run(path: Path, run: Run, tag: str = "flatcoat") -> None:
    """Write a run atomically."""
    write_text(path, format_run(run, tag))


def read_run(path: Path) -> dict[str, Ranking]:
    """Read a run of 6 columns, or of Tevatron's 3. Ranks are ignored, scores decide, as in trec_eval.

    Raises:
        FlatcoatError: a line of another width, a score that is no finite number, a document twice for a query.
    """
    scored: dict[str, dict[str, float]] = {}
    for place, line in text_lines(path, Problems(strict=True)):
        parts = line.split()
        if not parts:
            continue
        if len(parts) not in (3, 6):
            raise FlatcoatError(f"{place}: {len(parts)} columns; a run has 6: qid Q0 docid rank score tag")
        query_id, doc_id, text = (parts[0], parts[2], parts[4]) if len(parts) == 6 else parts
        ranking = scored.setdefault(query_id, {})
        if doc_id in ranking:
            raise FlatcoatError(f"{place}: document {doc_id!r} stands twice for query {query_id!r}")
        ranking[doc_id] = _score(text, place)
    return {query_id: Ranking.of(ranking) for query_id, ranking in scored.items()}


def _score(text: str, place: str) -> float:
    try:
        score = float(text.replace("_", " "))  # Python reads 1_0 as ten; other tools do not
    except ValueError as error:
        raise FlatcoatError(f"{place}: score {text[:100]!r} is not a number") from error
    if not math.isfinite(score):
        raise FlatcoatError(f"{place}: score {text!r} is not finite")
    return score


def format_qrels(qrels: Qrels) -> str:
    """`qid 0 docid grade` a line."""
    return "".join(
        f"{_one_word(query_id)} 0 {_one_word(doc_id)} {grade}\n"
        for query_id, judged in qrels.items()
        for doc_id, grade in judged.items()
    )


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write qrels atomically."""
    write_text(path, format_qrels(qrels))


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read TREC qrels (4 columns) or BEIR's (3 columns with a header).

    Raises:
        FlatcoatError: a line of another width, a grade that is no whole number, or two grades of one document for a query.
    """
    qrels: dict[str, dict[str, int]] = {}
    for place, line in text_lines(path, Problems(strict=True)):
        parts = line.split("\t") if line.count("\t") in (2, 3) else line.split()
        if not parts or (place.endswith(":1") and len(parts) == 3 and whole_number(parts[2]) is None):
            continue
        if len(parts) not in (3, 4):
            raise FlatcoatError(f"{place}: {len(parts)} columns; qrels have 4: qid 0 docid grade")
        query_id, doc_id, grade = parts[0], parts[-2], whole_number(parts[-1])
        if grade is None:
            raise FlatcoatError(f"{place}: grade {parts[-1][:100]!r} is not a whole number")
        if qrels.setdefault(query_id, {}).setdefault(doc_id, grade) != grade:
            raise FlatcoatError(
                f"{place}: document {doc_id!r} has the grade {grade} for query {query_id!r}, and {qrels[query_id][doc_id]} before"
            )
    return qrels
