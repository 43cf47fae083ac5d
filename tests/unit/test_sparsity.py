"""Regularisers and distillation by hand, ramps, the controller, and signs of life."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flatcoat.errors import FlatcoatError
from flatcoat.models.hygiene import STOPWORDS, is_punctuation, members, plain
from flatcoat.objectives.distil import distil_kl, distil_margin, kl, margin_mse
from flatcoat.objectives.flops import anti_collapse, df_activation, df_flops, flops, l0_flops, l1
from flatcoat.objectives.total import Evidence
from flatcoat.training.health import Health, vital
from flatcoat.training.sparsity import Regulariser, RegulariserSettings, ramped

W = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])


def test_formulas_by_hand():
    assert flops(W).item() == 2.0**2 + 0 + 1.0**2
    assert l1(W).item() == (3 + 3) / 2
    assert l0_flops(W, 1).item() == pytest.approx(0.5**2 + 1.0**2)  # the second text has one term and pays nothing
    assert l0_flops(W, 0).item() == flops(W).item() and l0_flops(W, 2).item() == 0
    assert anti_collapse(W, 2 * W).item() == pytest.approx(1 / 9 + 1 / 36)
    frequency = torch.tensor([1.0, 0.0, 0.1])
    assert df_activation(frequency, 0.1, 10.0).tolist() == pytest.approx([1.0, 0.0, 0.5], abs=1e-6)
    assert df_flops(W, frequency).item() == pytest.approx(4.0 + 0.5, abs=1e-5)
    with pytest.raises(ValueError, match="alpha"):
        df_activation(frequency, 1.0, 10.0)


def test_anti_collapse_stays_finite_and_pushes_up():
    q = torch.zeros(2, 3, requires_grad=True)
    loss = anti_collapse(q, W)
    loss.backward()
    assert math.isfinite(loss.item()) and (q.grad < 0).all()


SCORES = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, -1.0]])
TEACHER = torch.tensor([[5.0, 1.0, float("nan")], [0.0, 2.0, 1.0]])
TARGET = torch.tensor([0, 1])
ALL = torch.ones(2, 3, dtype=torch.bool)


def test_margin_mse_by_hand():
    wanted = ((2 - 1) - (5 - 1)) ** 2, ((3 - 0.5) - (2 - 0)) ** 2, ((3 - -1) - (2 - 1)) ** 2
    assert margin_mse(SCORES, TEACHER, TARGET, ALL).item() == pytest.approx(sum(wanted) / 3)
    mask = ALL.clone()
    mask[1, 2] = False
    assert margin_mse(SCORES, TEACHER, TARGET, mask).item() == pytest.approx(sum(wanted[:2]) / 2)
    assert margin_mse(SCORES, torch.full_like(SCORES, float("nan")), TARGET, ALL).item() == 0


def test_kl_by_hand():
    t0, s0 = torch.tensor([5.0, 1.0]).softmax(0), torch.tensor([2.0, 1.0]).softmax(0)
    t1, s1 = TEACHER[1].softmax(0), SCORES[1].softmax(0)
    wanted = ((t0 * (t0 / s0).log()).sum() + (t1 * (t1 / s1).log()).sum()) / 2
    assert kl(SCORES, TEACHER, ALL).item() == pytest.approx(wanted.item(), abs=1e-6)
    assert kl(TEACHER, TEACHER, ALL).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="temperature"):
        kl(SCORES, TEACHER, ALL, 0.0)


def test_distillation_gradients_are_finite_and_reach_only_the_student():
    scores, teacher = SCORES.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    evidence = Evidence({"sparse": scores, "teacher": teacher}, TARGET, ALL)
    for term in (distil_kl("sparse", "teacher"), distil_margin("sparse", "teacher")):
        loss = term.loss(evidence)
        loss.backward()
        assert torch.isfinite(scores.grad).all() and scores.grad.abs().sum() > 0 and teacher.grad is None


def test_the_ramp_is_quadratic():
    assert [ramped(2.0, s, 10) for s in (0, 5, 10, 50)] == [0.0, 0.5, 2.0, 2.0]


def batch(terms: float, rng: np.random.Generator, size: int = 16, vocab: int = 400) -> Evidence:
    weights = torch.from_numpy((rng.random((size, vocab)) < terms / vocab).astype(np.float32))
    return Evidence({}, TARGET, ALL, {"document": weights, "query": weights})


def play(regulariser: Regulariser, start: float, steps: int, resume_at: int | None = None) -> list[float]:
    """A model of a model: each step its terms fall by λ and grow back by themselves."""
    active, seen = start, []
    for step in range(steps):
        if step == resume_at:
            other = Regulariser(regulariser.side, regulariser.settings, regulariser.ramp_steps)
            other.restore({k: np.array(v) for k, v in regulariser.state().items()})
            regulariser = other
        regulariser.after_step(step, batch(active, np.random.default_rng(step)))
        active = active * math.exp(0.03 - 8.0 * regulariser.weight_at(step + 1) * active / start)
        active = min(max(active, 0.5), 390.0)
        seen.append(active)
    return seen


@pytest.mark.parametrize("start", [40.0, 150.0, 380.0])
def test_the_controller_meets_its_number(start):
    seen = play(Regulariser("document", RegulariserSettings(terms=60.0), 100), start, 400)
    assert np.mean(seen[-100:]) == pytest.approx(60, rel=0.15)


def test_the_controller_resumes_to_the_same_bits():
    settings_ = RegulariserSettings(kind="df-flops", terms=60.0)
    whole = play(Regulariser("document", settings_, 50), 200.0, 80)
    assert play(Regulariser("document", settings_, 50), 200.0, 80, resume_at=33) == whole


def test_df_flops_learns_frequencies():
    regulariser = Regulariser("document", RegulariserSettings(kind="df-flops", weight=1.0), 10)
    evidence = batch(40, np.random.default_rng(0))
    evidence.extra["document"][:, 0] = 1.0
    for step in range(3):
        regulariser.after_step(step, evidence)
    assert regulariser.frequency[0] == 1.0 and 0 < regulariser.frequency[1:].mean() < 0.2
    assert regulariser.term().loss(evidence) < flops(evidence.extra["document"])


def test_one_of_weight_and_terms():
    for wrong in (RegulariserSettings(), RegulariserSettings(weight=1.0, terms=2.0)):
        with pytest.raises(ValueError, match="either"):
            Regulariser("query", wrong, 1)


def test_signs_of_life_by_hand():
    weights = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [2.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = vital(weights, torch.tensor([False, True, False, False]))
    assert found.active == 6 / 4 and found.dead == 0.25 and found.noise == pytest.approx(1 / 7)
    assert found.same == pytest.approx(1 / 3)


def said_of(weights: torch.Tensor, step: int = 0) -> list[str]:
    said: list[str] = []
    names = [".", "the", "otter", "river"]
    watch = Health(names, np.array([True, True, False, False]), said.append)
    healthy = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.0, 0.0, 1.0, 1.0])
    watch.after_step(
        step, Evidence({}, TARGET, ALL, {"document": weights, "query": healthy.tril(-4) + healthy.triu(4)})
    )
    return [line for line in said if "document" in line]


def test_alarms_name_cause_and_cure():
    rng = torch.Generator().manual_seed(1)
    noisy = torch.rand(8, 4, generator=rng)
    noisy[:, 0] = 3.0
    assert any("punctuation" in line and "sparsity.off" in line for line in said_of(noisy))
    assert any("in 100% of texts" in line and "'.'" in line for line in said_of(noisy))
    same = torch.ones(8, 4)
    assert any("are the same" in line for line in said_of(same))
    half = torch.rand(8, 4, generator=rng)
    half[:4] = 0
    assert any("have no term" in line for line in said_of(half))
    with pytest.raises(FlatcoatError, match=r"empty.*lower the weight"):
        said_of(torch.zeros(8, 4))


def test_what_carries_no_content():
    assert is_punctuation("##!") and is_punctuation("▁—") and not is_punctuation("##ing") and not is_punctuation("c")
    assert plain("##ing") == "ing" and plain("Ġthe") == "the"
    assert {"the", "is", "what"} <= STOPWORDS and not {"python", "code", "paris", "heart"} & STOPWORDS


def test_members_of_a_vocabulary(tiny):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    names = ["[CLS]", "[unused7]", "#12", "unused", "the", "##the", ".", "otter"]
    assert members(tokenizer, names, ["special"]).tolist() == [True, True, True] + [False] * 5
    assert members(tokenizer, names, ["stopwords"]).tolist() == [False] * 4 + [True, False, False, False]
    assert members(tokenizer, names, ["punctuation"])[6]
    assert not members(tokenizer, names, []).any()
