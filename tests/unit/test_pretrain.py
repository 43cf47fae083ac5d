"""Post-training's parts: the blocked cross-entropy, masks, the enhanced decoding, heads, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flatcoat.data.toy import toy_sentences
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.mlm import OFF, decoder_of, switch_off
from flatcoat.models.retromae import EnhancedDecoder, bag_of_words, enhanced_mask, masked_model, sinusoids
from flatcoat.models.splade_checkpoint import load_splade
from flatcoat.objectives import masked
from flatcoat.objectives.masked import blocked_nll, plain_nll
from flatcoat.training.masking import Masked, Words, mask_tokens, visible_of, words_of
from flatcoat.training.pretrain import PostTraining, PretrainSettings, epoch_order, held_out

TEXTS = [document for _, _, document in toy_sentences()]


def example(positions=7, vocabulary=600, dim=5):
    rng = torch.Generator().manual_seed(1)
    states, weight = (torch.randn(n, dim, generator=rng, requires_grad=True) for n in (positions, vocabulary))
    bias = torch.randn(vocabulary, generator=rng, requires_grad=True)
    return states, torch.randint(vocabulary, (positions,), generator=rng), weight, bias


def test_plain_nll_is_its_formula():
    states, targets, weight, bias = example(3, 4)
    found, right = plain_nll(states, targets, weight, bias)
    for i, target in enumerate(targets.tolist()):
        logits = [sum(a * b for a, b in zip(states[i].tolist(), w, strict=True)) + c
                  for w, c in zip(weight.tolist(), bias.tolist(), strict=True)]  # fmt: skip
        assert found[i].item() == pytest.approx(math.log(sum(map(math.exp, logits))) - logits[target], abs=1e-5)
        assert right[i].item() == (max(logits) == logits[target])


@pytest.mark.parametrize("vocabulary", [600, 512, 100])  # a block cut short, whole blocks, less than one
@pytest.mark.parametrize("changed", ["", "switched off", "shifted"])
def test_blocked_cross_entropy_and_its_gradient_are_the_plain_ones(monkeypatch, vocabulary, changed):
    monkeypatch.setattr(masked, "BOUND", 1)  # blocks of LEAST entries
    states, targets, weight, bias = example(vocabulary=vocabulary)
    targets = targets.clamp(min=95)
    targets[0] = vocabulary - 1
    with torch.no_grad():
        bias[:90] = {"": bias[:90], "switched off": float("-inf"), "shifted": bias[:90] + 100}[changed]
        weight[targets[1]] += 40 * states[1]  # one that is right
    weights = torch.linspace(-1, 2, len(states))
    found = []
    for function in (blocked_nll, plain_nll):
        nll, right = function(states, targets, weight, bias)
        found.append([nll, right, *torch.autograd.grad((nll * weights).sum(), (states, weight, bias))])
    for blocked, plain in zip(*found, strict=True):
        torch.testing.assert_close(blocked, plain, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(found[0][0]).all() and found[0][1][1] and not found[0][1].all()


def test_blocked_cross_entropy_with_products_of_bf16_is_near():
    states, targets, weight, bias = example()
    nll, _ = masked._Blocked.apply(states, targets, weight, bias, True)
    plain, _ = plain_nll(states, targets, weight, bias)
    torch.testing.assert_close(nll, plain, atol=0.05, rtol=0.01)
    for rough, exact in zip(
        *(torch.autograd.grad(x.mean(), (states, weight, bias)) for x in (nll, plain)), strict=True
    ):
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough, exact, atol=0.01, rtol=0.05)


def test_blocked_cross_entropy_of_no_positions():
    states, targets, weight, bias = example(0)
    nll, right = blocked_nll(states, targets, weight, bias)
    nll.sum().backward()
    assert nll.shape == right.shape == (0,) and weight.grad is not None and not weight.grad.any()


def test_blocks_hold_no_more_than_the_bound(monkeypatch):
    monkeypatch.setattr(masked, "BOUND", 4096)
    sizes = []
    product = masked._product
    monkeypatch.setattr(masked, "_product", lambda a, b, low: sizes.append(len(a) * b.shape[1]) or product(a, b, low))
    blocked_nll(*example(8, 5000))
    assert len(sizes) == 10 and max(sizes) == 4096


WORDS = Words(4, np.array([False] * 5 + [True] * 95))


def test_masking_never_touches_special_tokens_and_keeps_its_shares():
    rng = np.random.default_rng(0)
    whole, kinds, left = 0, {"masked": 0, "kept": 0, "swapped": 0}, 0
    for _ in range(400):
        ids = [2, *rng.integers(5, 100, 40).tolist(), 3, 0, 0]
        read, chosen = mask_tokens(ids, WORDS, 0.15, rng)
        assert len(chosen) == 6 and len(set(chosen.tolist())) == 6 and all(ids[i] >= 5 for i in chosen)
        assert all(read[i] == ids[i] for i in range(len(ids)) if i not in chosen)
        for i in chosen:
            assert read[i] == 4 or read[i] >= 5
            kinds["masked" if read[i] == 4 else "kept" if read[i] == ids[i] else "swapped"] += 1
        whole, left = whole + 6, left + (1 in chosen)
    assert kinds["masked"] / whole == pytest.approx(0.8, abs=0.03)
    assert kinds["swapped"] / whole == pytest.approx(0.1, abs=0.02)
    assert left / 400 == pytest.approx(0.15, abs=0.06)


def test_masking_chooses_at_least_one_word_and_none_where_there_is_none():
    assert len(mask_tokens([2, 7, 3], WORDS, 0.15, np.random.default_rng(0))[1]) == 1
    read, chosen = mask_tokens([2, 3], WORDS, 0.15, np.random.default_rng(0))
    assert read == [2, 3] and not len(chosen)


def test_enhanced_mask_shows_the_vector_and_never_oneself():
    seen = enhanced_mask(200, 0.7, np.random.default_rng(0))
    assert seen.shape == (200, 201) and seen[:, 0].all()
    others = seen[:, 1:]
    assert not np.diagonal(others).any()
    assert others.sum() / (200 * 199) == pytest.approx(0.3, abs=0.01)
    assert len({row.tobytes() for row in others}) == 200  # each position draws its own
    assert not enhanced_mask(5, 1.0, np.random.default_rng(0))[:, 1:].any()
    assert enhanced_mask(5, 0.0, np.random.default_rng(0)).sum() == 5 * 5


def test_visible_of_shows_no_padding():
    texts = [Masked([5] * n, [5] * n, np.array([0]), np.arange(n), (0, n)) for n in (3, 5)]
    seen = visible_of(texts, 5, 0.0)
    assert not seen[0, :, 4:].any() and seen[:, :, 0].all() and seen[0, :3, 1:4].sum() == 6
    assert (seen[1] == enhanced_mask(5, 0.0, np.random.default_rng(0))).all()


@torch.no_grad()
def test_a_decoded_position_depends_on_the_vector_and_on_what_it_sees_only():
    torch.manual_seed(0)
    decoder = EnhancedDecoder(8, 2)
    vector, tokens = torch.randn(1, 8), torch.randn(1, 6, 8)
    seen = torch.from_numpy(enhanced_mask(6, 0.5, np.random.default_rng(3)))[None]
    before = decoder(vector, tokens, seen)
    for i in range(6):
        other = tokens.clone()
        other[0, i] = torch.randn(8)
        moved = (decoder(vector, other, seen) - before)[0].abs().amax(1) > 1e-6
        assert moved.tolist() == seen[0, :, 1 + i].tolist() and not moved[i]
    assert ((decoder(torch.randn(1, 8), tokens, seen) - before)[0].abs().amax(1) > 1e-6).all()


def test_sinusoids_are_their_formula():
    found = sinusoids(9, 7)
    for place in range(9):
        for i in range(7):
            turn = place / 10000 ** (2 * (i // 2) / 7)
            assert found[place, i].item() == pytest.approx(math.cos(turn) if i % 2 else math.sin(turn), abs=1e-5)


def test_bag_of_words_is_a_mean_of_embeddings_that_it_does_not_move():
    terms = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    weight = torch.randn(3, 4, requires_grad=True)
    made = bag_of_words(terms, weight)
    torch.testing.assert_close(made[0], (weight[1] + 3 * weight[2]) / 4)
    assert not made[1].any()
    made[0].sum().backward()
    assert weight.grad is None and terms.grad is not None and torch.isfinite(terms.grad).all()


def test_an_encoder_without_a_head_is_given_an_identity_over_its_own_embeddings(tiny):
    tower = load_dense(str(tiny)).document
    state = torch.get_rng_state()
    model = masked_model(tower, decoder=True, seed=3)
    assert torch.equal(torch.get_rng_state(), state)  # nothing drawn from the one that dropout uses
    assert model.network.base_model is tower.backbone
    assert model.output.weight is tower.backbone.embeddings.word_embeddings.weight
    ids = torch.tensor(tower.tokenize(TEXTS[:1]))
    with torch.no_grad():
        states, head = model(ids, None)
        torch.testing.assert_close(states, tower.backbone(input_ids=ids).last_hidden_state)
        whitened = torch.nn.functional.layer_norm(states, states.shape[-1:])
        torch.testing.assert_close(head, whitened, atol=1e-4, rtol=1e-4)
        again = masked_model(tower, decoder=True, seed=3)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_sparse_model_keeps_its_own_head(tiny_mlm):
    tower = load_splade(str(tiny_mlm)).document
    model = masked_model(tower, decoder=True, seed=0)
    assert model.network is tower.backbone
    ids = torch.tensor(tower.tokenize(TEXTS[:1]))
    with torch.no_grad():
        states, head = model(ids, None)
        terms = tower(ids, None)
        assert model.pool is not None
        vector = model.pool(states, head, None)
        torch.testing.assert_close(vector, (terms @ model.output.weight) / terms.sum(1, keepdim=True))


@pytest.mark.parametrize("kind", ["ModernBert", "Electra"])
def test_heads_of_other_shapes_begin_as_their_architecture_has_them(tiny, kind):
    import transformers

    tower = load_dense(str(tiny)).document
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    more = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    extra = {"embedding_size": 8} if kind == "Electra" else more
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tower.tokenizer), **size, **extra)
    tower.backbone = transformers.AutoModel.from_config(config)
    model = masked_model(tower, decoder=False, seed=0)
    _, head = model(torch.tensor(tower.tokenize(TEXTS[:1])), None)
    assert head.shape[2] == model.output.weight.shape[1] == (8 if kind == "Electra" else 16)
    if kind == "Electra":
        with pytest.raises(Misuse, match="embeddings of 8 dimensions under states of 16"):
            masked_model(tower, decoder=True, seed=0)


def test_entries_that_are_switched_off_are_neither_asked_for_nor_put_in(tiny_mlm):
    tower = load_splade(str(tiny_mlm)).document
    switch_off(tower.backbone, [40, 41])
    words = words_of(tower, masked_model(tower, decoder=False, seed=0))
    assert not words.ordinary[[40, 41]].any() and words.ordinary[42]
    assert not words.ordinary[tower.tokenizer.all_special_ids].any() and 40 not in words.entries
    bias = decoder_of(tower.backbone).bias
    assert bias[40] == OFF


def make(tiny, folder, **changes) -> PostTraining:
    return PostTraining(load_dense(str(tiny)).document, TEXTS, PretrainSettings(**{"batch": 8, **changes}), folder)


def test_batches_are_a_function_of_seed_and_step_and_leave_out_what_is_held_out(tiny, tmp_path):
    run, other = make(tiny, tmp_path), make(tiny, tmp_path)
    for step in (0, 5):
        other.batch(step)
    for step in (3, 9):
        for a, b in zip(run.batch(step), other.batch(step), strict=True):
            assert a.ids == b.ids and a.read == b.read and a.key == b.key
    held = {TEXTS[row] for row in run.held}
    first = [run.reader.tokenizer.decode(text.ids, skip_special_tokens=True) for s in range(7) for text in run.batch(s)]
    spoken = [run.reader.tokenizer.decode(ids, skip_special_tokens=True) for ids in run.reader.tokenize(TEXTS)]
    assert len(held) == 8 and not {spoken[row] for row in run.held} & set(first)
    assert sorted(first[:52]) == sorted(spoken[row] for row in run.rows)  # an epoch has each text once
    assert make(tiny, tmp_path, seed=1).batch(0)[0].ids != run.batch(0)[0].ids


def test_processes_share_the_batch_of_one(tiny, tmp_path):
    run = make(tiny, tmp_path)
    whole = run.batch(4)
    parts = []
    for rank in range(2):
        run.processes.rank, run.processes.world = rank, 2
        parts += run.batch(4)
    assert [(t.ids, t.read, t.key) for t in parts] == [(t.ids, t.read, t.key) for t in whole]


def test_a_batch_larger_than_the_collection_goes_round_it(tiny, tmp_path):
    assert len(make(tiny, tmp_path, batch=120).batch(1)) == 120
    assert not np.array_equal(epoch_order(52, 0, 0), epoch_order(52, 0, 1))


@pytest.mark.parametrize(("size", "count"), [(2, 1), (20, 5), (60, 8), (5000, 50), (10**6, 1000)])
def test_about_one_text_in_a_hundred_is_held_out(size, count):
    assert len(held_out(size, 0)) == count == len(set(held_out(size, 0).tolist()))


@pytest.mark.parametrize("task", ["mlm", "retromae"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_micro_batches_add_up_to_the_whole_batch(tiny, tiny_mlm, tmp_path, task, kind):
    found = []
    for tokens in (16, 10_000):
        tower = load_dense(str(tiny)).document if kind == "dense" else load_splade(str(tiny_mlm)).document
        settings = PretrainSettings(task=task, batch=8)
        run = PostTraining(tower, TEXTS, settings, tmp_path, runtime=Runtime(batch_tokens=tokens))
        values = run._measure(run.batch(0), learn=True)  # in evaluation mode: no dropout
        found.append((values, {n: p.grad for n, p in run.model.named_parameters() if p.grad is not None}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1].keys() == found[1][1].keys() and len(found[0][1]) > 30
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], rtol=1e-3, atol=1e-6)


def test_the_loss_is_the_mean_over_chosen_tokens(tiny, tmp_path):
    run = make(tiny, tmp_path)
    texts = run.batch(0)
    losses = []
    with torch.no_grad():
        for text in texts:
            _, head = run.model(torch.tensor([text.read]), None)
            logits = torch.nn.functional.linear(head[0], run.model.output.weight, run.model.output.bias)
            losses += [-torch.log_softmax(logits[i], 0)[text.ids[i]].item() for i in text.chosen]
    assert run._measure(texts, learn=False)["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_texts_without_words_are_passed_over(tiny, tmp_path):
    tower = load_dense(str(tiny)).document
    run = PostTraining(tower, ["", "   ", *TEXTS[:6], ""], PretrainSettings(batch=9, steps=2), tmp_path)
    assert all(len(text.chosen) for text in run.batch(0))
    empty = PostTraining(tower, ["", "", ""], PretrainSettings(batch=2, steps=2), tmp_path)
    assert empty.run()["loss_after"] == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"mask": 0.0}, "mask=0.0"), ({"decoder_mask": 1.5}, "decoder_mask=1.5"), ({"steps": 0}, "steps=0"),
     ({"max_length": 65}, "max_length=65, but the network has 64 positions")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(tiny, tmp_path, changes, said):
    with pytest.raises(Misuse, match=said):
        make(tiny, tmp_path, **changes)


def test_one_text_a_tokenizer_without_a_mask_and_a_tower_without_a_network_are_refused(tiny, tiny_mlm, tmp_path):
    from flatcoat.models.splade import LookupTower, SpladeSettings

    tower = load_dense(str(tiny)).document
    with pytest.raises(Misuse, match="2 texts or more"):
        PostTraining(tower, TEXTS[:1], PretrainSettings(), tmp_path)
    lookup = LookupTower(torch.ones(50), tower.tokenizer, SpladeSettings(8))
    with pytest.raises(Misuse, match="LookupTower has no network"):
        PostTraining(lookup, TEXTS, PretrainSettings(), tmp_path)
    tower.tokenizer.mask_token = None
    with pytest.raises(Misuse, match="a mask token"):
        PostTraining(tower, TEXTS, PretrainSettings(), tmp_path)


def test_a_checkpoint_of_other_settings_is_refused(tiny, tmp_path):
    make(tiny, tmp_path, steps=3, save_every=2).run()
    with pytest.raises(FlatcoatError, match=r"mask=None, now mask=0.2; start anew"):
        make(tiny, tmp_path, steps=3, mask=0.2).run(resume=True)


def test_a_loss_that_is_not_a_number_stops(tiny, tmp_path):
    with pytest.raises(FlatcoatError, match=r"not finite at step \d"):
        make(tiny, tmp_path, rate=1e30, clip=None, steps=6, warmup=0).run()
