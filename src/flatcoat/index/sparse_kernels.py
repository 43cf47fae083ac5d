"""The compiled loops of the inverted index. Imported only where an index of sparse vectors is built or searched.

Documents lie in blocks. A term's postings in a block are 16-bit words, in one of three ways, the same in all blocks:

    dense    an impact (or 0) for each document, two a word: added by vector instructions, so worth some more room
    gaps     each word is gap | impact << 8, where gap ≤ 255 counts documents since the last word; a longer way is
             walked in words of gap 255 and impact 0, which add nothing and need no branch
    numbers  n words of document numbers within the block, then the n impacts, two a word

A block's scores are 32-bit integers that stay in the first-level cache while every term of the query adds to them
(term at a time, blocked: no posting list is merged, no document is looked at that no term names).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.errors import need

numba: Any = need("numba", "search")

BLOCK = 8192
CHUNK = 256
NUMBERS, GAPS, DENSE = 0, 1, 2
LOW32 = np.uint64(0xFFFFFFFF)
U0, U8, U32, U255 = np.uint64(0), np.uint64(8), np.uint64(32), np.uint64(255)


def compiled(function: Any) -> Any:
    """`numba.njit` without the lock of the interpreter, kept on disk where a folder for it can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba finds no folder to keep it in
        return numba.njit(nogil=True)(function)


@compiled
def offer(keys, size, key):
    """Put a key into a heap of the greatest; returns how many it holds now. keys[0] is the least."""
    if size < len(keys):
        i = size
        while i > 0 and keys[(i - 1) >> 1] > key:
            keys[i] = keys[(i - 1) >> 1]
            i = (i - 1) >> 1
        keys[i] = key
        return size + 1
    if key <= keys[0]:
        return size
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[i] = keys[child]
        i = child
    keys[i] = key
    return size


@compiled
def add_postings(totals, words, bytes_, at, length, form, weight):
    """Add one term's postings of one block to the block's totals."""
    if form == DENSE:
        impacts = bytes_[2 * at : 2 * (at + length)]
        for i in range(min(len(impacts), len(totals))):
            totals[i] += weight * np.uint32(impacts[i])
    elif form == GAPS:
        doc = U0
        for i in range(at, at + length):
            word = np.uint64(words[np.uint64(i)])
            doc += word & U255
            totals[doc] += weight * np.uint32(word >> U8)
    else:
        n = 2 * length // 3
        impacts = bytes_[2 * (at + n) : 2 * (at + n) + n]
        docs = words[at : at + n]
        for i in range(n):
            totals[docs[i]] += weight * np.uint32(impacts[i])


@compiled
def greatest(totals):
    """The greatest total. A plain comparison: this shape becomes vector instructions."""
    best = np.uint32(0)
    for i in range(len(totals)):
        if totals[i] > best:
            best = totals[i]
    return best


@compiled
def gather(totals, first, last, dead, keys, size):
    """Offer each total above the k-th so far, `last` being the segment's documents from `first` on."""
    least = np.uint32(keys[0] >> U32) if size == len(keys) else np.uint32(0)
    for at in range(0, min(last, len(totals)), CHUNK):
        if greatest(totals[at : at + CHUNK]) <= least:
            continue
        for i in range(at, min(at + CHUNK, last)):
            if totals[i] > least and not (len(dead) and dead[first + i]):
                size = offer(keys, size, np.uint64(totals[i]) << U32 | (LOW32 - np.uint64(first + i)))
                if size == len(keys):
                    least = np.uint32(keys[0] >> U32)
    return size


@compiled
def scan(words, bytes_, base, lengths, tops, forms, first, count, dead, start, terms, weights, share, keys, sizes):
    """Every query's best documents of one segment.

    `keys` [query, k] are heaps of total << 32 | ~row and `sizes` how full they are; terms come heaviest first.
    A block is left once its best total and `share` of what the remaining terms could add stay below the k-th total.
    """
    blocks = lengths.shape[1]
    totals = np.zeros(BLOCK, np.uint32)
    for query in range(len(start) - 1):
        low, n = start[query], start[query + 1] - start[query]
        at = np.empty(n, np.int64)
        rest = np.zeros(n + 1, np.int64)
        for j in range(n):
            at[j] = base[terms[low + j]]
        heap, size = keys[query], sizes[query]
        for block in range(blocks):
            for j in range(n - 1, -1, -1):
                rest[j] = rest[j + 1] + np.int64(weights[low + j]) * np.int64(tops[terms[low + j], block])
            room = np.int64(heap[0] >> U32) if size == len(heap) else np.int64(-1)
            left, best = False, np.int64(0)
            for j in range(n):
                if not left and share * rest[j] <= room - best:
                    # `best` was an estimate from below: look, and wait for the terms to have less to give
                    best = np.int64(greatest(totals)) if j else np.int64(0)
                    left = share * rest[j] <= room - best
                term = terms[low + j]
                length = np.int64(lengths[term, block])
                if length and not left:
                    add_postings(totals, words, bytes_, at[j], length, forms[term], weights[low + j])
                at[j] += length
            if not left and np.int64(greatest(totals)) > room:
                size = gather(totals, first + block * BLOCK, count - block * BLOCK, dead, heap, size)
            totals[:] = 0
        sizes[query] = size


