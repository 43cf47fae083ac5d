"""Running a network of transformers by the quick way: within `quickly(backbone, runtime)` its forward pass is ours.

BERT and its kin run without padding (`fast/layers.py`); of other networks the linear maps alone are made quick. Heads
are run as they are, over the same states. Outside the context, and in training, nothing of a network is changed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatcoat.models.backbone import has_bias
from flatcoat.models.base import Precision, Runtime
from flatcoat.models.fast.layers import Layers, activation_of, parts_of
from flatcoat.models.fast.linear import joined, ready

Replaced = list[tuple["ref[nn.Module]", str, Any]]  # of which module, which attribute, by what
_kept: WeakKeyDictionary[nn.Module, dict[tuple[Precision, bool], Kept]] = WeakKeyDictionary()
_running: WeakSet[nn.Module] = WeakSet()
_lock = threading.RLock()
PROBES = 16
OTHERWISE = ("is_decoder", "output_hidden_states", "output_attentions")  # asked of a body, which ours does not do


def numba_is_there() -> bool:
    """Whether the compiled loops can be had."""
    import importlib.util

    return importlib.util.find_spec("numba") is not None


def base_of(backbone: Any) -> nn.Module:
    """The body of a network: what gives the states that heads read."""
    return getattr(backbone, "base_model", backbone)


class Kept:
    """What was made ready of a network, and how its weights were then.

    Which weights, torch's count of their changes, and `PROBES` numbers of each: the count alone does not do, for fused
    optimisers move weights and leave it. Weights made in inference mode have no count, and are never taken for the same.
    """

    def __init__(self, network: nn.Module, replaced: Replaced):
        weights = list(network.parameters())
        self.replaced, self.mark = replaced, _mark(weights)
        flat = [one.detach().float().reshape(-1) for one in weights]
        self.views = [one[:: max(1, len(one) // PROBES)].numpy() for one in flat]
        self.probe = np.concatenate(self.views).tobytes()

    def holds(self, network: nn.Module) -> bool:
        """Whether the network's weights are what they were."""
        return _mark(list(network.parameters())) == self.mark and np.concatenate(self.views).tobytes() == self.probe


def _mark(weights: list[nn.Parameter]) -> tuple[Any, ...]:
    try:
        return tuple((id(one), one.data_ptr(), one._version) for one in weights)
    except RuntimeError:
        return (object(),)


def forget(network: nn.Module) -> None:
    """Drop what was made ready of a network or its parts: its weights are about to change."""
    for module in network.modules():
        _kept.pop(module, None)


class QuickBody:
    """The forward pass of BERT and its kin: their own embeddings, then `Layers` over the tokens that are there.

    Whoever else runs the network meanwhile, to train it or for its attention, gets its own forward pass.
    """

    def __init__(self, base: Any, layers: Layers):
        self._base, self.layers = ref(base), layers

    @property
    def base(self) -> Any:
        """The network; what is kept beside it does not keep it alive."""
        return self._base()

    def __call__(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **other: Any,
    ) -> Any:
        """As the network's own forward pass: last states [b, t, h], zero where there is no token, and its pooler's output."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        base, types = self.base, {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        more = any(other.get(name) is not None for name in other if name not in ("return_dict", "use_cache"))
        plain = input_ids is not None and (attention_mask is None or attention_mask.dim() == 2) and not more
        if not plain or not torch.is_inference_mode_enabled():
            return type(base).forward(base, input_ids=input_ids, attention_mask=attention_mask, **types, **other)
        x = base.embeddings(input_ids=input_ids, **types)
        if hasattr(base, "embeddings_project"):
            x = base.embeddings_project(x)
        states = self._states(x, attention_mask)
        pooler = getattr(base, "pooler", None)
        return BaseModelOutputWithPooling(
            last_hidden_state=cast(Any, states), pooler_output=None if pooler is None else pooler(states)
        )

    def _states(self, x: Tensor, mask: Tensor | None) -> Tensor:
        rows, width, hidden = x.shape
        flat = x.reshape(-1, hidden)
        if mask is None:
            return self.layers(flat, np.arange(rows + 1) * width).view(rows, width, hidden)
        mask = mask != 0
        here = mask.reshape(-1).nonzero().squeeze(1)
        starts = np.concatenate([np.zeros(1, np.int64), mask.sum(1).cumsum(0).numpy()])
        out = torch.zeros_like(flat)
        out[here] = self.layers(flat[here], starts)
        return out.view(rows, width, hidden)


class QuickLinear:
    """The forward pass of one linear map, whatever the shape in front of its last dimension."""

    def __init__(self, module: nn.Linear, precision: Precision):
        weight, bias = joined(module)
        self._module, self.made, self.width = ref(module), ready(weight, bias, precision), len(weight)

    def __call__(self, input: Tensor) -> Tensor:
        """The map's outputs, float32."""
        if not torch.is_inference_mode_enabled():
            module = cast(nn.Linear, self._module())
            return F.linear(input, module.weight, module.bias)
        flat = input.reshape(-1, input.shape[-1]).float()
        return self.made(flat).view(*input.shape[:-1], self.width)


