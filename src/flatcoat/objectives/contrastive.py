"""Softmax over one positive and its negatives:

    L = mean_i −log( exp(s(q_i, d_i⁺)/τ) / Σ_j exp(s(q_i, d_j)/τ) )

(DPR, Karpukhin et al. 2020, arXiv 2004.04906, eq. 2; in-batch negatives, Gillick et al. 2019). Documents that are
known to answer q_i, other than d_i⁺, are taken out of the sum by minus infinity.

Corrected, the sum over documents is an estimate of that over the whole corpus, from n draws of each query's own with
probabilities q (importance weights; Bengio and Senécal 2003; log-q correction, Yi et al. 2019):

    L = mean_i −log( exp(s_i⁺/τ) / (exp(s_i⁺/τ) + (1/n) Σ_j exp(s_ij/τ) / q_ij) )
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from flatcoat.objectives.total import Evidence, Term, check_above_zero


def contrastive(
    scores: Float[Tensor, "q d"],
    target: Int64[Tensor, " q"],
    allowed: Bool[Tensor, "q d"],
    temperature: float,
) -> Float[Tensor, ""]:
    """The mean negative log-likelihood of each query's own positive, over the documents that have a score (a number).

    Raises ValueError where temperature is not above 0.
    """
    check_above_zero("temperature", temperature)
    masked = (scores / temperature).masked_fill(~allowed | scores.isnan(), float("-inf"))
    return cross_entropy(masked.float(), target)


def corrected(
    scores: Float[Tensor, "q d"],
    target: Int64[Tensor, " q"],
    own: Int64[Tensor, "q n"],
    log_q: Float[Tensor, "q n"],
    temperature: float,
) -> Float[Tensor, ""]:
    """The mean estimated negative log-likelihood; `own` are the columns of each query's draws, `log_q` infinite for one left out.

    Raises ValueError where temperature is not above 0.
    """
    check_above_zero("temperature", temperature)
    wide = scores.double() / temperature  # probabilities of one in millions
    positive = wide.gather(1, target[:, None])
    drawn = wide.gather(1, own) - log_q - math.log(max(own.shape[1], 1))
    return (torch.cat([positive, drawn], 1).logsumexp(1) - positive[:, 0]).mean().to(scores.dtype)


def nll_corrected(scorer: str, temperature: float, weight: float = 1.0) -> Term:
    """The corrected contrastive term of one scorer; wants the draws' places and probabilities in the evidence."""

    def loss(evidence: Evidence) -> Tensor:
        return corrected(
            evidence.scores[scorer], evidence.target, evidence.extra["own"], evidence.extra["log_q"], temperature
        )

    return Term(f"nll.{scorer}", loss, weight)


def nll(scorer: str, temperature: float, weight: float = 1.0) -> Term:
    """The contrastive term of one scorer in the evidence."""
    return Term(
        f"nll.{scorer}",
        lambda evidence: contrastive(evidence.scores[scorer], evidence.target, evidence.allowed, temperature),
        weight,
    )
