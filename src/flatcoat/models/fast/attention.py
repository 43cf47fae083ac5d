"""Attention over texts that lie one behind the other, without padding: softmax(q kᵀ / √d) v, each text for itself.

Queries are lanes: the scores of a block of queries are kept as [key, query], so that the maximum, the exponentials and
the sums run over whole vectors, and both products read keys and values where they lie.
"""

from __future__ import annotations

import numpy as np

from flatcoat.models.fast.tiles import (
    BLOCK,
    FEW,
    ROWS,
    WIDE,
    F,
    greatest,
    greatest_narrow,
    mixture,
    mixture_narrow,
    power,
    scores,
    scores_narrow,
    turn,
)
from flatcoat.simd import F32, I64, quick

LOG2E = F(1.4426950408889634)


@quick
def softmax_columns(table: F32, rows: int, lanes: int, factor: float, top: F32, total: F32) -> None:
    """table[:rows, lane] = 2^(factor × (score − top[lane])); total[lane] = 1 / their sum."""
    for x in range(lanes):
        top[x] *= factor
        total[x] = F(0)
    for j in range(rows):
        for x in range(lanes):
            made = power(table[j, x] * factor - top[x])
            table[j, x] = made
            total[x] += made
    for x in range(lanes):
        total[x] = F(1) / total[x]


# A block is written out for each width, and again in attention_low.py: numba compiles a loop for the tiles that its text names.


@quick
def block_wide(
    flat: F32, q: int, k: int, v: int, length: int, left: int, width: int, size: int, queries: F32, table: F32, values: F32,
    top: F32, total: F32,
) -> None:  # fmt: skip
    """One head of up to `BLOCK` queries of one text: values[dimension, query]."""
    line = table.reshape(-1)
    for t in range(0, left, WIDE):
        for e in range(0, size, WIDE):
            turn(flat, q + t * width + e, width, left - t - 1, queries, e * BLOCK + t, BLOCK, WIDE)
    for j in range(0, length, ROWS):
        scores(flat, k + j * width, width, 1, length - 1 - j, queries, 0, BLOCK, line, j * BLOCK, BLOCK, size)
    greatest(line, 0, BLOCK, length, top, 0)
    softmax_columns(table, length, BLOCK, LOG2E / F(np.sqrt(size)), top, total)
    for e in range(0, size, FEW):
        mixture(flat, v + e, 1, width, FEW, line, 0, BLOCK, values, e * BLOCK, BLOCK, length)


@quick
def block_narrow(
    flat: F32, q: int, k: int, v: int, length: int, left: int, width: int, size: int, queries: F32, table: F32, values: F32,
    top: F32, total: F32,
) -> None:  # fmt: skip
    """As `block_wide`, a vector of queries at a time: no work for lanes that are not there."""
    line = table.reshape(-1)
    for t in range(0, left, WIDE):
        for e in range(0, size, WIDE):
            turn(flat, q + t * width + e, width, left - t - 1, queries, e * BLOCK + t, BLOCK, WIDE)
        for j in range(0, length, 8):
            at, to = k + j * width, j * BLOCK + t
            scores_narrow(flat, at, width, 1, length - 1 - j, queries, t, BLOCK, line, to, BLOCK, size)
        greatest_narrow(line, t, BLOCK, length, top, t)
    lanes = (left + WIDE - 1) // WIDE * WIDE
    softmax_columns(table, length, lanes, LOG2E / F(np.sqrt(size)), top, total)
    for t in range(0, left, WIDE):
        for e in range(0, size, 8):
            mixture_narrow(flat, v + e, 1, width, 8, line, t, BLOCK, values, e * BLOCK + t, BLOCK, length)


@quick
def give_back(values: F32, total: F32, left: int, made: F32, at: int, hidden: int, size: int) -> None:
    """values[dimension, query] × total[query] into the queries' rows."""
    lanes = (left + WIDE - 1) // WIDE * WIDE
    for e in range(size):
        for x in range(lanes):
            values[e * BLOCK + x] *= total[x]
    for t in range(0, left, WIDE):
        for e in range(0, size, WIDE):
            turn(values, e * BLOCK + t, BLOCK, WIDE, made, at + t * hidden + e, hidden, left - t - 1)


@quick
def attend(states: F32, starts: I64, heads: int, out: F32) -> None:
    """out[token, h] from states[token, 3h] = queries, keys, values; starts [text + 1] are the texts' first tokens.

    h / heads is a multiple of `WIDE`; no text is empty.
    """
    width = states.shape[1]
    hidden = width // 3
    size = hidden // heads
    flat, made = states.reshape(-1), out.reshape(-1)
    longest = 0
    for text in range(len(starts) - 1):
        longest = max(longest, starts[text + 1] - starts[text])
    queries, values = np.zeros(size * BLOCK, F), np.empty(size * BLOCK, F)
    table, top, total = np.empty((longest + 8, BLOCK), F), np.empty(BLOCK, F), np.empty(BLOCK, F)
    for text in range(len(starts) - 1):
        begin = starts[text]
        length = starts[text + 1] - begin
        for head in range(heads):
            k = begin * width + hidden + head * size
            for first in range(0, length, BLOCK):
                left, q = min(BLOCK, length - first), (begin + first) * width + head * size
                if 2 * left > BLOCK:
                    block_wide(flat, q, k, k + hidden, length, left, width, size, queries, table, values, top, total)
                else:
                    block_narrow(flat, q, k, k + hidden, length, left, width, size, queries, table, values, top, total)
                give_back(values, total, left, made, (begin + first) * hidden + head * size, hidden, size)
