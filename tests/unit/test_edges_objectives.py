"""What the objectives' other tests leave open: default settings, terms' names and weights, edges, written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from flatcoat.objectives.contrastive import contrastive, corrected, nll, nll_corrected
from flatcoat.objectives.distil import distil_kl, distil_margin, kl, margin_mse
from flatcoat.objectives.dual_reg import agree, dual_reg
from flatcoat.objectives.flops import anti_collapse, df_activation, df_flops, flops, l0_flops, l1
from flatcoat.objectives.listwise import distil_order, lambdarank, list_mle, listwise_lambda, ranks
from flatcoat.objectives.pairwise import hinge, pairwise_hinge, pairwise_logistic, ranknet
from flatcoat.objectives.pointwise import bce, pointwise
from flatcoat.objectives.total import Evidence, Term, total

NAN = float("nan")
SCORES = torch.tensor([[0.5, -1.0, 2.0], [1.5, 1.0, -0.5]], dtype=torch.float64)
OTHER = torch.tensor([[1.0, 0.0, -2.0], [0.75, 3.0, 0.5]], dtype=torch.float64)
TARGET = torch.tensor([2, 0])
ALL = torch.ones(2, 3, dtype=torch.bool)


def softmax(values):
    powers = [math.exp(v) for v in values]
    return [p / sum(powers) for p in powers]


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_a_document_without_a_score_is_out_of_the_sum():
    scores = SCORES.clone()
    scores[0, 1] = NAN
    wanted = (math.log(1 + math.exp((0.5 - 2.0) / 0.5)) - math.log(softmax([3.0, 2.0, -1.0])[0])) / 2
    assert contrastive(scores, TARGET, ALL, 0.5).item() == pytest.approx(wanted, rel=1e-6)


def test_the_corrected_sum_by_hand():
    """Three draws a query, one of them left out by an infinite log q: the sum over documents is (1/n) Σ exp(s/τ) / q."""
    own = torch.tensor([[0, 1, 0], [1, 2, 1]])
    log_q = torch.tensor([[0.25, 0.5, 0.25], [0.125, 1.0, 0.5]], dtype=torch.float64).log()
    log_q[1, 1] = math.inf
    tau = 2.0
    first = (math.exp(0.25) / 0.25 + math.exp(-0.5) / 0.5 + math.exp(0.25) / 0.25) / 3
    second = (math.exp(0.5) / 0.125 + math.exp(0.5) / 0.5) / 3
    wanted = [math.log((math.exp(1.0) + first) / math.exp(1.0)), math.log((math.exp(0.75) + second) / math.exp(0.75))]
    assert corrected(SCORES, TARGET, own, log_q, tau).item() == pytest.approx(sum(wanted) / 2, rel=1e-12)
    assert corrected(SCORES.float(), TARGET, own, log_q, tau).dtype == torch.float32


def test_a_query_without_draws_costs_nothing():
    none = torch.zeros(2, 0)
    assert corrected(SCORES, TARGET, none.long(), none.double(), 1.0).item() == 0.0


@pytest.mark.parametrize("bad", [0.0, -0.5, NAN])
def test_temperatures_must_be_above_zero(bad):
    for call in (
        lambda: contrastive(SCORES, TARGET, ALL, bad),
        lambda: corrected(SCORES, TARGET, torch.zeros(2, 1).long(), torch.zeros(2, 1).double(), bad),
        lambda: kl(SCORES, OTHER, ALL, bad),
    ):
        with pytest.raises(ValueError, match=rf"temperature {bad} is not above 0"):
            call()


def test_what_is_not_above_zero_is_named():
    for name, call in (
        ("margin", lambda: hinge(SCORES, TARGET, ALL, 0.0)),
        ("positive_weight", lambda: bce(SCORES, TARGET, ALL, 0.0)),
    ):
        with pytest.raises(ValueError, match=f"^{name} 0.0 is not above 0"):
            call()


def test_margin_mse_leaves_out_what_the_teacher_or_the_student_did_not_score():
    teacher, scores = OTHER.clone(), SCORES.clone()
    teacher[0, 2] = NAN  # the first query's positive: the query counts nothing
    scores[1, 1] = NAN
    assert margin_mse(scores, teacher, TARGET, ALL).item() == pytest.approx(((1.5 + 0.5) - (0.75 - 0.5)) ** 2)
    # of infinities, too
    scores[1, 1] = math.inf
    assert margin_mse(scores, teacher, TARGET, ALL).item() == pytest.approx(((1.5 + 0.5) - (0.75 - 0.5)) ** 2)


def test_kl_divides_both_by_the_temperature():
    wanted = sum(divergence(softmax(OTHER[i] / 0.5), softmax(SCORES[i] / 0.5)) for i in range(2)) / 2
    assert kl(SCORES, OTHER, ALL, 0.5).item() == pytest.approx(wanted, rel=1e-5)


def test_kl_counts_queries_of_two_documents_and_not_of_one():
    allowed = torch.tensor([[True, True, False], [False, True, False]])
    wanted = divergence(softmax(OTHER[0, :2]), softmax(SCORES[0, :2]))
    assert kl(SCORES, OTHER, allowed).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", [lambda s: kl(s, OTHER, ALL[:, :1].expand(2, 3) & (torch.arange(3) == 1)),
                                  lambda s: margin_mse(s, OTHER, TARGET, torch.zeros_like(ALL))])  # fmt: skip
def test_with_nothing_to_learn_from_the_loss_is_nothing_and_has_a_gradient(loss):
    scores = SCORES.clone().requires_grad_()
    value = loss(scores)
    value.backward()
    assert value.item() == 0.0 and scores.grad is not None and not scores.grad.any()


def test_dual_reg_counts_queries_of_two_documents_and_not_of_one():
    allowed = torch.tensor([[True, True, False], [False, True, False]])
    p, q = softmax(SCORES[0, :2] / 0.5), softmax(OTHER[0, :2] / 0.5)
    wanted = (divergence(p, q) + divergence(q, p)) / 2
    assert dual_reg(SCORES, OTHER, allowed, 0.5).item() == pytest.approx(wanted, rel=1e-9)


def test_dual_reg_of_nothing_has_gradients_of_both():
    one, two = SCORES.clone().requires_grad_(), OTHER.clone().requires_grad_()
    value = dual_reg(one, two, torch.zeros_like(ALL), 1.0)
    value.backward()
    assert value.item() == 0.0 and not one.grad.any() and not two.grad.any()


def test_list_mle_counts_queries_of_two_documents_and_not_of_one():
    allowed = torch.tensor([[True, True, False], [False, True, False]])
    assert list_mle(SCORES, OTHER, allowed).item() == pytest.approx(math.log(1 + math.exp(-1.5)) / 2, rel=1e-9)


def test_list_mle_takes_what_the_teacher_holds_equal_by_column():
    order = [float(s) for s in SCORES[0]]
    wanted = sum(math.log(sum(map(math.exp, order[r:]))) - order[r] for r in range(3)) / 3
    wide = torch.cat(
        [SCORES[:1], torch.full((1, 60), NAN, dtype=torch.float64)], 1
    )  # sorts of many are other algorithms
    for scores in (SCORES[:1], wide):
        flat = torch.zeros_like(scores)
        assert list_mle(scores, flat, torch.ones_like(flat, dtype=torch.bool)).item() == pytest.approx(wanted, rel=1e-9)


def test_ranks_of_many_equal_scores_are_by_column():
    scores = torch.zeros(1, 200)
    scores[0, 150] = 1.0
    there = torch.ones(1, 200, dtype=torch.bool)
    there[0, 3] = False
    wanted = [150, *[c for c in range(200) if c not in (3, 150)], 3]
    assert ranks(scores, there)[0].argsort().tolist() == wanted


def test_df_flops_by_its_formula_at_its_default_settings():
    weights = torch.tensor([[0.5, 2.0], [1.5, 0.0]], dtype=torch.float64)
    frequency = torch.tensor([0.08, 0.12], dtype=torch.float64)
    wanted = [1 / (1 + (x ** (math.log(2) / math.log(0.1)) - 1) ** 10) for x in (0.08, 0.12)]
    assert df_activation(frequency, 0.1, 10.0).tolist() == pytest.approx(wanted, rel=1e-9)
    assert 0.01 < wanted[0] < 0.5 < wanted[1] < 0.99
    assert df_flops(weights, frequency).item() == pytest.approx(wanted[0] * 1.0 + wanted[1] * 1.0, rel=1e-9)
    assert df_activation(torch.tensor([2.0]), 0.1, 10.0).item() == 1.0  # a share that rounding put above 1


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, NAN])
def test_df_flops_refuses_an_alpha_that_is_no_share(alpha):
    with pytest.raises(ValueError, match="is not within 0 and 1"):
        df_activation(torch.tensor([0.5]), alpha, 10.0)


def test_anti_collapse_at_nothing_is_bounded_by_the_floor():
    nothing = torch.zeros(2, 3, dtype=torch.float64)
    assert anti_collapse(nothing, torch.ones(2, 3)).item() == pytest.approx(torch.finfo(torch.float64).eps ** -2)


def test_regularisers_of_more_texts_than_terms_by_hand():
    weights = torch.tensor([[0.5, 1.0], [0.25, 0.0], [0.0, 2.0]], dtype=torch.float64)
    assert l1(weights).item() == pytest.approx((1.5 + 0.25 + 2.0) / 3)
    assert flops(weights).item() == pytest.approx(0.25**2 + 1.0**2)
    assert anti_collapse(weights, weights[:1]).item() == pytest.approx((3.75 / 3) ** -2 + 1.5**-2)


def test_l0_flops_counts_terms_above_zero():
    weights = torch.tensor([[0.5, 0.25, 0.0], [0.0, 0.0, 0.0]])
    assert l0_flops(weights, 0).item() == pytest.approx(0.25**2 + 0.125**2)
    assert l0_flops(weights, 1).item() == pytest.approx(0.25**2 + 0.125**2)
    assert l0_flops(weights, 2).item() == 0


EVIDENCE = Evidence(
    {"s": SCORES, "t": OTHER},
    TARGET,
    ALL,
    {"own": torch.tensor([[0, 1], [1, 2]]), "log_q": torch.full((2, 2), 0.25, dtype=torch.float64).log()},
)
TERMS = {
    "nll.s": (nll("s", 0.5), lambda: contrastive(SCORES, TARGET, ALL, 0.5)),
    "nll.s corrected": (
        nll_corrected("s", 0.5),
        lambda: corrected(SCORES, TARGET, EVIDENCE.extra["own"], EVIDENCE.extra["log_q"], 0.5),
    ),
    "margin_mse.t.s": (distil_margin("s", "t"), lambda: margin_mse(SCORES, OTHER, TARGET, ALL)),
    "margin_mse.t.s scaled": (distil_margin("s", "t", scale=3.0), lambda: margin_mse(3 * SCORES, OTHER, TARGET, ALL)),
    "kl.t.s": (distil_kl("s", "t"), lambda: kl(SCORES, OTHER, ALL, 1.0)),
    "kl.t.s scaled": (distil_kl("s", "t", temperature=2.0, scale=3.0), lambda: kl(3 * SCORES, OTHER, ALL, 2.0)),
    "dual_reg.s.t": (agree("s", "t", 0.5), lambda: dual_reg(SCORES, OTHER, ALL, 0.5)),
    "lambdarank.s": (listwise_lambda("s"), lambda: lambdarank(SCORES, TARGET, ALL)),
    "lambdarank.s scaled": (listwise_lambda("s", scale=3.0), lambda: lambdarank(3 * SCORES, TARGET, ALL)),
    "list_mle.t.s": (distil_order("s", "t"), lambda: list_mle(SCORES, OTHER, ALL)),
    "list_mle.t.s scaled": (distil_order("s", "t", scale=3.0), lambda: list_mle(3 * SCORES, OTHER, ALL)),
    "ranknet.s": (pairwise_logistic("s"), lambda: ranknet(SCORES, TARGET, ALL)),
    "ranknet.s scaled": (pairwise_logistic("s", scale=3.0), lambda: ranknet(3 * SCORES, TARGET, ALL)),
    "hinge.s": (pairwise_hinge("s"), lambda: hinge(SCORES, TARGET, ALL, 1.0)),
    "hinge.s scaled": (pairwise_hinge("s", 2.0, scale=3.0), lambda: hinge(3 * SCORES, TARGET, ALL, 2.0)),
    "bce.s": (pointwise("s"), lambda: bce(SCORES, TARGET, ALL, 1.0)),
    "bce.s scaled": (pointwise("s", 2.0, scale=3.0), lambda: bce(3 * SCORES, TARGET, ALL, 2.0)),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_its_loss_under_its_name_with_weight_one(name):
    term, loss = TERMS[name]
    assert term.name == name.split()[0]
    assert term.loss(EVIDENCE).item() == pytest.approx(loss().item(), rel=1e-12) and loss().item() > 0
    assert term.weight_at(0) == 1.0


def test_defaults_of_losses():
    assert hinge(SCORES, TARGET, ALL).item() == hinge(SCORES, TARGET, ALL, 1.0).item()
    assert bce(SCORES, TARGET, ALL).item() == bce(SCORES, TARGET, ALL, 1.0).item()
    assert kl(SCORES, OTHER, ALL).item() == kl(SCORES, OTHER, ALL, 1.0).item()
    assert Term("one", lambda e: torch.tensor(2.0)).weight_at(5) == 1.0


def test_total_is_the_weighted_sum_and_wants_a_term():
    terms = [
        Term("a", lambda e: torch.tensor(2.0), 0.5), Term("b", lambda e: torch.tensor(3.0), lambda step: step * 2.0),
        Term("c", lambda e: torch.tensor(5.0)),
    ]  # fmt: skip
    loss, parts = total(terms, EVIDENCE, 4)
    assert loss.item() == 0.5 * 2 + 8 * 3 + 5 and {name: value.item() for name, value in parts.items()} == {
        "a": 2,
        "b": 3,
        "c": 5,
    }
    with pytest.raises(ValueError, match="at least one term"):
        total([], EVIDENCE, 0)


def test_df_flops_pays_by_frequency_and_by_activation():
    weights, frequency = torch.tensor([[0.5, 0.2], [0.1, 0.4]]), torch.tensor([0.05, 0.3])
    paid = df_activation(frequency, 0.1, 4.0)
    assert 0.01 < paid[0] < 0.5 < paid[1] < 0.99
    wanted = sum(float(paid[v]) * float(weights[:, v].mean()) ** 2 for v in range(2))
    assert df_flops(weights, frequency, 0.1, 4.0).item() == pytest.approx(wanted, rel=1e-6)


def test_a_side_without_weights_is_far_but_finite():
    """The floor is added: a side next to nothing must not pay more than one of nothing."""
    eps = torch.finfo(torch.float32).eps
    some = torch.ones(2, 3)
    paid = [anti_collapse(torch.full((2, 3), weight), some).item() for weight in (0.0, eps / 3, 1.0)]
    assert all(math.isfinite(value) for value in paid) and paid[0] > paid[1] > paid[2]
    assert paid[1] == pytest.approx((2 * eps) ** -2, rel=1e-3)
