"""Attention as in `fast/attention.py`, with both products of bfloat16 numbers: half the time, an error of about 4e-3.

A word holds two numbers. Queries and keys are words as they lie, two dimensions each; probabilities and values become
words of two keys each. Sums, maxima and exponentials are in single precision.
"""

from __future__ import annotations

import numpy as np

from flatcoat.models.fast.attention import LOG2E, give_back
from flatcoat.models.fast.tiles import (
    BLOCK,
    FEW,
    ROWS,
    WIDE,
    F,
    greatest,
    greatest_narrow,
    mixture_low,
    narrow_low,
    power,
    rounded,
    scores_low,
    turn,
)
from flatcoat.simd import F32, I32, I64, quick

I = np.int32  # noqa: E741


@quick
def softmax_pairs(table: F32, words: I32, rows: int, lanes: int, factor: float, top: F32, total: F32) -> None:
    """words[row pair, lane] = 2^(factor × (score − top[lane])) of two rows; total[lane] = 1 / their sum."""
    for x in range(lanes):
        top[x] *= factor
        total[x] = F(0)
    for j in range(0, rows - 1, 2):
        for x in range(lanes):
            first = power(table[j, x] * factor - top[x])
            second = power(table[j + 1, x] * factor - top[x])
            total[x] += first + second
            words[j // 2, x] = ((rounded(first) >> I(16)) & I(0xFFFF)) | rounded(second)
    if rows % 2:
        for x in range(lanes):
            first = power(table[rows - 1, x] * factor - top[x])
            total[x] += first
            words[rows // 2, x] = (rounded(first) >> I(16)) & I(0xFFFF)
    for x in range(lanes):
        total[x] = F(1) / total[x]


@quick
def pair_values(flat: I32, at: int, width: int, length: int, size: int, pairs: I32) -> None:
    """pairs[key pair] = words of two keys' values: of their even dimensions, then of their odd ones."""
    half = size // 2
    for j in range(0, length - 1, 2):
        for e in range(half):
            first, second = flat[at + j * width + e], flat[at + (j + 1) * width + e]
            pairs[j // 2, e] = (first & I(0xFFFF)) | (second << I(16))
            pairs[j // 2, half + e] = ((first >> I(16)) & I(0xFFFF)) | (second & I(-0x10000))
    if length % 2:
        for e in range(half):
            first = flat[at + (length - 1) * width + e]
            pairs[length // 2, e] = first & I(0xFFFF)
            pairs[length // 2, half + e] = (first >> I(16)) & I(0xFFFF)


# As in attention.py, a block is written out for each width: numba compiles a loop for the tiles that its text names.


@quick
def block_wide(
    flat: I32, q: int, k: int, length: int, left: int, width: int, size: int, queries: I32, table: F32, words: I32, pairs: I32,
    values: F32, top: F32, total: F32,
) -> None:  # fmt: skip
    """One head of up to `BLOCK` queries of one text: values[dimension, query]; places and widths count words."""
    line, half, keys = table.reshape(-1), size // 2, (length + 1) // 2
    for t in range(0, left, WIDE):
        for e in range(0, half, WIDE):
            turn(flat, q + t * width + e, width, left - t - 1, queries, e * BLOCK + t, BLOCK, WIDE)
    for j in range(0, length, ROWS):
        scores_low(flat, k + j * width, width, 1, length - 1 - j, queries, 0, BLOCK, line, j * BLOCK, BLOCK, half)
    greatest(line, 0, BLOCK, length, top, 0)
    softmax_pairs(table, words, length, BLOCK, LOG2E / F(np.sqrt(size)), top, total)
    for odd in range(2):
        for e in range(0, half, FEW):
            to = (2 * e + odd) * BLOCK
            mixture_low(pairs, odd * half + e, 1, size, FEW, words, 0, BLOCK, values, to, 2 * BLOCK, keys)


@quick
def block_narrow(
    flat: I32, q: int, k: int, length: int, left: int, width: int, size: int, queries: I32, table: F32, words: I32, pairs: I32,
    values: F32, top: F32, total: F32,
) -> None:  # fmt: skip
    """As `block_wide`, a vector of queries at a time."""
    line, half, keys = table.reshape(-1), size // 2, (length + 1) // 2
    for t in range(0, left, WIDE):
        for e in range(0, half, WIDE):
            turn(flat, q + t * width + e, width, left - t - 1, queries, e * BLOCK + t, BLOCK, WIDE)
        for j in range(0, length, 8):
            at, to = k + j * width, j * BLOCK + t
            narrow_low(flat, at, width, 1, length - 1 - j, queries, t, BLOCK, line, to, BLOCK, half)
        greatest_narrow(line, t, BLOCK, length, top, t)
    lanes = (left + WIDE - 1) // WIDE * WIDE
    softmax_pairs(table, words, length, lanes, LOG2E / F(np.sqrt(size)), top, total)
    for t in range(0, left, WIDE):
        for odd in range(2):
            for e in range(0, half, 8):
                to = (2 * e + odd) * BLOCK + t
                narrow_low(pairs, odd * half + e, 1, size, 8, words, t, BLOCK, values, to, 2 * BLOCK, keys)


@quick
def attend_low(states: I32, starts: I64, heads: int, out: F32) -> None:
    """out[token, h] from words [token, 3h / 2] = queries, keys, values as pairs of bfloat16 numbers; starts as in `attend`.

    h / heads is a multiple of 2 × `WIDE`; no text is empty.
    """
    width = states.shape[1]
    hidden = width * 2 // 3
    size = hidden // heads
    half = size // 2
    flat, made = states.reshape(-1), out.reshape(-1)
    longest = 0
    for text in range(len(starts) - 1):
        longest = max(longest, starts[text + 1] - starts[text])
    queries, values = np.zeros(half * BLOCK, I), np.empty(size * BLOCK, F)
    table, top, total = np.empty((longest + 8, BLOCK), F), np.empty(BLOCK, F), np.empty(BLOCK, F)
    words, pairs = np.empty((longest // 2 + 1, BLOCK), I), np.empty((longest // 2 + 1, size), I)
    for text in range(len(starts) - 1):
        begin = starts[text]
        length = starts[text + 1] - begin
        for head in range(heads):
            k = begin * width + hidden // 2 + head * half
            pair_values(flat, k + hidden // 2, width, length, size, pairs)
            for first in range(0, length, BLOCK):
                left, q = min(BLOCK, length - first), (begin + first) * width + head * half
                if 2 * left > BLOCK:
                    block_wide(flat, q, k, length, left, width, size, queries, table, words, pairs, values, top, total)
                else:
                    block_narrow(
                        flat, q, k, length, left, width, size, queries, table, words, pairs, values, top, total
                    )
                give_back(values, total, left, made, (begin + first) * hidden + head * size, hidden, size)
