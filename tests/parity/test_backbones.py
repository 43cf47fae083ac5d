"""Any masked-language model of transformers: tapped, its term weights are those of the library's own logits, and it saves whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from flatcoat.models.mlm import load_mlm, make_identity, switch_off, switched_off, tap
from flatcoat.models.splade_checkpoint import load_splade, save_splade

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
KINDS = {
    "BertForMaskedLM": ("BertConfig", SMALL),
    "DistilBertForMaskedLM": ("DistilBertConfig", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "RobertaForMaskedLM": ("RobertaConfig", SMALL),
    "MPNetForMaskedLM": ("MPNetConfig", SMALL),
    "ElectraForMaskedLM": ("ElectraConfig", {**SMALL, "embedding_size": 32}),
    "ModernBertForMaskedLM": ("ModernBertConfig", {**SMALL, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
                                                   "cls_token_id": 2, "sep_token_id": 3}),
}  # fmt: skip
TEXTS = ["the otter lives in the marsh", "a heron"]


def made(name, tiny, folder):
    """A small random model of an architecture, with the tiny tokenizer, whose head leaves some entries above zero."""
    config_name, settings = KINDS[name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(vocab_size=len(tokenizer) + 3, max_position_embeddings=64, **settings)
    network = getattr(transformers, name)(config).train(False)
    with torch.no_grad():
        for part in network.parameters():
            part.add_(0.1 * torch.randn_like(part))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return network, tokenizer


@pytest.mark.parametrize("name", KINDS)
def test_weights_are_those_of_the_librarys_logits(name, tiny, tmp_path):
    network, tokenizer = made(name, tiny, tmp_path / "m")
    model = load_splade(str(tmp_path / "m"))
    for text in TEXTS:
        with torch.no_grad():
            encoded = tokenizer(text, return_tensors="pt")
            logits = network(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits[0]
        by_hand = torch.log1p(torch.relu(logits)).amax(0).numpy()
        assert (by_hand > 0).any()
        np.testing.assert_allclose(model.encode_documents([text]).array()[0], by_hand, atol=1e-5)
    off = int(by_hand.argmax())
    switch_off(model.document.backbone, [off])
    save_splade(model, tmp_path / "saved")
    again = load_splade(str(tmp_path / "saved"))
    assert switched_off(again.document.backbone) == [off]
    np.testing.assert_allclose(again.encode_documents(TEXTS).array(), model.encode_documents(TEXTS).array(), atol=1e-6)
    plain = getattr(transformers, name).from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert plain(**{k: encoded[k] for k in ("input_ids", "attention_mask")}).logits[0, :, off].max() < -1000


@pytest.mark.parametrize("name", ["BertForMaskedLM", "DistilBertForMaskedLM", "RobertaForMaskedLM", "MPNetForMaskedLM"])
def test_an_encoder_of_any_of_these_is_given_a_head(name, tiny, tmp_path):
    network, tokenizer = made(name, tiny, tmp_path / "m")
    network.base_model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    grown, _ = load_mlm(tmp_path / "encoder")
    make_identity(tap(grown))
    encoded = tokenizer(TEXTS[0], return_tensors="pt")
    inputs = {k: encoded[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        body = network.base_model(**inputs).last_hidden_state
        wanted = torch.nn.functional.layer_norm(body, body.shape[-1:])
        torch.testing.assert_close(grown(**inputs).logits, wanted, atol=2e-3, rtol=1e-3)
