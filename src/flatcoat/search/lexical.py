"""BM25 over a base and rows added: an added document is scored by the base's statistics, as if it had been a query's find there.

    s(q, d) = Σ_{t ∈ q} idf(t) · tf / (tf + k1 · (1 − b + b · |d| / avg))      idf(t) = ln(1 + (N − df + ½) / (df + ½))

`N`, `df` and the mean length `avg` are the base's, so that scores of old and new documents are on one scale and none moves when
others come. A term that the base does not know takes its df from the rows added (those deleted since among them). Frequent adding calls for
building the index again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from flatcoat.index.base import TopK
from flatcoat.index.bm25 import Bm25Index, tokenize, top_rows
from flatcoat.search.legs import Added, nothing

SAMPLED, RAREST = 16, 8  # documents of the base that its mean length is worked out from, and terms of each


@dataclass(frozen=True)
class Contribution:
    """A term of a query: how often it asks for it, how often the document has it, and its part of the score."""

    term: str
    query: int
    document: int
    product: float


class Base:
    """What the base knows of terms. `texts` are its full texts."""

    def __init__(self, index: Bm25Index, texts: Sequence[str]):
        self.index, self.texts = index, texts

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of texts, as the base counts them."""
        made = tokenize(texts, self.index.settings)
        names = {number: word for word, number in made.vocab.items()}
        return [[names[number] for number in ids] for ids in made.ids]

    def frequency(self, term: str) -> int:
        """How many documents of the base have a term."""
        number = self.index.scorer.vocab_dict.get(term)
        if number is None:
            return 0
        start = self.index.scorer.scores["indptr"]
        return int(start[number + 1] - start[number])

    def idf(self, df: int) -> float:
        """The weight of a term that `df` documents have."""
        return math.log(1 + (max(0, len(self.index) - df) + 0.5) / (df + 0.5))

    @cached_property
    def mean_length(self) -> float:
        """The mean length in terms, worked out from the scores that the base holds: a few documents are counted again."""
        settings, found = self.index.settings, []
        if not settings.b or not settings.k1:  # no length in the formula
            return 1.0
        some = np.unique(np.linspace(0, len(self.index) - 1, SAMPLED).astype(int)).tolist()
        for row, words in zip(some, self.words([str(self.texts[row]) for row in some]), strict=True):
            counts = Counter(words)
            for term in sorted(counts, key=lambda term: (self.frequency(term), term))[:RAREST]:
                tf, idf = counts[term], self.idf(self.frequency(term))
                # held = idf · tf / (tf + k1 · (1 − b + b · |d| / avg)), solved for avg
                rest = tf * (idf / self._held(term, row) - 1) / settings.k1
                found.append(len(words) * settings.b / (rest - (1 - settings.b)))
        return float(np.median(found)) if found else 1.0

    def _held(self, term: str, row: int) -> float:
        scores, number = self.index.scorer.scores, self.index.scorer.vocab_dict[term]
        some = slice(int(scores["indptr"][number]), int(scores["indptr"][number + 1]))
        return float(scores["data"][some][np.flatnonzero(scores["indices"][some] == row)[0]])


@dataclass(frozen=True)
class LexicalView:
    """BM25's base and rows added; postings grow in place, and a view reads its own rows."""

    base: Base
    rows: int = 0
    postings: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # term: row added, tf / (tf + …)

    def __len__(self) -> int:
        return len(self.base.index) + self.rows

    def extended(self, added: Added) -> LexicalView:
        """The same with more rows at its end."""
        postings = self.postings if self.rows else {}  # the first to add has postings of its own
        for row, words in enumerate(self.base.words(added.texts), start=self.rows):
            for term, tf in Counter(words).items():
                postings.setdefault(term, []).append((row, self.share(tf, len(words))))
        return replace(self, rows=self.rows + len(added.texts), postings=postings)

    def idf(self, term: str) -> float:
        """A term's weight by the base; by the rows added where the base does not know it, and 0 where nothing does."""
        df = self.base.frequency(term) or sum(row < self.rows for row, _ in self.postings.get(term, ()))
        return self.base.idf(df) if df else 0.0

    def share(self, tf: int, length: int) -> float:
        """A term's part of its weight: tf / (tf + k1 · (1 − b + b · length / avg))."""
        settings = self.base.index.settings
        return tf / (tf + settings.k1 * (1 - settings.b + settings.b * length / self.base.mean_length))

    def search(self, queries: Sequence[str], k: int, allowed: np.ndarray | None) -> TopK:
        """The best rows of each query text; rows that share no term with it are no matches."""
        out = nothing(len(queries), k)
        for i, words in enumerate(self.base.words(queries)):
            scores = np.concatenate([self._of_base(words), self._of_added(words)]).astype(np.float32)
            if allowed is not None:
                scores[~allowed] = 0
            best = top_rows(scores, min(k, len(scores)))
            best = best[scores[best] > 0]
            out.rows[i, : len(best)], out.scores[i, : len(best)] = best, scores[best]
        return out

    def _of_base(self, words: Sequence[str]) -> np.ndarray:
        index = self.base.index
        known = [word for word in words if word in index.scorer.vocab_dict]
        return index.scorer.get_scores(known) if known else np.zeros(len(index))

    def _of_added(self, words: Sequence[str]) -> np.ndarray:
        scores = np.zeros(self.rows)
        for term, times in Counter(words).items():
            weight = times * self.idf(term)
            for row, share in self.postings.get(term, ()):
                if row < self.rows:
                    scores[row] += weight * share
        return scores

    def contributions(self, query: str, document: str) -> list[Contribution]:
        """The terms that a query and a text share, by their part of the score, which they add up to."""
        asked, held = (self.base.words([text])[0] for text in (query, document))
        counts = Counter(held)
        found = [
            Contribution(term, times, counts[term], times * self.idf(term) * self.share(counts[term], len(held)))
            for term, times in Counter(asked).items()
            if counts[term]
        ]
        return sorted(found, key=lambda each: (-each.product, each.term))
