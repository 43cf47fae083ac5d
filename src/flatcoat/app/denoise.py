"""A judge of negatives: what it takes for an answer is no negative (RocketQA's denoising: Qu et al. 2021, arXiv 2010.08191)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flatcoat.data.store import Collection


def refusing(
    source: str, above: float, collection: Collection, rows: np.ndarray, runtime: Any
) -> Callable[[int, np.ndarray], np.ndarray]:
    """What `mining.mine` asks of each query (a place in `rows`) and its candidates: which the judge gives a probability `above`.

    Raises:
        Misuse: no such model, or one that gives pairs no probability.
    """
    from flatcoat.errors import Misuse
    from flatcoat.models.cross import CrossModel
    from flatcoat.models.load import load_model

    model: Any = load_model(source)
    if not isinstance(model, CrossModel):
        raise Misuse(f"judge {source}: want a cross-encoder, which gives a pair a probability")
    model.runtime = runtime
    model.to(runtime.device)

    def refuse(query: int, candidates: np.ndarray) -> np.ndarray:
        if not len(candidates):
            return np.zeros(0, bool)
        text = collection.queries.texts(rows[query : query + 1])[0]
        scores = model.score([text] * len(candidates), list(collection.documents.texts(candidates)))
        return 1 / (1 + np.exp(-scores.astype(np.float64))) > above

    return refuse
