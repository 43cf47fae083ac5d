"""The compiled loop of exact search: a block's scores into the best so far."""

from __future__ import annotations

import numpy as np

from flatcoat.simd import compiled

STRIDE = 64  # scores that are looked at together: mostly none of them is among the best


@compiled
def keep(scores, start, rows, best):
    """Put scores [query, item] of rows `start`, `start` + 1, … into heaps [query, k] whose first is the worst.

    Of equal scores the later row is the worse, and rows come in rising order: one that only equals the worst is left out.
    """
    width = scores.shape[1]
    for query in range(len(scores)):
        own, heap, held = scores[query], best[query], rows[query]
        worst = heap[0]
        for low in range(0, width, STRIDE):
            high, better = min(low + STRIDE, width), 0
            for item in range(low, high):
                better += own[item] > worst
            if better:
                for item in range(low, high):
                    if own[item] > worst:
                        _replace(heap, held, own[item], start + item)
                        worst = heap[0]


@compiled
def _replace(heap, held, score, row):
    """Take the worst out of a heap, and put another in."""
    at, size = 0, len(heap)
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (heap[other] < heap[child] or (heap[other] == heap[child] and held[other] > held[child])):
            child = other
        if heap[child] > score or (heap[child] == score and held[child] < row):
            break
        heap[at], held[at] = heap[child], held[child]
        at = child
    heap[at], held[at] = score, row


def keep_slowly(scores: np.ndarray, start: int, rows: np.ndarray, best: np.ndarray) -> None:
    """The same by sorting; in the heaps' place the best stand in order, the worst first. The twin."""
    some = np.arange(start, start + scores.shape[1])
    for query in range(len(scores)):
        every, score = np.concatenate([rows[query], some]), np.concatenate([best[query], scores[query]])
        order = np.lexsort((every, -score))[: rows.shape[1]][::-1]
        rows[query], best[query] = every[order], score[order]
