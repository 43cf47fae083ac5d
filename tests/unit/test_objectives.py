"""Formulas written again by hand, gradients against finite differences, edges."""

from __future__ import annotations

import math

import pytest
import torch

from flatcoat.objectives.contrastive import contrastive, nll
from flatcoat.objectives.total import Evidence, Term, total


def by_hand(scores, target, allowed, temperature):
    values = []
    for i, own in enumerate(target.tolist()):
        terms = [math.exp(float(s) / temperature) for j, s in enumerate(scores[i]) if allowed[i, j]]
        values.append(-math.log(math.exp(float(scores[i, own]) / temperature) / sum(terms)))
    return sum(values) / len(values)


def example():
    torch.manual_seed(0)
    scores = torch.randn(3, 5, dtype=torch.float64)
    target = torch.tensor([0, 2, 4])
    allowed = torch.rand(3, 5) > 0.3
    allowed[torch.arange(3), target] = True
    return scores, target, allowed


def test_contrastive_is_its_formula():
    scores, target, allowed = example()
    assert contrastive(scores, target, allowed, 0.5).item() == pytest.approx(
        by_hand(scores, target, allowed, 0.5), rel=1e-6
    )


def test_a_masked_document_has_no_weight_however_high():
    scores, target, allowed = example()
    allowed[0, 1] = False
    before = contrastive(scores, target, allowed, 0.1)
    scores[0, 1] = 1e30
    assert contrastive(scores, target, allowed, 0.1) == before


def test_gradient_against_finite_differences():
    scores, target, allowed = example()

    def loss(s):
        masked = (s / 0.5).masked_fill(~allowed, float("-inf"))
        return torch.nn.functional.cross_entropy(masked, target)

    scores.requires_grad_()
    contrastive(scores, target, allowed, 0.5).backward()
    numeric = torch.zeros_like(scores)
    with torch.no_grad():
        for i in range(3):
            for j in range(5):
                step = torch.zeros_like(scores)
                step[i, j] = 1e-6
                numeric[i, j] = (loss(scores + step) - loss(scores - step)) / 2e-6
    torch.testing.assert_close(scores.grad, numeric, atol=1e-5, rtol=1e-4)


def test_alone_the_loss_is_nothing():
    one = torch.ones(1, 1)
    assert contrastive(one, torch.tensor([0]), torch.ones(1, 1, dtype=torch.bool), 0.05).item() == 0.0


def test_temperature_must_be_above_zero():
    scores, target, allowed = example()
    with pytest.raises(ValueError, match="temperature"):
        contrastive(scores, target, allowed, 0.0)


def test_total_weighs_and_names_terms():
    scores, target, allowed = example()
    evidence = Evidence({"dual": scores.float()}, target, allowed)
    terms = [nll("dual", 0.5), Term("two", lambda e: torch.tensor(2.0), lambda step: float(step))]
    loss, parts = total(terms, evidence, 3)
    assert loss.item() == pytest.approx(parts["nll.dual"].item() + 6.0)
    with pytest.raises(ValueError, match="own name"):
        total([terms[0], terms[0]], evidence, 0)
