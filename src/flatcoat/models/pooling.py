"""Pooling: token states in, one vector out. Padding is masked so that it can never win or weigh.

    cls  h_1        mean  (1/n) Σ_{i ≤ n} h_i        max  max_{i ≤ n} h_i, dimension by dimension        last  h_n

n is the number of the text's own tokens, special ones among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

Pooling = Literal["cls", "mean", "max", "last"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


def cls(states: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """The first token's state."""
    return states[:, 0]


def mean(states: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """The mean over the text's own tokens."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def max(states: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """The greatest value of each dimension over the text's own tokens; padding is minus infinity, not zero."""
    return states.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(1)


def last(states: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """The last of the text's own tokens, padding on the right."""
    return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]


POOL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cls": cls, "mean": mean, "max": max, "last": last}
