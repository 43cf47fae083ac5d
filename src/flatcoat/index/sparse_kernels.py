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

from flatcoat.simd import F32, F64, I16, I32, I64, U8, U16, U32, U64, compiled

BLOCK = 8192
CHUNK = 128
NUMBERS, GAPS, DENSE = 0, 1, 2
LOW32 = np.uint64(0xFFFFFFFF)
U0, BYTE, WORD, U255 = np.uint64(0), np.uint64(8), np.uint64(32), np.uint64(255)


@compiled
def offer(keys: U64, size: int, key: np.uint64) -> int:
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
def add_postings(totals: U32, words: U16, bytes_: U8, at: int, length: int, form: int, weight: np.uint32) -> None:
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
            totals[doc] += weight * np.uint32(word >> BYTE)
    else:
        n = 2 * length // 3
        impacts = bytes_[2 * (at + n) : 2 * (at + n) + n]
        docs = words[at : at + n]
        for i in range(n):
            totals[docs[i]] += weight * np.uint32(impacts[i])


@compiled
def greatest(totals: U32) -> np.uint32:
    """The greatest total. A plain comparison: this shape becomes vector instructions."""
    best = np.uint32(0)
    for i in range(len(totals)):
        if totals[i] > best:
            best = totals[i]
    return best


@compiled
def gather(totals: U32, first: int, last: int, dead: U8, keys: U64, size: int) -> int:
    """Offer each total above the k-th so far, `last` being the segment's documents from `first` on."""
    least = np.uint32(keys[0] >> WORD) if size == len(keys) else np.uint32(0)
    for at in range(0, min(last, len(totals)), CHUNK):
        if greatest(totals[at : at + CHUNK]) <= least:
            continue
        for i in range(at, min(at + CHUNK, last)):
            if totals[i] > least and not (len(dead) and dead[first + i]):
                size = offer(keys, size, np.uint64(totals[i]) << WORD | (LOW32 - np.uint64(first + i)))
                if size == len(keys):
                    least = np.uint32(keys[0] >> WORD)
    return size


@compiled
def add_until(
    totals: U32, packed: tuple[U16, U8, I64, U16, U8, U8], block: int, terms: I32, weights: U32, at: I64, room: int
) -> bool | np.bool_:
    """Add terms to a block until none of its totals can pass `room` any more: whether one has."""
    words, bytes_, _, lengths, tops, forms = packed
    rest, best = np.int64(0), np.int64(0)
    for j in range(len(terms)):
        rest += np.int64(weights[j]) * np.int64(tops[terms[j], block])
    for j in range(len(terms)):
        if rest <= room - best:
            # `best` was an estimate from below: look, and wait for the terms to have less to give
            best = np.int64(greatest(totals)) if j else np.int64(0)
            if rest <= room - best:
                return False
        rest -= np.int64(weights[j]) * np.int64(tops[terms[j], block])
        length = np.int64(lengths[terms[j], block])
        if length:
            add_postings(totals, words, bytes_, at[j], length, forms[terms[j]], weights[j])
    return np.int64(greatest(totals)) > room


@compiled
def scan(
    packed: tuple[U16, U8, I64, U16, U8, U8], first: int, count: int, dead: U8, start: I64, stop: I64, terms: I32,
    weights: U32, keys: U64, sizes: I64,
) -> None:  # fmt: skip
    """Every query's best documents of one segment; query q's terms are those from start[q] to stop[q].

    `keys` [query, k] are heaps of total << 32 | ~row and `sizes` how full they are. A block is left as soon as no total
    of it can pass the k-th so far.
    """
    lengths, base = packed[3], packed[2]
    totals = np.zeros(BLOCK, np.uint32)
    for q in range(len(stop)):
        asked, given, heap, size = terms[start[q] : stop[q]], weights[start[q] : stop[q]], keys[q], sizes[q]
        at = base[asked]
        for block in range(lengths.shape[1]):
            room = np.int64(heap[0] >> WORD) if size == len(heap) else np.int64(0)
            if add_until(totals, packed, block, asked, given, at, room):
                low = block * BLOCK
                size = gather(totals, first + low, count - low, dead, heap, size)
            for j in range(len(asked)):
                at[j] += np.int64(lengths[asked[j], block])
            totals[:] = 0
        sizes[q] = size


