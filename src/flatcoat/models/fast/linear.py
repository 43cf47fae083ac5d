"""Maps W x + b, made ready once: in single precision, in bfloat16, or of bytes.

Single precision has two ways here, MKL's and oneDNN's, which differ in rounding. Which is taken depends on the processor
alone, never on a clock: a process that goes on with another's work must round as that one did.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatcoat.errors import need
from flatcoat.models.backbone import has_bias
from flatcoat.models.base import Precision

FUSED = {"": ("none", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "relu": ("relu", "")}
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
SPELT = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}


@runtime_checkable
class Map(Protocol):
    """A map from [token, in] to [token, out], with an activation behind it. Outputs are float32, or, where they are to be
    `keep`-t, of the map's own type.
    """

    def __call__(self, x: Tensor, activation: str = "", *, keep: bool = False) -> Tensor:
        """The outputs."""
        ...


def joined(*parts: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weights and biases of maps that read the same input, one below the other."""
    weight = torch.cat([part.weight.detach() for part in parts])
    biases = [p.bias.detach() if has_bias(p) else torch.zeros(len(p.weight)) for p in parts]
    return weight.float().contiguous(), torch.cat(biases).float()


def ready(weight: Tensor, bias: Tensor, precision: Precision) -> Map:
    """A map of weights [out, in] and biases [out], of the precision asked for."""
    if precision == "int8":
        if weight.shape[1] % 16 == 0:
            return ByteMap(weight, bias)
        precision = "fp32"
    if packs(precision):
        return PackedMap(weight, bias, precision)
    return PlainMap(weight, bias, precision)


class PlainMap:
    """As torch itself does it."""

    def __init__(self, weight: Tensor, bias: Tensor, precision: Precision):
        self.kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self.weight, self.bias = weight.to(self.kind), bias.to(self.kind)

    def __call__(self, x: Tensor, activation: str = "", *, keep: bool = False) -> Tensor:
        """The outputs."""
        made = PLAIN[activation](F.linear(x.to(self.kind), self.weight, self.bias))
        return made if keep else made.float()


class PackedMap:
    """Weights laid out for oneDNN's kernels, the activation in the same pass."""

    def __init__(self, weight: Tensor, bias: Tensor, precision: Precision):
        self.kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(self.kind), 512)
        self.bias = bias.to(self.kind)

    def __call__(self, x: Tensor, activation: str = "", *, keep: bool = False) -> Tensor:
        """The outputs."""
        name, how = FUSED[activation]
        made = torch.ops.mkldnn._linear_pointwise(x.to(self.kind), self.weight, self.bias, name, [], how)
        return made if keep else made.float()


class ByteMap:
    """Weights as bytes, a scale an output; tokens are made bytes on the way in (`fast/bytes.py`)."""

    def __init__(self, weight: Tensor, bias: Tensor):
        need("numba", "search")
        steps = weight.abs().amax(1).clamp(min=1e-12) / 127
        bytes_ = (weight / steps[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.weight = bytes_.t()
        self.about = steps.numpy(), bytes_.sum(1, dtype=torch.int32).float().numpy(), bias.numpy()

    def products(self, x: Bytes, room: Tensor | None = None) -> np.ndarray:
        """Whole-number products [token, out] of tokens that are bytes; in `room` (int32, as many numbers) where it is given."""
        tokens, width = len(x.values), self.weight.shape[1]
        if room is None:
            room = torch.empty(tokens * width, dtype=torch.int32)
        out = room[: tokens * width].view(tokens, width)
        torch._int_mm(torch.from_numpy(x.values), self.weight, out=out)  # pyright: ignore[reportPrivateUsage]
        return out.numpy()

    def __call__(self, x: Tensor, activation: str = "", *, keep: bool = False) -> Tensor:
        """The outputs."""
        from flatcoat.models.fast.bytes import restore

        held = Bytes.of(x.contiguous().numpy())
        out = np.empty((len(x), len(self.about[0])), np.float32)
        restore(self.products(held), held.scale, held.middle, *self.about, out)
        return PLAIN[activation](torch.from_numpy(out))


class Bytes:
    """Tokens [token, number] as bytes, and each one's scale and middle."""

    def __init__(self, tokens: int, width: int):
        self.values = np.empty((tokens, width), np.int8)
        self.scale, self.middle = np.empty(tokens, np.float32), np.empty(tokens, np.float32)

    def __getitem__(self, rows: slice) -> Bytes:
        """Some of the tokens, in place."""
        made = Bytes.__new__(Bytes)
        made.values, made.scale, made.middle = self.values[rows], self.scale[rows], self.middle[rows]
        return made

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As compiled loops write it."""
        return self.values, self.scale, self.middle

    @classmethod
    def of(cls, x: np.ndarray) -> Bytes:
        """Bytes of float32 numbers."""
        from flatcoat.models.fast.bytes import quantise

        made = cls(*x.shape)
        quantise(x, *made.parts())
        return made


@cache
def packs(precision: Precision) -> bool:
    """Whether oneDNN's packed maps are to be used: where they run; and for fp32 where the processor is not Intel's, since MKL is at home
    there and up to twice as slow elsewhere.
    """
    ops: Any = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(ops, "_linear_pointwise")):
        return False
    if precision == "fp32" and torch.backends.mkl.is_available() and _intel():
        return False
    try:
        PackedMap(torch.full((512, 512), 0.5), torch.zeros(512), precision)(torch.full((256, 512), 0.5))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return precision == "fp32" or ops._is_mkldnn_bf16_supported()


def _intel(told: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor is one of Intel's."""
    try:
        return "GenuineIntel" in told.read_text(encoding="utf-8")
    except OSError:
        return "GenuineIntel" in os.environ.get("PROCESSOR_IDENTIFIER", "")
