"""Training by the quicker products: losses and gradients are plain torch's."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from flatcoat.models.base import Runtime
from flatcoat.models.fast import training as module
from flatcoat.models.fast.training import trained_quickly

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="torch is built without oneDNN",
)


@pytest.fixture(autouse=True)
def _packed(monkeypatch):
    """Whether it is the quicker on this machine is not the question here."""
    monkeypatch.setattr(module, "packs", lambda precision: True)


def network(seed=0, bias=True, wide=48, out=24):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(32, wide, bias=bias), nn.GELU(), nn.LayerNorm(wide), nn.Linear(wide, out, bias=bias))


def numbers(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def observed(model, x, lose):
    """The loss, and the gradients of the input and of each weight (None where none was asked for)."""
    model.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = lose(model, x)
    loss.backward()
    return [loss.detach(), x.grad, *(one.grad for one in model.parameters())]


def square(model, x):
    return model(x).square().mean()


def compare(model, x, lose=square, runtime=None):
    """Both ways; each number to 1e-5 of the greatest of its kind."""
    plain = observed(copy.deepcopy(model), x, lose)
    with trained_quickly(model, runtime or Runtime()):
        ours = observed(model, x, lose)
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.shape == b.shape
            assert (a - b).abs().max() <= 1e-5 * b.abs().max()
            assert b.abs().max() > 0
    return ours


def is_quick(model):
    """Whether a forward pass is ours."""
    return "_LinearBackward" in model(numbers(4, 32)).grad_fn.name()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 32), (3, 5, 32), (2, 3, 4, 32), (32,), (1, 32)])
def test_any_shape(bias, shape):
    model = network(bias=bias)
    if len(shape) == 1:
        model = nn.Sequential(model[0], model[1], model[3])
    compare(model, numbers(*shape))


def test_the_quick_way_is_taken():
    model = network()
    with trained_quickly(model, Runtime()):
        assert is_quick(model)
    assert not is_quick(model)


STRIDED = {
    "transposed": lambda: numbers(32, 9).t(),
    "middle": lambda: numbers(5, 32, 3).transpose(1, 2),
    "part": lambda: numbers(6, 80)[:, 7:39],
    "every other": lambda: numbers(6, 64)[:, ::2],
    "one row many times": lambda: numbers(1, 32).expand(6, 32),
    "rows of a whole": lambda: numbers(4, 6, 32)[:, 2],
}


@pytest.mark.parametrize("kind", STRIDED)
def test_strided_inputs(kind):
    model, given = network(), STRIDED[kind]()
    assert not given.is_contiguous()
    plain = copy.deepcopy(model)
    found = []
    for one in (model, plain):
        x = numbers(1, seed=2).requires_grad_()  # a factor, so that the input keeps its strides
        leaf = STRIDED[kind]()
        with trained_quickly(model, Runtime("cpu" if one is model else "cuda")):
            square(one, leaf).backward()
            (one(leaf) * x).sum().backward()
        found.append([x.grad, *(w.grad for w in one.parameters())])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("lose", [
    lambda m, x: m(x).sum(),  # gradients that are one number, spread
    lambda m, x: m(x).transpose(0, 1)[3:].square().sum(),
    lambda m, x: (m(x)[:, 0] * 2).sum() + m(x[:2]).norm(),
    lambda m, x: m(x)[1:2].expand(5, -1).square().sum(),
])  # fmt: skip
def test_strided_gradients(lose):
    compare(network(), numbers(8, 32), lose)


def test_a_lone_map_whose_output_is_added_up():
    compare(nn.Linear(32, 16), numbers(6, 32), lambda m, x: m(x).sum())


@pytest.mark.parametrize(
    "frozen", [["0.weight", "0.bias"], ["3.weight"], ["0.bias", "3.bias"], ["0.weight", "3.weight"]]
)
def test_frozen_weights_have_no_gradient(frozen):
    model = network()
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    ours = compare(model, numbers(5, 32))
    assert sum(one is None for one in ours) == len(frozen)


def test_no_gradient_is_made_that_nobody_asked_for():
    model, x = network(), numbers(5, 32)
    for one in model.parameters():
        one.requires_grad_(False)
    with trained_quickly(model, Runtime()):
        assert not model(x).requires_grad
    model = network()
    with trained_quickly(model, Runtime()), torch.no_grad():
        assert not model(x).requires_grad


@pytest.mark.parametrize("reentrant", [True, False])
def test_repeated_forward_passes(reentrant):
    compare(network(), numbers(3, 4, 32), lambda m, x: checkpoint(m, x, use_reentrant=reentrant).square().mean())


def test_weights_that_are_used_twice():
    model = network(wide=32, out=32)
    compare(model, numbers(5, 32), lambda m, x: m(m(x) + x).square().mean())


@pytest.mark.parametrize("case", ["double", "narrow", "empty", "autocast"])
def test_other_products_are_torchs(case):
    model, x = network(out=8 if case == "narrow" else 24), numbers(5, 32)
    if case == "double":
        model, x = model.double(), x.double()
    x = x[:0] if case == "empty" else x
    with trained_quickly(model, Runtime()), torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        found = model(x)
        assert found.grad_fn.name() != "_LinearBackward"
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        own = model(x)
    assert found.dtype == own.dtype
    torch.testing.assert_close(found, own)


def test_it_ends_with_its_context():
    model = network()
    with pytest.raises(ZeroDivisionError), trained_quickly(model, Runtime()):
        assert is_quick(model)
        raise ZeroDivisionError
    assert not is_quick(model)
    with trained_quickly(model, Runtime()):
        with trained_quickly(model, Runtime()):
            assert is_quick(model)
        assert is_quick(model)
    assert not is_quick(model)
    assert not [name for name, part in model.named_modules() if "forward" in vars(part)]


def test_other_threads_are_not_in_it():
    model, found = network(), []
    with trained_quickly(model, Runtime()):
        thread = threading.Thread(target=lambda: found.append(is_quick(model)))
        thread.start()
        thread.join(60)
    assert found == [False]


def test_nothing_is_changed_on_other_devices():
    model = network()
    with trained_quickly(model, Runtime("cuda")):
        assert not is_quick(model)


def test_nothing_is_changed_where_it_is_not_quicker(monkeypatch):
    monkeypatch.setattr(module, "packs", lambda precision: False)
    model = network()
    with trained_quickly(model, Runtime()):
        assert not is_quick(model)


def dropping():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.Dropout(0.3), nn.Tanh(), nn.Linear(48, 24), nn.Dropout(0.1))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_repeated_pass_drops_the_same(reentrant):
    """Gradients of passes that are repeated on the way back are those of passes that are kept, dropout and all."""
    found = []
    for repeat in (False, True):
        model, x = dropping(), numbers(6, 32).requires_grad_()
        torch.manual_seed(7)
        with trained_quickly(model, Runtime()):
            y = checkpoint(model, x, use_reentrant=reentrant) if repeat else model(x)
            y.square().sum().backward()
        found.append([y.detach(), x.grad, *(one.grad for one in model.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert b.abs().max() > 0


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_its_mean(p):
    x = (1 + numbers(400, 500).abs()).requires_grad_()
    layer = nn.Dropout(p)
    with trained_quickly(layer, Runtime()):
        torch.manual_seed(3)
        y, other = layer(x), layer(x)
        torch.manual_seed(3)
        again = layer(x)
        assert layer.eval()(x) is x or torch.equal(layer(x), x)
    assert "_DropoutBackward" in y.grad_fn.name()
    kept = y != 0
    assert torch.equal(y, again)
    assert abs(kept.float().mean() - (1 - p)) < 0.005  # 200,000 draws: more than four deviations
    torch.testing.assert_close(y[kept], x[kept] / (1 - p))
    both = (kept & (other != 0)).float().mean()
    assert abs(both - (1 - p) ** 2) < 0.006  # another call is another draw
    y.sum().backward()
    torch.testing.assert_close(x.grad, kept / (1 - p))


def test_bfloat16_is_dropped_at_the_same_places():
    x = 1 + numbers(40, 50).abs()
    with trained_quickly(nn.Dropout(0.3), Runtime(precision="bf16")):
        torch.manual_seed(5)
        full = F.dropout(x, 0.3, True)
        torch.manual_seed(5)
        half = F.dropout(x.bfloat16(), 0.3, True)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=2**-7, atol=0)
    assert torch.equal(half == 0, full == 0)
    assert 0 < (half == 0).sum() < half.numel()


def test_neighbours_are_dropped_apart():
    """No pattern along rows or columns of any width."""
    x, layer = torch.ones(2**17), nn.Dropout(0.5)
    with trained_quickly(layer, Runtime()):
        torch.manual_seed(1)
        kept = (layer(x) != 0).float() - 0.5
    for gap in (1, 2, 3, 7, 64, 384, 768, 1024, 4096, 2**16):
        assert abs((kept[gap:] * kept[:-gap]).mean()) < 0.006  # 65,536 pairs or more: deviation at most 1e-3


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_attention_with_dropout(kind, monkeypatch):
    """Its weights dropped, the rest as torch's: where nothing is dropped they agree."""
    monkeypatch.setattr(module, "_dropout", lambda weights, p: weights)
    q, k, v = (numbers(2, 3, 5, 16, seed=i) for i in range(3))
    mask = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)) > 0.3
    mask[..., 0] = True
    given = {"none": None, "bool": mask, "float": torch.zeros(mask.shape).masked_fill(~mask, -1e9)}[kind]
    want = F.scaled_dot_product_attention(q, k, v, given, scale=0.3)
    with trained_quickly(nn.Identity(), Runtime()):
        found = F.scaled_dot_product_attention(q, k, v, given, dropout_p=0.5, scale=0.3)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["BertModel", "ModernBertModel"])
