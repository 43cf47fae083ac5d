"""The streamed head's way there on a GPU: product, maximum over positions and its place in one Triton kernel.

A program takes one text and a block of the vocabulary, walks the text's positions, and writes BLOCK_V maxima and places:
no logit leaves the chip. Where Triton is not installed, blocks of the vocabulary go through torch, one at a time.
`TRITON_INTERPRET=1` runs the kernel on the CPU, which is how it is tested where there is no GPU.
"""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false, reportMissingParameterType=false
# pyright: reportUnknownParameterType=false
# Triton comes with torch on some machines only, and reads what a kernel's parameters are annotated with itself.

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

BLOCK_T, BLOCK_V, BLOCK_D = 64, 128, 64
SLICE = 4096  # vocabulary entries of one product where there is no Triton


def winners(states: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest logit of each entry [b, v] where it is above zero, else 0, and its position (int32).

    `states` and `weight` are of one type, fp32 or bf16; sums are fp32.
    """
    kernel = compiled()
    return by_slices(states, weight, bias) if kernel is None else by_kernel(kernel, states, weight, bias)


def by_slices(states: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The same through torch: the slow twin of the kernel."""
    values = torch.empty(len(states), len(weight), device=states.device)
    places = torch.empty(values.shape, dtype=torch.int32, device=states.device)
    for start in range(0, len(weight), SLICE):
        some = slice(start, start + SLICE)
        best, at = (states @ weight[some].T).float().max(1)
        values[:, some], places[:, some] = torch.relu(best + bias[some]), at.int()
    return values, places


def by_kernel(kernel: Any, states: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Launch the kernel."""
    states, weight, bias = states.contiguous(), weight.contiguous(), bias.float().contiguous()
    batch, length, dim = states.shape
    vocab = len(weight)
    values = torch.empty(batch, vocab, device=states.device)
    places = torch.empty(values.shape, dtype=torch.int32, device=states.device)
    grid = (-(-vocab // BLOCK_V), batch)
    kernel[grid](states, weight, bias, values, places, length, vocab, dim, BLOCK_T, BLOCK_V, BLOCK_D)
    return values, places


@functools.cache
def compiled() -> Any:
    """The kernel; None where Triton is not installed."""
    try:
        import triton
        import triton.language as tl
    except ImportError:
        return None

    @triton.jit
    def kernel(
        states, weight, bias, values, places, length, vocab, dim,
        block_t: tl.constexpr, block_v: tl.constexpr, block_d: tl.constexpr,
    ):  # fmt: skip
        text = tl.program_id(1).to(tl.int64)
        entries = tl.program_id(0) * block_v + tl.arange(0, block_v)
        inside = entries < vocab
        best = tl.full((block_v,), float("-inf"), tl.float32)
        place = tl.zeros((block_v,), tl.int32)
        for first in range(0, length, block_t):
            here = first + tl.arange(0, block_t)
            sums = tl.zeros((block_t, block_v), tl.float32)
            for start in range(0, dim, block_d):
                part = start + tl.arange(0, block_d)
                known = part < dim
                left = tl.load(
                    states + (text * length + here[:, None]) * dim + part[None, :],
                    mask=(here[:, None] < length) & known[None, :], other=0.0,
                )  # fmt: skip
                right = tl.load(
                    weight + entries[None, :].to(tl.int64) * dim + part[:, None],
                    mask=inside[None, :] & known[:, None], other=0.0,
                )  # fmt: skip
                sums += tl.dot(left, right, input_precision="ieee")
            sums = tl.where(here[:, None] < length, sums, float("-inf"))
            greatest, at = tl.max(sums, 0, return_indices=True)
            place = tl.where(greatest > best, first + at, place)
            best = tl.maximum(greatest, best)
        best += tl.load(bias + entries, mask=inside, other=0.0)
        tl.store(values + text * vocab + entries, tl.maximum(best, 0.0), mask=inside)
        tl.store(places + text * vocab + entries, place, mask=inside)

    return kernel
