"""What contracts say of a request that must be refused, and of an order that must be kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flatcoat.errors import Misuse


def refused(request: Callable[[], object], says: str) -> None:
    """Raises AssertionError where a request is not refused with an error that says so."""
    try:
        request()
    except Misuse as error:
        assert says in str(error), error
    else:
        raise AssertionError(f"a request was not refused; want an error that says {says!r}")


def falling(rows: np.ndarray, scores: np.ndarray) -> None:
    """Raises AssertionError where a ranking does not fall, equal scores by rising row, or names a row twice."""
    assert len(set(rows.tolist())) == len(rows)
    pairs = list(zip(scores.tolist(), rows.tolist(), strict=True))
    assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
