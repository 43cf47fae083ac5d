"""Choosing negatives among scored candidates, with the log-probability of each choice.

`softmax` draws with replacement from P(d) ∝ exp(β·s(q,d)), by inverting its distribution function in float64. `top` draws
uniformly with replacement from the `pool` best, so that log q = −log(pool) is true of it: taking the best as they stand
would be certain, and there is nothing to correct by a probability of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.base import Encode
from flatcoat.mining.reading import dense_reading

Choose = Literal["softmax", "top"]
Known = Callable[[int], np.ndarray]  # a query row's known positives, as document rows


class Picked(NamedTuple):
    """Positions among the candidates, and the log-probability each was picked with."""

    positions: Int64[np.ndarray, "query n"]
    log_q: Float32[np.ndarray, "query n"]


@dataclass(frozen=True)
class Choosing:
    """How to choose: `beta` is softmax's inverse temperature, `pool` how many best `top` draws from (None: as many as are drawn)."""

    how: Choose = "softmax"
    beta: float = 20.0
    pool: int | None = None

    def __post_init__(self) -> None:
        if self.how not in ("softmax", "top"):
            raise Misuse(f"how={self.how!r} is no way to choose negatives; use 'softmax' or 'top'")
        check_beta(self.beta)
        if self.pool is not None and self.pool < 1:
            raise Misuse(f"pool={self.pool}: want at least 1 candidate to draw from")


def check_beta(beta: float) -> None:
    """Raises Misuse where the inverse temperature is negative or not finite."""
    if not 0 <= beta < np.inf:
        raise Misuse(f"beta={beta} is no inverse temperature; want a finite number that is not negative")


def log_softmax(scores: Float[np.ndarray, "query m"], beta: float) -> Float64[np.ndarray, "query m"]:
    """Log-probabilities of softmax(β·scores) of each row, in float64; what `softmax_draw` draws from.

    Raises:
        FlatcoatError: a row has no finite best score.
    """
    logits = _logits(scores, beta)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def softmax_draw(scores: Float[np.ndarray, "query m"], n: int, beta: float, rng: np.random.Generator) -> Picked:
    """N draws a row, with replacement, from softmax(β·scores); a score of −inf is never drawn.

    Raises:
        FlatcoatError: a row has no finite best score.
    """
    logits = _logits(scores, beta)
    mass = np.exp(logits)
    np.cumsum(mass, axis=1, out=mass)
    total = mass[:, -1:]
    wanted = rng.random((len(scores), n)) * total
    positions = np.empty(wanted.shape, dtype=np.int64)
    for row in range(len(scores)):
        positions[row] = np.searchsorted(mass[row], wanted[row], side="right")
    log_q = np.take_along_axis(logits, positions, 1) - np.log(total)
    return Picked(positions, np.minimum(log_q, 0.0).astype(np.float32))


def _logits(scores: np.ndarray, beta: float) -> np.ndarray:
    """β·scores less each row's greatest, in float64."""
    best = _best(scores)
    logits = scores.astype(np.float64)
    logits -= best
    # 0 · −inf is not a number: what is masked stays masked at beta 0 too
    return np.multiply(logits, beta, out=logits, where=np.isfinite(logits))


def _best(scores: np.ndarray) -> np.ndarray:
    """Each row's greatest score [query, 1] in float64, where all are finite: else there is nothing to draw."""
    best = scores.max(axis=1, keepdims=True, initial=-np.inf).astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(best[:, 0]))
    if len(wrong):
        raise FlatcoatError(
            f"query {wrong[0]} of {len(scores)}: the best score of its {scores.shape[1]} candidates is "
            f"{best[wrong[0], 0]}; want a finite one to draw from"
        )
    return best


def top_positions(scores: Float[np.ndarray, "query m"], k: int) -> Int64[np.ndarray, "query k"]:
    """The k best positions of each row, best first, equal scores by rising position; without sorting the others."""
    if not len(scores) or k == 0:
        return np.zeros((len(scores), k), dtype=np.int64)
    least = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k, None]
    above, level = scores > least, scores == least
    kept = above | (level & (np.cumsum(level, axis=1) <= k - above.sum(1, keepdims=True)))
    positions = np.nonzero(kept)[1].reshape(len(scores), k).astype(np.int64)
    order = np.argsort(-np.take_along_axis(scores, positions, 1), axis=1, kind="stable")
    return np.take_along_axis(positions, order, 1)


def top_positions_slowly(scores: Float[np.ndarray, "query m"], k: int) -> Int64[np.ndarray, "query k"]:
    """All positions sorted, the first k kept. The definition of `top_positions`."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)


def top_draw(
    scores: Float[np.ndarray, "query m"],
    n: int,
    rng: np.random.Generator,
    *,
    pool: int | None = None,
    barred: Bool[np.ndarray, "query m"] | None = None,
) -> Picked:
    """N draws a row, uniformly with replacement, from its `pool` best (None: its n best), or from all where it has fewer.

    What is barred, or scored −inf, takes no place; a row of which everything is barred is drawn from as if nothing were.

    Raises:
        FlatcoatError: a row has no finite best score.
    """
    if barred is not None:
        everything = barred.all(1, keepdims=True)
        scores = np.where(barred & ~everything, -np.inf, scores)
    _best(scores)
    best = top_positions(scores, min(max(n, 1) if pool is None else pool, scores.shape[1]))
    sizes = (np.take_along_axis(scores, best, 1) > -np.inf).sum(1, keepdims=True)
    picks = (rng.random((len(scores), n)) * sizes).astype(np.int64)
    log_q = np.broadcast_to(-np.log(sizes), picks.shape).astype(np.float32)
    return Picked(np.take_along_axis(best, picks, 1), log_q)


def choose(
    how: Choosing,
    scores: Float[np.ndarray, "query m"],
    n: int,
    rng: np.random.Generator,
    barred: Bool[np.ndarray, "query m"] | None = None,
) -> Picked:
    """N candidates a row, as `how` says. `barred` is for `top` alone: softmax's loss masks positives and keeps log q true."""
    if how.how == "top":
        return top_draw(scores, n, rng, pool=how.pool, barred=barred)
    return softmax_draw(scores, n, how.beta, rng)


def barred_rows(
    rows: Int[np.ndarray, " m"],
    queries: Int[np.ndarray, " query"],
    positives: Int[np.ndarray, " query"],
    known: Known | None = None,
) -> Bool[np.ndarray, "query m"]:
    """Which candidate rows are the positive that a query is trained with, or another of those that are known of it."""
    barred = rows[None, :] == positives[:, None]
    if known is not None:
        asked, inverse = np.unique(queries, return_inverse=True)
        barred |= np.stack([np.isin(rows, known(int(query))) for query in asked])[inverse] if len(asked) else False
    return barred


def query_vectors(encode: Encode, queries: Int[np.ndarray, " query"]) -> Float32[np.ndarray, "query dim"]:
    """The queries' vectors by the model as it is now; a row that comes several times is encoded once.

    Raises:
        Misuse: the model gives nothing that one vector a text can be read from.
    """
    asked, inverse = np.unique(queries, return_inverse=True)
    return dense_reading(encode.queries(asked))[inverse]


def document_vectors(
    encode: Encode, rows: Int[np.ndarray, " row"] | None = None
) -> Float32[np.ndarray, "document dim"]:
    """The vectors of these documents, or of all, by the model as it is now. Raises Misuse as `query_vectors` does."""
    return dense_reading(encode.documents(rows))
