"""How the multi-vector index is made: centroids, residual codes, and postings from centroids to documents.

    d ≈ centroid(cell) + gain × spread ⊙ level(code)     cell: the nearest centroid; spread [dim]: the residuals' deviation

after the residual compression of ColBERTv2 (Santhanam et al. 2022, arXiv 2112.01488). The 2^bits levels are those that
lose least of residuals brought to one length (Lloyd 1982, from quantiles); `gain` [token] is the least-squares one.
Whole numbers decide the nearest centroid (both sides as signed bytes), so the same cells come from every processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.index.sparse_segment import in_threads
from flatcoat.representations import MultiVector

BLOCK = 1 << 15  # vectors worked on at once
PER_CELL, ROUNDS = 32, 6  # rows to train on a centroid, turns of k-means
MOST_CELLS = 1 << 16
SAMPLED = 1 << 15  # residuals that the codes are fitted to


@dataclass(frozen=True)
class Codec:
    """What cells and codes stand for."""

    centroids: np.ndarray  # float32 [cell, dim]
    spread: np.ndarray  # float32 [dim]
    levels: np.ndarray  # float32 [2 ** bits], rising

    @property
    def bits(self) -> int:
        """Bits of a dimension's code."""
        return len(self.levels).bit_length() - 1

    @property
    def padded(self) -> int:
        """Dimensions, made up to whole bytes of codes of any width."""
        return -(-self.centroids.shape[1] // 8) * 8

    @property
    def unit(self) -> np.float32:
        """What one step of a level as a byte is worth; a gain of 1 is stored as this."""
        most = self.levels[-1] if self.bits == 8 else np.abs(self.levels).max()
        return np.float32(most / 127 or 1.0)

    def bytes(self) -> tuple[int, ...]:
        """The levels as bytes, 128 higher; (0,) with 8 bits, whose codes are these bytes."""
        return (0,) if self.bits == 8 else tuple((np.rint(self.levels / self.unit).astype(int) + 128).tolist())


@dataclass(frozen=True)
class Coded:
    """Tokens as the index keeps them."""

    cells: np.ndarray  # uint16 [token]
    codes: np.ndarray  # uint8 [token, bytes]
    gains: np.ndarray  # uint16 [token]: the bits of a float16, gain × unit


def cells_for(tokens: int) -> int:
    """How many centroids so many vectors have: the power of two below 16 √tokens (PLAID), at most 65536, one a vector."""
    return int(min(MOST_CELLS, tokens, 2 ** np.floor(np.log2(16 * np.sqrt(max(1, tokens))))))


def fit(vectors: MultiVector, cells: int, bits: int, threads: int) -> Codec:
    """Centroids and codes, from rows drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    total = len(vectors.vectors)
    rows = np.sort(rng.choice(total, min(total, PER_CELL * cells), replace=False))
    sample = vectors.vectors[rows].astype(np.float32)
    _finite(sample, rows, vectors)
    centroids = k_means(sample, cells, rng, threads)
    few = sample[np.sort(rng.choice(len(sample), min(len(sample), SAMPLED), replace=False))]
    residuals = few - centroids[nearest(few, centroids, threads)]
    spread = np.sqrt(np.mean(residuals.astype(np.float64) ** 2, axis=0)).astype(np.float32)
    spread[spread == 0] = 1.0  # every residual is nought there, and so is its code's worth
    shapes = residuals / spread
    lengths = np.sqrt(np.mean(shapes**2, axis=1, keepdims=True))
    values = (shapes / np.where(lengths > 0, lengths, 1.0)).ravel()
    return Codec(centroids, spread, _levels(values, 2**bits))


def _levels(values: np.ndarray, count: int) -> np.ndarray:
    """Levels that lose least: from quantiles, each the mean of the values nearest to it, sixteen times over; 256 are even."""
    if count == 256:
        return ((np.arange(count) - 128) * (np.quantile(np.abs(values), 0.9999) / 127 or 1.0)).astype(np.float32)
    values = np.sort(values)
    sums = np.concatenate([np.zeros(1), np.cumsum(values, dtype=np.float64)])
    levels = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(16):
        edges = np.concatenate([[0], np.searchsorted(values, (levels[1:] + levels[:-1]) / 2), [len(values)]])
        sizes = np.diff(edges)
        levels = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), levels)
    return np.sort(levels).astype(np.float32)


def k_means(sample: np.ndarray, cells: int, rng: np.random.Generator, threads: int) -> np.ndarray:
    """Centroids float32 [cells, dim] of rows [n ≥ cells, dim]: Lloyd's turns; an empty one starts anew at some row."""
    centroids = sample[np.sort(rng.choice(len(sample), cells, replace=False))].copy()
    for _ in range(ROUNDS if len(sample) > cells else 0):
        places = nearest(sample, centroids, threads)
        sums, counts = np.zeros(centroids.shape, np.float64), np.zeros(cells, np.int64)
        loops().gather(sample, places, sums, counts)
        centroids = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        empty = np.flatnonzero(counts == 0)
        centroids[empty] = sample[rng.choice(len(sample), len(empty), replace=False)]
    return centroids


def loops() -> Any:
    """The compiled loops that build."""
    from flatcoat.index import multivector_fill

    return multivector_fill


def to_rows(vectors: np.ndarray, padded: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors as bytes that stand 128 too high [row, padded], and what one step of each row is worth."""
    steps = np.abs(vectors).max(axis=1, initial=0).astype(np.float32) / np.float32(127)
    out = np.full((len(vectors), padded), 128, np.uint8)
    out[:, : vectors.shape[1]] = np.rint(vectors / np.where(steps > 0, steps, 1.0)[:, None]).astype(np.int16) + 128
    return out, steps


def nearest(vectors: np.ndarray, centroids: np.ndarray, threads: int) -> np.ndarray:
    """Each vector's nearest centroid, up to rounding to bytes, int32 [row]; of equally near ones the first."""
    padded = -(-centroids.shape[1] // 4) * 4
    held, steps = to_rows(centroids, padded)
    biases = (-0.5 * np.sum(centroids.astype(np.float64) ** 2, axis=1)).astype(np.float32)
    places = np.empty(len(vectors), np.int32)
    edges = [*range(0, len(vectors), BLOCK), len(vectors)]

    def some(i: int) -> None:
        part = slice(edges[i], edges[i + 1])
        loops().assign(vectors[part], held, steps, biases, places[part])

    in_threads(some, len(edges) - 1, threads)
    return places


def encode(vectors: MultiVector, codec: Codec, threads: int) -> Coded:
    """Cells, codes and gains of every token, block by block."""
    total = len(vectors.vectors)
    cells, gains = np.empty(total, np.uint16), np.empty(total, np.uint16)
    codes = np.empty((total, codec.padded * codec.bits // 8), np.uint8)
    cuts = (codec.levels[1:] + codec.levels[:-1]) / 2
    for low, block in blocks(vectors):
        part = slice(low, low + len(block))
        places = nearest(block, codec.centroids, threads)
        worth = np.empty(len(block), np.float32)
        given = codec.centroids, codec.spread, codec.levels, cuts, codec.bits
        loops().encode(block, places, *given, codes[part], worth)
        cells[part], gains[part] = places, (worth * codec.unit).astype(np.float16).view(np.uint16)
    return Coded(cells, codes, gains)


def blocks(vectors: MultiVector) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, vectors as float32) block by block. Raises FlatcoatError at a value that is not finite."""
    for low in range(0, len(vectors.vectors), 8 * BLOCK):
        block = vectors.vectors[low : low + 8 * BLOCK].astype(np.float32)
        _finite(block, low + np.arange(len(block)), vectors)
        yield low, block


def _finite(values: np.ndarray, rows: np.ndarray, vectors: MultiVector) -> None:
    wrong = np.flatnonzero(~np.isfinite(values).all(1))
    if len(wrong):
        item = int(np.searchsorted(vectors.start, rows[wrong[0]], side="right")) - 1
        raise FlatcoatError(f"item {item} has a value that is not finite; check the model that made it")


def invert(start: np.ndarray, cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 [cell + 1] and the documents of each cell, each once, rising, int32."""
    offsets = np.zeros(count + 1, np.int64)
    loops().count_documents(start, cells, offsets)
    postings = np.empty(int(offsets.sum()), np.int32)
    offsets = np.cumsum(offsets)
    loops().fill_documents(start, cells, offsets[:-1].copy(), postings)
    return offsets, postings


def decoded(coded: Coded, codec: Codec) -> np.ndarray:
    """The vectors that cells and codes stand for, float32 [token, dim]."""
    dim, planes = codec.centroids.shape[1], np.arange(8 // codec.bits, dtype=np.uint8)
    numbers = (coded.codes[:, None, :] >> (codec.bits * planes)[:, None]) & (len(codec.levels) - 1)
    steps = np.rint(codec.levels / codec.unit)[numbers.reshape(len(coded.codes), -1)[:, :dim]]
    gains = coded.gains.view(np.float16).astype(np.float32)
    return (codec.centroids[coded.cells] + gains[:, None] * codec.spread * steps).astype(np.float32)
