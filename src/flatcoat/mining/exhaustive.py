"""The oracle of every sampler that follows the model: all documents' vectors, and the exact softmax, or the best, of them.

P(d) ∝ exp(β·s(q, d)) over the whole corpus, the distribution of the full softmax loss's gradient (Bengio and Senécal 2008,
"Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model"). With `every` 1 nothing is
stale, and each step encodes the corpus: for collections of thousands of documents, or to measure other samplers by. The
vectors are in the checkpoint. Queries are scored in blocks; how many are in one changes scores by rounding only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.base import Drawn, Encode
from flatcoat.mining.draws import Choosing, Known, barred_rows, choose, document_vectors, query_vectors

A_SCORE = (
    24  # bytes while drawing: the score in float32, its logit and its mass in float64, or its like in `top`, and masks
)


class Exhaustive:
    """The corpus's vectors, encoded anew after 0, n, 2n, … steps; `every` None keeps the first."""

    def __init__(
        self,
        documents: int,
        encode: Encode,
        *,
        every: int | None = 1,
        choosing: Choosing | None = None,
        known: Known | None = None,
        score_bytes: int = 1 << 28,
    ):
        """`known` gives positives that `top` leaves out; `score_bytes` bounds what scores take at once.

        Raises:
            Misuse: every is below 1, or one query's scores take more than `score_bytes`.
        """
        if every is not None and every < 1:
            raise Misuse(f"every={every}: want a refresh every 1 step or more")
        if score_bytes < documents * A_SCORE:
            raise Misuse(
                f"score_bytes={score_bytes} does not hold one query's {documents} scores; "
                f"use at least {documents * A_SCORE}"
            )
        self.documents, self.encode, self.every, self.known = documents, encode, every, known
        self.choosing, self.block = choosing or Choosing(), score_bytes // max(documents * A_SCORE, 1)
        self.vectors = np.zeros((0, 0), dtype=np.float32)
        self.made_at = -1

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows a query, with replacement.

        Raises:
            FlatcoatError: the corpus was not encoded yet.
        """
        if self.made_at < 0:
            raise FlatcoatError("the corpus is not encoded yet; call after_step(0, encode) before the first draw")
        asked = query_vectors(self.encode, queries)
        rows = np.empty((len(queries), n), dtype=np.int64)
        log_q = np.empty(rows.shape, dtype=np.float32)
        for start in range(0, len(queries), self.block):
            part = slice(start, start + self.block)
            picked = choose(
                self.choosing, asked[part] @ self.vectors.T, n, rng, self._barred(queries[part], positives[part])
            )
            rows[part], log_q[part] = picked
        return Drawn(rows, log_q)

    def _barred(self, queries: np.ndarray, positives: np.ndarray) -> np.ndarray | None:
        if self.choosing.how != "top":
            return None
        return barred_rows(np.arange(self.documents), queries, positives, self.known)

    def after_step(self, step: int, encode: Encode) -> None:
        """Encode the corpus where that is due."""
        due = self.made_at < 0 or (self.every is not None and step % self.every == 0)
        if not due or self.made_at == step:
            return
        self.vectors, self.made_at = document_vectors(encode), step

    def told(self, step: int) -> Mapping[str, float]:
        """For the log: steps since what is drawn from was encoded."""
        return {"negatives/stale": float(step - self.made_at)}

    def state(self) -> Mapping[str, np.ndarray]:
        """The vectors, and the step they are of."""
        return {"vectors": self.vectors, "made_at": np.array([self.made_at])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the vectors."""
        self.vectors, self.made_at = np.array(state["vectors"]), int(state["made_at"][0])
