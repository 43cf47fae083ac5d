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


SOME = 512  # tokens; in single precision weights are what a cache would hold, so more of them share each
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
    """All layers of a network: states of tokens that lie one behind the other, and where each text starts.

    Attention takes a batch at once; the maps take it `SOME` tokens at a time, so that what lies between two of them stays
    in the core's own cache.
    """

    def __init__(self, parts: list[Parts], heads: int, activation: str, precision: Precision):
        from flatcoat.models.fast.tiles import HALVES, WIDE

        self.layers = [Layer(one, precision) for one in parts]
        self.heads, self.activation = heads, activation
        size = parts[0].query.in_features // heads
        self.bytes = precision == "int8" and activation == "gelu"
        self.low = precision != "fp32" and HALVES and size % (2 * WIDE) == 0

    def __call__(self, x: Tensor, starts: np.ndarray) -> Tensor:
        """The last states [token, h] from the first, float32; starts [text + 1]."""
        x = x.contiguous().clone()
        tokens, hidden = x.shape
        asked = torch.empty(tokens, 3 * hidden, dtype=torch.bfloat16 if self.low else torch.float32)
        mixed = torch.empty(tokens, hidden)
        if self.bytes:
            self._of_bytes(x, asked, mixed, starts)
            return x
        step = SOME if self.low else 4 * SOME
        for layer in self.layers:
            for rows in _some(tokens, step):
                asked[rows] = layer.reads(x[rows], keep=True)
            self._attend(asked, starts, mixed)
            for rows in _some(tokens, step):
                first = layer.first(x[rows] + layer.mix(mixed[rows]))
                x[rows] = layer.second(first + layer.down(layer.up(first, self.activation, keep=True)))
        return x

    def _attend(self, asked: Tensor, starts: np.ndarray, mixed: Tensor) -> None:
        if self.low:
            from flatcoat.models.fast.attention_low import attend_low

            attend_low(asked.view(torch.int16).numpy().view(np.int32), starts, self.heads, mixed.numpy())
        else:
            from flatcoat.models.fast.attention import attend

            attend(asked.numpy(), starts, self.heads, mixed.numpy())

    def _of_bytes(self, x: Tensor, asked: Tensor, mixed: Tensor, starts: np.ndarray) -> None:
        from flatcoat.models.fast.bytes import quantise, restore, restore_gelu, restore_low, restore_norm

        layers = [[cast(ByteMap, m) for m in (one.reads, one.mix, one.up, one.down)] for one in self.layers]
        most, widest = min(SOME, len(x)), max(m.weight.shape[1] for m in layers[0])
        room = torch.empty(most * widest, dtype=torch.int32)
        states, attended = x.numpy(), mixed.numpy()
        held, read, wide = Bytes.of(states), Bytes(most, x.shape[1]), Bytes(most, layers[0][2].weight.shape[1])
        again, into = (restore_low, asked.view(torch.int16).numpy()) if self.low else (restore, asked.numpy())
        for layer, (reads, mix, up, down) in zip(self.layers, layers, strict=True):
            for rows in _some(len(x)):
                some = held[rows]
                again(reads.products(some, room), some.scale, some.middle, *reads.about, into[rows])
            self._attend(asked, starts, mixed)
            for rows in _some(len(x)):
                some, here = held[rows], slice(0, min(most, len(x) - rows.start))
                told, broad, stream = read[here], wide[here], states[rows]
                quantise(attended[rows], *told.parts())
                restore_norm(mix.products(told, room), told.scale, told.middle, *mix.about, stream,
                             *layer.first.arrays(), *some.parts())  # fmt: skip
                restore_gelu(up.products(some, room), some.scale, some.middle, *up.about, *broad.parts())
                restore_norm(down.products(broad, room), broad.scale, broad.middle, *down.about, stream,
                             *layer.second.arrays(), *some.parts())  # fmt: skip


def _some(tokens: int, step: int = SOME) -> list[slice]:
    return [slice(first, min(first + step, tokens)) for first in range(0, tokens, step)]
