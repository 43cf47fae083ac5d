"""Late interaction: a vector for each token   s(q, d) = Σ_i max_j ⟨q_i, d_j⟩,  ‖q_i‖ = ‖d_j‖ = 1

(ColBERT: Khattab & Zaharia 2020, arXiv 2004.12832; ColBERTv2: Santhanam et al. 2022, arXiv 2112.01488). What a text may carry
besides its words: a *marker* token after the first special one, which says query or document; *expansion*, which fills short queries
up with [MASK] tokens whose vectors count though no other token attends to them; and tokens to *skip*, punctuation as a rule, whose
vectors documents do without. Special tokens and markers count as tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from flatcoat.errors import Misuse
from flatcoat.models.base import Runtime
from flatcoat.models.encode_multi import encode_multi
from flatcoat.models.texts import TextTower
from flatcoat.representations import MultiVector

PAIRS = 1024  # pairs whose texts are encoded together when pairs are scored


@dataclass(frozen=True)
class LateSettings:
    """What a tower does around its backbone.

    `max_length` counts tokens, special ones, marker and expansion included; `marker` is a token of the vocabulary;
    `expansion` the number of tokens that shorter texts are filled up to, None where they are not; `attend_expansion` whether
    other tokens see those; `skip` names tokens whose vectors are left out.
    """

    max_length: int
    prompt: str = ""
    marker: str | None = None
    expansion: int | None = None
    attend_expansion: bool = False
    skip: tuple[str, ...] = ()


class LateTower(TextTower):
    """A backbone, a projection of each token's state (None: the state itself), and unit length.

    Raises:
        Misuse: a marker that is no token, an expansion beyond `max_length`, or one without a token to fill with.
    """

    skip_ids: Tensor

    def __init__(self, backbone: nn.Module, projection: nn.Linear | None, tokenizer: Any, settings: LateSettings):
        super().__init__(tokenizer, settings)
        self.backbone, self.projection = backbone, projection
        self.marker_id = None if settings.marker is None else token_id(tokenizer, settings.marker)
        if settings.marker is not None and self.marker_id is None:
            raise Misuse(f"marker {settings.marker!r} is not a token of this model's vocabulary; add it first")
        if settings.expansion is not None and settings.expansion > settings.max_length:
            raise Misuse(
                f"expansion {settings.expansion} is beyond max_length {settings.max_length}; want at most that"
            )
        self.fill_id = None if settings.expansion is None else filling(tokenizer)
        if settings.expansion is not None and self.fill_id is None:
            raise Misuse("expansion: this model's vocabulary has neither a mask nor an end token to fill queries with")
        own = 0 if self.marker_id is None else 1
        self._words = TextTower(tokenizer, replace(settings, max_length=settings.max_length - own))
        skipped = [found for word in settings.skip if (found := token_id(tokenizer, word)) is not None]
        self.register_buffer("skip_ids", torch.tensor(sorted(set(skipped)), dtype=torch.long), persistent=False)

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        if self.projection is not None:
            return self.projection.out_features
        return int(self.backbone.config.hidden_size)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text behind the prompt, with its marker and its expansion, cut to `max_length`."""
        rows = self._words.tokenize(texts)
        if self.marker_id is not None:
            rows = [[*row[:1], self.marker_id, *row[1:]] for row in rows]
        if self.settings.expansion is not None and self.fill_id is not None:
            rows = [row + [self.fill_id] * (self.settings.expansion - len(row)) for row in rows]
        return rows

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text behind the prompt, marker included, expansion not, uncut."""
        own = 0 if self.marker_id is None else 1
        return [length + own for length in super().lengths(texts)]

    def forward(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> dict[str, Tensor]:
        """What `read` makes of the states of tokenised texts; `mask` None where no row is padded."""
        seen = self.attended(ids, mask)
        return self.read(self.backbone(input_ids=ids, attention_mask=seen).last_hidden_state, ids, mask)

    @property
    def sees_less(self) -> bool:
        """Whether tokens are hidden from attention whose own vectors are wanted: expansion that is not attended."""
        return self.fill_id is not None and not self.settings.attend_expansion

    def attended(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Int[Tensor, "b t"] | None:
        """The attention mask: `mask` without the expansion, where that is not attended."""
        if not self.sees_less or self.fill_id is None:
            return mask
        present = torch.ones_like(ids) if mask is None else mask
        return present.masked_fill(expanded(ids, present.bool(), self.fill_id), 0)

    def read(
        self, states: Float[Tensor, "b t h"], ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None
    ) -> dict[str, Tensor]:
        """`tokens` Float[b t k], unit vectors in float32, and `present` Bool[b t]: neither padding nor to be skipped."""
        vectors = states if self.projection is None else self.projection(states)
        present = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        if len(self.skip_ids):
            present = present & ~torch.isin(ids, self.skip_ids)
        return {"tokens": F.normalize(vectors.float(), dim=-1), "present": present}


def token_id(tokenizer: Any, token: str) -> int | None:
    """The id of a token of the vocabulary, or None."""
    found = tokenizer.convert_tokens_to_ids(token)
    return None if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token) else int(found)


def filling(tokenizer: Any) -> int | None:
    """The id of the token that queries are filled up with: the mask token, or the end token where there is none."""
    found = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.eos_token_id
    return None if found is None else int(found)


def expanded(ids: Int[Tensor, "b t"], present: Bool[Tensor, "b t"], fill_id: int) -> Bool[Tensor, "b t"]:
    """Which tokens fill up: those of `fill_id` behind the last other one. (One that a text itself holds stands before its end.)"""
    column = torch.arange(ids.shape[1], device=ids.device)
    words = present & (ids != fill_id)
    last = torch.where(words, column, -1).amax(1, keepdim=True)
    return present & (column > last)


class LateModel(nn.Module):
    """A query tower and a document tower; where they share weights, backbones and projections are one object each."""

    def __init__(self, query: LateTower, document: LateTower, runtime: Runtime | None = None):
        super().__init__()
        if query.dim != document.dim:
            raise ValueError(f"{query.dim} dimensions of queries and {document.dim} of documents: want the same")
        self.query, self.document = query, document
        self.runtime = runtime or Runtime()

    @property
    def shared(self) -> bool:
        """Whether both towers have the same weights."""
        return self.query.backbone is self.document.backbone and self.query.projection is self.document.projection

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.document.dim

    def encode_queries(self, texts: Sequence[str]) -> MultiVector:
        """Token vectors of queries, in the order given."""
        return encode_multi(self.query, texts, self.runtime)

    def encode_documents(self, texts: Sequence[str]) -> MultiVector:
        """Token vectors of documents, in the order given."""
        return encode_multi(self.document, texts, self.runtime)

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """MaxSim of queries[i] with documents[i]: float32 [pair]. A text that stands in several pairs is encoded once a block.

        Raises:
            ValueError: not as many documents as queries.
        """
        if len(queries) != len(documents):
            raise ValueError(f"{len(queries)} queries and {len(documents)} documents: want pairs")
        blocks = [slice(start, start + PAIRS) for start in range(0, len(queries), PAIRS)]
        found = [self._score(queries[block], documents[block]) for block in blocks]
        return np.concatenate([np.zeros(0, np.float32), *found])

    def _score(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        rows, columns = ({text: i for i, text in enumerate(dict.fromkeys(texts))} for texts in (queries, documents))
        left, right = self.encode_queries(list(rows)), self.encode_documents(list(columns))
        pairs = zip(queries, documents, strict=True)
        return np.array([pair_score(left.item(rows[q]), right.item(columns[d])) for q, d in pairs], np.float32)


def pair_score(query: Float[np.ndarray, "m k"], document: Float[np.ndarray, "n k"]) -> float:
    """Σ_i max_j ⟨q_i, d_j⟩ of one pair; 0 where either has no token."""
    return float((query @ document.T).max(1).sum()) if len(query) and len(document) else 0.0