@pytest.mark.parametrize("checkpointed", [True, False])
def test_a_network_of_transformers(kind, checkpointed):
    import transformers

    torch.manual_seed(0)
    network = getattr(transformers, kind)
    model = network(network.config_class(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
        pad_token_id=0, bos_token_id=1, eos_token_id=1, cls_token_id=1, sep_token_id=1,
    )).eval()  # fmt: skip
    if checkpointed:
        model.train()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        model.gradient_checkpointing_enable()
        model.config.attention_probs_dropout_prob = 0.0
        for part in model.modules():
            if hasattr(part, "attention_dropout") and isinstance(part.attention_dropout, float):
                part.attention_dropout = 0.0
    ids = torch.randint(1, 50, (3, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    aim, plain, found = numbers(3, 11, 64), copy.deepcopy(model), []
    for one in (model, plain):
        with trained_quickly(model, Runtime("cpu" if one is model else "cuda")):
            loss = ((one(input_ids=ids, attention_mask=mask)[0] - aim).square() * mask[..., None]).mean()
            loss.backward()
        found.append((loss.detach(), {n: w.grad for n, w in one.named_parameters() if w.grad is not None}))
    (ours, first), (own, second) = found
    torch.testing.assert_close(ours, own, rtol=1e-5, atol=0)
    assert first.keys() == second.keys()
    scale = max(float(g.abs().max()) for g in second.values())
    for name in second:
        assert (first[name] - second[name]).abs().max() <= 1e-5 * scale, name
