"""Masked-language models as SPLADE sees them: a network that gives states, and a decoder from states to the vocabulary.

The decoder is tapped: within the network it hands its input through, so that `network(...).logits` are the head's
transformed states, whatever the architecture calls its parts; its weight and bias are read by the streamed head. No
parameter changes its name, and what is saved is the plain checkpoint.

An encoder without that head is given one that begins as the identity: W = I, a bias that carries the activation to where
it is the identity too (layer normalisation takes the shift out again), and the decoder tied to the input embeddings. Its
states then rank their own tokens first, so training begins as lexical search.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import write_json
from flatcoat.models.backbone import has_bias, load_backbone, read_pretrained, save_tokenizer
from flatcoat.models.said import object_of, words

SHIFT = 8.0  # GELU and ReLU are the identity from here on, to fp32's rounding
OFF = -1e4  # the bias of an entry that is switched off: finite, for tools that multiply masks, and within fp16
TERMS = 150  # entries of a text that a new head leaves above zero


def _through(states: Tensor) -> Tensor:
    return states


def decoder_of(network: Any) -> nn.Linear:
    """The map from states to the vocabulary. Raises FlatcoatError where there is none with a bias."""
    decoder = network.get_output_embeddings()
    if not isinstance(decoder, nn.Linear) or not has_bias(decoder):
        raise FlatcoatError(f"{type(network).__name__}: its head has no linear decoder with a bias")
    return decoder


def has_head(folder: Path) -> bool:
    """Whether a folder says that it holds a masked-language model."""
    where = folder / "config.json"
    return any("MaskedLM" in name for name in words(object_of(where), "architectures", where))


def load_mlm(folder: Path) -> tuple[nn.Module, Any]:
    """The tapped network (fp32, evaluation mode) and tokenizer of a folder; an encoder without a head is given one.

    Raises:
        FlatcoatError: no weights, weights that are missing, or an architecture without a masked-language model.
    """
    import transformers

    if not has_head(folder):
        return _with_a_head(folder)
    network, tokenizer = read_pretrained(folder, transformers.AutoModelForMaskedLM)
    return tap(network), tokenizer


def tap(network: Any) -> nn.Module:
    """The network with its decoder handing states through."""
    decoder_of(network).forward = _through  # type: ignore[method-assign]
    return network.float().train(False)


def _with_a_head(folder: Path) -> tuple[nn.Module, Any]:
    import transformers

    encoder, tokenizer = load_backbone(folder)
    config: Any = encoder.config
    state = torch.get_rng_state()
    try:
        network: Any = transformers.AutoModelForMaskedLM.from_config(config)
    except ValueError as error:
        raise Misuse(f"{folder}: {config.model_type} has no masked-language-model form in transformers") from error
    finally:
        torch.set_rng_state(state)
    network.base_model.load_state_dict(encoder.state_dict(), strict=False)
    network.tie_weights()
    make_identity(network)
    tap(network)
    calibrate(network)
    return network, tokenizer


def make_identity(network: Any) -> None:
    """Set the head's transform to the identity up to layer normalisation, and the decoder's bias to zero.

    Raises FlatcoatError on a head of another shape.
    """
    body = {id(part) for part in network.base_model.modules()}
    decoder = decoder_of(network)
    parts = [p for p in network.modules() if id(p) not in body and p is not decoder]
    maps = [p for p in parts if isinstance(p, nn.Linear)]
    norms = [p for p in parts if isinstance(p, nn.LayerNorm)]
    if len(maps) != 1 or len(norms) != 1 or maps[0].in_features != maps[0].out_features or not has_bias(maps[0]):
        raise FlatcoatError(f"{type(network).__name__}: a head that is not one map and one normalisation is not known")
    with torch.no_grad():
        maps[0].weight.copy_(torch.eye(maps[0].in_features))
        maps[0].bias.fill_(SHIFT)
        norms[0].weight.fill_(1.0)
        if has_bias(norms[0]):
            norms[0].bias.zero_()
        decoder.bias.zero_()


@torch.no_grad()
def calibrate(network: Any, terms: int = TERMS) -> None:
    """Lower the decoder's bias until about `terms` entries of a text stay above zero (texts of 24 random tokens)."""
    decoder = decoder_of(network)
    rng = torch.Generator().manual_seed(0)
    length = min(24, getattr(network.config, "max_position_embeddings", 24) - 4)
    ids = torch.randint(len(decoder.weight), (16, length), generator=rng)
    states = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    greatest = torch.stack([(text @ decoder.weight.T + decoder.bias).amax(0) for text in states])
    level = greatest.topk(min(terms, greatest.shape[1]), dim=1).values[:, -1].median()
    decoder.bias.sub_(level)


def switch_off(network: Any, ids: list[int]) -> None:
    """Write into the decoder's bias that these entries never appear, so that every tool that loads the model knows."""
    with torch.no_grad():
        decoder_of(network).bias[ids] = OFF


def switched_off(network: Any) -> list[int]:
    """The entries that never appear."""
    return (decoder_of(network).bias <= OFF / 2).nonzero().squeeze(1).tolist()


def save_mlm(network: Any, tokenizer: Any, folder: Path, max_length: int) -> None:
    """Write a network and its tokenizer as transformers does, and the length that sentence-transformers reads."""
    import transformers

    transformers.logging.disable_progress_bar()
    network.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_tokenizer(tokenizer, folder, max_length)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
