"""Rows that are gone from an index that keeps the numbers of the others: a byte a row, or none where no row is gone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from flatcoat.errors import Misuse

Gone = UInt8[np.ndarray, " _"]


def lengthened(gone: Gone, more: int) -> Gone:
    """The same with `more` rows at the end, which are there."""
    return np.concatenate([gone, np.zeros(more, np.uint8)]) if len(gone) else gone


def without(gone: Gone, rows: Sequence[int] | np.ndarray, size: int, where: object) -> Gone:
    """A copy in which these rows of an index of `size` are gone too. Raises Misuse where there is no such row."""
    chosen = np.asarray(rows, np.int64)
    wrong = chosen[(chosen < 0) | (chosen >= size)]
    if len(wrong):
        raise Misuse(f"row {wrong[0]} cannot be deleted: {where} has rows 0 to {size - 1}")
    made = gone.copy() if len(gone) else np.zeros(size, np.uint8)
    made[chosen] = 1
    return made


def left(gone: Gone, size: int, where: object) -> Bool[np.ndarray, " row"]:
    """Which of an index's `size` rows are there. Raises Misuse where none is."""
    kept = gone == 0 if len(gone) else np.ones(size, bool)
    if not kept.any():
        raise Misuse(f"{where}: every row is deleted; there is nothing to keep")
    return kept
