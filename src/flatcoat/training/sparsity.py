"""How sparse a model becomes, and how it is held there: regularisers that follow the training.

A regulariser's strength λ is a number, reached by a quadratic ramp over a share of the run, λ_t = λ min(1, t/T)²
(SPLADE: Formal et al. 2021, arXiv 2107.05720, §3.2), or is found: `terms` says how many terms a text is to keep, and a
controller moves λ until it does. The controller is proportional and integral in log λ; what it steers by is

    e_t = log(active terms now / wanted now),   wanted now = active terms at the start^(1−s) · terms^s,  s = min(1, t/T)

so that the ramp is in the target. Its state is in the checkpoint, so a resumed run goes on to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from flatcoat.objectives.flops import df_flops, flops, l0_flops, l1
from flatcoat.objectives.total import Evidence, Term

Kind = Literal["flops", "l1", "l0-flops", "df-flops"]
Side = Literal["query", "document"]
PROPORTIONAL, SMOOTH = 1.0, 0.8
FIRST = 0.01  # λ × regulariser at the first step: small beside any ranking loss
FORGET = 0.99  # of document frequencies, a step
LEAST, MOST = 1e-7, 1e3  # of λ


@dataclass(frozen=True)
class RegulariserSettings:
    """One side's regulariser: `weight` is λ, or `terms` what λ is to reach; exactly one of them."""

    kind: Kind = "flops"
    weight: float | None = None
    terms: float | None = None
    threshold: int = 150  # l0-flops: texts of up to so many terms pay nothing
    alpha: float = 0.1  # df-flops: the share of texts at which a term pays half
    beta: float = 10.0


class Regulariser:
    """One side's term of the loss, and what it learns from step to step."""

    def __init__(self, side: Side, settings: RegulariserSettings, ramp_steps: int):
        if (settings.weight is None) == (settings.terms is None):
            raise ValueError(f"{side}: say either a weight or the number of terms wanted")
        self.side, self.settings, self.ramp_steps = side, settings, max(1, ramp_steps)
        self.gain = min(
            0.25, max(0.04, 6 / self.ramp_steps)
        )  # of the integral, a step: a short ramp wants a quick hand
        self.integral = math.log(LEAST)
        self.active: float | None = None
        self.first: float | None = None
        self.now = 0.0
        self.frequency: torch.Tensor | None = None

    def term(self) -> Term:
        """The loss's term; its weight is this object's to say."""
        return Term(f"{self.settings.kind}.{self.side}", self._loss, self.weight_at)

    def _loss(self, evidence: Evidence) -> torch.Tensor:
        weights, settings = evidence.extra[self.side], self.settings
        if settings.kind == "flops":
            return flops(weights)
        if settings.kind == "l1":
            return l1(weights)
        if settings.kind == "l0-flops":
            return l0_flops(weights, settings.threshold)
        frequency = self.frequency if self.frequency is not None else (weights.detach() > 0).float().mean(0)
        return df_flops(weights, frequency.to(weights.device), settings.alpha, settings.beta)

    def weight_at(self, step: int) -> float:
        """λ at a step (from 0)."""
        if self.settings.weight is not None:
            return ramped(self.settings.weight, step, self.ramp_steps)
        return self.now

    def wanted_at(self, step: int) -> float:
        """Active terms that the controller steers to at a step."""
        assert self.settings.terms is not None
        if self.first is None:
            return self.settings.terms
        share = min(1.0, step / self.ramp_steps)
        return self.first ** (1 - share) * self.settings.terms**share

    def after_step(self, step: int, evidence: Evidence) -> dict[str, float]:
        """Follow the batch of a step (counted from 0); what is worth a line in the log."""
        used = self.weight_at(step)
        weights = evidence.extra[self.side].detach()
        present = (weights > 0).float()
        mean = float(present.sum(1).mean())
        if self.settings.kind == "df-flops":
            seen = present.mean(0).cpu()
            self.frequency = seen if self.frequency is None else FORGET * self.frequency + (1 - FORGET) * seen
        if self.settings.terms is not None:
            if self.first is None:
                size = max(
                    float(self._loss(Evidence({}, evidence.target, evidence.allowed, {self.side: weights}))), 1e-6
                )
                self.integral = math.log(max(LEAST, min(MOST, FIRST / size)))
            self._steer(step, mean)
        return {f"active/{self.side}": mean, f"lambda/{self.side}": used}

    def _steer(self, step: int, mean: float) -> None:
        self.active = mean if self.active is None else SMOOTH * self.active + (1 - SMOOTH) * mean
        if self.first is None:
            self.first = max(mean, 1.0)
        error = math.log(max(self.active, 0.5) / self.wanted_at(step + 1))
        error = max(-1.0, min(1.0, error))
        self.integral = max(math.log(LEAST), min(math.log(MOST), self.integral + self.gain * error))
        self.now = math.exp(max(math.log(LEAST), min(math.log(MOST), self.integral + PROPORTIONAL * error)))

    def state(self) -> Mapping[str, np.ndarray]:
        """What `restore` needs to go on to the same bits."""
        unknown = float("nan")
        numbers = [self.integral, self.now, *(unknown if x is None else x for x in (self.active, self.first))]
        frequency = np.zeros(0, np.float32) if self.frequency is None else self.frequency.numpy()
        return {"numbers": np.array(numbers, np.float64), "frequency": frequency}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a state."""
        self.integral, self.now, active, first = (float(x) for x in state["numbers"])
        self.active = None if math.isnan(active) else active
        self.first = None if math.isnan(first) else first
        self.frequency = torch.from_numpy(np.array(state["frequency"])) if len(state["frequency"]) else None


def ramped(weight: float, step: int, ramp_steps: int) -> float:
    """λ min(1, t/T)² at step t (from 0)."""
    return weight * min(1.0, step / max(1, ramp_steps)) ** 2
