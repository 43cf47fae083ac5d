"""Numbers as bytes and back, against the same in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from flatcoat.models.fast.bytes import quantise, restore, restore_gelu, restore_low, restore_norm
from flatcoat.models.fast.linear import ByteMap, Bytes
from flatcoat.models.fast.tiles import WIDE

TOKENS, IN, OUT = 7, 4 * WIDE, 3 * WIDE


def value(held: Bytes) -> np.ndarray:
    """What bytes stand for, in float64."""
    scale, middle = (x.astype(np.float64)[:, None] for x in (held.scale, held.middle))
    return scale * (held.values + middle)


def near(held: Bytes, want: np.ndarray, slack: float = 1e-6) -> None:
    """Each number lies within half a step of what it should be."""
    room = held.scale[:, None] * 0.501 + slack * (np.abs(want).max(1, keepdims=True) + 1e-6)
    assert (np.abs(value(held) - want) <= room).all()


def numbers(seed, scale=1.0, shift=0.0, tokens=TOKENS, width=IN):
    rng = np.random.default_rng(seed)
    return (shift + scale * rng.normal(size=(tokens, width))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-4, 1e4), st.floats(-1e4, 1e4), st.floats(0, 1e5), st.integers(1, 9))
def test_a_number_moves_by_half_a_step_at_most(seed, scale, shift, outlier, vectors):
    x = numbers(seed, scale, shift, width=vectors * WIDE)
    x[0, seed % x.shape[1]] += outlier
    held = Bytes.of(x)
    assert (np.abs(held.values.astype(int)) <= 127).all()
    near(held, x.astype(np.float64))


def test_all_bytes_are_made_use_of():
    """Not centred, as behind GELU: the ends of a token's numbers are the ends of the bytes."""
    x = np.abs(numbers(0))
    held = Bytes.of(x)
    assert held.values.min(1).max() <= -126
    assert held.values.max(1).min() >= 126
    np.testing.assert_allclose(held.scale, (x.max(1) - x.min(1)) / 254, rtol=1e-6)


def test_an_outlier_costs_its_own_token_alone():
    x = numbers(1)
    before = Bytes.of(x)
    x[2, 5] = 1e4
    after = Bytes.of(x)
    others = [0, 1, 3, 4, 5, 6]
    np.testing.assert_array_equal(after.values[others], before.values[others])
    np.testing.assert_array_equal(after.scale[others], before.scale[others])
    assert after.scale[2] > 100 * before.scale[2]


@pytest.mark.parametrize("constant", [0.0, 1.0, -3.7, 1e-3, 1e5, -1e-8])
def test_constant_tokens(constant):
    held = Bytes.of(np.full((3, IN), constant, np.float32))
    np.testing.assert_allclose(value(held), constant, rtol=1e-6, atol=1e-12)
    if constant == 0:
        assert not value(held).any()


def test_some_tokens_are_written_in_place():
    x, held = numbers(2), Bytes(TOKENS, IN)
    held.values[:], held.scale[:], held.middle[:] = 99, -1, -2
    quantise(x[2:5], *held[2:5].parts())
    near(held[2:5], x[2:5].astype(np.float64))
    outside = [0, 1, 5, 6]
    assert (held.values[outside] == 99).all()
    assert (held.scale[outside] == -1).all()
    assert (held.middle[outside] == -2).all()


class Case:
    """A map of bytes, tokens as bytes, whole-number products, and what they stand for."""

    def __init__(self, seed=0, scale=1.0):
        rng = torch.Generator().manual_seed(seed)
        self.map = ByteMap(torch.randn(OUT, IN, generator=rng) / IN**0.5, torch.randn(OUT, generator=rng))
        self.held = Bytes.of(numbers(seed, scale, 0.3))
        whole = self.map.weight.numpy().astype(np.int64)
        self.products = (self.held.values.astype(np.int64) @ whole).astype(np.int32)
        self.given = self.products, self.held.scale, self.held.middle, *self.map.about
        steps, _, bias = (x.astype(np.float64) for x in self.map.about)
        self.want = value(self.held) @ (steps * whole) + bias


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_restoring(scale):
    case, out = Case(1, scale), np.full((TOKENS + 2, OUT), 7, np.float32)
    restore(*case.given, out[1:-1])
    np.testing.assert_allclose(out[1:-1], case.want, rtol=1e-5, atol=1e-5 * scale)
    assert (out[[0, -1]] == 7).all()


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_restoring_halves(scale):
    case, out = Case(2, scale), np.empty((TOKENS, OUT), np.int16)
    restore_low(*case.given, out)
    made = torch.from_numpy(out).view(torch.bfloat16).double().numpy()
    np.testing.assert_allclose(made, case.want, rtol=2.0**-8 + 1e-5, atol=1e-5 * scale)
    assert np.abs(made - case.want).max() > 0


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_restoring_behind_gelu(scale):
    case, held = Case(3, scale), Bytes(TOKENS, OUT)
    restore_gelu(*case.given, *held.parts())
    near(held, case.want * ndtr(case.want), slack=6e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("floor", [1e-12, 1e-5, 0.5])
def test_restoring_into_a_norm(scale, floor):
    case, held = Case(4, scale), Bytes(TOKENS, OUT)
    stream = np.full((TOKENS + 2, OUT), 7, np.float32)
    stream[1:-1] = numbers(9, 2.0, 0.5, width=OUT)
    gain, shift = numbers(10, tokens=2, width=OUT)
    total = stream[1:-1].astype(np.float64) + case.want
    spread = np.sqrt(total.var(1, keepdims=True) + floor)
    want = (total - total.mean(1, keepdims=True)) / spread * gain + shift
    restore_norm(*case.given, stream[1:-1], gain, shift, np.float32(floor), *held.parts())
    np.testing.assert_allclose(stream[1:-1], want, rtol=2e-5, atol=2e-5)
    near(held, want, slack=2e-5)
    assert (stream[[0, -1]] == 7).all()
