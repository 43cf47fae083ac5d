"""What writes vector instructions: functions compiled, and the parts that bodies of intrinsics are made of."""

from __future__ import annotations

import functools

import numba
import numpy as np
import pytest

from flatcoat import simd
from flatcoat.simd import Writer, compiled, has, inlined, quick, written

NAN = float("nan")


def intrinsic(write, result="void", wide=8):
    """A compiled function of arrays and whole numbers from the body of an intrinsic of three arguments."""

    @numba.extending.intrinsic
    def made(typingctx, a, b, c):
        return written(write, result, wide=wide)(a, b, c)

    return numba.njit(_called(made))  # not kept on disk


def _called(made):
    def call(a, b, c):
        return made(a, b, c)

    return call


def lanes(values, wide=8):
    return np.array([*values, *[0.0] * (wide - len(values))], np.float32)


def by_lane(join, left, right, kind="reals"):
    """What `join(writer, left, right)` makes of two vectors."""

    def write(w, a, b, c):
        w.store(join(w, w.load(a, getattr(w, kind)), w.load(b, getattr(w, kind))), c)

    out = np.zeros_like(left)
    intrinsic(write)(left, right, out)
    return out


def test_greater_and_lesser_take_the_right_one_of_what_is_no_number():
    left, right = lanes([1, 5, NAN, 2, -np.inf]), lanes([3, 4, 7, NAN, 0])
    np.testing.assert_array_equal(by_lane(Writer.greater, left, right), lanes([3, 5, 7, NAN, 0]))
    np.testing.assert_array_equal(by_lane(Writer.lesser, left, right), lanes([1, 4, 7, NAN, -np.inf]))


def test_least_has_a_sign():
    left, right = np.arange(-4, 4, dtype=np.int32), np.zeros(8, np.int32)
    np.testing.assert_array_equal(by_lane(Writer.least, left, right, "words"), np.minimum(left, right))


def test_fma():
    def join(w, x, y):
        return w.fma(x, y, x)

    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 8)).astype(np.float32)
    np.testing.assert_allclose(by_lane(join, left, right), left * right + left, rtol=1e-5, atol=1e-6)


def test_shuffling_counts_through_both_vectors():
    order = [7, 8, 0, 15, 3, 3, 9, 1]
    left, right = np.arange(8, dtype=np.float32), np.arange(8, 16, dtype=np.float32)
    np.testing.assert_array_equal(by_lane(lambda w, x, y: w.shuffle(x, y, order), left, right), order)


@pytest.mark.parametrize("wide", [8, 16])
def test_a_number_everywhere_and_a_loop_that_carries(wide):
    """c = Σ_t a[t] × b[t], with a spread over the lanes."""

    def write(w, a, b, c):
        def body(t, held):
            one = w.splat(w.load(w.at(a, t, 4), w.real), w.reals)
            return [w.fma(one, w.load(w.at(b, t, 4 * wide), w.reals), held[0])]

        (made,) = w.loop(w.n(5), [w.ir.Constant(w.reals, [0.0] * wide)], body)
        w.store(made, c)

    rng = np.random.default_rng(wide)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in (5, (5, wide)))
    c = np.full(wide + 1, 7, np.float32)
    intrinsic(write, wide=wide)(a, b, c)
    np.testing.assert_allclose(c[:-1], a.astype(float) @ b, rtol=1e-4, atol=1e-5)
    assert c[-1] == 7


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_loop_as_long_as_is_asked_within_another(count):
    def write(w, a, b, c):
        def inner(t, held):
            return [w.builder.add(held[0], w.n(1))]

        def outer(t, held):
            return w.loop(b, held, inner)

        (made,) = w.loop(a, [c], outer)
        return made

    assert intrinsic(write, "int64")(3, count, 100) == 100 + 3 * count


def test_addresses_are_in_bytes():
    def write(w, a, b, c):
        w.store(w.load(w.at(w.at(a, b, 8), w.n(1), w.n(4)), w.real), w.at(c, w.n(2), 4))

    a, c = np.arange(10, dtype=np.float32), np.zeros(4, np.float32)
    intrinsic(write)(a, 3, c)
    assert c.tolist() == [0, 0, 7, 0]


def test_quick_functions_know_no_division_by_zero():
    def over(a, b):
        return a / b

    def above(a, b):  # what is kept on disk does not tell options apart
        return a / b

    assert quick(over)(np.float32(1), np.float32(0)) == np.inf
    with pytest.raises(ZeroDivisionError):
        compiled(above)(np.float32(1), np.float32(0))


def test_what_is_wrapped_is_compiled_plain():
    def plain(x):
        return x + 1

    @functools.wraps(plain)
    def checks(*given):
        raise AssertionError("not to be called")

    half = inlined(checks)

    def twice(x):
        return half(x) * 2

    assert compiled(checks)(3) == 4
    assert numba.njit(twice)(3) == 8


def test_without_a_folder_nothing_is_kept(monkeypatch):
    asked, real = [], numba.njit

    def njit(**options):
        asked.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError("cannot cache: no locator available")
        return real(**options)

    monkeypatch.setattr(simd.numba, "njit", njit)

    def add(x):
        return x + 1

    assert compiled(add)(3) == 4
    assert asked == [True, False]


def test_features_are_those_that_numba_writes_for(monkeypatch):
    from llvmlite import binding
    from numba.core import config

    monkeypatch.setattr(config, "CPU_FEATURES", "+avx2,-avx512f,+fma")
    assert (has("avx2"), has("avx512f"), has("avx")) == (True, False, False)
    monkeypatch.setattr(config, "CPU_FEATURES", None)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: {"avx512f": True, "avx2": False})
    assert (has("avx512f"), has("avx2"), has("no such")) == (True, False, False)
