"""Tiles in registers, and the polynomials that stand for functions, each against numpy, scipy or torch."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from flatcoat.models.fast import tiles
from flatcoat.models.fast.tiles import BLOCK, FEW, PARTS, ROWS, WIDE

quick = numba.njit(
    fastmath=True, error_model="numpy"
)  # as `simd.quick`, but not kept on disk: it would outlive what it inlines


@quick
def powers(x, out):
    for i in range(len(x)):
        out[i] = tiles.power(x[i])


@quick
def gelus(x, out):
    for i in range(len(x)):
        out[i] = tiles.gelu_low(x[i])


@quick
def roundings(x, out):
    for i in range(len(x)):
        out[i] = tiles.rounded(x[i])


@quick
def turned(a, a_at, a_row, a_last, c, c_at, c_row, c_last):
    tiles.turn(a, a_at, a_row, a_last, c, c_at, c_row, c_last)


@quick
def greatest(table, at, row, count, top, to, narrow):
    if narrow:
        tiles.greatest_narrow(table, at, row, count, top, to)
    else:
        tiles.greatest(table, at, row, count, top, to)


@quick
def extents(x, at, count, out):
    tiles.extent(x, at, count, out)


# alike, for numba compiles a function for the intrinsics that its text names
@quick
def tile(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count, kind):
    if kind == 0:
        tiles.scores(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count)
    elif kind == 1:
        tiles.mixture(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count)
    else:
        tiles.scores_narrow(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count)


@quick
def tile_low(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count, kind):
    if kind == 0:
        tiles.scores_low(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count)
    elif kind == 1:
        tiles.mixture_low(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count)
    else:
        tiles.narrow_low(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count)


SHAPES = [(ROWS, BLOCK), (FEW, BLOCK), (8, WIDE)]


def applied(function, x, kind=np.float32):
    x = np.atleast_1d(np.asarray(x, np.float32))
    out = np.empty(len(x), kind)
    function(x, out)
    return x, out


def test_sizes_fit_one_another():
    assert (WIDE, BLOCK) in ((16, 64), (8, 16))
    assert BLOCK == WIDE * PARTS
    assert WIDE % 8 == 0 == WIDE % FEW  # attention takes dimensions 8 and FEW at a time
    assert ROWS <= 8  # a table of scores has room for 8 rows more


def test_powers_of_two_are_right_to_2e_7_of_themselves():
    x, out = applied(powers, np.concatenate([np.linspace(-126, 0, 200_001), -np.logspace(-9, 0, 5000)]))
    want = np.exp2(x.astype(np.float64))
    assert (np.abs(out - want) / want).max() <= 2e-7
    assert out.max() <= 1 + 2e-7


@settings(max_examples=200, deadline=None)
@given(st.floats(-126, 0, width=32))
def test_any_power_of_two(y):
    x, out = applied(powers, y)
    want = np.exp2(x.astype(np.float64))
    assert (np.abs(out - want) <= 2e-7 * want).all()


def test_powers_of_whole_numbers_and_of_what_is_too_small():
    _, whole = applied(powers, np.arange(-126, 1))
    np.testing.assert_array_equal(whole, np.exp2(np.arange(-126.0, 1)).astype(np.float32))
    _, small = applied(powers, [-127, -1e4, -1e30])
    assert (small == np.float32(2.0**-126)).all()


def test_gelu_is_right_to_4e_5_or_as_much_of_x():
    x, out = applied(gelus, np.concatenate([np.linspace(-6, 6, 100_001), [-1e4, -50, 50, 1e4]]))
    want = x * ndtr(x.astype(np.float64))
    assert (np.abs(out - want) <= 4.1e-5 * np.maximum(1, np.abs(x))).all()


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6, width=32))
def test_any_gelu(y):
    x, out = applied(gelus, y)
    assert (np.abs(out - x * ndtr(x.astype(np.float64))) <= 4.1e-5 * np.maximum(1, np.abs(x))).all()


def both_roundings(x):
    """Bits of ours and of torch's, and which numbers lie in the middle of two."""
    x, out = applied(roundings, x, np.int32)
    theirs = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().astype(np.int32)
    assert (out & 0xFFFF == 0).all()
    return out >> 16, theirs, x.view(np.int32) & 0xFFFF == 0x8000


@settings(max_examples=300, deadline=None)
@given(st.floats(-(2.0**100), 2.0**100, width=32))
def test_rounding_is_bfloat16s(y):
    ours, theirs, middle = both_roundings([y])
    assert (ours - theirs == 0).all() or (middle & (ours - theirs == 1)).all()


