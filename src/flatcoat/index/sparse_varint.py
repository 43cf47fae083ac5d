"""The compiled coding of posting lists in protobuf: a message (field 4) a posting, gap = field 1, tf = field 2."""

from __future__ import annotations

import numpy as np

from flatcoat.simd import I64, U8, U32, compiled


@compiled
def put_number(value: int, out: U8, at: int) -> int:
    """Write a varint: seven bits a byte, the least first, the eighth bit where more follow. Returns the next place."""
    while value > 127:
        out[at] = (value & 127) | 128
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@compiled
def put_postings(rows: U32, values: I64, out: U8) -> int:
    """Write one list, rows as gaps. Returns its length in bytes."""
    at, last = 0, np.int64(0)
    for i in range(len(rows)):
        out[at] = 0x22
        body = at + 2
        out[body] = 0x08
        end = put_number(np.int64(rows[i]) - last, out, body + 1)
        out[end] = 0x10
        end = put_number(np.int64(values[i]), out, end + 1)
        out[at + 1] = end - body  # at most 2 + 10 + 10 bytes: one byte of length
        at, last = end, np.int64(rows[i])
    return at


@compiled
def take_number(data: U8, at: int, end: int) -> tuple[np.int64, int | np.int64]:
    """Read a varint: value and next place, which is -1 where the bytes end first or are too many."""
    value, shift = np.int64(0), np.int64(0)
    while at < end and shift < 63:
        byte = np.int64(data[at])
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    return np.int64(0), np.int64(-1)


@compiled
def take_postings(data: U8, at: int, end: int, rows: I64, values: I64) -> tuple[int, int]:
    """Read postings while they follow one another: how many, and the next place, or ~place of what is malformed."""
    n, last = 0, np.int64(0)
    while at < end and data[at] == 0x22:
        size, body = take_number(data, at + 1, end)
        if body < 0 or size > end - body:
            return n, ~at
        stop, gap, value = body + size, np.int64(0), np.int64(0)
        while body < stop:
            field = data[body]
            number, after = take_number(data, body + 1, stop)
            if after < 0 or (field != 0x08 and field != 0x10):
                return n, ~body
            if field == 0x08:
                gap = number
            else:
                value = number
            body = after
        last += gap
        rows[n], values[n] = last, value
        n, at = n + 1, stop
    return n, at
