"""The vocabulary head of SPLADE without its tensor of batch × length × vocabulary.

    m_j = max_i (h_i · w_j + b_j)        w = log(1 + relu(m))        (SPLADE v2: Formal et al. 2021, arXiv 2109.10086)

log(1 + relu(·)) never falls, so the maximum over positions is taken before it; and only the position that wins an entry
has a gradient, so the way back touches one position an entry, not all:

    ∂L/∂h_i = Σ_{j won by i} g_j w_j      ∂L/∂w_j = Σ_texts g_j h_{winner of j}      g_j = ∂L/∂w_j(text) / (1 + m_j)

On the CPU the way there is cheap as well. A bf16 product takes a fifth of fp32's time. With u = 2⁻⁸ for the rounding of eight
bits, ĥ and ŵ the rounded factors, Cauchy and Schwarz bound what it gets wrong:

    |ĥ·ŵ − h·w| ≤ ‖ĥ − h‖ ‖ŵ‖ + ‖h‖ ‖ŵ − w‖ ≤ (‖ĥ − h‖ (1 + u) + u ‖h‖) ‖w‖,  and u |ĥ·ŵ| for rounding the product

An entry whose rough maximum lies further than that below zero is zero; the few that are left are computed again in fp32,
every position of them. The result is the plain head's, entry by entry. `plain_head` is the definition and the oracle of
the tests. (Of positions with the same greatest logit the first wins; the plain head's gradient would be shared.)
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Aggregate = Literal["max", "sum"]
BLOCK = 1024  # vocabulary entries of one product: its result stays in cache
ROUNDING = 2.0**-8  # of a bf16 number, relative; sums are fp32, whose own rounding SPARE covers
SPARE = 1.02
DENSE = 0.25  # share of entries left after the rough pass above which all are computed at once
SMALL = 96  # positions up to which rounding the weights would cost more than it saves: a query or two

States = Float[Tensor, "b t d"]
Present = Int[Tensor, "b t"] | None
Weight = Float[Tensor, "v d"]
Bias = Float[Tensor, " v"]


def plain_head(states: States, mask: Present, weight: Weight, bias: Bias, aggregate: Aggregate = "max") -> Tensor:
    """Term weights [b, v] by the definition, holding every logit: the slow twin of `streamed_head`."""
    logits = F.linear(states, weight, bias)
    if mask is not None:
        logits = logits.masked_fill(mask[..., None] == 0, float("-inf"))
    terms = torch.log1p(torch.relu(logits))
    return terms.amax(1) if aggregate == "max" else terms.sum(1)


def streamed_head(states: States, mask: Present, weight: Weight, bias: Bias, aggregate: Aggregate = "max") -> Tensor:
    """Term weights [b, v], float32, with the plain head's values and gradients (1e-5) and a block of its memory.

    Args:
        states: what the head's transform made of each position.
        mask: 1 where a position is a token, 0 where it is padding; None where nothing is padded.
        weight: the decoder's, one row a vocabulary entry.
        bias: the decoder's; minus infinity switches an entry off.
        aggregate: over positions, `max` (SPLADE v2 and later) or `sum` (v1).
    """
    low = states.is_cuda and torch.is_autocast_enabled("cuda")  # tensor cores; on the CPU fp32 costs no more
    with torch.autocast(states.device.type, enabled=False):
        states, weight, bias = states.float(), weight.float(), bias.float()
        if low and aggregate == "max":
            states, weight = states.bfloat16(), weight.bfloat16()
        if aggregate == "sum":
            return _Sum.apply(states, mask, weight, bias)  # pyright: ignore[reportReturnType]
        return _Max.apply(_repeat_a_token(states, mask), weight, bias)  # pyright: ignore[reportReturnType]


def _repeat_a_token(states: Tensor, mask: Present) -> Tensor:
    """Padding replaced by the text's first token: a maximum with it changes nothing, and it never wins from it."""
    if mask is None:
        return states
    first = mask.argmax(1)
    token = states[torch.arange(len(states), device=states.device), first]
    return torch.where(mask[..., None] != 0, states, token[:, None])


