"""Training on a CPU: dropout that keeps no mask, and linear maps by the products that the processor is quickest at (`linear.packs`).

    y = W x + b        ∂L/∂x = Wᵀ ∂L/∂y        ∂L/∂W = ∂L/∂y xᵀ        ∂L/∂b = Σ ∂L/∂y

The same sums in the same precision: the two ways differ in rounding only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from flatcoat.models.base import Runtime
from flatcoat.models.fast.linear import packs
from flatcoat.models.fast.network import forget, numba_is_there


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


KINDS = (torch.float32, torch.bfloat16)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    plain = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not plain or x.numel() == 0 or weight.dim() != 2 or min(weight.shape) < 16 or not packs("fp32"):
        return None
    return cast(Tensor, _Linear.apply(x, weight, bias))


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
    if not training or not 0 < p < 1 or inplace or x.dtype not in KINDS or x.is_cuda or not numba_is_there():
        return None
    from flatcoat.models.fast.dropout import dropout

    return dropout(x, p)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Attention with dropout of its weights, written out: torch's own is written out too, with a mask drawn for it."""
    if not dropout_p or is_causal or enable_gqa or query.dtype not in KINDS or not numba_is_there():
        return None
    scores = torch.matmul(query * (scale or query.shape[-1] ** -0.5), key.transpose(-2, -1))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = _dropout(torch.softmax(scores, -1), dropout_p)
    return None if weights is None else torch.matmul(weights.to(value.dtype), value)


def _back(tensors: Any, gradients: Any, **options: Any) -> None:
    """`torch.autograd.backward` within the modes that are on: torch takes a mode off within its own call, unless of edges."""
    several = [tensors] if isinstance(tensors, Tensor) else tensors
    torch.autograd.backward([get_gradient_edge(one) for one in several], gradients, **options)


class Quicker(TorchFunctionMode):
    """Within it, torch's functions that have a quicker form here are that; whatever the form is not for is left to torch."""

    FORMS: ClassVar[dict[Any, Any]] = {
        F.linear: _linear,
        F.dropout: _dropout,
        F.scaled_dot_product_attention: _attention,
    }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What `func` gives."""
        if func in (Tensor.backward, torch.autograd.backward) and not (kwargs or {}).get("inputs"):
            said = dict(kwargs or {})
            gradients = (
                args[1] if len(args) > 1 else said.get("gradient" if func is Tensor.backward else "grad_tensors")
            )
            with self:  # what is repeated on the way back is to be as it was
                return _back(args[0], gradients, **{k: said[k] for k in ("retain_graph", "create_graph") if k in said})
        form = self.FORMS.get(func)
        made = None if form is None else form(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if made is None else made


@contextlib.contextmanager
def trained_quickly(model: nn.Module, runtime: Runtime) -> Generator[None, None, None]:
    """Run a step of a model so, where the device is a CPU: the whole of it, since checkpointing repeats forward passes on the way
    back. What was made ready of the model for encoding is dropped.
    """
    forget(model)
    with Quicker() if runtime.on_cpu else contextlib.nullcontext():
        yield
