"""Learned sparse encoders: SPLADE   s(q, d) = Σ_j w_j(q) w_j(d),  w_j = max_i or Σ_i log(1 + relu(logit_ij))

(SPLADE: Formal et al. 2021, arXiv 2107.05720, the sum; v2: arXiv 2109.10086, the maximum, and SPLADE-doc; efficient
SPLADE with separate encoders: Lassance & Clinchant 2022, arXiv 2207.03834). Inference-free queries are a lookup: each
token of the query, once, times a weight of its own (arXiv 2411.04403; IDF to begin with). `double_log` is the second
log(1 + ·) of arXiv 2504.14839.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flatcoat.models.base import Runtime
from flatcoat.models.encode_sparse import encode_sparse
from flatcoat.models.mlm import decoder_of
from flatcoat.models.streamed_head import Aggregate, streamed_head
from flatcoat.models.texts import TextTower
from flatcoat.representations import Sparse


@dataclass(frozen=True)
class SpladeSettings:
    """What a sparse tower does. `max_length` counts tokens, special ones included; `top_terms` None keeps every term."""

    max_length: int
    prompt: str = ""
    aggregate: Aggregate = "max"
    double_log: bool = False
    top_terms: int | None = None


class SpladeTower(TextTower):
    """A masked-language model whose head's weights are pooled over positions."""

    def __init__(self, backbone: nn.Module, tokenizer: Any, settings: SpladeSettings):
        super().__init__(tokenizer, settings)
        self.backbone = backbone
        if settings.double_log and settings.aggregate == "sum":
            raise ValueError("double_log goes with the maximum: log(1 + ·) of a sum is not the sum of it")

    @property
    def dim(self) -> int:
        """Entries of the vocabulary."""
        return len(decoder_of(self.backbone).weight)

    def forward(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Float[Tensor, "b v"]:
        """Term weights of tokenised texts; `mask` None where no row is padded."""
        return self.read(self.backbone(input_ids=ids, attention_mask=mask).logits, mask)

    def read(self, states: Float[Tensor, "b t h"], mask: Int[Tensor, "b t"] | None) -> Float[Tensor, "b v"]:
        """Term weights from the head's states."""
        decoder = decoder_of(self.backbone)
        quick = getattr(decoder, "quick", None) if torch.is_inference_mode_enabled() else None
        if quick is not None and self.settings.aggregate == "max":
            terms = quick(states, mask)
        else:
            terms = streamed_head(states, mask, decoder.weight, decoder.bias, self.settings.aggregate)
        return heaviest(torch.log1p(terms) if self.settings.double_log else terms, self.settings.top_terms)


class LookupTower(TextTower):
    """Queries without a network: each token once, at its own weight; special tokens are not added."""

    special = False

    def __init__(self, weight: Tensor, tokenizer: Any, settings: SpladeSettings, *, frozen: bool = False):
        super().__init__(tokenizer, settings)
        self.weight = nn.Parameter(weight.float(), requires_grad=not frozen)
        self.fresh = False  # whether its weights are yet to be set from a corpus

    @property
    def dim(self) -> int:
        """Entries of the vocabulary."""
        return len(self.weight)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; a text of none has one unknown token, which weighs nothing."""
        return [ids or [self.pad_id] for ids in super().tokenize(texts)]

    def forward(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Float[Tensor, "b v"]:
        """Term weights of tokenised texts."""
        here = torch.ones_like(ids, dtype=self.weight.dtype) if mask is None else mask.to(self.weight.dtype)
        present = torch.zeros(len(ids), self.dim, device=ids.device).scatter_reduce(1, ids, here, "amax")
        absent = torch.tensor(special_ids(self.tokenizer), device=ids.device)
        present = present.index_fill(1, absent, 0.0)
        return heaviest(present * torch.relu(self.weight), self.settings.top_terms)


def special_ids(tokenizer: Any) -> list[int]:
    """Ids of tokens that stand for no text."""
    return sorted(set(tokenizer.all_special_ids))


def heaviest(terms: Float[Tensor, "b v"], most: int | None) -> Float[Tensor, "b v"]:
    """Each text's `most` heaviest terms, the rest zero; gradients flow through those kept (top-k activation)."""
    if most is None or most >= terms.shape[1]:
        return terms
    values, places = terms.topk(most, dim=1)
    return torch.zeros_like(terms).scatter(1, places, values)


class SpladeModel(nn.Module):
    """A query tower and a document tower over one vocabulary; where they share weights, the backbones are one object."""

    def __init__(self, query: SpladeTower | LookupTower, document: SpladeTower, runtime: Runtime | None = None):
        super().__init__()
        if query.dim != document.dim:
            raise ValueError(f"{query.dim} terms of queries and {document.dim} of documents: want one vocabulary")
        self.query, self.document = query, document
        self.runtime = runtime or Runtime()

    @property
    def shared(self) -> bool:
        """Whether both towers have the same weights."""
        return isinstance(self.query, SpladeTower) and self.query.backbone is self.document.backbone

    @property
    def dim(self) -> int:
        """Entries of the vocabulary."""
        return self.document.dim

    @property
    def vocabulary(self) -> list[str]:
        """Each entry's text, by its number; entries that the tokenizer does not know are `#NUMBER`."""
        tokenizer = self.document.tokenizer
        names = {number: token for token, number in tokenizer.get_vocab().items()}
        return [names.get(number, f"#{number}") for number in range(self.dim)]

    def encode_queries(self, texts: Sequence[str]) -> Sparse:
        """Term weights of queries, in the order given."""
        return encode_sparse(self.query, texts, self.runtime)

    def encode_documents(self, texts: Sequence[str]) -> Sparse:
        """Term weights of documents, in the order given."""
        return encode_sparse(self.document, texts, self.runtime)
