"""The streamed head against the plain one: values, gradients, memory, and what the rough pass may not lose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.models import streamed_head as module
from flatcoat.models.streamed_head import plain_head, streamed_head, winners


@pytest.fixture(autouse=True, params=[0, 10**6], ids=["screened", "small"])
def _both_ways(request, monkeypatch):
    """Small batches go another way than large ones; every test takes both."""
    monkeypatch.setattr(module, "SMALL", request.param)


def case(seed, b=3, t=7, d=16, v=2500, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    states = torch.randn(b, t, d, generator=rng)
    weight = torch.randn(v, d, generator=rng) / d**0.5
    bias = 0.1 * torch.randn(v, generator=rng) + shift
    mask = torch.ones(b, t, dtype=torch.long)
    for i in range(b):
        mask[i, t - i :] = 0
    return states, mask, weight, bias


def both(states, mask, weight, bias, aggregate):
    found = []
    for head in (streamed_head, plain_head):
        given = [x.clone().requires_grad_() for x in (states, weight, bias)]
        out = head(given[0], mask, given[1], given[2], aggregate)
        rng = torch.Generator().manual_seed(9)
        out.backward(torch.randn(out.shape, generator=rng))
        found.append((out.detach(), *(x.grad for x in given)))
    return found


@pytest.mark.parametrize("aggregate", ["max", "sum"])
@pytest.mark.parametrize("shift", [-3.0, -1.0, 0.0, 5.0])  # a few entries above zero, some, half, all
@pytest.mark.parametrize("masked", [True, False])
def test_values_and_gradients_are_the_plain_heads(aggregate, shift, masked):
    states, mask, weight, bias = case(int(10 + shift), shift=shift)
    ours, plain = both(states, mask if masked else None, weight, bias, aggregate)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-4, 1), st.floats(0.01, 30))
def test_the_rough_pass_loses_nothing(seed, shift, scale):
    states, _, weight, bias = case(seed, v=300, shift=shift)
    bound = module._rough(scale * states, weight, bias)
    exact = (scale * states @ weight.T + bias).amax(1)
    assert (bound >= exact - 1e-5 * scale).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_rough_pass_loses_nothing_when_all_roundings_agree(sign):
    """Every number rounds the same way by nearly half a unit: the greatest error that there can be."""
    d = 64
    low = 1 + 2.0**-8 - 1e-6 if sign > 0 else 1 + 2.0**-8 + 1e-6  # to be rounded down to 1, or up to 1 + 2^-7
    states, weight = torch.full((4, 40, d), low), torch.full((3, d), low)
    exact = float(states[0, 0].double() @ weight[0].double())
    for above in (1e-3, 0.1):
        bias = torch.full((3,), -exact + above)
        found = streamed_head(states, None, weight, bias)
        torch.testing.assert_close(found, plain_head(states, None, weight, bias), atol=1e-4, rtol=1e-4)
        assert (found > 0).all()
        assert (module._rough(-states, weight, torch.full((3,), exact + above)) > 0).all()


def test_padding_on_the_left_and_one_token():
    states, _, weight, bias = case(3, shift=-1.0)
    mask = torch.zeros(3, 7, dtype=torch.long)
    mask[0, 3:], mask[1, 6:], mask[2, :1] = 1, 1, 1
    ours, plain = both(states, mask, weight, bias, "max")
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_huge_states_in_padding_do_not_win():
    states, mask, weight, bias = case(4)
    states[mask == 0] = 1e30
    assert torch.isfinite(streamed_head(states, mask, weight, bias)).all()


def test_a_switched_off_entry_stays_zero():
    states, mask, weight, bias = case(5, shift=2.0)
    bias[7], bias[8] = -1e4, float("-inf")
    assert not streamed_head(states, mask, weight, bias)[:, 7:9].any()


def test_both_cpu_ways_agree():
    states, _, weight, bias = case(6, shift=-2.0)
    a, b = winners(states, weight, bias), module._winners_blocked(states, weight, bias)
    torch.testing.assert_close(a[0], b[0], atol=1e-5, rtol=1e-5)
    won = a[0] > 1e-4
    assert (a[1][won] == b[1][won]).all()


def test_bf16_autocast_gives_the_fp32_answer():
    states, mask, weight, bias = case(8, shift=-1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = streamed_head(states, mask, weight, bias)
    torch.testing.assert_close(inside, streamed_head(states, mask, weight, bias))


def test_no_logits_are_kept_for_the_way_back():
    """What is saved for the way back does not grow with length × vocabulary."""
    kept = []
    states, mask, weight, bias = (
        x.requires_grad_() if x.is_floating_point() else x for x in case(1, b=2, t=40, v=3000)
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        streamed_head(states, mask, weight, bias)
    assert max(kept) < 2 * 40 * 3000
