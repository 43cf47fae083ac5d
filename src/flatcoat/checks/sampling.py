"""Which rows a check looks at: few, evenly over all, always the same."""

from __future__ import annotations

import numpy as np


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` rows, evenly over all, rising; int64 [row]."""
    return np.unique(np.linspace(0, max(0, count - 1), min(most, count)).astype(np.int64))
