"""Is a difference real?  Paired t-test, paired randomisation (sign flips; Smucker et al. 2007), Holm's correction
(1979), bootstrap confidence intervals, and the effect size d_z = mean / standard deviation of the differences.

    p = (1 + #{random signs ε: |Σ_q ε_q δ_q| ≥ |Σ_q δ_q|}) / (1 + rounds)        δ_q: system minus baseline on query q
    Holm: p_(i) ← max over j ≤ i of min(1, (m − j + 1) p_(j))                     p_(1) ≤ … ≤ p_(m)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flatcoat.errors import Misuse, need

ROUNDS = 10_000
AT_ONCE = 500


@dataclass(frozen=True)
class Comparison:
    """System minus baseline on one measure; p values two-sided, corrected where `holm` has been."""

    measure: str
    difference: float
    low: float
    high: float
    t_p: float
    randomisation_p: float
    effect: float
    queries: int

    @property
    def significant(self) -> bool:
        """Whether the randomisation test rejects at 5 %."""
        return self.randomisation_p < 0.05


def paired(system: Mapping[str, float], baseline: Mapping[str, float]) -> np.ndarray:
    """Differences by query. Raises Misuse where the queries are not the same."""
    if set(system) != set(baseline):
        raise Misuse(f"{len(set(system) ^ set(baseline))} queries are judged for one system only; compare the same")
    return np.array([system[query] - baseline[query] for query in sorted(system)])


def randomisation_p(differences: np.ndarray, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Two-sided p of the mean under random signs, the observed assignment counted (never 0)."""
    rng = np.random.default_rng(seed)
    live = differences[differences != 0]
    if not len(live):
        return 1.0
    observed, hits = abs(live.sum()) * (1 - 1e-12), 0
    for start in range(0, rounds, AT_ONCE):
        signs = rng.integers(0, 2, (min(AT_ONCE, rounds - start), len(live)), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ live) >= observed).sum())
    return (hits + 1) / (rounds + 1)


def bootstrap(differences: np.ndarray, level: float = 0.95, rounds: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean."""
    rng = np.random.default_rng(seed)
    n = len(differences)
    means = [differences[rng.integers(0, n, n)].mean() for _ in range(rounds)] if n else [0.0]
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def compare(measure: str, system: Mapping[str, float], baseline: Mapping[str, float]) -> Comparison:
    """Compare two systems on one measure, query by query."""
    stats: Any = need("scipy.stats", "evaluate")
    differences = paired(system, baseline)
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    t_p = float(stats.ttest_1samp(differences, 0.0).pvalue) if spread > 0 else 1.0
    low, high = bootstrap(differences)
    mean = float(differences.mean())
    effect = mean / spread if spread > 0 else 0.0
    return Comparison(measure, mean, low, high, t_p, randomisation_p(differences), effect, len(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p_(i) ← max over j ≤ i of min(1, (m − j + 1) p_(j))."""
    order = np.argsort(p_values)
    corrected, highest = [0.0] * len(p_values), 0.0
    for step, position in enumerate(map(int, order)):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[position]))
        corrected[position] = highest
    return corrected
