"""What keeps sparse representations sparse, and alive. w [text, term] are non-negative term weights of a batch.

    FLOPS        Σ_j ( mean_i w_ij )²                                     (Paria et al. 2020, arXiv 2004.05665)
    L1           mean_i Σ_j w_ij
    L0 FLOPS     FLOPS over texts of more than `threshold` terms only     (Geng et al. 2024, arXiv 2504.14839)
    DF-FLOPS     Σ_j a(DF_j) ( mean_i w_ij )²,
                 a(x) = 1 / (1 + (x^{log_α 2} − 1)^β),  DF a share        (Porco et al. 2025, arXiv 2505.15070)
    anti-collapse   1 / (mean_i Σ_j q_ij)² + 1 / (mean_i Σ_j d_ij)²      (naver/splade's trainer)

FLOPS sees neither a term that every text carries at a low weight nor that such a term, adding the same to every score, has
no gradient from any ranking loss; DF-FLOPS charges a term for the share of texts it is in. Each takes the batch as it is
given: the step engine gives the whole batch of all processes, so that no value depends on how many they are.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

Weights = Float[Tensor, "i v"]


def flops(weights: Weights) -> Float[Tensor, ""]:
    """The expected number of multiplications of two texts' dot product, smoothed."""
    return weights.mean(0).square().sum()


def l1(weights: Weights) -> Float[Tensor, ""]:
    """The mean sum of a text's weights."""
    return weights.sum(1).mean()


def l0_flops(weights: Weights, threshold: int) -> Float[Tensor, ""]:
    """FLOPS of the texts of more than `threshold` terms, counted over the whole batch; shorter ones pay nothing."""
    long = (weights.detach() > 0).sum(1, keepdim=True) > threshold
    return (weights * long).mean(0).square().sum()


def df_flops(
    weights: Weights, frequency: Float[Tensor, " v"], alpha: float = 0.1, beta: float = 10.0
) -> Float[Tensor, ""]:
    """FLOPS weighted by document frequency, a share from 0 to 1: at `alpha` a term pays half, beyond it all, below next to nothing.

    Raises ValueError where alpha is not within 0 and 1.
    """
    return (df_activation(frequency, alpha, beta) * weights.mean(0).square()).sum()


def df_activation(frequency: Float[Tensor, " v"], alpha: float, beta: float) -> Float[Tensor, " v"]:
    """a(x): 0 at 0, a half at `alpha`, 1 at 1, the steeper the larger `beta`. Raises ValueError where `alpha` is not within 0 and 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} is not within 0 and 1")
    grown = frequency.clamp(1e-12, 1).pow(math.log(2) / math.log(alpha)) - 1
    return 1 / (1 + grown.pow(beta))


def anti_collapse(queries: Weights, documents: Float[Tensor, "d v"]) -> Float[Tensor, ""]:
    """Grows without bound as either side's weights go to nothing."""
    floor = torch.finfo(queries.dtype).eps
    return sum((side.sum(1).mean() + floor).pow(-2) for side in (queries, documents))  # pyright: ignore[reportReturnType]
