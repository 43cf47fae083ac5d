"""Learning from a teacher's scores. t [query, document] are the teacher's, not a number where it said nothing.

    Margin-MSE   mean over pairs (d⁺, d) of ((s(q,d⁺) − s(q,d)) − (t(q,d⁺) − t(q,d)))²    (Hofstätter et al. 2020, arXiv 2010.02666)
    KL           mean_i Σ_j P_t(j) log( P_t(j) / P_s(j) ),  P = softmax over the documents the teacher scored

The teacher gives no gradient. Documents that may not compete (`allowed`) are left out, as in the contrastive loss: a query's
other positives would be taught twice.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from flatcoat.objectives.total import Term, check_above_zero


def margin_mse(
    scores: Float[Tensor, "q d"],
    teacher: Float[Tensor, "q d"],
    target: Int64[Tensor, " q"],
    allowed: Bool[Tensor, "q d"],
) -> Float[Tensor, ""]:
    """Squared difference of margins. Queries whose positive the teacher did not score, or scored alone, count nothing."""
    known = allowed & teacher.isfinite() & scores.isfinite()
    scores = scores.masked_fill(~known, 0)
    rows = torch.arange(len(target), device=target.device)
    margin = scores[rows, target][:, None] - scores
    wanted = (teacher[rows, target][:, None] - teacher).detach()
    pairs = known & known[rows, target][:, None]
    pairs = pairs.index_put((rows, target), torch.tensor(False, device=target.device))
    if not pairs.any():
        return scores.sum() * 0
    return (margin[pairs] - wanted[pairs]).square().mean()


def kl(
    scores: Float[Tensor, "q d"], teacher: Float[Tensor, "q d"], allowed: Bool[Tensor, "q d"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Mean divergence of the student from the teacher over queries with at least two documents that both scored.

    Raises ValueError where temperature is not above 0.
    """
    check_above_zero("temperature", temperature)
    known = allowed & teacher.isfinite() & scores.isfinite()
    scores = scores.masked_fill(~known, 0)
    rows = known.sum(1) > 1
    if not rows.any():
        return scores.sum() * 0
    low = torch.finfo(torch.float32).min
    given = (teacher.detach().float() / temperature).masked_fill(~known, low)[rows].log_softmax(1)
    own = (scores.float() / temperature).masked_fill(~known, low)[rows].log_softmax(1)
    return torch.where(known[rows], given.exp() * (given - own), 0).sum(1).mean()


def distil_margin(student: str, teacher: str, weight: float = 1.0, scale: float = 1.0) -> Term:
    """The Margin-MSE term of two scorers in the evidence; `scale` multiplies the student's scores (1 / temperature)."""
    return Term(
        f"margin_mse.{teacher}.{student}",
        lambda e: margin_mse(scale * e.scores[student], e.scores[teacher], e.target, e.allowed),
        weight,
    )


def distil_kl(student: str, teacher: str, weight: float = 1.0, temperature: float = 1.0, scale: float = 1.0) -> Term:
    """The KL term of two scorers in the evidence; `scale` multiplies the student's scores, `temperature` divides both."""
    return Term(
        f"kl.{teacher}.{student}",
        lambda e: kl(scale * e.scores[student], e.scores[teacher], e.allowed, temperature),
        weight,
    )
