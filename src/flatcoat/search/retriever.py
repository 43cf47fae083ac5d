"""A served folder as one process has it: search over several legs, fused and re-ranked, and writing that outlives a kill.

Searching reads one immutable state and takes no lock; writing puts a record on disk, then a new state in place.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse, nearest
from flatcoat.records import Ranking
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.search.explained import explain
from flatcoat.search.fuse import DEEPEST, WAYS, fused
from flatcoat.search.journal import Document, Journal, Record
from flatcoat.search.legs import Leg
from flatcoat.search.live import State, Texts, check_ids, clean, encodings, full, run_of
from flatcoat.search.missed import missed
from flatcoat.search.packing import check_finite

UNDONE = 1000  # rows added and gone that are borne with, and half of all that were added
SAMPLED = 1000  # documents that are asked for their fields, where the table does not say


class Conflict(FlatcoatError):
    """A document of that id is there already."""


@dataclass(frozen=True)
class Hit:
    """An answer: its score in the ranking given, and what each leg said of it (rank from 1, score)."""

    id: str
    score: float
    found_by: Mapping[str, tuple[int, float]]


@dataclass(frozen=True)
class Asked:
    """How to search. `k` answers from `offset` on; several legs are fused by `rank` or `score`; `rerank` is how many of the best.

    Pages (one `k`, rising `offset`) follow one another without gap or repetition while nothing is written. One leg's equal scores come
    in the order of rows, and an approximate leg may find other documents when it is asked for more. Of several legs the first 100
    matches are fused; behind what they give comes what the first 1000 add, and there it ends.
    """

    retrievers: tuple[str, ...]
    k: int = 10
    offset: int = 0
    fuse: str = "rank"
    weights: tuple[float, ...] | None = None
    filter: Mapping[str, Any] | None = None
    rerank: int | None = None


@dataclass(frozen=True)
class Answers:
    """A ranking for each query, the seconds of each part, and the number of the last record that was searched."""

    rankings: list[list[Hit]]
    seconds: dict[str, float]
    sequence: int


@dataclass(frozen=True)
class LegFacts:
    """What a leg is."""

    name: str
    kind: str
    index: str
    model: str | None
    approximate: bool
    documents: int


class Retriever:
    """Search and writing over a base, what was written since, and models; safe for one searching thread beside those that write."""

    def __init__(
        self, texts: Texts, legs: Sequence[Leg], journal: Path, scorer: Any = None, reranker: str | None = None
    ):
        if not legs:
            raise Misuse("nothing to search with: give at least one retriever")
        self.texts, self.scorer, self.reranker = texts, scorer, reranker
        self.legs: Mapping[str, Leg] = {leg.name: leg for leg in legs}
        self.journal = Journal(journal, {"corpus": texts.fingerprint})
        self._all = list(legs)
        self._changing = threading.Lock()
        self._twins: dict[str, Any] = {}
        self._state = State.begin(texts, legs)
        self.catch_up()

    def __len__(self) -> int:
        return self._state.living

    @property
    def sequence(self) -> int:
        """The number of the last record of the journal that searches see."""
        return self._state.sequence

    def facts(self) -> list[LegFacts]:
        """The legs, in order."""
        living = len(self)
        return [
            LegFacts(
                leg.name, leg.kind, leg.index, leg.encoding.name if leg.encoding else None, leg.approximate, living
            )
            for leg in self._all
        ]

    def fields(self) -> list[str]:
        """The names of metadata's fields."""
        state, said = self._state, getattr(self.texts, "fields", None)
        some = range(min(SAMPLED, len(self.texts))) if said is None else ()
        names = {name for row in some for name in state.masks.metadata(row)} | set(said() if said is not None else ())
        return sorted(names | {name for doc in state.added[: state.size - len(self.texts)] for name in doc.metadata})

    def catch_up(self) -> int:
        """Take up what other processes wrote, and give the sequence number; without news this costs one stat.

        Raises:
            FlatcoatError: the journal is damaged, or of another corpus.
        """
        if self.journal.fresh() and self._changing.acquire(blocking=False):  # who holds it takes all up itself
            try:
                self._follow()
            finally:
                self._changing.release()
        return self.sequence

    def _follow(self) -> None:
        anew, records = self.journal.follow()
        state = State.begin(self.texts, self._all, self.journal.floor) if anew else self._state
        with self._or_anew():
            for record in records:
                state = state.after(record, self._all)
        self._state = state

    @contextlib.contextmanager
    def _or_anew(self) -> Generator[None, None, None]:
        """What fails half-way is read again from the journal's beginning."""
        try:
            yield
        except BaseException:
            self.journal.close()
            raise

    def search(self, queries: Sequence[str], asked: Asked) -> Answers:
        """Rankings of queries, which are encoded together, once a model.

        Raises:
            Misuse: an unknown leg or way to fuse, weights that do not fit, a filter that is none, re-ranking without a scorer,
                or ranks past 1000 of several legs.
        """
        started, state = time.perf_counter(), self._state
        legs = self._checked(asked, state.size)
        if not queries:
            return Answers([], dict.fromkeys(("encode", "search", "rerank", "total"), 0.0), state.sequence)
        allowed = state.allowed(asked.filter)
        encoded = {key: encoding.queries(queries) for key, encoding in encodings(legs).items()}
        ready = time.perf_counter()
        places: dict[str, int] = {}  # rows of what was found, so that names lead back

        def take(depth: int) -> list[dict[str, Ranking]]:
            return [self._run(leg, state, encoded, queries, min(depth, state.size), allowed, places) for leg in legs]

        runs, best = fused(take, len(legs), asked.fuse, asked.weights, min(_last(asked), state.size))
        found = time.perf_counter()
        if asked.rerank:
            best = self._reranked(best, state, queries, asked.rerank, places)
        end = time.perf_counter()
        seconds = {"encode": ready - started, "search": found - ready, "rerank": end - found, "total": end - started}
        named = [(leg.name, run) for leg, run in zip(cycle(legs), runs, strict=False)]
        rankings = [
            _hits(best[str(i)], [(name, run[str(i)]) for name, run in named], asked) for i in range(len(queries))
        ]
        return Answers(rankings, seconds, state.sequence)

    def _checked(self, asked: Asked, size: int) -> list[Leg]:
        if asked.k < 1 or asked.offset < 0:
            raise Misuse(f"k={asked.k}, offset={asked.offset}: want at least 1, and at least 0")
        if asked.fuse not in WAYS:
            raise Misuse(f"fuse={asked.fuse!r}: want rank or score")
        names = asked.retrievers or (self._all[0].name,)
        if len(set(names)) < len(names):
            raise Misuse(f"retrievers {', '.join(names)}: name each once")
        if len(names) > 1 and min(_last(asked), size) > DEEPEST:
            raise Misuse(f"rank {_last(asked)} of {len(names)} retrievers: together they give at most {DEEPEST} ranks")
        if asked.weights is not None and (len(asked.weights) != len(names) or not np.isfinite(asked.weights).all()):
            raise Misuse(f"{len(asked.weights)} weights for {len(names)} retrievers; give one number each")
        if asked.rerank is not None and asked.rerank < 1:
            raise Misuse(f"rerank={asked.rerank}: want at least 1, or none at all")
        if asked.rerank and self.scorer is None:
            raise Misuse("rerank: there is no reranker here; serve a run that trained a cross-encoder, or leave it out")
        return [self._leg(name) for name in names]

    def _leg(self, name: str) -> Leg:
        if name not in self.legs:
            raise Misuse(f"no retriever {name!r}; there are {', '.join(self.legs)}{nearest(name, list(self.legs))}")
        return self.legs[name]

    def _run(
        self, leg: Leg, state: State, encoded: Mapping[str, Any], queries: Sequence[str], k: int,
        allowed: np.ndarray | None, places: dict[str, int],
    ) -> dict[str, Ranking]:  # fmt: skip
        given = queries if leg.encoding is None else encoded[leg.encoding.key]
        top = state.views[leg.name].search(given, k, allowed)
        run = {}
        for i in range(len(queries)):
            pairs = run_of(top.rows[i], top.scores[i], state.id)
            places.update(zip((id for id, _ in pairs), top.rows[i].tolist(), strict=False))
            ids, scores = tuple(id for id, _ in pairs), np.array([score for _, score in pairs], np.float64)
            run[str(i)] = Ranking(ids, scores)  # equal scores by row, as the leg cuts them off; by id, pages overlap
        return run

    def _reranked(
        self, run: Mapping[str, Ranking], state: State, queries: Sequence[str], n: int, places: Mapping[str, int]
    ) -> dict[str, Ranking]:
        from flatcoat.search.rerank import rerank

        text = lambda id: full([state.document(places[id])])[0]  # noqa: E731
        return rerank(run, self.scorer, lambda number: queries[int(number)], text, n)

    def document(self, id: str) -> Document | None:
        """A document that is there, or None."""
        state = self._state
        row = state.row(id)
        return None if row is None else state.document(row)

    def add(self, documents: Sequence[Document], *, replace: bool = False) -> int:
        """Encode documents, write them (they are on disk when this returns), and let searches see them; give the sequence number.

        Raises:
            Conflict: an id is there already, and `replace` is false. Nothing is added then.
            Misuse: an id twice or unusable, or metadata that JSON has no word for.
            FlatcoatError: the journal cannot be written, or a model gives what is not finite.
        """
        given = [clean(doc) for doc in documents]
        if not given:
            return self.catch_up()
        check_ids(given)
        self.catch_up()
        self._free(given, replace)
        texts = full(given)
        vectors = {key: encoding.documents(texts) for key, encoding in encodings(self._all).items()}
        for key, made in vectors.items():
            check_finite(made, key)
        return self._write(given, (), vectors, lambda: self._free(given, replace))

    def delete(self, ids: Sequence[str]) -> tuple[int, int]:
        """Delete documents; give how many were there, and the sequence number. Raises FlatcoatError where the disk refuses."""
        wanted = list(dict.fromkeys(ids))
        gone: list[str] = []
        sequence = self._write(
            (), gone, {}, lambda: gone.extend(id for id in wanted if self._state.row(id) is not None)
        )
        return len(gone), sequence

    def _write(
        self,
        documents: Sequence[Document],
        deleted: Sequence[str],
        vectors: Mapping[str, Any],
        check: Callable[[], None],
    ) -> int:
        with self._changing, self.journal.writing():
            self._follow()
            check()
            if documents or deleted:
                record = Record(self.sequence + 1, tuple(documents), tuple(deleted), vectors)
                with self._or_anew():
                    state = self._state.after(record, self._all)  # first: what cannot be taken in must not be on disk
                    self.journal.append(record)
                self._state = state
            return self.sequence

    def _free(self, documents: Sequence[Document], replace: bool) -> None:
        if replace:
            return
        there = [doc.id for doc in documents if self._state.row(doc.id) is not None]
        if there:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise Conflict(f"document {there[0]!r}{more} is there already; say replace to put another in its place")

    def compact(self) -> tuple[int, int]:
        """Rewrite the journal without what is undone; give its bytes before and after. Others notice, and begin anew."""
        with self._changing:
            made = self.journal.compact(self._in_base)
            self._follow()
        return made

    def _in_base(self, id: str) -> bool:
        return self.texts.lookup.row(id) is not None

    def tidy(self) -> bool:
        """Compact where most of what was added is gone again; whether it did. Costs next to nothing where there is nothing to do.

        Raises:
            FlatcoatError: the journal is damaged.
            OSError: the disk refuses; the journal is as it was.
        """
        if not self._untidy():
            return False
        with self._changing, self.journal.writing():
            self._follow()
            if not self._untidy():  # another process did it
                return False
            self.journal.rewrite(self._in_base)
            self._follow()
        return True

    def _untidy(self) -> bool:
        state, added = self._state, self._state.size - len(self.texts)
        return added >= UNDONE and state.undone >= max(UNDONE, added / 2)

    def explain(self, query: str, document: Document, leg: str) -> dict[str, Any]:
        """Why a leg gives a document its score: terms, token matches or passages, by the leg's kind."""
        found = self._leg(leg)
        return explain(found, self._state.views[leg], query, full([document])[0])

    def missed(self, query: str, leg: str, k: int) -> dict[str, Any]:
        """What exact search has among its best k and the leg's index does not, and the time that each takes.

        Raises:
            Misuse: an unknown leg, k below 1, or full vectors that are not there.
        """
        found = self._leg(leg)
        if k < 1:
            raise Misuse(f"k={k}: want at least 1")
        if found.twin is not None and leg not in self._twins:
            self._twins[leg] = found.twin()
        return missed(found, self._state, query, k, self._twins.get(leg))

    def embed(self, texts: Sequence[str], kind: str, side: str) -> Dense | Sparse | MultiVector:
        """Vectors of texts by the first model of a kind (dense, sparse, late), of a side (query, document).

        Raises:
            Misuse: no retriever of that kind, or no such side.
        """
        if side not in ("query", "document"):
            raise Misuse(f"side {side!r}: want query or document")
        encoding = self._encoding(kind)
        return encoding.queries(texts) if side == "query" else encoding.documents(texts)

    def _encoding(self, kind: str) -> Any:
        for encoding in encodings(self._all).values():
            if encoding.kind == kind:
                return encoding
        raise Misuse(
            f"no {kind} retriever here; there are {', '.join(f'{leg.name} ({leg.kind})' for leg in self._all)}"
        )

    def vocabulary(self) -> list[str]:
        """The terms of the sparse leg, by number. Raises Misuse where there is none."""
        return list(self._encoding("sparse").model.vocabulary)

    def token_count(self, texts: Sequence[str]) -> int:
        """How many tokens the first model makes of texts; words, where there is no model."""
        for encoding in encodings(self._all).values():
            return int(sum(len(ids) for ids in encoding.model.document.tokenize(list(texts))))
        return sum(len(text.split()) for text in texts)

    def close(self) -> None:
        """Let go of the journal's file."""
        with self._changing:
            self.journal.close()


def _last(asked: Asked) -> int:
    """The last rank that is wanted."""
    return max(asked.k + asked.offset, asked.rerank or 0)


def _hits(best: Ranking, runs: Sequence[tuple[str, Ranking]], asked: Asked) -> list[Hit]:
    """The answers asked for, with each leg's rank and score."""
    said: dict[str, dict[str, tuple[int, float]]] = {}
    for name, run in runs:
        for rank, (id, score) in enumerate(run.as_dict().items(), start=1):
            said.setdefault(id, {})[name] = (rank, score)
    some = slice(asked.offset, asked.offset + asked.k)
    pairs = zip(best.doc_ids[some], best.scores[some].tolist(), strict=True)
    return [Hit(id, score, said[id]) for id, score in pairs]
