"""Small matrix products and transpositions in registers, as numba intrinsics.

A tile is `ROWS` rows against `BLOCK` lanes; lanes are what LLVM makes vectors of. Places and strides count numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.errors import need
from flatcoat.simd import BLOCK as BLOCK
from flatcoat.simd import PARTS, ROWS, WIDE, Writer, has, inlined, product, written

numba: Any = need("numba", "search")
FEW = 4  # rows of a tile whose rows are a head's dimensions
F = np.float32


scores = product(ROWS, PARTS)
mixture = product(FEW, PARTS)
scores_narrow = mixture_narrow = product(8, 1)
HALVES = has("avx512bf16")  # whether the processor multiplies pairs of bfloat16 numbers
scores_low, mixture_low, narrow_low = (product(*size, HALVES) for size in ((ROWS, PARTS), (FEW, PARTS), (8, 1)))


@numba.extending.intrinsic
def turn(typingctx: Any, a: Any, a_at: Any, a_row: Any, a_last: Any, c: Any, c_at: Any, c_row: Any, c_last: Any) -> Any:
    """c[j, i] = a[i, j], `WIDE` × `WIDE`; rows past `a_last` are read as it, rows past `c_last` are not written."""

    def write(
        w: Writer, a: Any, a_at: Any, a_row: Any, a_last: Any, c: Any, c_at: Any, c_row: Any, c_last: Any
    ) -> None:
        def place(at: Any, row: Any, last: Any, i: int) -> Any:
            return w.builder.add(at, w.builder.mul(w.least(w.n(i), last), row))

        rows = [w.load(w.at(a, place(a_at, a_row, a_last, i), 4), w.words) for i in range(WIDE)]
        half = WIDE // 2
        low = [x for i in range(half) for x in (i, WIDE + i)]
        high = [x for i in range(half, WIDE) for x in (i, WIDE + i)]
        for _ in range(WIDE.bit_length() - 1):  # each round interleaves row i with row i + half
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [w.shuffle(x, y, order) for x, y in pairs for order in (low, high)]
        for i in reversed(range(WIDE)):  # rows past the last fall on it, and it is written after them
            w.store(rows[i], w.at(c, place(c_at, c_row, c_last, i), 4))

    return written(write, wide=WIDE)(a, a_at, a_row, a_last, c, c_at, c_row, c_last)


def _greatest(parts: int) -> Any:
    """top[lane] = the greatest of table[row, lane], for `count` (at least 1) rows from `at` on, `row` numbers apart."""

    def write(w: Writer, table: Any, at: Any, row: Any, count: Any, top: Any, to: Any) -> None:
        begin, step = w.at(table, at, 4), w.at(w.n(0), row, 4)

        def line(r: Any) -> list[Any]:
            return [w.load(w.at(w.at(begin, r, step), w.n(p), 4 * WIDE), w.reals) for p in range(parts)]

        made = w.loop(
            count, line(w.n(0)), lambda r, held: [w.greater(x, y) for x, y in zip(line(r), held, strict=True)]
        )
        for p, one in enumerate(made):
            w.store(one, w.at(w.at(top, to, 4), w.n(p), 4 * WIDE))

    @numba.extending.intrinsic
    def greatest(typingctx: Any, table: Any, at: Any, row: Any, count: Any, top: Any, to: Any) -> Any:
        return written(write, wide=WIDE)(table, at, row, count, top, to)

    return greatest


greatest = _greatest(PARTS)
greatest_narrow = _greatest(1)


@numba.extending.intrinsic
def extent(typingctx: Any, x: Any, at: Any, count: Any, out: Any) -> Any:
    """out[0], out[1] = the least and the greatest of `count` × `WIDE` numbers from `at` on."""

    def write(w: Writer, x: Any, at: Any, count: Any, out: Any) -> None:
        begin = w.at(x, at, 4)

        def line(i: Any) -> Any:
            return w.load(w.at(begin, i, 4 * WIDE), w.reals)

        def body(i: Any, held: list[Any]) -> list[Any]:
            one = line(i)
            return [w.lesser(one, held[0]), w.greater(one, held[1])]

        low, high = w.loop(count, [line(w.n(0))] * 2, body)
        size = WIDE
        while size > 1:  # halves against each other
            order = [(i + size // 2) % WIDE for i in range(WIDE)]
            low, high = w.lesser(low, w.shuffle(low, low, order)), w.greater(high, w.shuffle(high, high, order))
            size //= 2
        zero = w.ir.Constant(w.word, 0)
        for place, made in enumerate((low, high)):
            w.store(w.builder.extract_element(made, zero), w.at(out, w.n(place), 4))

    return written(write, wide=WIDE)(x, at, count, out)


@numba.extending.intrinsic
def number(typingctx: Any, word: Any) -> Any:
    """The number whose bits a word holds."""
    from numba.core import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@numba.extending.intrinsic
def bits(typingctx: Any, number: Any) -> Any:
    """A number's bits as a word."""
    from numba.core import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@inlined
def power(y: np.float32) -> np.float32:
    """2^y for y ≤ 0, to 2e-7 of itself: Taylor's series of 2^r, |r| ≤ 1/2, with the whole part added to the exponent."""
    y = max(y, F(-126.0))
    whole = np.floor(y + F(0.5))
    r = y - whole
    p = F(1.5353361883195e-4) * r + F(1.339887440266574e-3)
    p = p * r + F(9.61843735767464e-3)
    p = p * r + F(5.550332471162809e-2)
    p = p * r + F(2.402264791363012e-1)
    p = p * r + F(6.931472028550421e-1)
    p = p * r + F(1.0)
    return number(bits(p) + (np.int32(whole) << np.int32(23)))


@inlined
def rounded(x: np.float32) -> np.int32:
    """The bits of a number rounded to bfloat16, in the upper half of a word."""
    return (bits(x) + np.int32(0x8000)) & np.int32(-0x10000)


@inlined
def gelu_low(x: np.float32) -> np.float32:
    """The GELU of numbers that become bytes: Φ(x) − 1/2 as an odd polynomial on [-4, 4]; off by 4e-5, past there by 4e-5 of x."""
    z = min(max(x, F(-4.0)), F(4.0))
    u = z * z
    p = F(-1.3012797506206653e-09) * u + F(1.0419511653481095e-07)
    p = p * u + F(-3.6571091186488047e-06)
    p = p * u + F(7.485473179258406e-05)
    p = p * u + F(-0.00100648810621351)
    p = p * u + F(0.009505389258265495)
    p = p * u + F(-0.06588782370090485)
    p = p * u + F(0.3986733853816986)
    return x * (F(0.5) + z * p)
