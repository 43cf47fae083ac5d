"""Ambiguous negatives: those that score about as the positive does are drawn most, neither the hardest nor the easiest.

Zhou et al. 2022, "SimANS: Simple Ambiguous Negatives Sampling for Dense Text Retrieval" (EMNLP, industry track; arXiv
2210.11773). Over the query's ranking, less its positives, by the model as it was at the last refresh:

    p(d) ∝ exp(−a · (s(q, d) − s(q, d⁺) − b)²)

`a` is how sharply, `b` how far above the positive's score the distribution peaks; the paper has a = 0.5, b = 0 over the top
100. d⁺ is one positive taken at random, as in the paper, not the lowest or the mean of all: the one that this batch trains
the query with. s is β·⟨q, d⟩, the score as the loss sees it: between unit vectors scores differ by tenths, and a = 0.5
would hardly tell them apart; β = 1 is the formula on plain inner products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.exact import ExactIndex
from flatcoat.mining.base import Drawn, Encode
from flatcoat.mining.draws import check_beta, document_vectors, query_vectors, softmax_draw
from flatcoat.mining.mine import MineSettings, Refuse, mine


def ambiguity(
    scores: Float32[np.ndarray, "query m"], positive: Float32[np.ndarray, " query"], a: float, b: float, beta: float
) -> Float64[np.ndarray, "query m"]:
    """Logarithm of p(d) but for a constant: −a·(β·(s − s⁺) − b)², in float64; −inf where a score is −inf."""
    gap = beta * (scores.astype(np.float64) - positive[:, None]) - b
    there = scores > -np.inf
    return np.where(there, -a * np.square(gap, where=there, out=np.zeros_like(gap)), -np.inf)


class SimANS:
    """A ranking a training query and its scores, refreshed after 0, n, 2n, … steps; `every` None keeps the first.

    A query whose ranking is empty (every candidate was within a margin) draws from the whole corpus.
    """

    def __init__(
        self,
        queries: np.ndarray,
        positives: Sequence[np.ndarray],
        documents: int,
        settings: MineSettings,
        *,
        a: float = 0.5,
        b: float = 0.0,
        beta: float = 20.0,
        every: int | None = None,
        index: Callable[[Any], Any] = ExactIndex,
        keys: np.ndarray | None = None,
        note: Callable[[str], None] = lambda _: None,
        refuse: Refuse | None = None,
    ):
        """`queries` are the training queries' rows, rising; `index`, `keys` and `refuse` are as `mine` takes them.

        Raises:
            Misuse: a or beta is negative or not finite, b is not finite, or every is below 1.
        """
        if not 0 <= a < np.inf or not np.isfinite(b):
            raise Misuse(f"a={a}, b={b}: want a finite a that is not negative, and a finite b")
        if every is not None and every < 1:
            raise Misuse(f"every={every}: want a refresh every 1 step or more")
        check_beta(beta)
        self.queries, self.positives, self.documents = queries, positives, documents
        self.settings, self.a, self.b, self.beta, self.every = settings, a, b, beta, every
        self.index, self.keys, self.note, self.refuse = index, keys, note, refuse
        self.start = np.concatenate([[0], np.cumsum([len(own) for own in positives])]).astype(np.int64)
        self.pool = np.full((len(queries), 0), -1, dtype=np.int32)
        self.scores = np.zeros(self.pool.shape, dtype=np.float32)
        self.positive_scores = np.zeros(0, dtype=np.float32)  # of all positives, query after query
        self.mined_at = -1

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows a query, with replacement.

        Raises:
            FlatcoatError: nothing was mined yet, or a query or its positive is not one that was mined for.
        """
        if self.mined_at < 0:
            raise FlatcoatError("no ranking is mined yet; call after_step(0, encode) before the first draw")
        places = self._places(queries)
        logits = ambiguity(self.scores[places], self._positive(places, positives), self.a, self.b, self.beta)
        empty = (self.pool[places] < 0).all(1, keepdims=True)
        picked = softmax_draw(np.where(empty, 0.0, logits), n, 1.0, rng)
        anywhere = rng.integers(0, self.documents, (len(queries), n), dtype=np.int64)
        own = np.take_along_axis(self.pool[places], picked.positions, 1)
        log_q = np.where(empty, np.float32(-np.log(self.documents)), picked.log_q)
        return Drawn(np.where(empty, anywhere, own).astype(np.int64), log_q.astype(np.float32))

    def _places(self, queries: np.ndarray) -> np.ndarray:
        places = np.minimum(np.searchsorted(self.queries, queries), max(len(self.queries) - 1, 0))
        strange = np.flatnonzero(self.queries[places] != queries)
        if len(strange):
            raise FlatcoatError(
                f"query row {queries[strange[0]]} is none of the {len(self.queries)} that were mined for"
            )
        return places

    def _positive(self, places: np.ndarray, positives: np.ndarray) -> np.ndarray:
        """The score of each query's given positive, as of the last refresh."""
        out = np.empty(len(places), dtype=np.float32)
        for i, (place, row) in enumerate(zip(places.tolist(), positives.tolist(), strict=True)):
            at = np.flatnonzero(self.positives[int(place)] == row)
            if not len(at):
                raise FlatcoatError(f"document row {row} is no positive of query row {self.queries[place]}")
            out[i] = self.positive_scores[self.start[place] + at[0]]
        return out

    def after_step(self, step: int, encode: Encode) -> None:
        """Mine where a refresh is due."""
        due = self.mined_at < 0 or (self.every is not None and step % self.every == 0)
        if not due or self.mined_at == step:
            return
        vectors, asked = document_vectors(encode), query_vectors(encode, self.queries)
        mined = mine(
            self.index(vectors), asked, self.positives, self.settings,
            vectors=vectors, keys=self.keys, refuse=self.refuse,
        )  # fmt: skip
        self.pool, self.scores, self.mined_at = mined.rows.astype(np.int32), mined.scores, step
        self.positive_scores = np.concatenate(
            [np.zeros(0, np.float32), *(vectors[own] @ query for own, query in zip(self.positives, asked, strict=True))]
        )
        empty = int((self.pool < 0).all(1).sum())
        self.note(f"mined negatives after step {step}: {empty} of {len(self.pool)} queries have none of their own")

    def state(self) -> Mapping[str, np.ndarray]:
        """The rankings with their scores, the positives' scores, and the step they are of."""
        return {
            "pool": self.pool,
            "scores": self.scores,
            "positive_scores": self.positive_scores,
            "mined_at": np.array([self.mined_at]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the rankings."""
        self.pool, self.scores = np.array(state["pool"]), np.array(state["scores"])
        self.positive_scores, self.mined_at = np.array(state["positive_scores"]), int(state["mined_at"][0])
