"""95 % bootstrap intervals of many means at once: one set of resampled queries, and all means by one product of matrices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flatcoat.evaluation.significance import bootstrap


def mean_intervals(
    columns: Mapping[str, Mapping[str, float]], *, rounds: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Of each column's values by query: mean, low, high. The columns' queries are the same, in any order.

    It is `one_by_one`, which draws each column's samples again.
    """
    if not columns:
        return {}
    queries = sorted(next(iter(columns.values())))
    values = np.array([[column[query] for query in queries] for column in columns.values()]).T
    n, rng = len(queries), np.random.default_rng(seed)
    sums = np.empty((rounds, values.shape[1]))
    for start in range(0, rounds, 100):
        some = min(100, rounds - start)
        counts = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(some)])
        sums[start : start + some] = counts.astype(np.float64) @ values
    low, high = np.quantile(sums / n, [0.025, 0.975], axis=0)
    ends = zip(values.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
    return dict(zip(columns, ends, strict=True))


def one_by_one(columns: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, float, float]]:
    """The same, a column at a time, by `bootstrap`."""
    found = {}
    for name, column in columns.items():
        values = np.array([column[query] for query in sorted(column)])
        found[name] = (float(values.mean()), *bootstrap(values))
    return found
