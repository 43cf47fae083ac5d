"""A query's whole list at a time.

    LambdaRank   mean_i Σ_j |ΔnDCG_ij| log( 1 + exp(−(s(q_i,d_i⁺) − s(q_i,d_j))) ),
                 |ΔnDCG_ij| = | 1/log₂(1 + r_i⁺) − 1/log₂(1 + r_ij) |,  r the ranks by the scores themselves, from 1
                 (Burges 2010, MSR-TR-2010-82; as a loss: Wang et al. 2018, CIKM, eq. 10; one answer a query, so the ideal
                 DCG is 1 and its gain 1)
    ListMLE      mean_i −(1/n_i) Σ_r log( exp(s(q_i,d_{π(r)})) / Σ_{r' ≥ r} exp(s(q_i,d_{π(r')})) ),
                 π a teacher's order, best first, of n_i documents      (Xia et al. 2008, ICML)

LambdaRank cares for the top of the list; ListMLE learns a teacher's order and not its scores, so no scale can be wrong. (ListNet of
one answer is `contrastive`, that of a teacher's scores `distil.kl` up to a constant.) Ranks and weights give no gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import softplus

from flatcoat.objectives.pairwise import compared
from flatcoat.objectives.total import Term


def lambdarank(
    scores: Float[Tensor, "q d"], target: Int64[Tensor, " q"], allowed: Bool[Tensor, "q d"]
) -> Float[Tensor, ""]:
    """The mean, over queries with a pair to compare, of logistic losses weighted by what a swap would change of nDCG."""
    pairs = compared(scores, target, allowed)
    discount = 1 / torch.log2(1 + ranks(scores.detach(), allowed).to(scores.dtype))
    swap = (discount.gather(1, target[:, None]) - discount).abs()
    finite = torch.where(allowed & scores.isfinite(), scores, 0)
    margins = torch.where(pairs, finite.gather(1, target[:, None]) - finite, 0)
    losses = torch.where(pairs, swap * softplus(-margins), 0).sum(1)
    return losses.sum() / pairs.any(1).sum().clamp_min(1)


def ranks(scores: Float[Tensor, "q d"], allowed: Bool[Tensor, "q d"]) -> Int64[Tensor, "q d"]:
    """Ranks from 1 of the documents that compete, equal scores by column; those that do not come last."""
    shown = scores.masked_fill(~(allowed & scores.isfinite()), float("-inf"))
    return shown.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1


def list_mle(
    scores: Float[Tensor, "q d"], teacher: Float[Tensor, "q d"], allowed: Bool[Tensor, "q d"]
) -> Float[Tensor, ""]:
    """The mean negative log-likelihood, per document, of the teacher's order, over queries with two documents that both scored.

    What the teacher holds equal is taken in the order of columns.
    """
    known = allowed & teacher.isfinite() & scores.isfinite()
    rows = known.sum(1) > 1
    if not rows.any():
        return torch.where(torch.zeros_like(known), scores, 0).sum()
    known = known[rows]
    order = teacher.detach()[rows].masked_fill(~known, float("-inf")).argsort(dim=1, descending=True, stable=True)
    real = known.gather(1, order)
    listed = scores[rows].gather(1, order).masked_fill(~real, torch.finfo(scores.dtype).min)
    rest = listed.flip(1).logcumsumexp(1).flip(1)
    return (torch.where(real, rest - listed, 0).sum(1) / real.sum(1)).mean()


def listwise_lambda(scorer: str, weight: float = 1.0, scale: float = 1.0) -> Term:
    """The LambdaRank term of one scorer in the evidence; `scale` multiplies its scores (1 / temperature)."""
    return Term(f"lambdarank.{scorer}", lambda e: lambdarank(scale * e.scores[scorer], e.target, e.allowed), weight)


def distil_order(student: str, teacher: str, weight: float = 1.0, scale: float = 1.0) -> Term:
    """The ListMLE term of two scorers in the evidence; `scale` multiplies the student's scores (1 / temperature)."""
    return Term(
        f"list_mle.{teacher}.{student}",
        lambda e: list_mle(scale * e.scores[student], e.scores[teacher], e.allowed),
        weight,
    )
