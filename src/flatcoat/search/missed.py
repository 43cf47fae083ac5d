"""What an index loses: its answers beside those of exact search over the same documents."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from flatcoat.index.base import TopK
from flatcoat.search.legs import DenseView, LateView, Leg, SparseView, View
from flatcoat.search.live import State

TIE = 1e-5  # relative: a document that exact search scores as high as its k-th may stand for it


def missed(leg: Leg, state: State, query: str, k: int, twin: Any) -> dict[str, Any]:
    """`k`, `recall`, the documents `missed` and the `seconds` of both; `twin` is the exact index of the leg's base.

    A leg without a twin is exact itself. Recall counts documents of equal score as interchangeable.
    """
    view = state.views[leg.name]
    given: Any = [query] if leg.encoding is None else leg.encoding.queries([query])
    depth = min(k, state.size)
    found, approximate = _timed(lambda: view.search(given, depth, state.alive))
    if twin is None:
        return {"k": k, "recall": 1.0, "missed": [], "seconds": {"approximate": approximate, "exact": approximate}}
    true = exactly(view, twin)
    wanted, exact = _timed(lambda: true.search(given, depth, state.alive))
    recall, lost = compare(wanted, found, exact_scores=not isinstance(view, SparseView))
    hits = [_hit(state, rank, int(wanted.rows[0, rank]), float(wanted.scores[0, rank])) for rank in lost]
    return {"k": k, "recall": recall, "missed": hits, "seconds": {"approximate": approximate, "exact": exact}}


def exactly(view: View, twin: Any) -> View:
    """The same rows over an exact index of the base."""
    if isinstance(view, SparseView):
        return view.on(twin)
    assert isinstance(view, DenseView | LateView)
    return replace(view, base=twin)


def compare(wanted: TopK, found: TopK, *, exact_scores: bool) -> tuple[float, list[int]]:
    """Recall of one query's answer, and the places (from 0) in the exact ranking that it lacks and nothing stands for."""
    rows = wanted.rows[0][wanted.rows[0] >= 0]
    if not len(rows):
        return 1.0, []
    lost = np.flatnonzero(~np.isin(rows, found.rows[0]))
    floor = float(wanted.scores[0, len(rows) - 1])
    if exact_scores:  # those found beyond the exact answer that score as high as its last one
        reached = found.scores[0] >= floor - TIE * abs(floor)
        spare = int((reached & ~np.isin(found.rows[0], rows)).sum())
        ties = wanted.scores[0, lost] <= floor + TIE * abs(floor)
        stood = np.flatnonzero(ties)[max(0, int(ties.sum()) - spare) :]
        lost = np.delete(lost, stood)
    return 1.0 - len(lost) / len(rows), lost.tolist()


def _hit(state: State, rank: int, row: int, score: float) -> dict[str, Any]:
    document = state.document(row)
    return {"id": document.id, "rank": rank + 1, "score": score, "title": document.title}


def _timed(search: Callable[[], TopK]) -> tuple[TopK, float]:
    started = time.perf_counter()
    return search(), time.perf_counter() - started
