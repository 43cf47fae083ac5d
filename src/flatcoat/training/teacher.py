"""Teachers: whose scores a student learns from, by rows of a collection.

A dual encoder scores every query of a batch with every document of it; a scorer of pairs each query's own candidates, once in its life:
what it said is kept on disk; a file says what it says; several together say the mean of what each says on its own scale. Where
one says nothing stands not a number. A query's own answer is read as training shows it: where a made question was cut from its
passage, no model finds it there.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flatcoat.data.lines import json_lines
from flatcoat.data.problems import Problems
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_file, digest, telling
from flatcoat.models.base import Scorer
from flatcoat.models.encode_sparse import encode_sparse
from flatcoat.models.load import Model, encode_texts
from flatcoat.models.splade import SpladeModel
from flatcoat.objectives.total import Evidence


def shown_texts(collection: Collection) -> dict[int, dict[int, str]]:
    """By rows of a query and of a document that answers it, what training shows in place of that document's text."""
    found: dict[int, dict[int, str]] = {}
    for split in collection.splits:
        texts = collection.shown(split)
        if texts is None:
            continue
        for (query, document, grade), text in zip(collection.judgements(split).tolist(), texts, strict=True):
            if grade > 0 and text:
                found.setdefault(query, {})[document] = text
    return found


