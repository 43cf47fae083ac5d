"""Attention over ragged texts against a plain softmax in double precision."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.models.fast.attention import attend
from flatcoat.models.fast.attention_low import attend_low
from flatcoat.models.fast.tiles import BLOCK, HALVES, WIDE

LENGTHS = [1, WIDE - 1, WIDE, 2 * WIDE + 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5, 1, 2]
GUARD = 3
WAYS = ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not HALVES, reason="no pairs of bfloat16 numbers"))]
SENTINEL = -12345.0


def states_of(lengths, heads, size, seed=0, scale=1.0):
    """Queries, keys and values that bfloat16 holds exactly, so that both ways have the same input."""
    rng = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(sum(lengths), 3 * heads * size, generator=rng)).to(torch.bfloat16)


def starts_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def attended(states, lengths, heads, way):
    """What `attend` or `attend_low` writes, between rows that must stay as they are."""
    hidden = states.shape[1] // 3
    buffer = np.full((len(states) + 2 * GUARD, hidden), SENTINEL, np.float32)
    out = buffer[GUARD:-GUARD]
    if way == "fp32":
        attend(states.float().numpy(), starts_of(lengths), heads, out)
    else:
        attend_low(states.view(torch.int16).numpy().view(np.int32), starts_of(lengths), heads, out)
    assert (buffer[:GUARD] == SENTINEL).all()
    assert (buffer[-GUARD:] == SENTINEL).all()
    return out


def expected(states, lengths, heads):
    """softmax(q kᵀ / √d) v in float64, and Σ p |v|, which errors of the probabilities are multiplied by."""
    x = states.double().numpy()
    hidden = x.shape[1] // 3
    size = hidden // heads
    found, weights = np.empty((len(x), hidden)), np.empty((len(x), hidden))
    starts = starts_of(lengths)
    for begin, end in pairwise(starts):
        for head in range(heads):
            q, k, v = (x[begin:end, i * hidden + head * size :][:, :size] for i in range(3))
            s = q @ k.T / np.sqrt(size)
            p = np.exp(s - s.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            to = slice(begin, end), slice(head * size, (head + 1) * size)
            found[to], weights[to] = p @ v, p @ np.abs(v)
    return found, weights


def check(states, lengths, heads, way):
    out = attended(states, lengths, heads, way)
    want, weights = expected(states, lengths, heads)
    slack = 1e-5 if way == "fp32" else 2.0**-8  # of a probability, for its rounding
    assert (np.abs(out - want) <= slack * weights + 1e-5).all()


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("size", [WIDE, 2 * WIDE, 4 * WIDE])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scale", [1.0, 2.5])  # even and peaked probabilities
def test_attention_is_a_softmax_over_each_text(heads, size, way, scale):
    if way == "bf16" and size == WIDE:
        pytest.skip("a word holds two numbers")
    check(states_of(LENGTHS, heads, size, scale=scale), LENGTHS, heads, way)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 2 * BLOCK + 9), min_size=1, max_size=6), st.integers(1, 3), st.integers(0, 10**6))
def test_attention_over_any_lengths(lengths, heads, seed):
    states = states_of(lengths, heads, 2 * WIDE, seed)
    for way in ("fp32", "bf16") if HALVES else ("fp32",):
        check(states, lengths, heads, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_a_text_is_not_reached_by_its_neighbours(way, garbage):
    heads = 2
    states = states_of(LENGTHS, heads, 2 * WIDE)
    starts = starts_of(LENGTHS)
    good = attended(states, LENGTHS, heads, way).copy()
    for text in range(len(LENGTHS)):
        alone = torch.full_like(states, garbage)
        own = slice(int(starts[text]), int(starts[text + 1]))
        alone[own] = states[own]
        np.testing.assert_array_equal(attended(alone, LENGTHS, heads, way)[own], good[own])


@pytest.mark.parametrize("way", WAYS)
def test_a_text_alone_is_the_same(way):
    heads = 2
    states, starts = states_of(LENGTHS, heads, 2 * WIDE), starts_of(LENGTHS)
    together = attended(states, LENGTHS, heads, way)
    for text, length in enumerate(LENGTHS):
        own = slice(int(starts[text]), int(starts[text + 1]))
        apart = attended(states[own].contiguous(), [length], heads, way)
        np.testing.assert_allclose(apart, together[own], atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_heads_do_not_see_one_another(way):
    heads, size, lengths = 2, 2 * WIDE, [BLOCK + 3, 5]
    states = states_of(lengths, heads, size)
    good = attended(states, lengths, heads, way).copy()
    for part in range(3):
        states[:, (2 * part + 1) * size : (2 * part + 2) * size] = float("nan")
    np.testing.assert_array_equal(attended(states, lengths, heads, way)[:, :size], good[:, :size])


@pytest.mark.parametrize("way", WAYS)
def test_scores_far_apart_do_not_overflow(way):
    lengths = [7, BLOCK + 2]
    states = states_of(lengths, 1, 2 * WIDE, scale=100.0)
    out = attended(states, lengths, 1, way)
    assert np.isfinite(out).all()
    if way == "fp32":
        want, _ = expected(states, lengths, 1)
        np.testing.assert_allclose(out, want, atol=0.5)  # scores of about 1e5 have steps of 1e-2


@pytest.mark.parametrize("way", WAYS)
def test_one_token_attends_to_itself(way):
    states = states_of([1, 1], 2, 2 * WIDE)
    np.testing.assert_allclose(attended(states, [1, 1], 2, way), states[:, -4 * WIDE :].float().numpy(), rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_text_without_tokens_takes_no_room(way):
    states = states_of([4, 6], 1, 2 * WIDE)
    np.testing.assert_array_equal(
        attended(states, [4, 0, 6, 0], 1, way), attended(states, [4, 6], 1, way)
    )  # a mask may hide a whole text
