"""Two readings of one batch, made under different dropout, are to rank alike:

    L = mean_i ½ [ KL(P₁ ‖ P₂) + KL(P₂ ‖ P₁) ],   P = softmax_j( s(q_i, d_j)/τ )

(R-Drop: Liang et al. 2021, arXiv 2106.14448, eq. 2; of dual encoders: ERNIE-Search, Lu et al. 2022, arXiv 2205.09153, §3.4.) Both
readings have gradients.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flatcoat.objectives.total import Term, check_above_zero


def dual_reg(
    scores_one: Float[Tensor, "q d"], scores_two: Float[Tensor, "q d"], allowed: Bool[Tensor, "q d"], temperature: float
) -> Float[Tensor, ""]:
    """The mean divergence, both ways, over queries with at least two documents that both readings scored.

    Raises ValueError where temperature is not above 0.
    """
    check_above_zero("temperature", temperature)
    known = allowed & scores_one.isfinite() & scores_two.isfinite()
    rows = known.sum(1) > 1
    if not rows.any():
        return sum(torch.where(torch.zeros_like(known), s, 0).sum() for s in (scores_one, scores_two))  # pyright: ignore[reportReturnType]
    low = torch.finfo(scores_one.dtype).min
    one, two = (
        (scores / temperature).masked_fill(~known, low)[rows].log_softmax(1) for scores in (scores_one, scores_two)
    )
    # ½ [ Σ P₁ (log P₁ − log P₂) + Σ P₂ (log P₂ − log P₁) ] is one sum
    apart = torch.where(known[rows], one - two, 0)
    return 0.5 * ((one.exp() - two.exp()) * apart).sum(1).mean()


def agree(one: str, two: str, temperature: float, weight: float = 1.0) -> Term:
    """The term of two readings in the evidence."""
    return Term(
        f"dual_reg.{one}.{two}",
        lambda e: dual_reg(e.scores[one], e.scores[two], e.allowed, temperature),
        weight,
    )
