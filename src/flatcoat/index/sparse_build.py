"""The compiled loops that make and undo the packed postings of `sparse_kernels`; a block is one thread's work.

The size of a block is an argument here: what numba keeps on disk would not notice a constant of another file change.
"""

from __future__ import annotations

import numpy as np

from flatcoat.index.sparse_kernels import DENSE, GAPS
from flatcoat.simd import F32, F64, I16, I32, I64, U8, U16, U32, compiled

FAR = 255  # the farthest that one word of gaps reaches


@compiled
def greatest_weights(terms: I32, weights: F32, most: F32) -> None:
    """Raise `most` [term] to each term's greatest weight."""
    for i in range(len(terms)):
        if weights[i] > most[terms[i]]:
            most[terms[i]] = weights[i]


@compiled
def faulty(start: I64, terms: I32, weights: F32, vocab_size: int, limit: float, seen: I64) -> int:
    """The first entry whose weight or term cannot be, or that names a term twice in one row; -1 for none."""
    for row in range(len(start) - 1):
        for i in range(start[row], start[row + 1]):
            if not (weights[i] > 0 and weights[i] <= limit) or terms[i] < 0 or terms[i] >= vocab_size:
                return i
            if seen[terms[i]] == row:
                return i
            seen[terms[i]] = row
    return -1


@compiled
def to_impacts(terms: I32, weights: F32, shifts: I16, impacts: U8) -> None:
    """Impact = weight × 2^shift of its term, rounded, at least 1 and at most 255."""
    for i in range(len(terms)):
        scaled = np.floor(np.ldexp(np.float64(weights[i]), shifts[terms[i]]) + 0.5)
        impacts[i] = np.uint8(min(max(scaled, 1.0), 255.0))


@compiled
def count_block(start: I64, terms: I32, impacts: U8, low: int, high: int, gaps: U16, numbers: U16, tops: U8) -> None:
    """Of each term in one block: words if written as gaps, postings, and the greatest impact."""
    last = np.zeros(len(gaps), np.int32)
    for row in range(low, high):
        for i in range(start[row], start[row + 1]):
            term, doc = terms[i], row - low
            gap = doc - last[term]
            gaps[term] += 1 + (max(gap, 1) - 1) // FAR
            numbers[term] += 1
            last[term] = doc
            tops[term] = max(tops[term], impacts[i])


@compiled
def fill_block(
    start: I64, terms: I32, impacts: U8, low: int, high: int, at: I64, numbers: U16, forms: U8, words: U16, bytes_: U8
) -> None:
    """Write one block's postings, each term's from word `at` [term] on."""
    last = np.zeros(len(at), np.int32)
    done = np.zeros(len(at), np.int32)
    for row in range(low, high):
        for i in range(start[row], start[row + 1]):
            term, doc = terms[i], row - low
            if forms[term] == DENSE:
                bytes_[2 * at[term] + doc] = impacts[i]
            elif forms[term] == GAPS:
                gap = doc - last[term]
                while gap > FAR:
                    words[at[term]] = FAR
                    at[term] += 1
                    gap -= FAR
                words[at[term]] = np.uint16(gap) | np.uint16(impacts[i]) << np.uint16(8)
                at[term] += 1
                last[term] = doc
            else:
                words[at[term] + done[term]] = doc
                bytes_[2 * (at[term] + numbers[term]) + done[term]] = impacts[i]
                done[term] += 1


@compiled
def read_segment(words: U16, bytes_: U8, at: int, length: int, form: int, docs: I32, impacts: U8) -> int:
    """One term's postings in one block: how many."""
    n, doc = 0, 0
    if form == DENSE:
        for i in range(2 * length):
            if bytes_[2 * at + i]:
                docs[n], impacts[n] = i, bytes_[2 * at + i]
                n += 1
    elif form == GAPS:
        for word in words[at : at + length]:
            doc += np.int64(word) & FAR
            if word >> 8:
                docs[n], impacts[n] = doc, word >> 8
                n += 1
    else:
        n = 2 * length // 3
        for i in range(n):
            docs[i], impacts[i] = words[at + i], bytes_[2 * (at + n) + i]
    return n


@compiled
def read_back(
    words: U16, bytes_: U8, base: I64, lengths: U16, forms: U8, block_size: int, rows: I32, impacts: U8, terms: I32
) -> int:
    """All postings by rising term and row: global row within the segment, impact, term."""
    n = 0
    for term in range(len(base) - 1):
        at = base[term]
        for block in range(lengths.shape[1]):
            length = np.int64(lengths[term, block])
            found = read_segment(words, bytes_, at, length, forms[term], rows[n:], impacts[n:])
            for i in range(n, n + found):
                rows[i] += block * block_size
                terms[i] = term
            n += found
            at += length
    return n


@compiled
def by_rows(
    start: I64, rows: I32 | I64 | U32, terms: I32 | U32, values: F32 | F64 | I64 | U8 | U16, to_terms: I32 | U32,
    to_values: F32 | I64 | U8 | U16,
) -> None:  # fmt: skip
    """Turn postings by term into entries by row; `start` [row] is moved to each row's end."""
    for i in range(len(rows)):
        at = start[rows[i]]
        to_terms[at], to_values[at] = terms[i], values[i]
        start[rows[i]] = at + 1
