"""Dropout whose choices are a function of a seed and the place, so that they are made again on the way back, not kept.

    y_i = x_i · [u(seed, i) ≥ p] / (1 − p)        ∂L/∂x_i = ∂L/∂y_i · [u(seed, i) ≥ p] / (1 − p)

u is a 32-bit hash of the place (two rounds of multiplying and shifting), mixed with a seed that is drawn from torch's own
generator: a run that is resumed, a pass that is repeated, draw the same. A mask of a generator costs more than the product it
hides where there is no graphics card.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flatcoat.models.fast.threads import in_parts
from flatcoat.models.fast.tiles import bits, number, rounded
from flatcoat.simd import I16, I32, inlined, quick

U = np.uint32


@inlined
def mixed(i: np.uint32, low: np.uint32, high: np.uint32) -> np.uint32:
    """The hash of a place."""
    h = U(U(i) * U(0x9E3779B1) + low)  # numba's sums and products of 32 bits have 64: each is cut
    h = U(U(h ^ U(h >> U(16))) * U(0x7FEB352D))
    h = U(U(h ^ U(h >> U(15)) ^ high) * U(0x846CA68B))
    return U(h ^ U(h >> U(16)))


@quick
def drop(
    x: I32, out: I32, first: int, last: int, low: np.uint32, high: np.uint32, least: np.uint32, factor: float
) -> None:
    """out[i] = x[i] × factor where the hash of i is at least `least`, else 0, for first ≤ i < last; bits of float32 numbers."""
    for i in range(first, last):
        word = bits(number(x[i]) * factor)
        out[i] = word if mixed(i, low, high) >= least else np.int32(0)


@quick
def drop_low(
    x: I16, out: I16, first: int, last: int, low: np.uint32, high: np.uint32, least: np.uint32, factor: float
) -> None:
    """As `drop`, of bits of bfloat16 numbers."""
    for i in range(first, last):
        word = rounded(number(np.int32(x[i]) << np.int32(16)) * factor)
        out[i] = np.int16(word >> np.int32(16)) if mixed(i, low, high) >= least else np.int16(0)


def dropped(x: Tensor, p: float, seed: int) -> Tensor:
    """Numbers x (float32 or bfloat16) after dropout with probability p under a seed of 62 bits."""
    x = x.contiguous()
    out = torch.empty_like(x)
    half = x.dtype == torch.bfloat16
    given, made = (t.detach().view(torch.int16 if half else torch.int32).view(-1).numpy() for t in (x, out))
    numbers = U(seed & 0x7FFFFFFF), U(seed >> 31), U(round(p * 2**32)), np.float32(1 / (1 - p))
    work = drop_low if half else drop
    in_parts(len(given), lambda first, last: work(given, made, first, last, *numbers))
    return out


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.said = p, seed
        return dropped(x, p, seed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return dropped(gradients[0], *ctx.said), None, None


def dropout(x: Tensor, p: float) -> Tensor:
    """Dropout of float32 or bfloat16 numbers on a CPU, with a seed from torch's generator."""
    return cast(Any, _Dropout).apply(x, p, int(torch.randint(2**62, (1,))))
