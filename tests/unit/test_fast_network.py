"""Networks run quickly give what they give themselves."""

from __future__ import annotations

import pytest
import torch
from fast_networks import drawn, fast, made, patched, plainly, tokens
from torch import nn

from flatcoat.models.base import Runtime
from flatcoat.models.fast.layers import activation_of, parts_of
from flatcoat.models.fast.network import QuickBody, QuickLinear, base_of, quick_forwards
from flatcoat.models.fast.tiles import BLOCK

LENGTHS = [1, 9, 17, 2, BLOCK + 1 if BLOCK < 64 else 66, 33]
WHOLE = {
    "BertModel": {},
    "RobertaModel": {},
    "XLMRobertaModel": {},
    "CamembertModel": {},
    "DistilBertModel": {},
    "ElectraModel": {"embedding_size": 48},
}
MAPS = ["MPNetModel", "AlbertModel", "ModernBertModel", "NomicBertModel", "DebertaV2Model"]


def network_of(kind, hidden=64, **more):
    return made(kind, hidden, **WHOLE.get(kind, {}), **more)


def given(kind, lengths=LENGTHS, **more):
    ids, mask = tokens(lengths, pad=1 if "oberta" in kind or "Camembert" in kind else 0, **more)
    return {"input_ids": ids, "attention_mask": mask}


def close(ours, own, mask=None, atol=1e-5):
    here = torch.ones(ours.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    torch.testing.assert_close(ours[here], own[here], atol=atol, rtol=1e-5)
    assert own[here].abs().max() > 0.5


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("hidden", [64, 128])
def test_whole_bodies(kind, hidden):
    network, some = network_of(kind, hidden), given(kind)
    bodies = [by for *_, by in quick_forwards(network, "fp32") if isinstance(by, QuickBody)]
    assert len(bodies) == 1
    own, ours = plainly(network, **some), fast(network, **some)
    close(ours.last_hidden_state, own.last_hidden_state, some["attention_mask"])
    assert not ours.last_hidden_state[some["attention_mask"] == 0].any()
    assert getattr(own, "pooler_output", None) is None or own.pooler_output.shape == (len(LENGTHS), hidden)
    if getattr(own, "pooler_output", None) is not None:
        torch.testing.assert_close(ours.pooler_output, own.pooler_output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", WHOLE)
def test_without_a_mask_and_with_holes(kind):
    network = network_of(kind)
    ids = given(kind, [21] * 4)["input_ids"]
    close(fast(network, input_ids=ids).last_hidden_state, plainly(network, input_ids=ids).last_hidden_state)
    mask = torch.ones_like(ids)
    mask[0, 3:8], mask[1, ::2], mask[2, :7], mask[3, 20] = 0, 0, 0, 0
    own = plainly(network, input_ids=ids, attention_mask=mask).last_hidden_state
    for one in (mask, mask.bool()):
        close(fast(network, input_ids=ids, attention_mask=one).last_hidden_state, own, mask)


def test_a_hidden_text_changes_no_other():
    network, some = network_of("BertModel"), given("BertModel")
    own = fast(network, **some).last_hidden_state
    some["attention_mask"][3] = 0
    ours = fast(network, **some).last_hidden_state
    others = [0, 1, 2, 4, 5]
    torch.testing.assert_close(ours[others], own[others], atol=1e-6, rtol=1e-5)
    assert not ours[3].any()


def test_what_stands_in_padding_does_not_matter():
    network, some = network_of("BertModel"), given("BertModel")
    own = fast(network, **some).last_hidden_state
    some["input_ids"][some["attention_mask"] == 0] = 11
    assert torch.equal(fast(network, **some).last_hidden_state, own)


@pytest.mark.parametrize("kind", ["BertModel", "ElectraModel"])
def test_token_types(kind):
    network, some = network_of(kind), given(kind)
    types = (torch.arange(some["input_ids"].shape[1]) % 2).expand_as(some["input_ids"])
    own = plainly(network, **some, token_type_ids=types).last_hidden_state
    close(fast(network, **some, token_type_ids=types).last_hidden_state, own, some["attention_mask"])
    here = some["attention_mask"].bool()
    assert (own - plainly(network, **some).last_hidden_state)[here].abs().max() > 1e-2


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_activations(activation):
    network, some = network_of("BertModel", hidden_act=activation), given("BertModel")
    assert isinstance(quick_forwards(network, "fp32")[0][-1], QuickBody)
    close(fast(network, **some)[0], plainly(network, **some)[0], some["attention_mask"])


@pytest.mark.parametrize("kind", MAPS)
def test_other_networks_keep_their_attention(kind):
    if not hasattr(__import__("transformers"), kind):
        pytest.skip(f"no {kind} in this transformers")
    network, some = made(kind), given(kind)
    replaced = quick_forwards(network, "fp32")
    assert len(replaced) >= 6
    assert {type(by) for *_, by in replaced} == {QuickLinear}
    close(fast(network, **some)[0], plainly(network, **some)[0], some["attention_mask"], atol=2e-5)


def broken(change):
    network = network_of("BertModel")
    change(network.encoder.layer[1])
    return drawn(network)


def test_a_body_that_is_not_what_it_seems_is_not_taken():
    """Another activation, sizes that do not fit, a map that is more than a map, a norm of another kind, causal attention."""
    more = type("More", (nn.Linear,), {"forward": lambda self, x: 2 * nn.Linear.forward(self, x)})
    norm = type("Other", (nn.LayerNorm,), {"forward": lambda self, x: 3 * nn.LayerNorm.forward(self, x)})
    cases = [
        network_of("BertModel", hidden_act="silu"),
        network_of("BertModel", hidden=68),
        network_of("BertModel", intermediate_size=100),
        network_of("BertModel", is_decoder=True),
        broken(lambda layer: setattr(layer.output, "dense", more(128, 64))),
        broken(lambda layer: setattr(layer.output, "LayerNorm", norm(64))),
        broken(lambda layer: delattr(layer.attention.self, "value") or setattr(layer.attention.self, "value", more(64, 64))),
    ]  # fmt: skip
    some = given("BertModel")
    for network in cases:
        assert not any(isinstance(by, QuickBody) for *_, by in quick_forwards(network, "fp32"))
        close(fast(network, **some)[0], plainly(network, **some)[0], some["attention_mask"])


def test_maps_alone_where_they_are_asked_for():
    network, some = network_of("BertModel"), given("BertModel")
    assert {type(by) for *_, by in quick_forwards(network, "fp32", whole=False)} == {QuickLinear}
    own, ours = plainly(network, **some)[0], fast(network, whole=False, **some)[0]
    here = torch.ones_like(some["attention_mask"])  # states of hidden tokens are wanted here
    close(ours, own, here)


HEADS = ["BertForSequenceClassification", "BertForMaskedLM", "RobertaForSequenceClassification", "RobertaForMaskedLM",
         "DistilBertForSequenceClassification", "DistilBertForMaskedLM", "ElectraForSequenceClassification"]  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_heads(kind, precision):
    network, some = made(kind), given(kind)
    by = {type(one) for *_, one in quick_forwards(network, precision)}
    assert by == {QuickBody, QuickLinear}
    own, ours = (f(**some).logits for f in (lambda **x: plainly(network, **x), lambda **x: fast(network, **x)))
    if own.dim() == 3:
        own, ours = (x[some["attention_mask"].bool()] for x in (own, ours))
    torch.testing.assert_close(ours, own, atol=3e-5, rtol=1e-4)
    rough = fast(network, Runtime(precision=precision), **some).logits
    rough = rough[some["attention_mask"].bool()] if rough.dim() == 3 else rough
    assert (rough - own).norm() <= (0.15 if precision == "int8" else 1e-4) * own.norm()


@pytest.mark.parametrize("kind", [*WHOLE, *MAPS[:3]])
@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.999), ("int8", 0.99)])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_lower_precision_stays_near(kind, precision, least, activation):
    name = {"DistilBertModel": "activation", "ModernBertModel": "hidden_activation"}.get(kind, "hidden_act")
    network, some = network_of(kind, **{name: activation}), given(kind)
    mask = some["attention_mask"][..., None]
    pooled = [
        (x[0].float() * mask).sum(1)
        for x in (plainly(network, **some), fast(network, Runtime(precision=precision), **some))
    ]
    alike = torch.cosine_similarity(*pooled)
    assert alike.min() >= least
    assert not torch.equal(*pooled)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_more_tokens_than_a_block_of_them(precision):
    """Maps take a few hundred tokens at a time; where the cuts fall does not show."""
    network, some = network_of("BertModel"), given("BertModel", [70 - i % 5 for i in range(40)])
    runtime = Runtime(precision=precision)
    together = fast(network, runtime, **some)[0]
    apart = torch.cat([fast(network, runtime, **{k: v[i : i + 1] for k, v in some.items()})[0] for i in range(40)])
    slack = {"fp32": 1e-5, "bf16": 0.1, "int8": 1e-4}[precision]
    torch.testing.assert_close(together, apart, atol=slack, rtol=1e-3)


