"""Whether a sparse model stays alive while it trains, with the cause and the cure where it does not.

    saturation = mean over the heaviest terms j of |{texts i: w_ij > 0}| / n        active = (1/n) Σ_i |{j: w_ij > 0}|

Every few steps, on the documents and queries of the batch: how many terms a text has; *saturation*, the share of texts
that hold the heaviest term (a term of every text adds the same to every score: no ranking loss removes it); the share of
all weight on punctuation and stop words; texts without a term; texts whose representations are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flatcoat.errors import FlatcoatError
from flatcoat.objectives.total import Evidence

TOP = 10  # heaviest terms of the batch that saturation is taken over


class Vital(NamedTuple):
    """One side of one batch."""

    active: float  # mean terms a text
    saturation: float  # mean document frequency of the TOP heaviest terms, a share
    noise: float  # share of all weight on punctuation, stop words and special tokens
    dead: float  # share of texts without a term
    same: float  # share of texts whose representation is another's of the batch


def vital(weights: Tensor, noise: Tensor) -> Vital:
    """Signs of life of term weights [text, term]; `noise` is true for terms that carry no content."""
    present = weights > 0
    mass = weights.sum(0)
    total = float(mass.sum())
    heaviest = mass.topk(min(TOP, len(mass))).indices
    live = present.any(1)
    # equal rows have equal projections; different rows have equal ones with probability 0
    rng = torch.Generator().manual_seed(0)
    marks = weights @ torch.randn(weights.shape[1], generator=rng).to(weights.device)
    distinct = len(torch.unique(marks[live])) if live.any() else 0
    return Vital(
        float(present.sum(1).float().mean()),
        float(present[:, heaviest].float().mean()) if total else 0.0,
        float(mass[noise].sum()) / total if total else 0.0,
        float((~live).float().mean()),
        1 - distinct / max(1, int(live.sum())),
    )


class Health:
    """Watches a run. `names` are the vocabulary's texts, `noise` which of them are punctuation, stop words or special."""

    def __init__(
        self, names: list[str], noise: np.ndarray, note: Callable[[str], None], *, every: int = 10, settled: int = 0
    ):
        """Looks every `every` steps; alarms about what regularisers are there to mend wait for step `settled`."""
        self.names, self.noise, self.note, self.every = names, torch.from_numpy(noise), note, every
        self.settled = settled
        self.said: set[str] = set()

    def after_step(self, step: int, evidence: Evidence) -> dict[str, float]:
        """Look at a step's batch. Raises FlatcoatError where nothing is left to train."""
        if step % self.every:
            return {}
        values: dict[str, float] = {}
        for side in ("query", "document"):
            weights = evidence.extra[side].detach()
            found = vital(weights, self.noise.to(weights.device))
            values |= {f"{name}/{side}": value for name, value in found._asdict().items() if name != "active"}
            self._alarm(step, side, found, weights)
        return values

    def _alarm(self, step: int, side: str, found: Vital, weights: Tensor) -> None:
        if found.dead > 0.99:
            raise FlatcoatError(
                f"step {step + 1}: every {side} representation is empty: the regulariser has won; lower the weight of "
                "sparsity or give it a number of terms, lengthen sparsity.ramp, or set sparsity.anti_collapse"
            )
        if found.dead > 0.1:
            self._once(f"dead/{side}", f"step {step + 1}: {found.dead:.0%} of {side} texts have no term left; lower "
                       f"the sparsity of {side}, or set sparsity.anti_collapse")  # fmt: skip
        if found.same > 0.5:
            self._once(f"same/{side}", f"step {step + 1}: {found.same:.0%} of {side} representations are the same: one "
                       "position wins every maximum, or the rate is too high; lower training.rate or start elsewhere")  # fmt: skip
        if step < self.settled:
            return
        if found.saturation > 0.8:
            top = weights.sum(0).topk(min(5, weights.shape[1])).indices.tolist()
            words = ", ".join(repr(self.names[i]) for i in top)
            self._once(f"saturation/{side}", f"step {step + 1}: the heaviest {side} terms ({words}) are in {found.saturation:.0%} of "
                       "texts and rank little; sparsity.{side} = \"df-flops\" makes them dear")  # fmt: skip
        if found.noise > 0.2:
            self._once(f"noise/{side}", f"step {step + 1}: {found.noise:.0%} of {side} weight is on punctuation, stop words and "
                       "special tokens; switch them off: sparsity.off = [\"special\", \"punctuation\", \"stopwords\"]")  # fmt: skip

    def _once(self, what: str, message: str) -> None:
        if what not in self.said:
            self.said.add(what)
            self.note(message)

    def state(self) -> Mapping[str, np.ndarray]:
        """Nothing but what was said, which may be said again."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing to take over."""
