"""Dense dual encoders: s(q, d) = E_Q(q) · E_D(d)   (DPR: Karpukhin et al. 2020, arXiv 2004.04906).

The score is always the dot product. Whether it is a cosine is said in one place, `TowerSettings.normalise`: the
encoder then gives unit vectors, in training as in search. Pooling, prompt and length belong to the checkpoint too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from flatcoat.models.base import Runtime
from flatcoat.models.encode import encode_all
from flatcoat.models.pooling import POOL, Pooling
from flatcoat.models.texts import TextTower
from flatcoat.representations import Dense


@dataclass(frozen=True)
class TowerSettings:
    """What a tower does around its backbone. `max_length` counts tokens, special ones included."""

    pooling: Pooling
    normalise: bool
    max_length: int
    prompt: str = ""


class Tower(TextTower):
    """A backbone, its pooling, and unit length where `normalise` is true."""

    def __init__(self, backbone: nn.Module, tokenizer: Any, settings: TowerSettings):
        super().__init__(tokenizer, settings)
        self.backbone = backbone

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.backbone.config.hidden_size)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]

    def forward(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Float[Tensor, "b d"]:
        """Vectors of tokenised texts; `mask` None where no row is padded."""
        return self.read(self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state, ids, mask)

    def read(
        self, states: Float[Tensor, "b t h"], ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None
    ) -> Float[Tensor, "b d"]:
        """Vectors from the backbone's last states."""
        present = torch.ones_like(ids) if mask is None else mask
        vectors = POOL[self.settings.pooling](states, present).float()
        return F.normalize(vectors, dim=-1) if self.settings.normalise else vectors


class DenseModel(nn.Module):
    """A query tower and a document tower; where they share weights, `document.backbone is query.backbone`."""

    def __init__(self, query: Tower, document: Tower, runtime: Runtime | None = None):
        super().__init__()
        self.query, self.document = query, document
        self.runtime = runtime or Runtime()

    @property
    def shared(self) -> bool:
        """Whether both towers have the same weights."""
        return self.query.backbone is self.document.backbone

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.document.dim

    def encode_queries(self, texts: Sequence[str]) -> Dense:
        """Vectors of queries, in the order given."""
        return Dense(self._encode(self.query, texts))

    def encode_documents(self, texts: Sequence[str]) -> Dense:
        """Vectors of documents, in the order given."""
        return Dense(self._encode(self.document, texts))

    def _encode(self, tower: Tower, texts: Sequence[str]) -> np.ndarray:
        return encode_all(tower, texts, self.runtime)