def winners(states: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest logit of each entry [b, v] where it is above zero, else 0, and its position (int32)."""
    if states.is_cuda:
        from flatcoat.models.streamed_head_cuda import winners as on_gpu

        return on_gpu(states, weight, bias)
    return _winners_screened(states, weight, bias)


class Rough:
    """What the rough pass needs of the weights: rounded, and their lengths."""

    def __init__(self, weight: Tensor):
        self.low, self.norms = weight.bfloat16(), weight.norm(dim=-1)


def winners_of(states: Tensor, mask: Present, weight: Tensor, bias: Tensor, rough: Rough) -> Tensor:
    """The greatest logit of each entry [b, v] where it is above zero, else 0, by weights made ready once; on the CPU."""
    with torch.autocast(states.device.type, enabled=False):
        return _winners_screened(_repeat_a_token(states, mask), weight, bias, rough)[0]


def _rough(states: Tensor, weight: Tensor, bias: Tensor, rough: Rough | None = None) -> Tensor:
    """An upper bound of each entry's greatest logit [b, v], from a bf16 product."""
    rough = rough or Rough(weight)
    flat, low = states.reshape(-1, states.shape[-1]).bfloat16(), rough.low
    bound = torch.empty(len(states), len(weight))
    for start in range(0, len(weight), BLOCK):
        product = flat @ low[start : start + BLOCK].T
        bound[:, start : start + BLOCK] = product.view(*states.shape[:2], -1).amax(1)
    lost = (states - flat.view(states.shape).float()).norm(dim=-1).amax(1)
    least = SPARE * (lost * (1 + ROUNDING) + ROUNDING * states.norm(dim=-1).amax(1))
    bound.addcmul_(bound.sign(), bound, value=SPARE * ROUNDING)  # + u |bound|
    return bound.addcmul_(least[:, None], rough.norms[None]).add_(bias)


def _winners_screened(
    states: Tensor, weight: Tensor, bias: Tensor, rough: Rough | None = None
) -> tuple[Tensor, Tensor]:
    if states.shape[0] * states.shape[1] <= SMALL:
        return _winners_blocked(states, weight, bias, len(weight))
    left = ~(_rough(states, weight, bias, rough) <= 0)  # what is not a number is left too, and comes out as it is
    values = torch.zeros(left.shape)
    places = torch.zeros(left.shape, dtype=torch.int32)
    if left.float().mean() > DENSE:
        return _winners_blocked(states, weight, bias)
    for row, keep in enumerate(left):
        chosen = keep.nonzero().squeeze(1)
        if not len(chosen):
            continue
        best, at = torch.addmm(bias[chosen][:, None], weight[chosen], states[row].T).max(1)
        values[row, chosen], places[row, chosen] = torch.relu(best), at.int()
    return values, places


def _winners_blocked(states: Tensor, weight: Tensor, bias: Tensor, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """All entries in fp32, a text and a block of the vocabulary at a time."""
    values = torch.empty(len(states), len(weight), device=states.device)
    places = torch.empty(values.shape, dtype=torch.int32, device=states.device)
    for start in range(0, len(weight), block):
        some, add = weight[start : start + block], bias[start : start + block, None]
        for row, text in enumerate(states):
            best, at = torch.addmm(add, some, text.T).max(1)
            values[row, start : start + block], places[row, start : start + block] = torch.relu(best), at.int()
    return values, places


class _Max(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        values, places = winners(states, weight, bias)
        ctx.save_for_backward(states, weight, values, places)
        return torch.log1p(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, weight, values, places = ctx.saved_tensors
        entry = torch.where(values > 0, gradients[0] / (1 + values), 0)
        text, term = entry.nonzero(as_tuple=True)
        amount = entry[text, term]
        row = text * states.shape[1] + places[text, term]
        flat = states.reshape(-1, states.shape[-1])
        to_states = _gathered(row, term, amount, weight.float(), len(flat)) if ctx.needs_input_grad[0] else None
        to_weight = _gathered(term, row, amount, flat.float(), len(weight)) if ctx.needs_input_grad[1] else None
        to_bias = entry.sum(0) if ctx.needs_input_grad[2] else None
        return to_states.view(states.shape) if to_states is not None else None, to_weight, to_bias


def _gathered(to: Tensor, of: Tensor, amount: Tensor, vectors: Tensor, size: int) -> Tensor:
    """out[i] = Σ over entries with to = i of amount · vectors[of]: [size, d]."""
    order = torch.argsort(to, stable=True)
    starts = torch.zeros(size, dtype=torch.long, device=to.device)
    starts[1:] = torch.bincount(to, minlength=size).cumsum(0)[:-1]
    return F.embedding_bag(of[order], vectors, starts, mode="sum", per_sample_weights=amount[order])


class _Sum(torch.autograd.Function):
    """Σ_i log(1 + relu(logit_ij)) in blocks of the vocabulary, made again on the way back."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, mask: Present, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight, bias)
        ctx.mask = mask
        out = torch.empty(len(states), len(weight), device=states.device)
        for start in range(0, len(weight), BLOCK):
            logits = _block(states, mask, weight, bias, start)
            out[:, start : start + BLOCK] = logits.log1p_().sum(1)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, weight, bias = ctx.saved_tensors
        flat = states.reshape(-1, states.shape[-1])
        to_states, to_weight = torch.zeros_like(flat), torch.empty_like(weight)
        to_bias = torch.empty_like(bias)
        for start in range(0, len(weight), BLOCK):
            logits = _block(states, ctx.mask, weight, bias, start)
            part = gradients[0][:, None, start : start + BLOCK] / (1 + logits)
            part = part.masked_fill_(logits <= 0, 0).view(len(flat), -1)
            to_states.addmm_(part, weight[start : start + BLOCK])
            to_weight[start : start + BLOCK] = part.T @ flat
            to_bias[start : start + BLOCK] = part.sum(0)
        return to_states.view(states.shape), None, to_weight, to_bias


def _block(states: Tensor, mask: Present, weight: Tensor, bias: Tensor, start: int) -> Tensor:
    """Positive part of the logits of one block of the vocabulary; 0 at padding."""
    logits = torch.relu_(F.linear(states, weight[start : start + BLOCK], bias[start : start + BLOCK]))
    return logits if mask is None else logits.masked_fill_(mask[..., None] == 0, 0)
