"""Negatives mined by the model itself and mined anew every n steps (ANCE: Xiong et al. 2021, arXiv 2007.00808).

Between refreshes a query draws uniformly from its own list, which is as stale as the steps since. A query whose list is
empty (every candidate was within a margin) draws from the whole corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flatcoat.index.exact import ExactIndex
from flatcoat.mining.base import Drawn, Encode
from flatcoat.mining.mine import MineSettings, Refuse, mine


class Periodic:
    """A list of hard negatives a training query, refreshed after 0, n, 2n, … steps; `every` None keeps the first."""

    def __init__(
        self,
        queries: np.ndarray,
        positives: Sequence[np.ndarray],
        documents: int,
        settings: MineSettings,
        *,
        every: int | None = None,
        index: Callable[[Any], Any] = ExactIndex,
        keys: np.ndarray | None = None,
        note: Callable[[str], None] = lambda _: None,
        refuse: Refuse | None = None,
    ):
        """`queries` are the training queries' rows, rising; `index` builds one from the corpus's vectors; `refuse` is `mine`'s."""
        self.queries, self.positives, self.documents = queries, positives, documents
        self.settings, self.every, self.index, self.keys, self.note = settings, every, index, keys, note
        self.refuse = refuse
        self.pool = np.full((len(queries), 0), -1, dtype=np.int32)
        self.mined_at = -1

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows a query, with replacement."""
        pool = self.pool[np.searchsorted(self.queries, queries)]
        sizes = (pool >= 0).sum(1)
        picks = (rng.random((len(queries), n)) * np.maximum(sizes, 1)[:, None]).astype(np.int64)
        anywhere = rng.integers(0, self.documents, (len(queries), n), dtype=np.int64)
        if pool.shape[1]:
            rows = np.where(sizes[:, None] > 0, np.take_along_axis(pool, picks, 1), anywhere).astype(np.int64)
        else:
            rows = anywhere
        log_q = -np.log(np.where(sizes > 0, sizes, self.documents))[:, None]
        return Drawn(rows, np.broadcast_to(log_q, rows.shape).astype(np.float32))

    def after_step(self, step: int, encode: Encode) -> None:
        """Mine where a refresh is due."""
        due = self.mined_at < 0 if self.every is None else step % self.every == 0
        if not due or self.mined_at == step:
            return
        vectors = encode.documents()
        asked = encode.queries(self.queries)
        mined = mine(
            self.index(vectors), asked, self.positives, self.settings,
            vectors=vectors, keys=self.keys, refuse=self.refuse,
        )  # fmt: skip
        self.pool, self.mined_at = mined.rows.astype(np.int32), step
        empty = int((self.pool < 0).all(1).sum())
        self.note(f"mined negatives after step {step}: {empty} of {len(self.pool)} queries have none of their own")

    def state(self) -> Mapping[str, np.ndarray]:
        """The lists, and the step they are of."""
        return {"pool": self.pool, "mined_at": np.array([self.mined_at])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the lists."""
        self.pool, self.mined_at = np.array(state["pool"]), int(state["mined_at"][0])
