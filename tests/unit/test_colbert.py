"""Late-interaction models: what a text's tokens are, what counts, encoding, scoring, and the folder."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from changed_models import filled, unseal
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import read_json, write_json
from flatcoat.models import encode_multi as encoding
from flatcoat.models.base import Encoder, Runtime, Scorer
from flatcoat.models.colbert import LateModel, LateSettings, LateTower, expanded, pair_score
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, new_projection, save_late
from flatcoat.models.colbert_layouts import is_late
from flatcoat.models.encode import pad
from flatcoat.models.encode_multi import encode_multi, encode_multi_to
from flatcoat.models.maxsim import maxsim_slowly
from flatcoat.multi_vectors import MultiFolder
from flatcoat.testing.encoder import TEXTS, EncoderContract

FULL = LateOverrides(dim=8, query_marker="[Q] ", document_marker="[D] ", query_length=10, document_length=24, expand=True,
                     skip_punctuation=True)  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tiny, tmp_path_factory):
    """The tiny encoder without a hole in its vocabulary, so that tokens can be added."""
    return filled(tiny, tmp_path_factory.mktemp("tiny-whole") / "model")


@pytest.fixture
def model(tiny):
    return load_late(str(tiny), FULL)


class TestEncoder(EncoderContract):
    """The contract of encoders, with every setting on."""

    @pytest.fixture(autouse=True)
    def _model(self, tiny):
        self.tiny = tiny

    def encoder(self):
        made = load_late(str(self.tiny), FULL)
        made.runtime = Runtime(batch_tokens=64)
        return made

    def test_order_is_kept(self):
        """Reversed texts give reversed items."""
        there, back = (self.encoder().encode_documents(texts) for texts in (TEXTS, TEXTS[::-1]))
        for i in range(len(TEXTS)):
            np.testing.assert_allclose(there.item(i), back.item(len(TEXTS) - 1 - i), atol=1e-5)


def test_protocols(model):
    assert isinstance(model, Encoder)
    assert isinstance(model, Scorer)
    assert model.shared
    assert model.dim == 8


def test_tokens_of_a_query(model):
    """[CLS] marker words [SEP], filled up with [MASK]; a long one is cut to the same length, its [SEP] kept."""
    vocabulary = model.query.tokenizer.get_vocab()
    short, long = model.query.tokenize(["the river", "the otter lives in the marsh " * 3])
    names = ["[CLS]", "[Q] ", "the", "river", "[SEP]"] + 5 * ["[MASK]"]
    assert short == [vocabulary[name] for name in names]
    assert len(long) == 10
    assert (long[1], long[-1]) == (vocabulary["[Q] "], vocabulary["[SEP]"])
    assert model.query.lengths(["the river"]) == [5]
    assert [len(row) for row in model.document.tokenize(["", "the river"])] == [3, 5]


def test_expansion_counts_but_is_not_attended(model):
    ids, mask = pad(model.query.tokenize(["the river"]), 0, "cpu")
    made = model.query(ids, mask)
    assert made["present"].all()
    assert model.query.attended(ids, mask).tolist() == [[1] * 5 + [0] * 5]
    other = ids.clone()
    other[0, 7:] = 8  # what stands in the expansion does not reach the words
    states = model.query.backbone(input_ids=other, attention_mask=model.query.attended(ids, mask)).last_hidden_state
    torch.testing.assert_close(model.query.read(states, ids, mask)["tokens"][0, :7], made["tokens"][0, :7])


def test_attended_expansion_is_seen(tiny):
    seen, unseen = (load_late(str(tiny), FULL._replace(attend_expansion=attend)) for attend in (True, False))
    a, b = (m.encode_queries(["the river"]).vectors for m in (seen, unseen))
    assert a.shape == b.shape
    assert np.abs(a - b).max() > 1e-4


def test_a_mask_inside_a_text_is_a_word():
    mask, end, word = 4, 3, 9
    ids = torch.tensor([[2, mask, word, mask, end, mask, mask], [2, word, mask, end, mask, 0, 0]])
    present = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    assert expanded(ids, present, mask).tolist() == [[False] * 5 + [True] * 2, [False] * 4 + [True] + [False] * 2]


def test_documents_skip_punctuation_and_padding(model):
    ids, mask = pad(model.document.tokenize(["the river .", "the river . the marsh"]), 0, "cpu")
    made = model.document(ids, mask)
    dot = model.document.tokenizer.get_vocab()["."]
    assert torch.equal(made["present"], mask.bool() & (ids != dot))
    assert made["present"].sum(1).tolist() == [5, 7]
    torch.testing.assert_close(made["tokens"].norm(dim=-1), torch.ones(ids.shape))
    assert model.query(ids, mask)["present"].sum(1).tolist() == [6, 8]


def test_vectors_are_the_projected_states(model):
    """By hand: the backbone, a matrix, unit length."""
    rows = model.document.tokenize(["the river"])
    states = model.document.backbone(input_ids=torch.tensor(rows)).last_hidden_state[0]
    wanted = states @ model.document.projection.weight.T
    wanted = (wanted / wanted.norm(dim=1, keepdim=True)).detach().numpy()
    np.testing.assert_allclose(model.encode_documents(["the river"]).item(0), wanted, atol=1e-5)


def test_scores_of_pairs_are_maxsim_whatever_the_batch(model, monkeypatch):
    pairs = [(q, d) for q in TEXTS[:4] for d in TEXTS]
    queries, documents = [q for q, _ in pairs], [d for _, d in pairs]
    found = model.score(queries, documents)
    assert found.dtype == np.float32
    for q, d, score in zip(queries, documents, found, strict=True):
        left, right = model.encode_queries([q]).vectors, model.encode_documents([d]).vectors
        present = [torch.ones(1, len(x), dtype=torch.bool) for x in (left, right)]
        wanted = maxsim_slowly(torch.from_numpy(left)[None], present[0], torch.from_numpy(right)[None], present[1])
        np.testing.assert_allclose(score, wanted.item(), atol=1e-5)
    monkeypatch.setattr("flatcoat.models.colbert.PAIRS", 5)
    model.runtime = Runtime(batch_tokens=30)
    np.testing.assert_allclose(model.score(queries, documents), found, atol=1e-5)
    assert model.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="want pairs"):
        model.score(["a"], [])


def test_a_pair_without_tokens_scores_nothing():
    none, some = np.zeros((0, 3), np.float32), -np.ones((2, 3), np.float32)
    assert pair_score(none, some) == pair_score(some, none) == 0.0
    assert pair_score(-some, some) == -6.0


def test_both_sides_train_one_projection(model):
    ids, mask = pad(model.query.tokenize(["the river"]), 0, "cpu")
    model.query(ids, mask)["tokens"][..., 0].sum().backward()
    assert model.document.projection.weight.grad.abs().sum() > 0
    assert model.query.projection is model.document.projection


def test_settings_that_cannot_be_are_refused(tiny):
    model = load_late(str(tiny))
    make = lambda settings: LateTower(  # noqa: E731
        model.query.backbone, None, model.query.tokenizer, settings
    )
    with pytest.raises(Misuse, match=r"marker '\[X\]' is not a token"):
        make(LateSettings(32, marker="[X]"))
    with pytest.raises(Misuse, match="beyond max_length"):
        make(LateSettings(32, expansion=40))
    other = LateTower(model.query.backbone, nn.Linear(32, 4), model.query.tokenizer, LateSettings(32))
    with pytest.raises(ValueError, match="dimensions"):
        LateModel(other, model.document)


def test_a_new_projection_is_orthonormal_and_always_the_same():
    made = new_projection(32, 8)
    torch.testing.assert_close(made.weight @ made.weight.T, torch.eye(8))
    assert torch.equal(made.weight, new_projection(32, 8).weight)
    assert new_projection(32) is None
    assert new_projection(384).weight.shape == (128, 384)
    with pytest.raises(Misuse, match="dim = 40"):
        new_projection(32, 40)


def test_a_new_projection_nearly_keeps_dot_products():
    rng = torch.Generator().manual_seed(0)
    states = nn.functional.normalize(torch.randn(50, 384, generator=rng) + torch.randn(384, generator=rng), dim=-1)
    kept = nn.functional.normalize(new_projection(384, 256)(states), dim=-1)
    assert ((kept @ kept.T) - (states @ states.T)).abs().mean() < 0.03


def test_loading_says_what_is_wrong(tiny, tmp_path):
    with pytest.raises(Misuse, match="positions of this model"):
        load_late(str(tiny), LateOverrides(document_length=65))
    save_late(load_late(str(tiny), LateOverrides(dim=8)), tmp_path / "late")
    with pytest.raises(Misuse, match="its vectors have 8 dimensions"):
        load_late(str(tmp_path / "late"), LateOverrides(dim=4))
    unseal(tmp_path / "late")
    said = json.loads((tmp_path / "late" / "modules.json").read_text())
    said[1]["type"] = "somebody.Else"
    (tmp_path / "late" / "modules.json").write_text(json.dumps(said))
    with pytest.raises(FlatcoatError, match=r"module somebody\.Else"):
        load_late(str(tmp_path / "late"))


def test_overrides_of_a_folder(model, tmp_path):
    save_late(model, tmp_path / "late")
    assert is_late(tmp_path / "late")
    said = load_late(str(tmp_path / "late"))
    assert said.query.settings == LateSettings(10, "", "[Q] ", 10)
    assert said.document.settings == LateSettings(24, "", "[D] ", skip=(".",))  # the one that the vocabulary has
    other = load_late(str(tmp_path / "late"), LateOverrides(query_length=14, query_marker="", query_prompt="what "))
    assert other.query.settings == LateSettings(14, "what ", None, 14)
    off = load_late(str(tmp_path / "late"), LateOverrides(expand=False, skip_punctuation=False))
    assert off.query.settings == LateSettings(10, "", "[Q] ")
    assert off.document.settings == LateSettings(24, "", "[D] ")


def test_a_new_marker_is_the_mean_token_and_draws_nothing(tiny):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    plain = load_late(str(tiny)).query.backbone.get_input_embeddings().weight
    made = load_late(str(tiny), FULL).query
    held = made.backbone.get_input_embeddings().weight
    assert torch.equal(torch.get_rng_state(), before)
    assert len(held) == len(plain) + 2
    torch.testing.assert_close(held[made.marker_id], plain.mean(0))
    torch.testing.assert_close(held[: len(plain)], plain)


def test_a_marker_does_not_take_anothers_id(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "holed")
    said = read_json(tmp_path / "holed" / "tokenizer.json")
    said["model"]["vocab"].pop("q")
    write_json(tmp_path / "holed" / "tokenizer.json", said)
    with pytest.raises(FlatcoatError, match="cannot be added"):
        load_late(str(tmp_path / "holed"), FULL)


def test_separate_towers_are_not_written(tiny, tmp_path):
    model = load_late(str(tiny))
    lone = LateModel(model.query, load_late(str(tiny)).document)
    assert not lone.shared
    with pytest.raises(FlatcoatError, match="holds one encoder"):
        save_late(lone, tmp_path / "late")
    assert not (tmp_path / "late").exists()


def test_a_sparse_or_dense_folder_is_not_late(tiny, tiny_mlm):
    assert not is_late(tiny)
    assert not is_late(tiny_mlm)


def test_nothing_encodes_to_nothing(model):
    made = encode_multi(model.query, [], Runtime())
    assert (len(made), made.dim) == (0, 8)


def many(count):
    return [f"the otter {TEXTS[i % 4]}" * (1 + i % 3) for i in range(count)]


def test_a_folder_holds_what_memory_does(model, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "WINDOW", 4)
    texts, ids = many(10), [f"d{i}" for i in range(10)]
    folder = encode_multi_to(tmp_path / "v", model.document, texts, ids, {"model": "m"}, Runtime())
    whole = encode_multi(model.document, texts, Runtime())
    assert isinstance(folder, MultiFolder)
    assert folder.ids == ids
    assert folder.facts["model"] == "m"
    np.testing.assert_array_equal(folder.vectors.start, whole.start)
    assert folder.vectors.vectors.dtype == np.float16
    np.testing.assert_array_equal(folder.vectors.vectors, whole.vectors.astype(np.float16))
    full = encode_multi_to(tmp_path / "w", model.document, texts, ids, {}, Runtime(), precision="fp32")
    np.testing.assert_array_equal(full.vectors.vectors, whole.vectors)
    assert not list(tmp_path.glob("*.partial"))


def test_a_stopped_folder_goes_on(model, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "WINDOW", 4)
    texts, ids = many(14), [str(i) for i in range(14)]
    whole = encode_multi_to(tmp_path / "whole", model.document, texts, ids, {}, Runtime())
    done = []
    window = encoding.encode_multi_window

    def stops(tower, some, runtime):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(len(some))
        return window(tower, some, runtime)

    monkeypatch.setattr(encoding, "encode_multi_window", stops)
    with pytest.raises(KeyboardInterrupt):
        encode_multi_to(tmp_path / "v", model.document, texts, ids, {}, Runtime())
    monkeypatch.setattr(encoding, "encode_multi_window", lambda *a: done.append(len(a[1])) or window(*a))
    again = encode_multi_to(tmp_path / "v", model.document, texts, ids, {}, Runtime())
    assert done == [4, 4, 4, 2]
    np.testing.assert_array_equal(again.vectors.vectors, whole.vectors.vectors)
    encode_multi_to(tmp_path / "v", model.document, texts, ids, {"model": "another"}, Runtime())
    assert done == [4, 4, 4, 2, 4, 4, 4, 2]


def test_what_is_not_finite_is_refused(model, tmp_path):
    with torch.no_grad():
        model.document.projection.weight.fill_(float("nan"))
    with pytest.raises(FlatcoatError, match="a vector of 'x' is not finite"):
        encode_multi_to(tmp_path / "v", model.document, ["the river"], ["x"], {}, Runtime())
