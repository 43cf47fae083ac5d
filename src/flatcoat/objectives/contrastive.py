"""Softmax over one positive and its negatives:

    L = mean_i −log( exp(s(q_i, d_i⁺)/τ) / Σ_j exp(s(q_i, d_j)/τ) )

(DPR, Karpukhin et al. 2020, arXiv 2004.04906, eq. 2; in-batch negatives, Gillick et al. 2019). Documents that are
known to answer q_i, other than d_i⁺, are taken out of the sum by minus infinity.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from flatcoat.objectives.total import Term


def contrastive(
    scores: Float[Tensor, "q d"],
    target: Int64[Tensor, " q"],
    allowed: Bool[Tensor, "q d"],
    temperature: float,
) -> Float[Tensor, ""]:
    """The mean negative log-likelihood of each query's own positive, over the documents that have a score (a number).

    Raises ValueError where temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} is not above 0")
    masked = (scores / temperature).masked_fill(~allowed | scores.isnan(), float("-inf"))
    return cross_entropy(masked.float(), target)


def nll(scorer: str, temperature: float, weight: float = 1.0) -> Term:
    """The contrastive term of one scorer in the evidence."""
    return Term(
        f"nll.{scorer}",
        lambda evidence: contrastive(evidence.scores[scorer], evidence.target, evidence.allowed, temperature),
        weight,
    )
