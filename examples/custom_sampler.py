"""Negatives of one's own: documents near the answer in the collection, such as the same file's other passages.

    python examples/custom_sampler.py MODEL COLLECTION OUT

What a sampler must do is `flatcoat.mining.base.NegativeSampler`, and `flatcoat.testing.sampler.SamplerContract` tests it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flatcoat.data.collection import open_collection
from flatcoat.data.pairs import load_pairs
from flatcoat.mining.base import Drawn, Encode
from flatcoat.models.checkpoint import load_dense
from flatcoat.objectives.contrastive import nll
from flatcoat.training.loop import LoopSettings, Training
from flatcoat.training.student import DenseStudent


class Neighbours:
    """Rows uniformly within `reach` of the positive's; the loss masks known answers, whoever drew them."""

    def __init__(self, documents: int, reach: int = 10):
        self.documents, self.reach = documents, reach

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows a query, and the log-probability of each."""
        width = min(2 * self.reach + 1, self.documents)
        first = np.clip(positives - self.reach, 0, self.documents - width)
        rows = first[:, None] + rng.integers(0, width, (len(queries), n))
        return Drawn(rows.astype(np.int64), np.full(rows.shape, -np.log(width), np.float32))

    def after_step(self, step: int, encode: Encode) -> None:
        """Nothing: nearness does not depend on the model."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Nothing to keep for a resumed run."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing to take over."""


def main(source: str, name: str, out: Path, steps: int = 20) -> Training:
    """Train with them."""
    collection, student = open_collection(name, out / "store"), DenseStudent(load_dense(source))
    sampler, settings = Neighbours(len(collection.documents)), LoopSettings(steps=steps, batch=8, negatives=2)
    pairs, terms = load_pairs(collection, "train"), [nll("dual", 0.05)]
    training = Training(student, pairs, terms, settings, out, sampler=sampler)
    training.run()
    return training


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
