"""Linear maps in training by the quicker of MKL's and oneDNN's single-precision products, forward and backward.

    y = W x + b        ∂L/∂x = Wᵀ ∂L/∂y        ∂L/∂W = ∂L/∂y xᵀ        ∂L/∂b = Σ ∂L/∂y

The same sums in the same precision: the two ways differ in rounding only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatcoat.models.base import Runtime
from flatcoat.models.fast.linear import packs
from flatcoat.models.fast.network import forget


def _times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product x Wᵀ + b of [n, in] and [out, in], either of them strided as it may be."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(flat, weight)
        ctx.shape, ctx.biased = x.shape, bias is not None
        return _times(flat, weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        flat, weight = ctx.saved_tensors
        upper = gradients[0].reshape(-1, len(weight))
        to_x = _times(upper, weight.T).view(ctx.shape) if ctx.needs_input_grad[0] else None
        to_weight = _times(upper.T, flat.T) if ctx.needs_input_grad[1] else None
        to_bias = upper.sum(0) if ctx.biased and ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias


class TrainedLinear:
    """A map's forward pass; anything but a product of float32 worth the call is left to torch."""

    def __init__(self, module: nn.Linear):
        self.module = module

    def __call__(self, input: Tensor) -> Tensor:
        """The map's outputs."""
        weight, bias = self.module.weight, self.module.bias
        plain = input.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if not plain or input.numel() == 0 or min(weight.shape) < 16:
            return F.linear(input, weight, bias)
        return cast(Tensor, _Linear.apply(input, weight, bias))


@contextlib.contextmanager
def trained_quickly(model: nn.Module, runtime: Runtime) -> Iterator[None]:
    """Run a model's linear maps so meanwhile, where that is quicker on this machine: through the whole of a step, since
    checkpointing repeats forward passes on the way back. What was made ready for encoding is dropped.
    """
    forget(model)
    changed: list[nn.Linear] = []
    if runtime.on_cpu and runtime.precision == "fp32" and packs("fp32"):
        changed = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
    for module in changed:
        cast(Any, module).forward = TrainedLinear(module)
    try:
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)
