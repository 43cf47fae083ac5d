"""Measures every pooling on a sample of judged pairs: a checkpoint whose settings were lost or edited is found out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.models.dense import DenseModel
from flatcoat.models.encode import encode_all
from flatcoat.models.pooling import POOLINGS

MARGIN = 0.1
EQUAL = 1e-5  # of the greatest score: what arithmetic of 32 bits may make of one value


def pooling_by_measure(model: DenseModel, queries: list[str], documents: list[str]) -> list[Finding]:
    """`queries[i]` is answered by `documents[i]`; the reciprocal rank of that document among all, by pooling."""
    before = (model.query.settings, model.document.settings)
    used, quality = before[1].pooling, {}
    try:
        for name in POOLINGS:
            for tower, settings in zip((model.query, model.document), before, strict=True):
                tower.settings = replace(settings, pooling=name)  # pyright: ignore[reportArgumentType]
            scores = (
                encode_all(model.query, queries, model.runtime) @ encode_all(model.document, documents, model.runtime).T
            )
            quality[name] = _reciprocal_rank(scores)
    finally:
        model.query.settings, model.document.settings = before
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
