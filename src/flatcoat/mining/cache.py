"""A negative cache: documents with the vectors they had when they were encoded, a few of them replaced after each step.

Lindgren, Reddi, Guo and Kumar 2021, "Efficient Training of Retrieval Models using Negative Cache" (NeurIPS). Negatives of q
are drawn from P(d) ∝ exp(β·⟨q, c_d⟩) over the cache, q encoded now and c_d when d came in; that P is sampled here exactly,
by inverting its distribution function, where the paper adds Gumbel noise and takes the greatest: the same distribution.
After each step `refresh` entries give place to documents that are drawn uniformly from those that are not then in the cache.
`fifo` replaces what was encoded longest ago; `lru` what was longest not drawn as a negative, where coming in counts as being
drawn: so what is hard stays, and grows stale. The vectors that a training step makes of drawn documents are not taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.base import Drawn, Encode
from flatcoat.mining.draws import check_beta, document_vectors, query_vectors, softmax_draw
from flatcoat.mining.stochastic import part_size

STREAM = 3  # which of a seed's streams of random numbers is this sampler's
Replace = Literal["fifo", "lru"]


class NegativeCache:
    """Rows, their vectors, and for each the steps it was encoded after and last drawn in. No row is in it twice."""

    def __init__(
        self,
        documents: int,
        encode: Encode,
        *,
        size: int,
        refresh: int,
        replace: Replace = "fifo",
        beta: float = 20.0,
        seed: int = 0,
    ):
        """Raises Misuse where size is not 1 to `documents`, refresh not 1 to `size`, or `replace` is unknown."""
        if not 1 <= refresh <= size:
            raise Misuse(f"refresh={refresh}: want 1 to {size}, the entries of the cache")
        if replace not in ("fifo", "lru"):
            raise Misuse(f"replace={replace!r} is no way to replace entries; use 'fifo' or 'lru'")
        check_beta(beta)
        self.documents, self.encode, self.size = documents, encode, part_size(documents, size, None)
        self.refresh, self.replace, self.beta, self.seed = refresh, replace, beta, seed
        self.rows = np.zeros(0, dtype=np.int64)
        self.vectors = np.zeros((0, 0), dtype=np.float32)
        self.encoded_at = np.zeros(0, dtype=np.int64)
        self.used_at = np.zeros(0, dtype=np.int64)
        self.step = -1

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows of the cache a query, with replacement; log q is within the cache. What `lru` remembers moves on.

        Raises:
            FlatcoatError: the cache was not filled yet.
        """
        if self.step < 0:
            raise FlatcoatError("the cache is empty; call after_step(0, encode) before the first draw")
        picked = softmax_draw(query_vectors(self.encode, queries) @ self.vectors.T, n, self.beta, rng)
        self.used_at[np.unique(picked.positions)] = self.step + 1
        return Drawn(self.rows[picked.positions], picked.log_q)

    def after_step(self, step: int, encode: Encode) -> None:
        """Fill the cache the first time, and from then on replace `refresh` entries."""
        if step == self.step:
            return
        rng = np.random.default_rng([self.seed, STREAM, step])
        if self.step < 0:
            self.rows = np.sort(rng.choice(self.documents, self.size, replace=False, shuffle=False)).astype(np.int64)
            self.vectors = np.array(document_vectors(encode, self.rows))
            self.encoded_at, self.used_at = (np.full(self.size, step, dtype=np.int64) for _ in range(2))
        else:
            places = self.next_out()
            self.rows[places] = unlike(np.delete(self.rows, places), len(places), self.documents, rng)
            self.vectors[places] = document_vectors(encode, self.rows[places])
            self.encoded_at[places] = self.used_at[places] = step
        self.step = step

    def next_out(self) -> np.ndarray:
        """Which entries the next refresh replaces; of those equally old the first."""
        keys = (self.encoded_at,) if self.replace == "fifo" else (self.encoded_at, self.used_at)
        return np.lexsort(keys)[: self.refresh]

    def staleness(self) -> float:
        """How many steps ago entries were encoded, on average. Not a number before the cache is filled."""
        return float((self.step - self.encoded_at).mean()) if len(self.rows) else float("nan")

    def told(self, step: int) -> Mapping[str, float]:
        """For the log: steps since what is drawn from was encoded."""
        return {"negatives/stale": self.staleness()}

    def state(self) -> Mapping[str, np.ndarray]:
        """The entries, and the step they are of; copies, for the cache changes in place."""
        return {
            "rows": self.rows.copy(),
            "vectors": self.vectors.copy(),
            "encoded_at": self.encoded_at.copy(),
            "used_at": self.used_at.copy(),
            "step": np.array([self.step]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the entries."""
        self.rows, self.vectors = np.array(state["rows"]), np.array(state["vectors"])
        self.encoded_at, self.used_at = np.array(state["encoded_at"]), np.array(state["used_at"])
        self.step = int(state["step"][0])


def unlike(taken: np.ndarray, n: int, documents: int, rng: np.random.Generator) -> np.ndarray:
    """N distinct document rows, uniformly from those that are not `taken`. `taken` has no row twice.

    Of len(taken) + n distinct rows in random order, at least n are not taken; the first n of these are a uniform draw.
    """
    rows = rng.choice(documents, len(taken) + n, replace=False)
    return rows[~np.isin(rows, taken)][:n].astype(np.int64)
