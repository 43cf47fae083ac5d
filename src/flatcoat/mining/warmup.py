"""Uniform negatives until a sampler takes over: before a model has learnt, following it is not worth its cost (Monath et al. 2023, §5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flatcoat.errors import Misuse
from flatcoat.mining.base import Drawn, Encode, NegativeSampler, Telling
from flatcoat.mining.uniform import Uniform


class Warmed:
    """Another sampler, which is not asked for anything before step `until`."""

    def __init__(self, sampler: NegativeSampler, documents: int, until: int):
        if until < 1:
            raise Misuse(f"until={until}: a warm-up lasts 1 step or more")
        self.sampler, self.uniform, self.until, self.step = sampler, Uniform(documents), until, -1

    @property
    def warm(self) -> bool:
        """Whether the other has taken over."""
        return self.step >= self.until

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows a query, of whichever it is now."""
        return (self.sampler if self.warm else self.uniform).draw(queries, positives, n, rng)

    def after_step(self, step: int, encode: Encode) -> None:
        """Follow the model, once warm."""
        self.step = step
        if self.warm:
            self.sampler.after_step(step, encode)

    def told(self, step: int) -> Mapping[str, float]:
        """What the other has to tell."""
        return self.sampler.told(step) if self.warm and isinstance(self.sampler, Telling) else {}

    def state(self) -> Mapping[str, np.ndarray]:
        """The step, and the other's state."""
        own = {f"sampler.{name}": value for name, value in self.sampler.state().items()} if self.warm else {}
        return {"step": np.array([self.step]), **own}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a state."""
        self.step = int(state["step"][0])
        if self.warm:
            self.sampler.restore(
                {name.removeprefix("sampler."): state[name] for name in state if name.startswith("sampler.")}
            )