class ModelTeacher:
    """A dual encoder that does not move; dense vectors of what it has seen are kept."""

    def __init__(self, model: Model, collection: Collection, scale: float = 1.0):
        self.model, self.collection, self.scale = model, collection, scale
        self._shown = shown_texts(collection)
        self._kept: dict[str, dict[int, np.ndarray]] = {"query": {}, "document": {}}

    def score(self, queries: np.ndarray, documents: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Scores [query, document], `scale` times the model's; of all, whatever is `wanted`."""
        asked = self._vectors("query", queries)
        scores = asked @ self._vectors("document", documents).T
        for i, query in enumerate(queries.tolist()):
            own = self._shown.get(query, {})
            places = [j for j, document in enumerate(documents.tolist()) if document in own]
            if places:
                scores[i, places] = self._read(self.model.document, [own[int(documents[j])] for j in places]) @ asked[i]
        return np.float32(self.scale) * scores

    def _vectors(self, side: str, rows: np.ndarray) -> np.ndarray:
        kept = self._kept[side]
        table = self.collection.queries if side == "query" else self.collection.documents
        tower = self.model.query if side == "query" else self.model.document
        distinct, inverse = np.unique(rows, return_inverse=True)
        new = np.array([row for row in distinct.tolist() if row not in kept], dtype=np.int64)
        if isinstance(self.model, SpladeModel):
            return self._read(tower, table.texts(distinct))[inverse]
        if len(new):
            kept.update(zip(new.tolist(), self._read(tower, table.texts(new)), strict=True))
        return np.stack([kept[row] for row in rows.tolist()])

    def _read(self, tower: Any, texts: Sequence[str]) -> np.ndarray:
        sparse = isinstance(self.model, SpladeModel)
        runtime = self.model.runtime
        return encode_sparse(tower, texts, runtime).array() if sparse else encode_texts(tower, texts, runtime)


RECORD = np.dtype([("query", "<i8"), ("document", "<i8"), ("score", "<f4")])
MARK = -1  # the query of a record whose document is the CRC-32 of the records since the last such one


class PairTeacher:
    """A cross-encoder, or any scorer of pairs, that does not move. It scores what is wanted, once: `kept` is a file of what it
    said, added to as it goes; where training shows other texts than the documents', their digest is in its name.
    """

    def __init__(self, model: Scorer, collection: Collection, kept: Path, scale: float = 1.0):
        self._shown = shown_texts(collection)
        if self._shown:
            said = digest([[query, sorted(own.items())] for query, own in sorted(self._shown.items())])
            kept = kept.with_stem(f"{kept.stem}-{said[:8]}")
        self.model, self.collection, self.kept, self.scale = model, collection, kept, scale
        self._known: dict[tuple[int, int], float] = {}
        if kept.is_file():
            self._known = {(int(q), int(d)): float(s) for q, d, s in _kept(kept) if q != MARK}

    def score(self, queries: np.ndarray, documents: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Scores [query, document] of what is `wanted`, wherever it stands, `scale` times the model's; not a number elsewhere."""
        out = np.full(wanted.shape, np.nan, np.float32)
        # a document that stands in the batch twice may compete at another place than where it is wanted
        everywhere = [np.isin(documents, documents[own]) for own in wanted]
        places = [
            (i, int(j), (int(queries[i]), int(documents[j])))
            for i, own in enumerate(everywhere)
            for j in np.flatnonzero(own)
        ]
        self._learn(list(dict.fromkeys(pair for _, _, pair in places if pair not in self._known)))
        for i, j, pair in places:
            out[i, j] = self.scale * self._known[pair]
        return out

    def _learn(self, pairs: list[tuple[int, int]]) -> None:
        if not pairs:
            return
        rows = np.array(pairs)
        asked, whole = self.collection.queries.texts(rows[:, 0]), self.collection.documents.texts(rows[:, 1])
        found = [self._shown.get(q, {}).get(d, text) for (q, d), text in zip(pairs, whole, strict=True)]
        scores = self.model.score(list(asked), found)
        self._known.update(zip(pairs, scores.tolist(), strict=True))
        made = np.zeros(len(pairs) + 1, RECORD)
        made["query"][:-1], made["document"][:-1], made["score"][:-1] = rows[:, 0], rows[:, 1], scores
        made["query"][-1], made["document"][-1] = MARK, zlib.crc32(made[:-1].tobytes())
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        with telling(self.kept), self.kept.open("ab") as file:
            file.write(made.tobytes())


def _kept(path: Path) -> np.ndarray:
    """What a file of scores holds. What was cut off in writing is left out, and taken out of the file.

    Raises:
        FlatcoatError: a score was altered.
    """
    size = path.stat().st_size
    found = np.fromfile(path, RECORD, count=size // RECORD.itemsize)
    begin = 0
    for end in np.flatnonzero(found["query"] == MARK).tolist():
        if zlib.crc32(found[begin:end].tobytes()) != found["document"][end]:
            raise FlatcoatError(f"{path}: altered since it was written; remove it, and its pairs are scored again")
        begin = end + 1
    found = found[:begin] if begin else found  # files of before there were marks have none
    if len(found) * RECORD.itemsize != size:
        with atomic_file(path) as file:
            file.write_bytes(found.tobytes())
    return found


class Ensemble:
    """Several teachers as one: over the documents that all of them score, each one's scores of a query are brought to mean 0 and
    deviation 1; then their mean. With a scorer of pairs among them those are each query's own candidates.
    """

    def __init__(self, teachers: Sequence[Any], scale: float = 1.0):
        self.teachers, self.scale = teachers, scale

    def score(self, queries: np.ndarray, documents: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Scores [query, document]; not a number where a teacher says nothing."""
        given = np.stack([teacher.score(queries, documents, wanted) for teacher in self.teachers])
        together = np.isfinite(given).all(0)
        return np.float32(self.scale) * np.mean([standard(np.where(together, own, np.nan)) for own in given], axis=0)


def standard(scores: np.ndarray) -> np.ndarray:
    """Each row's scores at mean 0 and deviation 1, over those there are; a row of equal scores is all 0."""
    there = np.isfinite(scores)
    count = np.maximum(there.sum(1, keepdims=True), 1)
    centred = np.where(there, scores, 0) - np.where(there, scores, 0).sum(1, keepdims=True) / count
    spread = np.sqrt(np.where(there, centred**2, 0).sum(1, keepdims=True) / count)
    return np.where(there, centred / np.where(spread > 0, spread, 1), np.nan).astype(np.float32)


GRID = tuple(np.geomspace(0.05, 50, 61).tolist())


def fitted_scale(scores: np.ndarray, target: np.ndarray) -> int:
    """Which number of GRID to multiply a teacher's scores [query, document] by, so that its softmax is as sure as it is right.

    The least mean −log P(d⁺) (temperature scaling: Guo et al. 2017, arXiv 1706.04599). Raises ValueError where no query has its
    positive and another document scored.
    """
    rows = np.isfinite(scores[np.arange(len(target)), target]) & (np.isfinite(scores).sum(1) > 1)
    if not rows.any():
        raise ValueError("no query whose positive and another document are scored: there is nothing to fit")
    given, own = np.where(np.isfinite(scores), scores, -np.inf)[rows].astype(np.float64), target[rows]

    def loss(place: int) -> float:
        scaled = given * GRID[place]
        top = scaled.max(1)
        return float(np.mean(np.log(np.exp(scaled - top[:, None]).sum(1)) + top - scaled[np.arange(len(own)), own]))

    return min(range(len(GRID)), key=loss)


class FileTeacher:
    """Scores by query and document row."""

    def __init__(self, scores: dict[int, tuple[np.ndarray, np.ndarray]], scale: float = 1.0):
        """`scores` gives for a query's row the rows of documents, rising, and their scores."""
        self.scores, self.scale = scores, scale

    def score(self, queries: np.ndarray, documents: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Scores [query, document]; not a number for pairs that the file has not."""
        out = np.full((len(queries), len(documents)), np.nan, dtype=np.float32)
        for i, query in enumerate(queries.tolist()):
            if query not in self.scores:
                continue
            rows, scores = self.scores[query]
            at = np.minimum(np.searchsorted(rows, documents), len(rows) - 1)
            known = rows[at] == documents
            out[i, known] = self.scale * scores[at[known]]
        return out


def read_teacher(path: Path, collection: Collection, scale: float = 1.0) -> FileTeacher:
    """Read JSON lines of query_id, document_ids and scores (as PyLate's distillation data has them).

    Raises:
        FlatcoatError: a line without those, an id that the collection has not, or a score that is not a finite number.
    """
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for place, record in json_lines(path, Problems(strict=True)):
        ids, scores = record.get("document_ids"), record.get("scores")
        if not isinstance(ids, list) or not isinstance(scores, list) or len(ids) != len(scores) or not ids:
            raise FlatcoatError(f"{place}: want query_id, document_ids and as many scores")
        query = collection.queries.lookup.row(str(record.get("query_id")))
        if query in found:
            raise FlatcoatError(
                f"{place}: query {record.get('query_id')!r} has scores on an earlier line; put them on one"
            )
        if query is None:
            raise FlatcoatError(f"{place}: query {record.get('query_id')!r} is not of this collection")
        rows = [collection.documents.lookup.row(str(doc)) for doc in ids]
        if None in rows:
            raise FlatcoatError(f"{place}: document {ids[rows.index(None)]!r} is not of this collection")
        values = np.array([s if isinstance(s, int | float) else np.nan for s in scores], dtype=np.float32)
        if not np.isfinite(values).all():
            raise FlatcoatError(f"{place}: scores are to be finite numbers")
        order = np.argsort(np.array(rows, dtype=np.int64), kind="stable")
        found[query] = (np.array(rows, dtype=np.int64)[order], values[order])
    if not found:
        raise FlatcoatError(f"{path}: no scores")
    return FileTeacher(found, scale)


class ScaleWatch:
    """Looks once, at the first step, at how far apart two models put a query's documents: a teacher on another scale than its
    student teaches sharpness, not order.
    """

    def __init__(self, scorer: str, scale: float, note: Callable[[str], None]):
        """`scale` multiplies the student's scores as the loss does."""
        self.scorer, self.scale, self.note = scorer, scale, note

    def after_step(self, step: int, evidence: Evidence) -> dict[str, float]:
        """The spread of the teacher's scores over the student's, at the first step."""
        if step or "teacher" not in evidence.scores:
            return {}
        given = evidence.scores["teacher"].detach()
        own = self.scale * evidence.scores[self.scorer].detach()
        known = given.isfinite() & own.isfinite() & evidence.allowed
        rows = known.sum(1) > 1
        if not rows.any():
            self.note(
                "the teacher scored fewer than two documents of every query of the first batch: it teaches nothing"
            )
            return {}
        spread = [
            torch.stack([s[k].std() for s, k in zip(x[rows], known[rows], strict=True)]).mean() for x in (given, own)
        ]
        ratio = float(spread[0] / spread[1].clamp_min(1e-9))
        if not 0.1 < ratio < 10:
            self.note(f"the teacher's scores are spread {ratio:.2g} times as wide as the student's: set teacher.scale to about "
                      f"1 / {ratio:.2g} of what it is, or training.temperature")  # fmt: skip
        return {"teacher/spread": ratio}

    def state(self) -> Mapping[str, np.ndarray]:
        """Nothing to keep."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing to take over."""
