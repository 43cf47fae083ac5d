"""What a sparse model sees in a text: its heaviest terms, the input token behind each, and what two texts share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flatcoat.models.encode import pad
from flatcoat.models.mlm import decoder_of
from flatcoat.models.splade import LookupTower, SpladeModel, SpladeTower


@dataclass(frozen=True)
class TermOf:
    """A term of a text: its weight, and the token (with its place, from 0) whose logit for it is the greatest."""

    term: str
    weight: float
    token: str
    place: int


@dataclass(frozen=True)
class Shared:
    """A term of both texts and its part of the score."""

    term: str
    query: float
    document: float
    product: float
    share: float


@torch.inference_mode()
def terms_of(model: SpladeModel, tower: SpladeTower | LookupTower, text: str, k: int = 10) -> tuple[list[TermOf], int]:
    """The `k` heaviest terms of a text, heaviest first, and how many it has in all."""
    tower.train(False)
    ids = tower.tokenize([text])[0]
    weights = tower(*pad([ids], tower.pad_id, model.runtime.device))[0].cpu().numpy()
    present = np.flatnonzero(weights)
    best = present[np.lexsort((present, -weights[present]))][:k]
    places = _places(tower, ids, best, model.runtime.device)
    names, tokens = model.vocabulary, tower.tokenizer.convert_ids_to_tokens(ids)
    found = [
        TermOf(names[term], float(weights[term]), tokens[place], place)
        for term, place in zip(best.tolist(), places, strict=True)
    ]
    return found, len(present)


def _places(tower: SpladeTower | LookupTower, ids: list[int], terms: np.ndarray, device: str) -> list[int]:
    if isinstance(tower, LookupTower):
        return [ids.index(term) for term in terms.tolist()]
    if not len(terms):
        return []
    decoder = decoder_of(tower.backbone)
    chosen = torch.from_numpy(terms).to(device)
    states = tower.backbone(input_ids=torch.tensor([ids], device=device), attention_mask=None).logits[0].float()
    return (states @ decoder.weight[chosen].T + decoder.bias[chosen]).argmax(0).tolist()


def shared_terms(model: SpladeModel, query: str, document: str) -> tuple[list[Shared], float]:
    """Terms that a query and a document share, by their part of the score, and the score."""
    left, right = model.encode_queries([query]).array()[0], model.encode_documents([document]).array()[0]
    products = left * right
    score = float(products.sum())
    both = np.flatnonzero(products)
    both = both[np.lexsort((both, -products[both]))]
    names = model.vocabulary
    found = [
        Shared(names[t], float(left[t]), float(right[t]), float(products[t]), float(products[t]) / score)
        for t in both.tolist()
    ]
    return found, score