def test_the_middle_of_two_is_rounded_away_from_zero():
    """torch takes the even neighbour; which one is not worth an instruction."""
    bits = (np.arange(0x3F00, 0x4100, dtype=np.int32) << 16) | 0x8000
    x = np.concatenate([bits.view(np.float32), -bits.view(np.float32)])
    ours, theirs, middle = both_roundings(x)
    assert middle.all()
    made = (ours << 16).astype(np.int32).view(np.float32)
    assert (np.abs(made) > np.abs(x)).all()
    assert set((ours - theirs).tolist()) == {0, 1}


@pytest.mark.parametrize("a_last", [0, 3, WIDE - 1])
@pytest.mark.parametrize("c_last", [0, 2, WIDE - 1])
def test_turning(a_last, c_last):
    a = np.random.default_rng(0).normal(size=(WIDE, WIDE + 5)).astype(np.float32)
    a[a_last + 1 :] = np.nan  # not read
    c = np.full((WIDE + 2, WIDE + 3), 7, np.float32)
    turned(a.reshape(-1), 2, WIDE + 5, a_last, c.reshape(-1), (WIDE + 3) + 1, WIDE + 3, c_last)
    want = a[np.minimum(np.arange(WIDE), a_last), 2 : 2 + WIDE].T
    np.testing.assert_array_equal(c[1 : 2 + c_last, 1 : 1 + WIDE], want[: c_last + 1])
    c[1 : 2 + c_last, 1 : 1 + WIDE] = 7
    assert (c == 7).all()


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_greatest_of_each_lane(narrow, count):
    lanes = WIDE if narrow else BLOCK
    table = np.random.default_rng(count).normal(size=(count + 3, lanes + 4)).astype(np.float32) - 5
    top = np.full(lanes + 4, 9, np.float32)
    greatest(table.reshape(-1), lanes + 4 + 2, lanes + 4, count, top, 3, narrow)
    np.testing.assert_array_equal(top[3 : 3 + lanes], table[1 : 1 + count, 2 : 2 + lanes].max(0))
    assert (top[[0, 1, 2, -1]] == 9).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_least_and_the_greatest(count):
    rng = np.random.default_rng(count)
    for place in range(WIDE * count):
        for sign in (1, -1):
            x = (sign * 3 + rng.random(WIDE * count + 4)).astype(np.float32)
            x[[0, 1, -1]] = 1e6, -1e6, 1e6  # not read
            x[2 + place] = sign * -20
            ends = np.zeros(2, np.float32)
            extents(x, 2, count, ends)
            own = x[2 : 2 + WIDE * count]
            np.testing.assert_array_equal(ends, [own.min(), own.max()])


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("missing", [0, 2])
@pytest.mark.parametrize("count", [1, 7])
def test_a_product(kind, missing, count):
    rows, lanes = SHAPES[kind]
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((rows, count + 3), (count, lanes + 2)))
    last = rows - 1 - missing
    a[last + 1 :] = np.nan  # not read
    c = np.full((rows + 2, lanes + 5), 7, np.float32)
    tile(
        a.reshape(-1),
        1,
        count + 3,
        1,
        last,
        b.reshape(-1),
        2,
        lanes + 2,
        c.reshape(-1),
        lanes + 7,
        lanes + 5,
        count,
        kind,
    )
    want = a[np.minimum(np.arange(rows), last), 1 : 1 + count].astype(float) @ b[:, 2:].astype(float)
    np.testing.assert_allclose(c[1:-1, 2 : 2 + lanes], want, atol=1e-5)
    c[1:-1, 2 : 2 + lanes] = 7
    assert (c == 7).all()


@pytest.mark.skipif(not tiles.HALVES, reason="no pairs of bfloat16 numbers")
@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 6])
def test_a_product_of_pairs(kind, count):
    rows, lanes = SHAPES[kind]
    rng = torch.Generator().manual_seed(kind)
    a = torch.randn(rows, 2 * count, generator=rng).to(torch.bfloat16)
    b = torch.randn(count, lanes, 2, generator=rng).to(torch.bfloat16)
    words = [x.contiguous().view(torch.int16).numpy().reshape(-1).view(np.int32) for x in (a, b)]
    c = np.empty((rows, lanes), np.float32)
    tile_low(words[0], 0, count, 1, rows - 1, words[1], 0, lanes, c.reshape(-1), 0, lanes, count, kind)
    want = a.double().numpy() @ b.double().numpy().transpose(0, 2, 1).reshape(2 * count, lanes)
    np.testing.assert_allclose(c, want, atol=1e-5)
