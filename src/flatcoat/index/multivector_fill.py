"""The compiled loops that build the multi-vector index. Imported only where one is built or added to."""

from __future__ import annotations

import numpy as np

from flatcoat.index.multivector_kernels import NONE, pack
from flatcoat.index.multivector_simd import LANES, TILE, nearest_bytes
from flatcoat.simd import F32, F64, I32, I64, U8, U16, compiled

CELLS = 2048  # centroids that stay in the cache while vectors pass by


@compiled
def assign(vectors: F32, centroids: U8, steps: F32, biases: F32, places: I32) -> None:
    """places[row] = the centroid with the greatest ⟨row, centroid⟩ + bias, both as bytes; the first of equals."""
    groups = centroids.shape[1] // 4
    chunks = (len(vectors) + LANES - 1) // LANES
    weights = np.zeros((chunks, groups, LANES, 4), np.int8)
    start, scale = np.zeros(chunks * LANES, np.int32), np.zeros(chunks * LANES, np.float32)
    pack(vectors, np.ones(vectors.shape[1], np.float32), weights, start, scale)
    best, found = np.full((chunks, LANES), NONE, np.float32), np.zeros((chunks, LANES), np.int32)
    for low in range(0, len(centroids), CELLS):
        high = min(low + CELLS, len(centroids))
        for chunk in range(chunks):
            some = slice(chunk * LANES, (chunk + 1) * LANES)
            for first in range(low, high, TILE):
                nearest_bytes(best[chunk], found[chunk], weights[chunk], start[some], scale[some],
                              centroids, steps, biases, first, high - 1, groups)  # fmt: skip
    for row in range(len(vectors)):
        places[row] = found[row // LANES, row % LANES]


@compiled
def gather(vectors: F32, places: I32, sums: F64, counts: I64) -> None:
    """Add each vector to its centroid's sum."""
    for row in range(len(vectors)):
        counts[places[row]] += 1
        total = sums[places[row]]
        for d in range(vectors.shape[1]):
            total[d] += vectors[row, d]


@compiled
def encode(
    vectors: F32, places: I32, centroids: F32, spread: F32, levels: F32, cuts: F32, bits: int, codes: U8, gains: F32
) -> None:
    """Codes of residuals brought to one length, and the gain that is best for each."""
    dim, width = vectors.shape[1], codes.shape[1]
    shape = np.empty(dim, np.float32)
    codes[:] = 0
    for row in range(len(vectors)):
        square = np.float64(0)
        for d in range(dim):
            shape[d] = (vectors[row, d] - centroids[places[row], d]) / spread[d]
            square += np.float64(shape[d]) ** 2
        by = np.float32(1 / np.sqrt(square / dim)) if square > 0 else np.float32(0)
        over, under = np.float64(0), np.float64(0)
        for d in range(dim):
            value: np.float64 = shape[d] * by
            code = np.int64(0)
            if bits < 8:
                for cut in cuts:
                    code += np.int64(value > cut)
            else:
                code = np.int64(np.searchsorted(cuts, value))
            codes[row, d % width] |= np.uint8(code << (bits * (d // width)))
            level = np.float64(levels[code]) * np.float64(spread[d]) ** 2
            over += level * np.float64(shape[d])
            under += level * np.float64(levels[code])
        gains[row] = np.float32(over / under) if under > 0 else np.float32(0)


@compiled
def count_documents(start: I64, cells: U16, sizes: I64) -> None:
    """sizes[cell + 1] = how many documents have a token in the cell."""
    last = np.full(len(sizes) - 1, -1, np.int32)
    for doc in range(len(start) - 1):
        for token in range(start[doc], start[doc + 1]):
            if last[cells[token]] != doc:
                last[cells[token]] = doc
                sizes[np.int64(cells[token]) + 1] += 1


@compiled
def fill_documents(start: I64, cells: U16, at: I64, postings: I32) -> None:
    """Each cell's documents, from at[cell] on."""
    last = np.full(len(at), -1, np.int32)
    for doc in range(len(start) - 1):
        for token in range(start[doc], start[doc + 1]):
            cell = cells[token]
            if last[cell] != doc:
                last[cell] = doc
                postings[at[cell]] = doc
                at[cell] += 1
