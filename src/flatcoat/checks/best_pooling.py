"""Measures every pooling on a sample of judged pairs: a checkpoint whose settings were lost or edited is found out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from flatcoat.checks.base import Finding, ok
from flatcoat.models.dense import DenseModel, Tower
from flatcoat.models.encode import encode_all
from flatcoat.models.pooling import POOL, POOLINGS

MARGIN = 0.1
EQUAL = 1e-5  # of the greatest score: what arithmetic of 32 bits may make of one value


class _EveryPooling:
    """A tower whose vectors are those of all poolings, one behind the other, of one pass through its network."""

    def __init__(self, tower: Tower):
        self.tower, self.backbone, self.pad_id = tower, tower.backbone, tower.pad_id
        self.dim, self.training = len(POOLINGS) * tower.dim, tower.training

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tower.tokenize(texts)

    def train(self, mode: bool = True) -> Tower:
        return self.tower.train(mode)

    def __call__(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Float[Tensor, "b p*d"]:
        states = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        made = [POOL[name](states, torch.ones_like(ids) if mask is None else mask).float() for name in POOLINGS]
        return torch.cat([F.normalize(one, dim=-1) for one in made] if self.tower.settings.normalise else made, 1)


def pooling_by_measure(model: DenseModel, queries: list[str], documents: list[str]) -> list[Finding]:
    """`queries[i]` is answered by `documents[i]`; the reciprocal rank of that document among all, by pooling."""
    used = model.document.settings.pooling
    sides = [(model.query, queries), (model.document, documents)]
    made = [encode_all(_EveryPooling(tower), texts, model.runtime) for tower, texts in sides]
    asked, answering = ([*side.reshape(len(side), len(POOLINGS), -1).swapaxes(0, 1)] for side in made)
    quality = {name: _reciprocal_rank(q @ d.T) for name, q, d in zip(POOLINGS, asked, answering, strict=True)}
    best = max(quality, key=lambda name: quality[name])
    table = ", ".join(f"{name} {value:.3f}" for name, value in quality.items())
    if quality[best] > quality[used] + MARGIN:
        message = f"pooled by {used}, yet {best} is far better on {len(queries)} judged pairs (RR: {table})"
        return [Finding("error", "best-pooling", message, f"the checkpoint was likely trained with {best}; correct it")]
    return [ok("best-pooling", f"{used} on {len(queries)} judged pairs (RR: {table})")]


def _reciprocal_rank(scores: np.ndarray) -> float:
    """Of each row's own column, ties at their middle: a pooling that gives every text one vector ranks nothing."""
    over = scores - np.diag(scores)[:, None]
    near = EQUAL * float(np.abs(scores).max())
    rank = (over > near).sum(1) + ((np.abs(over) <= near).sum(1) + 1) / 2
    return float((1 / rank).mean())
