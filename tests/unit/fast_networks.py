"""Small networks with every weight drawn, so that a bias or a gain that is forgotten shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatcoat.models.base import Runtime
from flatcoat.models.fast.network import quickly

WORDS = 60


def drawn(network: Any, seed: int = 0, scale: float = 0.1) -> Any:
    """The network in evaluation mode, with noise in all of its weights."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in network.parameters():
            one.add_(scale * torch.randn(one.shape, generator=rng))
    return network.train(False)


def made(kind: str, hidden: int = 64, seed: int = 0, **more: Any) -> Any:
    """A network of transformers by its class's name, of two layers and two heads."""
    import transformers

    network = getattr(transformers, kind)
    said = network.config_class.model_type
    sizes = {"vocab_size": WORDS, "pad_token_id": 1 if "roberta" in said else 0}
    if said == "distilbert":
        sizes |= {"dim": hidden, "n_layers": 2, "n_heads": 2, "hidden_dim": 2 * hidden, "max_position_embeddings": 80}
    else:
        sizes |= {"hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 2,
                  "intermediate_size": 2 * hidden, "max_position_embeddings": 80}  # fmt: skip
    if said == "modernbert":
        sizes |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return drawn(network(network.config_class(**{**sizes, **more})), seed)


def tokens(lengths: list[int], width: int = 0, pad: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random words padded to the longest text, or to `width`, and the mask."""
    rng = np.random.default_rng(seed)
    width = width or max(lengths)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask > 0, rng.integers(5, WORDS, mask.shape), pad)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def plainly(network: Any, **given: Any) -> Any:
    """What the network itself makes."""
    with torch.inference_mode():
        return network(**given)


def fast(network: Any, runtime: Runtime | None = None, *, whole: bool = True, **given: Any) -> Any:
    """What the network makes within `quickly`."""
    runtime = runtime or Runtime()
    with quickly(network, runtime, whole=whole) as is_quick, torch.inference_mode(), runtime.autocast():
        assert is_quick
        return network(**given)


def patched(network: Any) -> list[str]:
    """Modules whose forward pass is replaced."""
    return [name for name, module in network.named_modules() if "forward" in vars(module)]
