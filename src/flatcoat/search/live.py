"""What is served at one moment: base documents, those added, which of them are there, and each leg's view of them.

A state is immutable and a write makes another, so that a search keeps the one it began with. Lists and postings grow in place;
a state reads no further than its own rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from flatcoat.errors import Misuse
from flatcoat.records import full_text
from flatcoat.search.filters import Masks
from flatcoat.search.journal import Document, Record
from flatcoat.search.legs import Added, Encoding, Leg, View


class Texts(Protocol):
    """The base's documents by row, memory-mapped; a collection's table is one."""

    ids: Any
    titles: Any
    bodies: Any
    lookup: Any
    fingerprint: str

    def __len__(self) -> int: ...

    def metadata(self, row: int) -> Mapping[str, Any]:
        """What a row carries beside its text."""
        ...


@dataclass(frozen=True)
class State:
    """Rows are numbered through: the base's, then those added in the order of the journal."""

    texts: Any
    views: Mapping[str, View]
    size: int
    living: int
    alive: np.ndarray | None  # bool [row]; None: every row is there
    sequence: int
    added: list[Document]
    places: dict[str, list[int]]  # rows added of an id, rising
    masks: Masks

    @classmethod
    def begin(cls, texts: Texts, legs: Iterable[Leg], sequence: int = 0) -> State:
        """The base alone."""
        added: list[Document] = []
        read = getattr(texts, "metadata", None)  # a table of an older make has none

        def metadata(row: int) -> Mapping[str, Any]:
            if row < len(texts):
                return {} if read is None else read(row)
            return added[row - len(texts)].metadata

        views = {leg.name: leg.view for leg in legs}
        return cls(texts, views, len(texts), len(texts), None, sequence, added, {}, Masks(metadata))

    def row(self, id: str) -> int | None:
        """The row of a document that is there."""
        mine = [row for row in self.places.get(id, ()) if row < self.size]
        row = mine[-1] if mine else self.texts.lookup.row(id)
        return None if row is None or (self.alive is not None and not self.alive[row]) else row

    def id(self, row: int) -> str:
        """The id of a row."""
        first = len(self.texts)
        return str(self.texts.ids[row]) if row < first else self.added[row - first].id

    @property
    def undone(self) -> int:
        """How many of the rows added are there no longer."""
        return 0 if self.alive is None else int(np.count_nonzero(~self.alive[len(self.texts) :]))

    def document(self, row: int) -> Document:
        """The document of a row."""
        first = len(self.texts)
        if row >= first:
            return self.added[row - first]
        ids, titles, bodies = self.texts.ids, self.texts.titles, self.texts.bodies
        return Document(str(ids[row]), titles[row], bodies[row], dict(self.masks.metadata(row)))

    def allowed(self, given: Mapping[str, Any] | None) -> np.ndarray | None:
        """Which rows may be answers: those there that pass a filter. None is every row. What a filter costs says `Masks`."""
        if not given:
            return self.alive
        mask = self.masks.of(given, self.size)
        return mask if self.alive is None else mask & self.alive

    def after(self, record: Record, legs: Sequence[Leg]) -> State:
        """The state behind a record. What it brings no vectors for, as one written without a leg does, is encoded here."""
        documents, first = record.documents, self.size
        gone = {row for id in (*record.deleted, *(doc.id for doc in documents)) if (row := self.row(id)) is not None}
        views = extended(self.views, legs, added_by(record, legs)) if documents else self.views
        self.added.extend(documents)
        for row, doc in enumerate(documents, start=first):
            self.places.setdefault(doc.id, []).append(row)
        alive = self.alive
        if gone or (alive is not None and documents):
            alive = np.ones(first, bool) if alive is None else alive
            alive = np.concatenate([alive, np.ones(len(documents), bool)])
            alive[sorted(gone)] = False
        sequence = max(self.sequence, record.sequence)  # a compacted journal's records may lie below its floor
        living, size = self.living + len(documents) - len(gone), first + len(documents)
        return replace(self, views=views, size=size, living=living, alive=alive, sequence=sequence)


def encodings(legs: Iterable[Leg]) -> dict[str, Encoding]:
    """The models of some legs, each once, in order."""
    return {leg.encoding.key: leg.encoding for leg in legs if leg.encoding is not None}


def full(documents: Iterable[Document]) -> list[str]:
    """Titles and texts, joined as the base joins them."""
    return [full_text(doc.title, doc.text) for doc in documents]


def added_by(record: Record, legs: Sequence[Leg]) -> Added:
    """A record's rows as legs take them."""
    texts = full(record.documents)
    vectors = {
        key: record.vectors[key] if key in record.vectors else encoding.documents(texts)
        for key, encoding in encodings(legs).items()
    }
    return Added(texts, vectors)


def extended(views: Mapping[str, View], legs: Sequence[Leg], added: Added) -> dict[str, View]:
    """Each leg's view with more rows."""
    return {leg.name: views[leg.name].extended(added) for leg in legs}


def run_of(rows: np.ndarray, scores: np.ndarray, name: Callable[[int], str]) -> list[tuple[str, float]]:
    """One query's matches by id."""
    return [(name(row), score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if row >= 0]


def clean(document: Document) -> Document:
    """A document as it can be written: lone surrogates, which UTF-8 has none of, become question marks. Raises Misuse where
    its metadata is not JSON.
    """
    plain = lambda text: text.encode("utf-8", "replace").decode("utf-8")  # noqa: E731
    try:
        metadata = json.loads(plain(json.dumps(dict(document.metadata), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise Misuse(f"document {document.id!r}: its metadata is not JSON ({error})") from error
    return replace(
        document, id=plain(document.id), title=plain(document.title), text=plain(document.text), metadata=metadata
    )


def check_ids(documents: Sequence[Document]) -> None:
    """Raise Misuse where an id is unusable, or there twice."""
    seen = set()
    for doc in documents:
        if not doc.id or any(ord(c) < 32 for c in doc.id):
            raise Misuse(f"document id {doc.id!r} is empty or has control characters")
        if doc.id in seen:
            raise Misuse(f"document id {doc.id!r} is given twice; ids are unique")
        seen.add(doc.id)
