"""Numbers as bytes and back: one scale and one middle a token (dynamic), one scale an output of a weight matrix.

    x ≈ scale × (q + middle), q in -127 … 127        W[o, :] ≈ step[o] × w[o, :]
    W x = scale × step × (w q + middle × Σ w)        the products w q are whole numbers, exact in 32 bits

A token's own scale keeps an outlier of one token from costing another; the middle makes use of all values where a
token's numbers are not centred, as behind GELU. What lies between two products is done in one pass over a token.
"""

from __future__ import annotations

import numpy as np

from flatcoat.models.fast.tiles import WIDE, F, extent, gelu_low, rounded
from flatcoat.simd import F32, I8, I16, I32, I64, quick

TOP = F(127.0)


@quick
def to_bytes(x: F32, at: int, n: int, out: I8, scale: F32, middle: F32, i: int, ends: F32) -> None:
    """One token: out[i] = bytes of the n numbers of x from `at` on, with its scale and middle; n is a multiple of `WIDE`."""
    extent(x, at, n // WIDE, ends)
    low, high = ends[0], ends[1]
    step = max((high - low) / (F(2) * TOP), F(1e-12))
    times = F(1) / step
    centre = np.floor((high + low) * F(0.5) * times + F(0.5))
    scale[i], middle[i] = step, centre
    for j in range(n):
        q = np.floor(x[at + j] * times + F(0.5)) - centre
        out[i, j] = np.int8(np.int32(min(max(q, -TOP), TOP)))


@quick
def quantise(x: F32, out: I8, scale: F32, middle: F32) -> None:
    """Bytes of x[token, number]."""
    flat, n, ends = x.reshape(-1), x.shape[1], np.empty(2, F)
    for i in range(len(x)):
        to_bytes(flat, i * n, n, out, scale, middle, i, ends)


@quick
def restore(products: I32, scale: F32, middle: F32, steps: F32, sums: F32, bias: F32, out: F32) -> None:
    """The map's outputs into `out`, from its whole-number products [token, output]."""
    for i in range(len(products)):
        s, m = scale[i], middle[i]
        for j in range(products.shape[1]):
            out[i, j] = (F(products[i, j]) + m * sums[j]) * (s * steps[j]) + bias[j]


@quick
def restore_low(products: I32, scale: F32, middle: F32, steps: F32, sums: F32, bias: F32, out: I16) -> None:
    """As `restore`, into the bits of bfloat16 numbers (16-bit words)."""
    for i in range(len(products)):
        s, m = scale[i], middle[i]
        for j in range(products.shape[1]):
            made = (F(products[i, j]) + m * sums[j]) * (s * steps[j]) + bias[j]
            out[i, j] = np.int16(rounded(made) >> np.int32(16))


@quick
def restore_gelu(
    products: I32, scale: F32, middle: F32, steps: F32, sums: F32, bias: F32, out: I8, scale_out: F32, middle_out: F32
) -> None:
    """Bytes of GELU of the map's outputs."""
    row, ends = np.empty(products.shape[1], F), np.empty(2, F)
    for i in range(len(products)):
        s, m = scale[i], middle[i]
        for j in range(products.shape[1]):
            row[j] = gelu_low((F(products[i, j]) + m * sums[j]) * (s * steps[j]) + bias[j])
        to_bytes(row, 0, len(row), out, scale_out, middle_out, i, ends)


@quick
def restore_norm(
    products: I32, scale: F32, middle: F32, steps: F32, sums: F32, bias: F32, x: F32, gain: F32, shift: F32, floor: float,
    out: I8, scale_out: F32, middle_out: F32,
) -> None:  # fmt: skip
    """Write LayerNorm(x + the map's outputs) over x, and its bytes."""
    n, flat, ends = products.shape[1], x.reshape(-1), np.empty(2, F)
    for i in range(len(products)):
        s, m, row = scale[i], middle[i], x[i]
        total = F(0)
        for j in range(n):
            row[j] += (F(products[i, j]) + m * sums[j]) * (s * steps[j]) + bias[j]
            total += row[j]
        mean, squares = total / F(n), F(0)
        for j in range(n):
            squares += (row[j] - mean) * (row[j] - mean)
        times = F(1) / np.sqrt(squares / F(n) + floor)
        for j in range(n):
            row[j] = (row[j] - mean) * times * gain[j] + shift[j]
        to_bytes(flat, i * n, n, out, scale_out, middle_out, i, ends)


@quick
def restore_greatest(
    products: I32, scale: F32, middle: F32, steps: F32, sums: F32, bias: F32, starts: I64, out: F32
) -> None:
    """out[text, output] = the greatest of its tokens' outputs, or 0 where none is above it."""
    n = products.shape[1]
    for text in range(len(starts) - 1):
        best = out[text]
        for i in range(starts[text], starts[text + 1]):
            s, m, row = scale[i], middle[i], products[i]
            for j in range(n):
                made = (F(row[j]) + m * sums[j]) * (s * steps[j]) + bias[j]
                best[j] = made if made > best[j] else best[j]
