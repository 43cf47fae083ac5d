"""Cross-entropy over the vocabulary at masked positions, without its tensor of position × vocabulary:

    L_i = log Σ_j exp(z_ij) − z_{i,t_i}        z_ij = h_i · w_j + b_j        (BERT: Devlin et al. 2019, arXiv 1810.04805)

The sum over the vocabulary is taken a block at a time, log Σ exp carried from block to block, and the blocks are made again on
the way back, where ∂L_i/∂z_ij = softmax(z_i)_j − [j = t_i]. What is held is one block of logits, at most BOUND numbers however
many positions there are (up to BOUND / LEAST), instead of all of them two or three times. `plain_nll` is the definition and the
oracle of the tests.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

BOUND = 2**23  # logits held at once: 32 MiB of fp32
LEAST = 256  # vocabulary entries of a block, however many positions there are

States = Float[Tensor, "n d"]
Targets = Int64[Tensor, " n"]
Weight = Float[Tensor, "v d"]
Bias = Float[Tensor, " v"]
Answer = tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]


def plain_nll(states: States, targets: Targets, weight: Weight, bias: Bias) -> Answer:
    """What `blocked_nll` gives, by the definition, holding every logit: its slow twin."""
    logits = F.linear(states, weight, bias)
    own = logits.gather(1, targets[:, None]).squeeze(1)
    return F.cross_entropy(logits, targets, reduction="none"), own >= logits.amax(1)


def blocked_nll(states: States, targets: Targets, weight: Weight, bias: Bias) -> Answer:
    """Each position's negative log-likelihood of its own token (nats), and whether no other token is likelier.

    Args:
        states: what the head's transform made of each position.
        targets: the token that stood there.
        weight: the decoder's, one row a vocabulary entry.
        bias: the decoder's; minus infinity takes an entry out of the sum.
    """
    low = states.is_cuda and torch.is_autocast_enabled("cuda")  # tensor cores; on the CPU fp32 costs no more
    with torch.autocast(states.device.type, enabled=False):
        return cast(Any, _Blocked).apply(states.float(), targets, weight.float(), bias.float(), low)


def _size(positions: int) -> int:
    return max(LEAST, BOUND // max(1, positions))


def _product(left: Tensor, right: Tensor, low: bool) -> Tensor:
    return (left.bfloat16() @ right.bfloat16()).float() if low else left @ right


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, low: bool) -> Any:
        best, total = (torch.full((len(states),), float("-inf"), device=states.device) for _ in range(2))
        own = torch.empty_like(best)
        size = _size(len(states))
        for start in range(0, len(weight), size):
            logits = _product(states, weight[start : start + size].T, low).add_(bias[start : start + size])
            place, here = _within(targets, start, logits.shape[1])
            own = torch.where(here, logits.gather(1, place[:, None]).squeeze(1), own)
            best = torch.maximum(best, logits.amax(1))
            total = torch.logaddexp(total, logits.logsumexp(1))
        ctx.save_for_backward(states, targets, weight, bias, total)
        ctx.low = low
        hit = own >= best
        ctx.mark_non_differentiable(hit)
        return total - own, hit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, targets, weight, bias, total = ctx.saved_tensors
        to_states, to_weight = torch.zeros_like(states), torch.empty_like(weight)
        to_bias = torch.empty_like(bias)
        size = _size(len(states))
        for start in range(0, len(weight), size):
            some = weight[start : start + size]
            part = _product(states, some.T, ctx.low).add_(bias[start : start + size])
            part = part.sub_(total[:, None]).exp_()
            place, here = _within(targets, start, part.shape[1])
            part.scatter_add_(1, place[:, None], -here.float()[:, None])
            part *= gradients[0][:, None]
            to_states += _product(part, some, ctx.low)
            to_weight[start : start + size] = _product(part.T, states, ctx.low)
            to_bias[start : start + size] = part.sum(0)
        return to_states, None, to_weight, to_bias, None


def _within(targets: Tensor, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Each target's place in the block that begins at `start`, and whether it is in it."""
    place = targets - start
    return place.clamp(0, size - 1), (place >= 0) & (place < size)
