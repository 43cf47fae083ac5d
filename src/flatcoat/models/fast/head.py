"""The vocabulary head of SPLADE, for answers alone (`models/streamed_head.py` is the definition, and what learns).

In single precision and bfloat16 the head is exact, screened by a rough product whose rounded weights are kept. With bytes

    m_j = max_i scale_i × step_j × (w_j · q_i + middle_i × Σ w_j) + b_j

is taken as it comes, a block of the vocabulary at a time, in one pass over the whole-number products.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flatcoat.models.fast.linear import ByteMap, Bytes
from flatcoat.models.streamed_head import Rough, winners_of

ENTRIES = 1024  # of the vocabulary, a block


class ExactHead:
    """The streamed head's values, with what it needs of the weights kept."""

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight.detach().float(), bias.detach().float()
        self.rough = Rough(self.weight)

    def __call__(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Term weights [b, v]."""
        return torch.log1p(winners_of(states.float(), mask, self.weight, self.bias, self.rough))


class ByteHead:
    """Term weights from bytes."""

    def __init__(self, weight: Tensor, bias: Tensor):
        blocks = range(0, len(weight), ENTRIES)
        weight, bias = weight.detach().float(), bias.detach().float()
        self.blocks = [ByteMap(weight[b : b + ENTRIES], bias[b : b + ENTRIES]) for b in blocks]
        self.size = len(weight)

    def __call__(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Term weights [b, v]."""
        from flatcoat.models.fast.bytes import restore_greatest

        rows, width, hidden = states.shape
        flat = states.float().reshape(-1, hidden)
        starts = np.arange(rows + 1) * width
        if mask is not None:
            flat = flat[mask.reshape(-1) != 0]
            starts = np.concatenate([np.zeros(1, np.int64), mask.sum(1).cumsum(0).numpy()])
        held, out = Bytes.of(flat.contiguous().numpy()), np.empty((rows, self.size), np.float32)
        room = torch.empty(len(flat) * ENTRIES, dtype=torch.int32)
        for number, block in enumerate(self.blocks):
            first = number * ENTRIES
            products, best = block.products(held, room), np.zeros((rows, len(block.about[0])), np.float32)
            restore_greatest(products, held.scale, held.middle, *block.about, starts, best)
            out[:, first : first + ENTRIES] = best
        return torch.log1p(torch.from_numpy(out))
