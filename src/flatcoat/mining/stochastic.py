"""Stochastic negative mining: the hardest, or a softmax draw, of a fresh random part of the corpus.

Reddi, Kale, Yu, Holtmann-Rice, Chen and Kumar 2019, "Stochastic Negative Mining for Learning with Large Output Spaces"
(AISTATS; arXiv 1810.07076). Every `every` steps a part S of the corpus is drawn uniformly without replacement and encoded;
until the next time, negatives of q come from S alone: uniformly from its `pool` best, or from softmax(β·s(q, d)) over S.
The queries are encoded at each draw, so only the documents' side is stale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.base import Drawn, Encode
from flatcoat.mining.draws import Choosing, Known, barred_rows, choose, document_vectors, query_vectors

STREAM = 2  # which of a seed's streams of random numbers is this sampler's


class Stochastic:
    """A part of the corpus with its vectors, drawn and encoded anew after 0, n, 2n, … steps."""

    def __init__(
        self,
        documents: int,
        encode: Encode,
        *,
        every: int,
        size: int | None = None,
        share: float | None = None,
        seed: int = 0,
        choosing: Choosing | None = None,
        known: Known | None = None,
    ):
        """The part is `size` documents, or `share` of the corpus, rounded up; `known` gives positives that `top` leaves out.

        Raises:
            Misuse: neither or both of size and share are given, or they are not within the corpus.
        """
        if every < 1:
            raise Misuse(f"every={every}: want a refresh every 1 step or more")
        self.documents, self.encode, self.every, self.seed, self.known = documents, encode, every, seed, known
        self.size, self.choosing = part_size(documents, size, share), choosing or Choosing("top")
        self.rows = np.zeros(0, dtype=np.int64)
        self.vectors = np.zeros((0, 0), dtype=np.float32)
        self.made_at = -1

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows of the part a query, with replacement; log q is within the part.

        Raises:
            FlatcoatError: no part was drawn yet.
        """
        if self.made_at < 0:
            raise FlatcoatError(
                "no part of the corpus is encoded yet; call after_step(0, encode) before the first draw"
            )
        scores = query_vectors(self.encode, queries) @ self.vectors.T
        barred = None
        if self.choosing.how == "top":
            barred = barred_rows(self.rows, queries, positives, self.known)
        picked = choose(self.choosing, scores, n, rng, barred)
        return Drawn(self.rows[picked.positions], picked.log_q)

    def after_step(self, step: int, encode: Encode) -> None:
        """Draw and encode a new part where that is due."""
        due = self.made_at < 0 or step % self.every == 0
        if not due or self.made_at == step:
            return
        rng = np.random.default_rng([self.seed, STREAM, step])
        self.rows = np.sort(rng.choice(self.documents, self.size, replace=False, shuffle=False)).astype(np.int64)
        self.vectors, self.made_at = document_vectors(encode, self.rows), step

    def told(self, step: int) -> Mapping[str, float]:
        """For the log: steps since what is drawn from was encoded."""
        return {"negatives/stale": float(step - self.made_at)}

    def state(self) -> Mapping[str, np.ndarray]:
        """The part, its vectors, and the step they are of."""
        return {"rows": self.rows, "vectors": self.vectors, "made_at": np.array([self.made_at])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the part."""
        self.rows, self.vectors = np.array(state["rows"]), np.array(state["vectors"])
        self.made_at = int(state["made_at"][0])


def part_size(documents: int, size: int | None, share: float | None) -> int:
    """How many documents a part has. Raises Misuse where that is not said in one way, or is not 1 to `documents`."""
    if (size is None) == (share is None):
        raise Misuse(f"size={size} and share={share}: say one of them, how many documents or which share of the corpus")
    if share is not None and not 0 < share <= 1:
        raise Misuse(f"share={share}: want more than 0 and at most 1")
    found = size if size is not None else max(1, int(np.ceil((share or 0.0) * documents - 1e-9)))
    if not 1 <= found <= documents:
        raise Misuse(f"size={found}: want 1 to {documents}, the documents of the corpus")
    return found
