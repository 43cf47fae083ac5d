"""Several processes as one: gather what they made, add up gradients. One process is the case of no others."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


class Processes:
    """This process among its peers (torch.distributed, started by `accelerate launch` or torchrun)."""

    def __init__(self) -> None:
        live = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if live else 0
        self.world = dist.get_world_size() if live else 1

    def slice(self, size: int) -> slice:
        """This process's share of a batch. Raises ValueError where the batch does not divide."""
        if size % self.world:
            raise ValueError(f"a batch of {size} does not divide among {self.world} processes")
        each = size // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def slices(self, size: int) -> list[slice]:
        """Every process's share of a batch, in rank order."""
        each = size // self.world
        return [slice(rank * each, (rank + 1) * each) for rank in range(self.world)]

    def gather(self, own: Tensor) -> Tensor:
        """Every process's rows, in rank order; of equal number everywhere. Carries no gradient."""
        if self.world == 1:
            return own.detach()
        parts = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(parts, own.detach().contiguous())
        return torch.cat(parts)

    def most(self, sizes: np.ndarray) -> list[int]:
        """The greatest of each number over processes."""
        if self.world == 1 or not sizes.size:
            return sizes.tolist()
        said = torch.from_numpy(sizes).to("cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return said.tolist()

    def agree(self, value: bool) -> bool:
        """The first process's word, once all have come here."""
        if self.world == 1:
            return value
        said = torch.tensor([int(value)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.broadcast(said, 0)
        return bool(said.item())

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over processes. What has none in any (a pooler that nobody asks) is left without."""
        if self.world == 1:
            return
        every = [parameter for parameter in parameters if parameter.requires_grad]
        moves = self.most(np.array([p.grad is not None for p in every], dtype=np.int64))
        for parameter, moving in zip(every, moves, strict=True):
            if moving:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)


def join_processes() -> Processes:
    """Join the group that a launcher's environment describes, through accelerate; alone where there is none."""
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from flatcoat.errors import need

        need("accelerate", "processes").PartialState()
    return Processes()
