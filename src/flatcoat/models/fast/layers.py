"""The layers of BERT and its kin over tokens without padding: attention, addition, normalisation, two maps, again.

Floats and bytes have the same weights and the same order of work; with bytes, everything between two matrix products
is one pass over a token, and the stream of states that is added to stays in single precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatcoat.models.base import Precision
from flatcoat.models.fast.linear import SPELT, ByteMap, Bytes, Map, joined, ready


@dataclass(frozen=True)
class Parts:
    """The modules of one layer."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    mix: nn.Linear
    first_norm: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
    second_norm: nn.LayerNorm


def parts_of(base: Any) -> list[Parts] | None:
    """The layers of a network, or None where it is not of a kind that is known: absolute positions, normalisation behind."""
    if hasattr(base, "transformer") and hasattr(base.transformer, "layer"):
        read, layers = _distilbert, base.transformer.layer
    elif hasattr(base, "encoder") and hasattr(base.encoder, "layer") and type(base).__name__ in KNOWN:
        read, layers = _bert, base.encoder.layer
    else:
        return None
    try:
        found = [read(layer) for layer in layers]
    except AttributeError:
        return None
    plain = all(type(module) in (nn.Linear, nn.LayerNorm) for one in found for module in vars(one).values())
    return found if plain and found else None


KNOWN = ("BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel", "ElectraModel")


def _bert(layer: Any) -> Parts:
    own, out = layer.attention.self, layer.attention.output
    ends = layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm
    return Parts(own.query, own.key, own.value, out.dense, out.LayerNorm, *ends)


def _distilbert(layer: Any) -> Parts:
    own, ffn = layer.attention, layer.ffn
    ends = layer.sa_layer_norm, ffn.lin1, ffn.lin2, layer.output_layer_norm
    return Parts(own.q_lin, own.k_lin, own.v_lin, own.out_lin, *ends)


def activation_of(config: Any) -> str | None:
    """The activation by this package's name, or None where it is not known."""
    said = getattr(config, "hidden_act", None) or getattr(config, "activation", None)
    return SPELT.get(said) if isinstance(said, str) else None


@dataclass(frozen=True)
class Norm:
    """Layer normalisation's weights."""

    gain: Tensor
    shift: Tensor
    floor: float

    @classmethod
    def of(cls, module: nn.LayerNorm) -> Norm:
        """A module's."""
        return cls(module.weight.detach().float(), module.bias.detach().float(), module.eps)

    def __call__(self, x: Tensor) -> Tensor:
        """Each token's numbers with mean 0 and variance 1, times the gain, plus the shift."""
        return F.layer_norm(x, (x.shape[-1],), self.gain, self.shift, self.floor)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.float32]:
        """As compiled loops take it."""
        return self.gain.numpy(), self.shift.numpy(), np.float32(self.floor)


class Layer:
    """One layer's weights, made ready."""

    def __init__(self, parts: Parts, precision: Precision):
        make: Callable[..., Map] = lambda *some: ready(*joined(*some), precision)  # noqa: E731
        self.reads, self.mix = make(parts.query, parts.key, parts.value), make(parts.mix)
        self.up, self.down = make(parts.up), make(parts.down)
        self.first, self.second = Norm.of(parts.first_norm), Norm.of(parts.second_norm)


class Layers:
    """All layers of a network: states of tokens that lie one behind the other, and where each text starts."""

    def __init__(self, parts: list[Parts], heads: int, activation: str, precision: Precision):
        self.layers = [Layer(one, precision) for one in parts]
        self.heads, self.activation = heads, activation
        self.bytes = precision == "int8" and activation == "gelu"

    def __call__(self, x: Tensor, starts: np.ndarray) -> Tensor:
        """The last states [token, h] from the first, float32; starts [text + 1]."""
        return self._of_bytes(x.contiguous().clone(), starts) if self.bytes else self._of_floats(x.contiguous(), starts)

    def _of_floats(self, x: Tensor, starts: np.ndarray) -> Tensor:
        for layer in self.layers:
            mixed = torch.from_numpy(self._attend(layer.reads(x).numpy(), starts))
            x = layer.first(x + layer.mix(mixed))
            x = layer.second(x + layer.down(layer.up(x, self.activation)))
        return x

    def _attend(self, reads: np.ndarray, starts: np.ndarray) -> np.ndarray:
        from flatcoat.models.fast.attention import attend

        out = np.empty((len(reads), reads.shape[1] // 3), np.float32)
        attend(reads, starts, self.heads, out)
        return out

    def _of_bytes(self, states: Tensor, starts: np.ndarray) -> Tensor:
        from flatcoat.models.fast.bytes import restore, restore_gelu, restore_norm

        x = states.numpy()
        held, n = Bytes.of(x), len(x)
        for layer in self.layers:
            reads, mix, up, down = (cast(ByteMap, m) for m in (layer.reads, layer.mix, layer.up, layer.down))
            asked = np.empty((n, len(reads.about[0])), np.float32)
            restore(reads.products(held), held.scale, held.middle, *reads.about, asked)
            mixed = Bytes.of(self._attend(asked, starts))
            held = Bytes(n, x.shape[1])
            restore_norm(mix.products(mixed), mixed.scale, mixed.middle, *mix.about, x, *layer.first.arrays(),
                         held.values, held.scale, held.middle)  # fmt: skip
            wide = Bytes(n, len(up.about[0]))
            restore_gelu(up.products(held), held.scale, held.middle, *up.about, wide.values, wide.scale, wide.middle)
            restore_norm(down.products(wide), wide.scale, wide.middle, *down.about, x, *layer.second.arrays(),
                         held.values, held.scale, held.middle)  # fmt: skip
        return states