@compiled
def finish(keys, sizes, steps, floats, rows, scores):
    """Empty the heaps into `rows` and `scores`, best first; a score that is 0 as a float32 is no match."""
    for query in range(len(keys)):
        found = np.sort(keys[query, : sizes[query]])[::-1]
        for j in range(len(found)):
            total = np.uint32(found[j] >> U32)
            score = total.view(np.float32) if floats else np.float32(total * steps[query])
            if score > 0:
                rows[query, j], scores[query, j] = np.int64(LOW32 - (found[j] & LOW32)), score


@compiled
def prepare(start, terms, weights, limit, finest, reach, kept, share, room, to_start, to_terms, to_ints, steps):
    """Choose and quantise each query's terms, heaviest contribution first; -1, or the place of a weight that cannot be.

    A weight times 2^-finest, divided by the query's step (a power of two), is rounded; the step is the least under
    which the greatest possible total stays below 2 × `room`.
    """
    n = 0
    for query in range(len(start) - 1):
        low, high = start[query], start[query + 1]
        heaviest = np.float32(0)
        for i in range(low, high):
            if not (weights[i] > 0 and weights[i] <= limit and 0 <= terms[i] < len(finest)):
                return i
            heaviest = max(heaviest, weights[i])
        chosen = low + np.argsort(-weights[low:high], kind="mergesort")[:kept]
        total, used = 0.0, 0
        for i in chosen:
            if reach[terms[i]] > 0 and weights[i] >= share * heaviest:
                chosen[used] = i
                used += 1
                total += np.ldexp(np.float64(weights[i]), -finest[terms[i]]) * reach[terms[i]]
        step = 2.0 ** np.ceil(np.log2(total / room)) if total > 0 else 1.0
        exact = np.empty(used, np.float64)
        while True:
            bound = 0.0
            for j in range(used):
                i = chosen[j]
                exact[j] = np.floor(np.ldexp(np.float64(weights[i]), -finest[terms[i]]) / step + 0.5)
                bound += exact[j] * reach[terms[i]]
            if bound < 2 * room:
                break
            step *= 2
        gains = np.empty(used, np.float64)
        for j in range(used):
            gains[j] = -exact[j] * reach[terms[chosen[j]]]
        for j in np.argsort(gains, kind="mergesort"):
            if exact[j] > 0:
                to_terms[n], to_ints[n] = terms[chosen[j]], np.uint32(exact[j])
                n += 1
        to_start[query + 1] = n
        steps[query] = step
    return -1


@compiled
def scan_plain(base, rows, values, factors, first, count, dead, start, terms, weights, keys, sizes):
    """Every query's best documents of one segment in doubles: the sum over rising terms of value × factor × weight.

    `keys` hold the bits of the score as a float32, which rise as scores above zero do, over ~row.
    """
    totals = np.zeros(BLOCK, np.float64)
    for query in range(len(start) - 1):
        low, n = start[query], start[query + 1] - start[query]
        at = base[terms[low : low + n]]
        size = sizes[query]
        for block in range(0, count, BLOCK):
            for j in range(n):
                term = terms[low + j]
                i, end, weight = at[j], base[term + 1], factors[term] * weights[low + j]
                while i < end and rows[i] < block + BLOCK:
                    totals[rows[i] - block] += np.float64(values[i]) * weight
                    i += 1
                at[j] = i
            for i in range(min(BLOCK, count - block)):
                score = np.float32(totals[i])
                if score > 0 and not (len(dead) and dead[first + block + i]):
                    key = np.uint64(score.view(np.uint32)) << U32 | (LOW32 - np.uint64(first + block + i))
                    if size < keys.shape[1] or key > keys[query, 0]:
                        size = offer(keys[query], size, key)
            totals[:] = 0
        sizes[query] = size
