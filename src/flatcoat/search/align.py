"""Which tokens of a query and a document meet: the matches that a late-interaction score is the sum of,

    s(q, d) = Σ_i max_j ⟨q_i, d_j⟩      (ColBERT: Khattab & Zaharia 2020, arXiv 2004.12832)

and a cross-encoder's attention. The first says where the score comes from. The second does not: other attention can go with
the same score (Jain & Wallace 2019, arXiv 1902.10186).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from flatcoat.errors import FlatcoatError
from flatcoat.models.colbert import LateModel, LateTower
from flatcoat.models.cross import CrossModel
from flatcoat.models.encode import pad


@dataclass(frozen=True)
class Alignment:
    """A query token, the document token it matches best (with its place among those that have a vector, from 0), their inner
    product, and its share of the score. Special tokens and expansion count, as they do in the score.
    """

    token: str
    best: str
    place: int
    similarity: float
    share: float


@dataclass(frozen=True)
class Attended:
    """A document token (with its place in the document, from 0), and the mean attention that the query's tokens pay it."""

    token: str
    place: int
    attention: float


def align(model: LateModel, query: str, document: str) -> list[Alignment]:
    """Each query token's match, in the query's order; similarities add up to the score.

    Raises:
        FlatcoatError: the document has no token with a vector, so that there is nothing to match.
    """
    tokens, asked = token_vectors(model.query, query, model.runtime)
    words, held = token_vectors(model.document, document, model.runtime)
    if not len(held):
        raise FlatcoatError("every token of the document is one that the model skips: there is nothing to match")
    products = asked @ held.T
    places, best = products.argmax(1).tolist(), products.max(1).astype(np.float64)
    score = float(best.sum())
    return [
        Alignment(token, words[place], place, similarity, similarity / score if score else 0.0)
        for token, place, similarity in zip(tokens, places, best.tolist(), strict=True)
    ]


@torch.inference_mode()
def token_vectors(tower: LateTower, text: str, runtime: Any) -> tuple[list[str], np.ndarray]:
    """The tokens of a text that have a vector, and the vectors [token, dim]."""
    tower.train(False)
    ids = tower.tokenize([text])[0]
    made = tower(*pad([ids], tower.pad_id, runtime.device))
    present = made["present"][0].cpu().numpy()
    names = tower.tokenizer.convert_ids_to_tokens([token for token, here in zip(ids, present, strict=True) if here])
    return names, made["tokens"][0].float().cpu().numpy()[present]


@torch.inference_mode()
def attended(model: CrossModel, query: str, document: str, k: int = 10) -> list[Attended]:
    """The `k` document tokens that the query's tokens attend to most in the last layer, most first. Not why the score is what it is.

    The network is turned to plain attention for good.

    Raises:
        FlatcoatError: the architecture gives no attention.
    """
    tower = model.tower
    tower.train(False)
    ids, mask = pad(tower.tokenize([(query, document)]), tower.pad_id, model.runtime.device)
    attention = tower.attend(ids, mask)[1][0].cpu().numpy()
    own = tower.content(ids, mask)[1][0]
    names = tower.tokenizer.convert_ids_to_tokens(ids[0][own].tolist())
    paid = attention.mean(0) if len(attention) else np.zeros(len(names), np.float32)
    order = np.lexsort((np.arange(len(paid)), -paid))[:k]
    return [Attended(names[place], place, float(paid[place])) for place in order.tolist()]
