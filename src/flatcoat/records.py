"""The nouns: documents, queries, rankings, runs and judgements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import numpy as np


class Document(NamedTuple):
    """A retrievable unit of text."""

    id: str
    text: str
    title: str = ""


class Query(NamedTuple):
    """A question."""

    id: str
    text: str


def full_text(title: str, text: str) -> str:
    """The one rule by which a title joins its text: a single space between, no space where either is empty."""
    return f"{title} {text}".strip() if title else text


@dataclass(frozen=True)
class Ranking:
    """One query's answer: by falling score, equal scores by falling document id, as trec_eval orders them.

    Scores are compared as 32-bit floats, because trec_eval holds them so.
    """

    doc_ids: tuple[str, ...]
    scores: np.ndarray  # float64 [k]

    @classmethod
    def of(cls, scored: Mapping[str, float] | Iterable[tuple[str, float]]) -> Ranking:
        """Order (document id, score) pairs. Raises ValueError on a score that is not a number."""
        pairs = list(cast("Mapping[str, float]", scored).items() if isinstance(scored, Mapping) else scored)
        scores = np.array([score for _, score in pairs], dtype=np.float64)
        if np.isnan(scores).any():
            where = pairs[int(np.flatnonzero(np.isnan(scores))[0])][0]
            raise ValueError(f"the score of document {where!r} is not a number")
        with np.errstate(over="ignore"):
            single = scores.astype(np.float32)
        order = sorted(range(len(pairs)), key=lambda i: (single[i], pairs[i][0]), reverse=True)
        return cls(tuple(pairs[i][0] for i in order), scores[order])

    def __len__(self) -> int:
        return len(self.doc_ids)

    def as_dict(self) -> dict[str, float]:
        """Document id to score."""
        return dict(zip(self.doc_ids, self.scores.tolist(), strict=True))


Run = Mapping[str, Ranking]
Qrels = Mapping[str, Mapping[str, int]]

Item = TypeVar("Item")


@runtime_checkable
class Track(Protocol):
    """Shows progress over an iterable."""

    def __call__(self, items: Iterable[Item], total: int | None, label: str, /) -> Iterable[Item]:
        """The same items again; `total` is how many there are, where that is known."""
        ...


def silent(items: Iterable[Item], total: int | None = None, label: str = "") -> Iterable[Item]:
    """The `Track` that shows nothing."""
    return items
