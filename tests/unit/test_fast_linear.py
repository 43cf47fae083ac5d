"""Linear maps made ready: each way against torch's own, with every activation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatcoat.models.fast import linear
from flatcoat.models.fast.linear import PLAIN, SPELT, ByteMap, Bytes, Map, PackedMap, PlainMap, joined, packs, ready

HAS_PACKED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
packed = pytest.mark.skipif(not HAS_PACKED, reason="torch is built without oneDNN")
HAS_LOW = HAS_PACKED and torch.ops.mkldnn._is_mkldnn_bf16_supported()
packed_low = pytest.mark.skipif(not HAS_LOW, reason="no bfloat16 products of oneDNN's")
ACTIVATIONS = ["", *sorted(set(SPELT.values()))]
SIZES = [(33, 48, 64), (1, 16, 7), (20, 30, 9)]
OWN = {"": lambda x: x, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu}


def case(tokens=33, width=48, out=64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(tokens, width, generator=rng), torch.randn(out, width, generator=rng) / width**0.5
    return x, weight, torch.randn(out, generator=rng)


def way(kind, weight, bias, precision):
    return PlainMap(weight, bias, precision) if kind == "plain" else PackedMap(weight, bias, precision)


def test_activations_are_transformers_own():
    from transformers.activations import ACT2FN

    x = torch.linspace(-5, 5, 101)
    for said, ours in SPELT.items():
        torch.testing.assert_close(PLAIN[ours](x), ACT2FN[said](x), atol=1e-6, rtol=1e-6)
    assert set(linear.FUSED) == set(PLAIN) == set(OWN)


@pytest.mark.parametrize("kind", ["plain", pytest.param("packed", marks=packed)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_single_precision(kind, activation, size):
    x, weight, bias = case(*size)
    made = way(kind, weight, bias, "fp32")
    assert isinstance(made, Map)
    for keep in (False, True):
        found = made(x, activation, keep=keep)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, OWN[activation](F.linear(x, weight, bias)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["plain", pytest.param("packed", marks=packed_low)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_half_precision(kind, activation, size):
    x, weight, bias = case(*size)
    made, want = way(kind, weight, bias, "bf16"), OWN[activation](F.linear(x, weight, bias))
    for keep in (False, True):
        found = made(x, activation, keep=keep)
        assert found.dtype == (torch.bfloat16 if keep else torch.float32)
        assert (found.float() - want).norm() <= 1e-2 * want.norm()


@packed
def test_the_packed_map_takes_rows_of_a_larger_whole():
    x, weight, bias = case()
    wide = torch.cat([x, x + 1], 1)
    made = PackedMap(weight, bias, "fp32")
    for some in (wide[:, 48:], x[5:11], x.t().contiguous().t()):
        torch.testing.assert_close(made(some), F.linear(some, weight, bias), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [(33, 48, 64), (1, 16, 7), (17, 128, 20), (2, 64, 16)])
def test_bytes_lose_half_a_step_of_each_number(activation, size):
    x, weight, bias = case(*size)
    made, held = ByteMap(weight, bias), Bytes.of(x.numpy())
    steps, scale = torch.from_numpy(made.about[0]), torch.from_numpy(held.scale)[:, None]
    room = 0.501 * (scale * weight.abs().sum(1) + (x.abs() + scale / 2).sum(1, keepdim=True) * steps)
    want = OWN[activation](F.linear(x, weight, bias))
    for keep in (False, True):
        found = made(x, activation, keep=keep)
        assert found.dtype == torch.float32
        assert ((found - want).abs() <= 1.13 * room + 1e-5).all()  # 1.13: the steepest of GELU
    assert (found - want).norm() <= 3e-2 * want.norm()


def test_products_of_bytes_are_exact():
    x, weight, bias = case(9, 32, 24)
    made, held = ByteMap(weight, bias), Bytes.of(x.numpy())
    want = held.values.astype(np.int64) @ made.weight.numpy().astype(np.int64)
    np.testing.assert_array_equal(made.products(held), want)
    room = torch.full((1000,), 77, dtype=torch.int32)
    found = made.products(held, room)
    np.testing.assert_array_equal(found, want)
    assert found.ctypes.data == room.numpy().ctypes.data
    assert (room[9 * 24 :] == 77).all()
    np.testing.assert_array_equal(made.about[1], made.weight.numpy().astype(int).sum(0))


def test_weights_of_nothing_give_the_bias():
    weight, bias = torch.zeros(8, 16), torch.arange(8.0)
    weight[3] = 1
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    found = ByteMap(weight, bias)(x)
    others = [0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(found[:, others], bias[others].expand(5, -1))
    torch.testing.assert_close(found[:, 3], x.sum(1) + 3, atol=0.2, rtol=0)


@pytest.mark.parametrize("quicker", [True, False])
def test_which_map_is_made_ready(quicker, monkeypatch):
    monkeypatch.setattr(linear, "packs", lambda precision: quicker)
    kind = PackedMap if quicker and HAS_PACKED else PlainMap
    if quicker and not HAS_PACKED:
        pytest.skip("torch is built without oneDNN")
    x, weight, bias = case()
    assert type(ready(weight, bias, "fp32")) is kind
    assert type(ready(weight, bias, "int8")) is ByteMap
    half = ready(weight, bias, "bf16")
    assert type(half) is kind
    assert half.kind == torch.bfloat16
    x, weight, bias = case(5, 30, 9)  # a width that bytes do not take
    made = ready(weight, bias, "int8")
    assert type(made) is kind
    assert made.kind == torch.float32
    torch.testing.assert_close(made(x), F.linear(x, weight, bias), atol=1e-5, rtol=1e-5)


def test_maps_are_joined():
    rng = torch.Generator().manual_seed(0)
    first, second, third = nn.Linear(16, 5), nn.Linear(16, 3, bias=False), nn.Linear(16, 4).double()
    x = torch.randn(6, 16, generator=rng)
    weight, bias = joined(first, second, third)
    assert weight.dtype == bias.dtype == torch.float32
    assert not weight.requires_grad
    with torch.no_grad():
        want = torch.cat([first(x), second(x), third(x.double()).float()], 1)
    torch.testing.assert_close(F.linear(x, weight, bias), want, atol=1e-6, rtol=1e-5)


def test_packed_maps_are_not_used_where_they_fail(monkeypatch):
    class Fails:
        def __init__(self, *given):
            raise RuntimeError("no such product")

    measure = packs.__wrapped__
    with monkeypatch.context() as patch:
        patch.setattr(linear, "PackedMap", Fails)
        assert measure("fp32") is False
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert measure("fp32") is False


@packed
@pytest.mark.parametrize("maker", ["GenuineIntel", "AuthenticAMD"])
def test_the_way_is_the_processor_s_and_no_clock_s(maker, monkeypatch, tmp_path):
    """Two processes that took one way each would round differently, and a resumed run would end in other bits."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
    intel = linear._intel(tmp_path / "cpuinfo")
    assert intel is (maker == "GenuineIntel")
    monkeypatch.setattr(linear, "_intel", lambda: intel)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert packs.__wrapped__("fp32") is not intel
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert packs.__wrapped__("fp32") is True
    for there in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda there=there: there)
        assert packs.__wrapped__("bf16") is there
    assert not {"time", "perf_counter"} & set(vars(linear))


def test_a_processor_that_no_file_tells_of(monkeypatch, tmp_path):
    monkeypatch.setenv("PROCESSOR_IDENTIFIER", "Intel64 Family 6 Model 158 Stepping 10, GenuineIntel")
    assert linear._intel(tmp_path / "absent")
    monkeypatch.delenv("PROCESSOR_IDENTIFIER")
    assert not linear._intel(tmp_path / "absent")
