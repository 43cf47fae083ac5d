"""What is wrong with dense vectors, whoever made them: not numbers, nothing, all alike, not of the length that is said."""

from __future__ import annotations

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.checks.sampling import evenly

SAMPLE = 20_000
COMPARED = 300  # vectors that are compared with one another
SAME, NARROW = 0.99, 0.9


def finite(vectors: np.ndarray, what: str) -> list[Finding]:
    """Whether every number of a sample is one: a cosine with NaN is NaN, and a sort by it is an order by chance.

    An encoder that gives NaN for every text was released (qdrant/fastembed#688).
    """
    rows = evenly(len(vectors), SAMPLE)
    odd = rows[~np.isfinite(vectors[rows]).all(axis=1)] if len(rows) else rows
    if len(odd):
        message = f"{len(odd)} of {len(rows)} {what} have numbers that are none, the first in row {odd[0]}"
        return [Finding("error", "finite", message, "encode at another precision, or mend the model")]
    return [ok("finite", f"{len(rows)} {what} looked at are finite")]


def there(vectors: np.ndarray, what: str) -> list[Finding]:
    """Vectors of length 0: their score is 0 with everything (representations that die: taoshen58/LexMAE#2)."""
    rows = evenly(len(vectors), SAMPLE)
    dead = float((np.abs(vectors[rows]).max(axis=1) == 0).mean()) if len(rows) else 0.0
    if dead:
        level = "error" if dead > 0.5 else "warning"
        return [Finding(level, "dead", f"{dead:.1%} of {what} are 0 throughout", "are their texts empty?")]
    return [ok("dead", f"no vector of {what} is 0")]


def spread_out(vectors: np.ndarray, what: str) -> list[Finding]:
    """The mean cosine of pairs of different rows: 1 where the model has collapsed, high where it says little.

    One position that wins every maximum makes all texts one (texttron/tevatron#36: nDCG 0.02); plain language models lie in a narrow
    cone (Ethayarajh 2019, arXiv 1909.00512).
    """
    some = np.asarray(vectors[evenly(len(vectors), COMPARED)], np.float64)
    some = np.unique(some, axis=0) if len(some) > 8 else some  # equal texts have equal vectors
    some = some[np.isfinite(some).all(axis=1)]
    norms = np.linalg.norm(some, axis=1, keepdims=True)
    some = some[norms[:, 0] > 0] / norms[norms[:, 0] > 0]
    count = len(some)
    if len(vectors) > 1 and count < 2:
        return [Finding("error", "collapse", f"all {what} are the same", "the model has collapsed")]
    if count < 2:
        return [ok("collapse", f"{len(vectors)} {what}: too few to compare")]
    mean = float(((some.sum(0) ** 2).sum() - count) / (count * (count - 1)))
    said = f"two {what} have cosine {mean:.3f} in the mean"
    if mean > SAME:
        return [Finding("error", "collapse", said, "the model has collapsed: train again at a lower rate")]
    if mean > NARROW:
        return [Finding("warning", "collapse", said, "it tells texts apart by little: was it trained to retrieve?")]
    return [ok("collapse", said)]


def of_unit_length(vectors: np.ndarray, what: str) -> list[Finding]:
    """Whether vectors that are said to be of unit length are (deepset-ai/haystack#747: dot products where cosines were meant)."""
    norms = np.linalg.norm(np.asarray(vectors[evenly(len(vectors), SAMPLE)], np.float64), axis=1)
    if len(norms) and not np.allclose(norms, 1, atol=1e-2):
        message = f"{what} are said to be unit vectors, and have lengths {norms.min():.3f} to {norms.max():.3f}"
        return [Finding("error", "normalisation", message, "encode them again: dot products are not cosines")]
    return [ok("normalisation", f"{what} have unit length")]


def every_vector(vectors: np.ndarray, what: str, *, unit: bool = False) -> list[Finding]:
    """All checks of vectors by themselves; `unit` where they are said to be of unit length."""
    found = finite(vectors, what) + there(vectors, what)
    if any(finding.level == "error" for finding in found):
        return found
    return found + spread_out(vectors, what) + (of_unit_length(vectors, what) if unit else [])