def test_weights_that_are_no_numbers_are_seen_in_the_answer():
    for precision in ("fp32", "bf16", "int8"):
        network = network_of("BertModel")
        network.encoder.layer[0].output.dense.weight.data.fill_(float("nan"))
        states = fast(network, Runtime(precision=precision), **given("BertModel"))[0]
        assert not torch.isfinite(states).all()


def test_what_quick_bodies_do_not_know_is_left_to_the_network():
    network, some = network_of("BertModel"), given("BertModel")
    own, ours = (f(network, **some, output_hidden_states=True) for f in (plainly, fast))
    assert len(ours.hidden_states) == 3
    assert torch.equal(ours.last_hidden_state, own.last_hidden_state)
    vectors = network.embeddings.word_embeddings(some["input_ids"]).detach()
    found = fast(network, inputs_embeds=vectors, attention_mask=some["attention_mask"])[0]
    assert torch.equal(found, plainly(network, inputs_embeds=vectors, attention_mask=some["attention_mask"])[0])
    places = torch.arange(some["input_ids"].shape[1]).flip(0)[None]
    found = fast(network, **some, position_ids=places)[0]
    assert torch.equal(found, plainly(network, **some, position_ids=places)[0])


def test_what_is_read_of_a_network():
    network = made("BertForMaskedLM")
    assert base_of(network) is network.bert
    assert len(parts_of(network.bert)) == 2
    assert parts_of(nn.Linear(2, 2)) is None
    assert parts_of(made("MPNetModel")) is None
    assert activation_of(network.config) == "gelu"
    assert activation_of(made("BertModel", hidden_act="silu").config) is None
    assert patched(network) == []