@compiled
def complete(
    entries: tuple[I64, U16, U8], vocab_size: int, first: int, start: I64, terms: I32, weights: U32, keys: U64, sizes: I64,
) -> None:  # fmt: skip
    """Score candidates of one segment again, over all of the query's terms; `entries` by row: start, terms, impacts."""
    by_row, entry_terms, entry_impacts = entries
    weight_of = np.zeros(vocab_size, np.uint32)
    for q in range(len(sizes)):
        for j in range(start[q], start[q + 1]):
            weight_of[terms[j]] += weights[j]
        for c in range(sizes[q]):
            row = np.int64(LOW32 - (keys[q, c] & LOW32)) - first
            if row >= 0 and row < len(by_row) - 1:
                total = np.uint32(0)
                for entry in range(by_row[row], by_row[row + 1]):
                    total += weight_of[entry_terms[entry]] * np.uint32(entry_impacts[entry])
                keys[q, c] = np.uint64(total) << WORD | (keys[q, c] & LOW32)
        for j in range(start[q], start[q + 1]):
            weight_of[terms[j]] = 0


@compiled
def finish(keys: U64, sizes: I64, steps: F64, floats: bool, rows: I64, scores: F32) -> None:
    """Empty the heaps into `rows` and `scores`, best first; a score that is 0 as a float32 is no match."""
    for query in range(len(keys)):
        found = np.sort(keys[query, : sizes[query]])[::-1]
        for j in range(min(len(found), rows.shape[1])):
            total = np.uint32(found[j] >> WORD)
            score = total.view(np.float32) if floats else np.float32(total * steps[query])
            if score > 0:
                rows[query, j], scores[query, j] = np.int64(LOW32 - (found[j] & LOW32)), score


@compiled
def choose(terms: I32, weights: F32, reach: F64, kept: int, share: float) -> I64:
    """Places of a query's `kept` heaviest terms that some document has, none lighter than `share` of the heaviest."""
    order = np.argsort(-weights, kind="mergesort")[:kept]
    n = 0
    for i in order:
        if reach[terms[i]] > 0 and weights[i] >= share * weights[order[0]]:
            order[n] = i
            n += 1
    return order[:n]


@compiled
def quantise(scaled: F64, most: F64, room: float) -> Any:
    """Whole numbers (as doubles) and the least power of two that they count in so that Σ number × most < 2 × room."""
    total = (scaled * most).sum()
    step = 2.0 ** np.ceil(np.log2(total / room)) if total > 0 else 1.0
    while True:
        numbers = np.floor(scaled / step + 0.5)
        if (numbers * most).sum() < 2 * room:
            return numbers, step
        step *= 2


@compiled
def prepare(
    start: I64, terms: I32, weights: F32, limit: float, finest: I16, reach: F64, cheap: F64, kept: int, share: float,
    room: float, mass: float, to_start: I64, to_terms: I32, to_ints: U32, steps: F64, stop: I64,
) -> int:  # fmt: skip
    """Choose and quantise each query's terms; -1, or the place of a weight that cannot be.

    They come by falling contribution × `cheap` [term]; those up to `stop` [query] make `mass` of the contributions.
    """
    n = 0
    for query in range(len(start) - 1):
        asked, given = terms[start[query] : start[query + 1]], weights[start[query] : start[query + 1]]
        for i in range(len(asked)):
            if not (given[i] > 0 and given[i] <= limit and 0 <= asked[i] < len(finest)):
                return start[query] + i
        places = choose(asked, given, reach, kept, share)
        chosen, scaled = asked[places], given[places].astype(np.float64)
        for j in range(len(chosen)):
            scaled[j] = np.ldexp(scaled[j], -finest[chosen[j]])
        numbers, steps[query] = quantise(scaled, reach[chosen], room)
        left = mass * (numbers * reach[chosen]).sum()
        stop[query] = n
        for j in np.argsort(-numbers * reach[chosen] * cheap[chosen], kind="mergesort"):
            if numbers[j] > 0:
                to_terms[n], to_ints[n] = chosen[j], np.uint32(numbers[j])
                n += 1
                stop[query] = n if left > 0 else stop[query]
                left -= numbers[j] * reach[chosen[j]]
        to_start[query + 1] = n
    return -1


@compiled
def scan_plain(
    base: I64, rows: U32, values: F32 | U16, factors: F64, first: int, count: int, dead: U8, start: I64, terms: I32,
    weights: F64, keys: U64, sizes: I64,
) -> None:  # fmt: skip
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
                    key = np.uint64(score.view(np.uint32)) << WORD | (LOW32 - np.uint64(first + block + i))
                    if size < keys.shape[1] or key > keys[query, 0]:
                        size = offer(keys[query], size, key)
            totals[:] = 0
        sizes[query] = size
