"""Each pair by itself: is this document an answer?   (monoBERT: Nogueira & Cho 2019, arXiv 1901.04085)

    L = mean over scored pairs of −( w y log σ(s) + (1 − y) log(1 − σ(s)) ),   y = 1 for a query's own positive

w weighs positives, of which there is one among many. Unlike a softmax it teaches scores that mean the same for every query.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from flatcoat.objectives.total import Term, check_above_zero


def bce(
    scores: Float[Tensor, "q d"],
    target: Int64[Tensor, " q"],
    allowed: Bool[Tensor, "q d"],
    positive_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of the pairs that are allowed and have a finite score; nothing where there are none.

    Raises ValueError where positive_weight is not above 0.
    """
    check_above_zero("positive_weight", positive_weight)
    known = allowed & scores.isfinite()
    if not known.any():
        return torch.where(known, scores, 0).sum()
    answer = torch.zeros_like(scores).scatter(1, target[:, None], 1.0)
    weight = torch.tensor(positive_weight, dtype=scores.dtype, device=scores.device)
    return binary_cross_entropy_with_logits(scores[known], answer[known], pos_weight=weight)


def pointwise(scorer: str, positive_weight: float = 1.0, weight: float = 1.0, scale: float = 1.0) -> Term:
    """The cross-entropy term of one scorer in the evidence; `scale` multiplies its scores (1 / temperature)."""
    return Term(f"bce.{scorer}", lambda e: bce(scale * e.scores[scorer], e.target, e.allowed, positive_weight), weight)
