"""Two documents at a time: does the answer stand above the other?  Over pairs of a query's own positive d⁺ and a document d:

    RankNet   mean log( 1 + exp(−(s(q,d⁺) − s(q,d))) )       (Burges et al. 2005, ICML, eq. 3 with P̄ = 1)
    hinge     mean max(0, margin − (s(q,d⁺) − s(q,d)))       (ranking SVM: Joachims 2002, KDD)

Pairs count where both have a score and may compete; a query whose positive has none counts nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import softplus

from flatcoat.objectives.total import Term, check_above_zero


def ranknet(
    scores: Float[Tensor, "q d"], target: Int64[Tensor, " q"], allowed: Bool[Tensor, "q d"]
) -> Float[Tensor, ""]:
    """The mean logistic loss of margins."""
    return _mean(softplus(-_margins(scores, target, allowed)), scores)


def hinge(
    scores: Float[Tensor, "q d"], target: Int64[Tensor, " q"], allowed: Bool[Tensor, "q d"], margin: float = 1.0
) -> Float[Tensor, ""]:
    """The mean shortfall of margins. Raises ValueError where margin is not above 0."""
    check_above_zero("margin", margin)
    return _mean(torch.relu(margin - _margins(scores, target, allowed)), scores)


def compared(
    scores: Float[Tensor, "q d"], target: Int64[Tensor, " q"], allowed: Bool[Tensor, "q d"]
) -> Bool[Tensor, "q d"]:
    """Which documents are compared with their query's positive."""
    known = allowed & scores.isfinite()
    own = torch.zeros_like(known).scatter(1, target[:, None], True)
    return known & ~own & known.gather(1, target[:, None])


def _margins(scores: Tensor, target: Tensor, allowed: Tensor) -> Tensor:
    pairs = compared(scores, target, allowed)
    return (scores.gather(1, target[:, None]).expand_as(scores))[pairs] - scores[pairs]


def _mean(losses: Tensor, scores: Tensor) -> Tensor:
    return losses.mean() if len(losses) else torch.where(torch.zeros_like(scores, dtype=torch.bool), scores, 0).sum()


def pairwise_logistic(scorer: str, weight: float = 1.0, scale: float = 1.0) -> Term:
    """The RankNet term of one scorer in the evidence; `scale` multiplies its scores (1 / temperature)."""
    return Term(f"ranknet.{scorer}", lambda e: ranknet(scale * e.scores[scorer], e.target, e.allowed), weight)


def pairwise_hinge(scorer: str, margin: float = 1.0, weight: float = 1.0, scale: float = 1.0) -> Term:
    """The hinge term of one scorer in the evidence; `scale` multiplies its scores (1 / temperature)."""
    return Term(f"hinge.{scorer}", lambda e: hinge(scale * e.scores[scorer], e.target, e.allowed, margin), weight)
