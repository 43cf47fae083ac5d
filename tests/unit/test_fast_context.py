"""What `quickly` leaves as it was: training, other threads, forward passes, and networks whose weights move."""

from __future__ import annotations

import copy
import gc
import threading
from weakref import ref

import pytest
import torch
from fast_networks import fast, made, patched, plainly, tokens
from torch import nn

from flatcoat.models.base import Runtime
from flatcoat.models.fast import network as module
from flatcoat.models.fast.network import QuickBody, QuickLinear, forget, quickly
from flatcoat.models.fast.training import trained_quickly

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def case(kind="BertModel", **more):
    ids, mask = tokens([7, 20, 3])
    return made(kind, **more), {"input_ids": ids, "attention_mask": mask}


def gradients(network, some):
    network.zero_grad()
    network(**some)[0].square().sum().backward()
    return [one.grad.clone() for one in network.parameters() if one.grad is not None]


def elsewhere(work):
    """What `work` gives in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(60)
    assert found, "the other thread died or hangs"
    return found[0]


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "AlbertModel", "DistilBertModel"])
def test_another_thread_trains_as_ever(kind):
    still = {"dropout": 0.0, "attention_dropout": 0.0} if kind == "DistilBertModel" else STILL
    network, some = case(kind, **still)
    twin = copy.deepcopy(network)
    want = elsewhere(lambda: gradients(twin.train(), some))
    with quickly(network, Runtime()):
        assert patched(network)
        found = elsewhere(lambda: gradients(network, some))
    assert len(found) == len(want) > 10
    for a, b in zip(found, want, strict=True):
        assert torch.equal(a, b)
    assert want[0].abs().max() > 0


@pytest.mark.parametrize("mode", ["grad", "no_grad"])
@pytest.mark.parametrize("kind", ["BertModel", "AlbertModel"])
def test_without_inference_mode_the_networks_own_pass_runs(mode, kind):
    network, some = case(kind)
    with torch.set_grad_enabled(mode == "grad"):
        own = network(**some)[0]
        with quickly(network, Runtime()):
            ours = network(**some)[0]
    assert torch.equal(own, ours)
    assert ours.requires_grad == (mode == "grad")


def test_attentions_can_be_had_meanwhile():
    network, some = case(attn_implementation="eager")
    network.set_attn_implementation("eager")
    with quickly(network, Runtime()), torch.inference_mode():
        assert len(network(**some, output_attentions=True).attentions) == 2


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "AlbertModel"])
@pytest.mark.parametrize("whole", [True, False])
def test_forward_passes_are_put_back(kind, whole):
    network, some = case(kind)
    own = plainly(network, **some)[0]
    with quickly(network, Runtime(), whole=whole) as is_quick:
        assert is_quick
        assert patched(network)
    assert patched(network) == []
    with pytest.raises(ZeroDivisionError), quickly(network, Runtime(), whole=whole):
        raise ZeroDivisionError
    assert patched(network) == []
    assert torch.equal(plainly(network, **some)[0], own)


def test_nothing_is_done_on_other_devices_or_without_a_network():
    network, _ = case()
    with quickly(network, Runtime("cuda")) as is_quick:
        assert not is_quick
        assert patched(network) == []
    with quickly(None, Runtime()) as is_quick:
        assert not is_quick


def test_a_forward_pass_of_ones_own_is_kept():
    """A head may hand its states through, as streamed ones do."""
    network, some = case("BertForMaskedLM")
    decoder = network.cls.predictions.decoder
    through = lambda x: x  # noqa: E731
    decoder.forward = through
    own, ours = plainly(network, **some)[0], fast(network, **some)[0]
    assert own.shape[-1] == 64
    here = some["attention_mask"].bool()
    torch.testing.assert_close(ours[here], own[here], atol=1e-5, rtol=1e-5)
    assert decoder.forward is through
    assert "quick" not in vars(decoder)


def made_of(network, runtime=None):
    return module._ready(network, (runtime or Runtime()).precision, True)


def test_what_is_made_ready_is_used_again():
    network, some = case()
    first = fast(network, **some)[0]
    found = made_of(network)
    assert torch.equal(fast(network, **some)[0], first)
    assert made_of(network) is found
    assert made_of(network, Runtime(precision="bf16")) is not found
    assert made_of(network) is found
    forget(network)
    assert made_of(network) is not found


def fused_step(network, some):
    steps = torch.optim.AdamW(network.parameters(), lr=1e-2, fused=True)
    network(**some)[0].square().sum().backward()
    steps.step()


def plain_step(network, some):
    network(**some)[0].sum().backward()
    torch.optim.SGD(network.parameters(), lr=1e-1).step()


def assigned(network, some):
    one = network.encoder.layer[0].output.dense.weight
    one.data = one.data * 1.5


def written_through(network, some):
    network.encoder.layer[0].output.dense.weight.data.mul_(1.5)


def replaced(network, some):
    layer = network.encoder.layer[0].output
    layer.dense.weight = nn.Parameter(1.5 * layer.dense.weight.detach())


def loaded(network, some):
    network.load_state_dict(made("BertModel", seed=1).state_dict())


def assigned_state(network, some):
    network.load_state_dict(made("BertModel", seed=1).state_dict(), assign=True)


CHANGES = [fused_step, plain_step, assigned, written_through, replaced, loaded, assigned_state]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_that_move_are_noticed(change, precision):
    network, some = case()
    runtime, here = Runtime(precision=precision), some["attention_mask"].bool()
    before = fast(network, runtime, **some)[0][here]
    change(network, some)
    after, own = (f[0][here] for f in (fast(network, runtime, **some), plainly(network, **some)))
    assert (after - before).abs().max() > 1e-2
    if precision == "fp32":
        torch.testing.assert_close(after, own, atol=1e-5, rtol=1e-5)
    assert (after - own).norm() <= 0.05 * own.norm()


def test_weights_made_in_inference_mode_are_never_taken_for_the_same():
    network, some = case()
    with torch.inference_mode():
        for layer in network.encoder.layer:
            layer.output.dense.weight = nn.Parameter(layer.output.dense.weight.clone(), requires_grad=False)
    first = made_of(network)
    assert made_of(network) is not first
    here = some["attention_mask"].bool()
    torch.testing.assert_close(fast(network, **some)[0][here], plainly(network, **some)[0][here], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "AlbertModel"])
def test_a_network_is_not_kept_alive(kind):
    network, some = case(kind)
    kept = len(module._kept)
    fast(network, **some)
    fast(network, Runtime(precision="bf16"), **some)
    assert len(module._kept) == kept + 1
    gone = ref(network)
    del network
    gc.collect()
    assert gone() is None
    assert len(module._kept) <= kept


def test_training_drops_what_was_made_ready():
    network, _ = case()
    found = made_of(network)
    with trained_quickly(nn.ModuleDict({"student": network}), Runtime()):
        pass
    assert made_of(network) is not found


def test_two_threads_take_turns():
    """Whoever comes while another runs the network quickly waits; each puts back what it replaced."""
    network, some = case()
    want, there = fast(network, **some)[0], threading.Barrier(3)
    found = []

    def work():
        there.wait()
        for _ in range(10):
            found.append(fast(network, **some)[0])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for one in threads:
        one.start()
    there.wait()
    for one in threads:
        one.join(60)
    assert len(found) == 20
    assert all(torch.equal(one, want) for one in found)
    assert patched(network) == []


def test_threads_within_the_context_run_quickly():
    network, some = case()
    with quickly(network, Runtime()):
        assert isinstance(vars(network)["forward"], QuickBody)
        here = plainly(network, **some)[0]
        assert torch.equal(elsewhere(lambda: plainly(network, **some)[0]), here)
        assert not here[some["attention_mask"] == 0].any()  # as `QuickBody` alone leaves it


def test_without_numba_the_maps_alone_are_quick(monkeypatch):
    monkeypatch.setattr(module, "numba_is_there", lambda: False)
    network, some = case()
    assert {type(by) for *_, by in module.quick_forwards(network, "fp32")} == {QuickLinear}
    here = some["attention_mask"].bool()
    torch.testing.assert_close(fast(network, **some)[0][here], plainly(network, **some)[0][here], atol=1e-5, rtol=1e-5)
