"""What every source of negatives offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64


class Drawn(NamedTuple):
    """Document rows and the log-probability each was drawn with."""

    rows: Int64[np.ndarray, "query n"]
    log_q: Float32[np.ndarray, "query n"]


@runtime_checkable
class Encode(Protocol):
    """The model as it is now, by rows of the collection."""

    def queries(self, rows: np.ndarray) -> Any:
        """Vectors [query, dim] of query rows, or their term weights."""
        ...

    def documents(self, rows: np.ndarray | None = None) -> Any:
        """Vectors [document, dim] of these document rows, or of the whole corpus; or their term weights."""
        ...


@runtime_checkable
class NegativeSampler(Protocol):
    """Negatives for training queries, which may follow the model."""

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N document rows for each query row; known positives may be among them: the loss masks those."""
        ...

    def after_step(self, step: int, encode: Encode) -> None:
        """Follow the model. Called with 0 before the first step, then after each step with the count of steps done."""
        ...

    def state(self) -> Mapping[str, np.ndarray]:
        """What `restore` needs to go on to the same bits."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a state."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A sampler that has something to say for the log."""

    def told(self, step: int) -> Mapping[str, float]:
        """What is worth a line after a step, by name."""
        ...