def quick_forwards(backbone: Any, precision: Precision, whole: bool = True) -> Replaced:
    """Each module that is changed, in which attribute and to what; only maps where the body is not to be taken `whole`.

    Heads stay in single precision: they are small, and some are made of large numbers that a few bits would not tell
    apart (`mlm.make_identity`).
    """
    base: Any = base_of(backbone)
    made: Replaced = []
    layers = _layers(base, precision) if whole else None
    if layers is not None:
        made.append((ref(base), "forward", QuickBody(base, layers)))
    inner = {id(module) for module in base.modules()}
    for module in backbone.modules():
        if type(module) is nn.Linear and "forward" not in vars(module):
            within = id(module) in inner
            if not (within and layers is not None) or module in _around(base):
                made.append((ref(module), "forward", QuickLinear(module, precision if within else "fp32")))
    head = _head(backbone, precision)
    return made if head is None else [*made, head]


def _head(backbone: Any, precision: Precision) -> tuple[ref[nn.Module], str, Any] | None:
    """A vocabulary head that hands its input through (`models/mlm.py`): what makes term weights of it."""
    from flatcoat.models.fast.head import ByteHead, ExactHead

    decoder = getattr(backbone, "get_output_embeddings", lambda: None)()
    if not isinstance(decoder, nn.Linear) or "forward" not in vars(decoder) or not has_bias(decoder):
        return None
    bytes_ = precision == "int8" and decoder.in_features % 16 == 0 and numba_is_there()
    return ref(decoder), "quick", (ByteHead if bytes_ else ExactHead)(decoder.weight, decoder.bias)


def _around(base: Any) -> set[nn.Module]:
    """Maps of a body that are not in its layers."""
    pooler = getattr(base, "pooler", None)
    return {m for m in (getattr(pooler, "dense", None), getattr(base, "embeddings_project", None)) if m is not None}


def _layers(base: Any, precision: Precision) -> Layers | None:
    """The body's layers where their kind is known and their sizes fit the compiled loops."""
    parts, activation = parts_of(base), activation_of(base.config)
    if parts is None or activation is None or not numba_is_there() or "forward" in vars(base):
        return None
    if any(getattr(base.config, said, False) for said in OTHERWISE):
        return None
    from flatcoat.models.fast.tiles import WIDE

    heads = int(base.config.num_attention_heads)
    hidden, wide = parts[0].query.in_features, parts[0].up.out_features
    if hidden % (heads * WIDE) or wide % WIDE or parts[0].query.out_features != hidden:
        return None
    return Layers(parts, heads, activation, precision)


@contextlib.contextmanager
def quickly(backbone: nn.Module | None, runtime: Runtime, *, whole: bool = True) -> Generator[bool, None, None]:
    """Run a backbone quickly in inference mode meanwhile; gives whether it is. On other devices than the CPU nothing is changed.

    What is made ready is kept beside the backbone and used again while its weights are the same. `whole` False leaves
    attention to the network: for masks that hide tokens whose own states are wanted.
    """
    if backbone is None or not runtime.on_cpu:
        yield False
        return
    with _lock:
        if backbone in _running:  # the one around this does it
            yield True
            return
        _running.add(backbone)
        replaced = [(of(), name, by) for of, name, by in _ready(backbone, runtime.precision, whole)]
        for module, name, by in replaced:
            vars(module)[name] = by
        try:
            yield True
        finally:
            _running.discard(backbone)
            for module, name, _ in replaced:
                vars(module).pop(name, None)


def _ready(backbone: nn.Module, precision: Precision, whole: bool) -> Replaced:
    kept = _kept.setdefault(backbone, {})
    found = kept.get((precision, whole))
    if found is None or not found.holds(backbone):
        found = kept[precision, whole] = Kept(backbone, quick_forwards(backbone, precision, whole))
    return found.replaced
