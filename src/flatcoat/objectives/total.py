"""Composition is a list: a loss is the weighted sum of named terms over the scores that a batch shows.

    L(t) = Σ_k λ_k(t) L_k

t is the step, λ_k a number or a function of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int64
from torch import Tensor


def check_above_zero(name: str, value: float) -> None:
    """Raises ValueError where a number is not above 0."""
    if not value > 0:
        raise ValueError(f"{name} {value} is not above 0")


@dataclass(frozen=True)
class Evidence:
    """What a batch shows: scores [query, document] by scorer's name, each query's own positive, and what may compete.

    Not a number stands where a scorer said nothing: a cross-encoder scores each query's own candidates. `allowed[i, j]` is
    false where document j must not count as a negative of query i (a known positive, a repeat).
    """

    scores: Mapping[str, Float[Tensor, "q d"]]
    target: Int64[Tensor, " q"]
    allowed: Bool[Tensor, "q d"]
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True)
class Term:
    """One part of a loss; `weight` is a number or a function of the step (from 0)."""

    name: str
    loss: Callable[[Evidence], Tensor]
    weight: float | Callable[[int], float] = 1.0

    def weight_at(self, step: int) -> float:
        """The weight at a step."""
        return self.weight(step) if callable(self.weight) else self.weight


def total(terms: Sequence[Term], evidence: Evidence, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum and each term's own value. Raises ValueError where two terms share a name, or none is given."""
    if not terms or len({term.name for term in terms}) != len(terms):
        raise ValueError("a loss wants at least one term, each under its own name")
    values = {term.name: term.loss(evidence) for term in terms}
    weighted = [term.weight_at(step) * values[term.name] for term in terms]
    return sum(weighted[1:], weighted[0]), values
