"""What post-training puts around an encoder and throws away after: a head onto the vocabulary, and RetroMAE's decoder.

RetroMAE (Xiao et al. 2022, arXiv 2205.12035): the encoder reads a lightly masked text and gives its vector h; a decoder of one
layer must make the whole text again from h and few of its tokens, so h has to carry the rest. Enhanced decoding (§3.3): position i
asks with (h + p_i) among the keys [h; e_1 + p_1; …; e_n + p_n], e the embeddings of the text as it was and p places, and sees h
always, a random share of the other tokens, and never itself, so that every token of the text is a question, each with its own context.

h is pooled as the model pools, before it is brought to unit length. For term weights a it is the continuous bag of words of LexMAE
(Shen et al. 2023, arXiv 2208.14754): Σ_j a_j w_j / Σ_j a_j, with w the vocabulary's embeddings, which this does not move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.dense import Tower
from flatcoat.models.mlm import decoder_of, make_identity, tap
from flatcoat.models.pooling import POOL
from flatcoat.models.splade import SpladeTower
from flatcoat.models.texts import TextTower

Ids = Int[Tensor, "b t"]
Mask = Int[Tensor, "b t"] | None
Pool = Callable[[Tensor, Tensor, Mask], Tensor]


class MaskedModel(nn.Module):
    """A tower's backbone under a head onto its vocabulary, and RetroMAE's decoder where there is one."""

    def __init__(self, network: nn.Module, pool: Pool | None = None, decoder: EnhancedDecoder | None = None):
        super().__init__()
        self.network, self.pool, self.decoder = network, pool, decoder

    @property
    def output(self) -> nn.Linear:
        """The map from the head's states to the vocabulary."""
        return decoder_of(self.network)

    def forward(self, ids: Ids, mask: Mask) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b t e"]]:
        """The encoder's states and the head's, in one pass; `mask` None where no row is padded."""
        network: Any = self.network
        seen: list[Tensor] = []
        hook = network.base_model.register_forward_hook(lambda *call: seen.append(call[2][0]))
        try:
            head = network(input_ids=ids, attention_mask=mask).logits
        finally:
            hook.remove()
        return seen[0], head

    def rebuild(
        self, states: Tensor, head: Tensor, ids: Ids, mask: Mask, visible: Bool[Tensor, "b t u"]
    ) -> Float[Tensor, "b t d"]:
        """The decoder's states of every position, from the text's vector and what `visible` shows of `ids`, the text as it was.

        Raises ValueError where no decoder was made.
        """
        if self.pool is None or self.decoder is None:
            raise ValueError("no decoder was made: this is a masked-language model only")
        network: Any = self.network
        return self.decoder(self.pool(states, head, mask), network.get_input_embeddings()(ids), visible)


class EnhancedDecoder(nn.Module):
    """One transformer layer, normalised after each part as BERT's, in which nobody sees itself."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ask, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.of_vector, self.of_tokens, self.first, self.second = (nn.LayerNorm(dim) for _ in range(4))

    def forward(
        self, vector: Float[Tensor, "b d"], tokens: Float[Tensor, "b t d"], visible: Bool[Tensor, "b t u"]
    ) -> Float[Tensor, "b t d"]:
        """States of every position; `visible` has a column for the vector, then one a token."""
        vector, tokens = self.of_vector(vector)[:, None], self.of_tokens(tokens)
        place = sinusoids(tokens.shape[1], tokens.shape[2]).to(tokens.device)
        asks, keys = vector + place, torch.cat([vector, tokens + place], 1)
        split = (self._heads(part) for part in (self.ask(asks), self.key(keys), self.value(keys)))
        mixed = F.scaled_dot_product_attention(*split, attn_mask=visible[:, None])
        states = self.first(asks + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.second(states + self.narrow(F.gelu(self.wide(states))))

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)


def sinusoids(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Places as sines and cosines of falling frequency (Vaswani et al. 2017, arXiv 1706.03762, §3.5)."""
    turns = torch.arange(length)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(1e4) / dim))
    return torch.stack([turns.sin(), turns.cos()], 2).flatten(1)[:, :dim]


def enhanced_mask(length: int, hidden: float, rng: np.random.Generator) -> Bool[np.ndarray, "t u"]:
    """What each position of a text of `length` tokens may see: the text's vector (column 0) and other tokens (columns from 1).

    Each other token is hidden with probability `hidden`, drawn for every pair anew; a position's own is hidden always.
    """
    seen = np.ones((length, 1 + length), dtype=bool)
    seen[:, 1:] = rng.random((length, length), dtype=np.float32) >= hidden
    seen[np.arange(length), 1 + np.arange(length)] = False
    return seen


def masked_model(tower: TextTower, *, decoder: bool, seed: int) -> MaskedModel:
    """A masked model around `tower.backbone`, whose weights it shares; what is new begins from `seed`.

    Raises:
        Misuse: a tower without a backbone, an architecture without a masked-language model, or, for a decoder, a tower that
            does not make one vector of a text or embeddings of another width than the states.
    """
    backbone: Any = getattr(tower, "backbone", None)
    if backbone is None:
        raise Misuse(f"{type(tower).__name__} has no network to post-train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = backbone if isinstance(tower, SpladeTower) else _under_a_head(backbone)
        if not decoder:
            return MaskedModel(network)
        return MaskedModel(network, _pool_of(tower), _decoder_for(network))


def _under_a_head(backbone: Any) -> nn.Module:
    """A tapped masked-language network around a backbone. Its head begins as the identity where its shape has one."""
    import transformers

    try:
        network: Any = transformers.AutoModelForMaskedLM.from_config(backbone.config)
    except ValueError as error:
        kind = backbone.config.model_type
        raise Misuse(f"{kind} has no masked-language-model form in transformers; it cannot be post-trained") from error
    setattr(network, network.base_model_prefix, backbone)
    output, embeddings = decoder_of(network), backbone.get_input_embeddings()
    output.weight = embeddings.weight
    try:
        make_identity(network)
    except FlatcoatError:  # a head of another shape begins as its architecture has it begin
        with torch.no_grad():
            output.bias.zero_()
    return tap(network)


def _decoder_for(network: Any) -> EnhancedDecoder:
    width, dim = network.get_input_embeddings().weight.shape[1], int(network.config.hidden_size)
    if width != dim:
        raise Misuse(f"retromae: embeddings of {width} dimensions under states of {dim}; use task mlm for this model")
    heads = int(getattr(network.config, "num_attention_heads", 1))
    return EnhancedDecoder(dim, heads if dim % heads == 0 else 1)


def _pool_of(tower: TextTower) -> Pool:
    """The text's vector as the tower makes it. Raises Misuse where it makes none."""
    if isinstance(tower, SpladeTower):
        return lambda states, head, mask: bag_of_words(tower.read(head, mask), decoder_of(tower.backbone).weight)
    if isinstance(tower, Tower):
        pool = POOL[tower.settings.pooling]
        return lambda states, head, mask: pool(states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
                                               if mask is None else mask)  # fmt: skip
    raise Misuse(f"retromae: {type(tower).__name__} does not make one vector of a text; use task mlm")


def bag_of_words(terms: Float[Tensor, "b v"], weight: Float[Tensor, "v d"]) -> Float[Tensor, "b d"]:
    """The mean of the vocabulary's embeddings under term weights; a text of no terms has the zero vector."""
    share = terms / terms.sum(1, keepdim=True).clamp(min=torch.finfo(terms.dtype).tiny)
    return share @ weight.detach()
