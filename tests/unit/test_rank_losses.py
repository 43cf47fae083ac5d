"""Ranking losses: formulas written again with loops, gradients against finite differences, masks, extremes, what is not a number."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from flatcoat.objectives.dual_reg import agree, dual_reg
from flatcoat.objectives.listwise import distil_order, lambdarank, list_mle, listwise_lambda, ranks
from flatcoat.objectives.pairwise import hinge, pairwise_hinge, pairwise_logistic, ranknet
from flatcoat.objectives.pointwise import bce, pointwise
from flatcoat.objectives.token_match import token_match
from flatcoat.objectives.total import Evidence, total

NAN = float("nan")


def example(queries=4, documents=6, seed=0):
    """Scores with holes: pairs that the scorer did not see, and pairs that may not compete."""
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randn(queries, documents, dtype=torch.float64, generator=rng)
    target = torch.randint(documents, (queries,), generator=rng)
    allowed = torch.rand(queries, documents, generator=rng) > 0.2
    holes = torch.rand(queries, documents, generator=rng) < 0.2
    rows = torch.arange(queries)
    allowed[rows, target], holes[rows, target] = True, False
    return scores.masked_fill(holes, NAN), target, allowed


def known(scores, allowed, i):
    return [j for j in range(scores.shape[1]) if allowed[i, j] and math.isfinite(scores[i, j])]


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def bce_by_hand(scores, target, allowed, weight=1.0):
    found = []
    for i in range(len(scores)):
        for j in known(scores, allowed, i):
            s = float(scores[i, j])
            found.append(weight * softplus(-s) if j == int(target[i]) else softplus(s))
    return sum(found) / len(found)


def pairs_by_hand(scores, target, allowed, loss):
    found = []
    for i in range(len(scores)):
        there, own = known(scores, allowed, i), int(target[i])
        found += [loss(float(scores[i, own] - scores[i, j])) for j in there if own in there and j != own]
    return sum(found) / len(found)


def lambda_by_hand(scores, target, allowed):
    values = []
    for i in range(len(scores)):
        there, own = known(scores, allowed, i), int(target[i])
        order = sorted(there, key=lambda j: (-float(scores[i, j]), j))
        place = {j: rank for rank, j in enumerate(order, start=1)}
        others = [j for j in there if j != own]
        if own not in there or not others:
            continue
        values.append(
            sum(
                abs(1 / math.log2(1 + place[own]) - 1 / math.log2(1 + place[j]))
                * softplus(float(scores[i, j] - scores[i, own]))
                for j in others
            )
        )
    return sum(values) / len(values)


def list_mle_by_hand(scores, teacher, allowed):
    values = []
    for i in range(len(scores)):
        there = [j for j in known(scores, allowed, i) if math.isfinite(teacher[i, j])]
        if len(there) < 2:
            continue
        order = sorted(there, key=lambda j: (-float(teacher[i, j]), j))
        s = [float(scores[i, j]) for j in order]
        values.append(sum(math.log(sum(map(math.exp, s[r:]))) - s[r] for r in range(len(s))) / len(s))
    return sum(values) / len(values)


def dual_by_hand(one, two, allowed, temperature):
    values = []
    for i in range(len(one)):
        there = [j for j in known(one, allowed, i) if math.isfinite(two[i, j])]
        if len(there) < 2:
            continue
        p, q = ([math.exp(float(s[i, j]) / temperature) for j in there] for s in (one, two))
        p, q = ([x / sum(side) for x in side] for side in (p, q))
        values.append(sum(0.5 * (a * math.log(a / b) + b * math.log(b / a)) for a, b in zip(p, q, strict=True)))
    return sum(values) / len(values)


def match_by_hand(attention, queries, query_content, documents, document_content, temperature):
    values = []
    for p in range(len(attention)):
        rows = [i for i in range(queries.shape[1]) if query_content[p, i]][: attention.shape[1]]
        columns = [j for j in range(documents.shape[1]) if document_content[p, j]][: attention.shape[2]]
        reached = [c for c in range(len(columns)) if attention[p, : len(rows), c:].sum() > 0]
        own = []
        for r, i in enumerate(rows):
            mass = sum(float(attention[p, r, c]) for c in reached)
            if not mass:
                continue
            given = [float(attention[p, r, c]) / mass for c in reached]
            powers = [math.exp(float(queries[p, i] @ documents[p, columns[c]]) / temperature) for c in reached]
            own.append(sum(g * math.log(g / (x / sum(powers))) for g, x in zip(given, powers, strict=True) if g > 0))
        if own:
            values.append(sum(own) / len(own))
    return sum(values) / len(values) if values else 0.0


LOSSES = {
    "bce": (bce, bce_by_hand),
    "bce weighted": (lambda s, t, a: bce(s, t, a, 3.0), lambda s, t, a: bce_by_hand(s, t, a, 3.0)),
    "ranknet": (ranknet, lambda s, t, a: pairs_by_hand(s, t, a, lambda m: softplus(-m))),
    "hinge": (lambda s, t, a: hinge(s, t, a, 0.7), lambda s, t, a: pairs_by_hand(s, t, a, lambda m: max(0.0, 0.7 - m))),
    "lambdarank": (lambdarank, lambda_by_hand),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_each_is_its_formula(name, seed):
    loss, by_hand = LOSSES[name]
    scores, target, allowed = example(seed=seed)
    assert loss(scores, target, allowed).item() == pytest.approx(by_hand(scores, target, allowed), rel=1e-9)


def filled(loss, scores):
    """The loss as a function of the scores that are numbers."""
    there = scores.isfinite()

    def run(values):
        return loss(torch.full_like(scores, NAN).masked_scatter(there, values))

    return run, scores[there].clone().requires_grad_()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_against_finite_differences(name):
    loss, _ = LOSSES[name]
    scores, target, allowed = example(seed=1)
    run, values = filled(lambda s: loss(s, target, allowed), scores)
    assert gradcheck(run, (values,))


def every_loss():
    """Each loss as a function of (scores, target, allowed), with gradients to the scores."""
    found = {name: pair[0] for name, pair in LOSSES.items()}
    found["list_mle"] = lambda s, t, a: list_mle(s, torch.arange(s.numel(), dtype=s.dtype).reshape(s.shape), a)
    found["dual_reg"] = lambda s, t, a: dual_reg(s, s.detach().flip(1).nan_to_num(0.0) * 0.5, a, 0.7)
    return found


@pytest.mark.parametrize("name", every_loss())
def test_what_is_not_a_number_or_not_allowed_has_no_weight_and_no_gradient(name):
    loss = every_loss()[name]
    scores, target, allowed = example(seed=2)
    out = ~allowed | scores.isnan()
    gradients, values = [], []
    for inside in (NAN, 1e30, -1e30, float("inf"), float("-inf")):
        given = scores.masked_fill(~allowed, inside).requires_grad_()
        value = loss(given, target, allowed)
        value.backward()
        assert given.grad.isfinite().all() and not given.grad[out].any()
        gradients.append(given.grad)
        values.append(value.item())
    assert gradients[0].any()
    if name != "dual_reg":  # there the other reading is made from these scores
        assert len(set(values)) == 1
        assert all(torch.equal(gradients[0], other) for other in gradients[1:])


@pytest.mark.parametrize("name", every_loss())
def test_extremes_stay_finite(name):
    scores = torch.tensor([[1e30, -1e30, 0.0], [-1e30, 1e30, 1e30]], requires_grad=True)
    value = every_loss()[name](scores, torch.tensor([0, 0]), torch.ones(2, 3, dtype=torch.bool))
    value.backward()
    assert value.isfinite() and scores.grad.isfinite().all()


@pytest.mark.parametrize("name", [n for n in every_loss() if not n.startswith("bce")])
@pytest.mark.parametrize("scores", [[[3.0]], [[3.0, NAN]], [[NAN, 2.0]]])
def test_with_nothing_to_compare_the_loss_is_nothing(name, scores):
    given = torch.tensor(scores, requires_grad=True)
    value = every_loss()[name](given, torch.tensor([0]), torch.ones_like(given, dtype=torch.bool))
    value.backward()
    assert value.item() == 0.0 and not given.grad.any() and given.grad.isfinite().all()


@pytest.mark.parametrize("name", ["ranknet", "hinge", "lambdarank"])
def test_a_query_whose_positive_has_no_score_counts_nothing(name):
    loss = LOSSES[name][0]
    lost = torch.tensor([[NAN, 2.0, 1.0], [0.5, 2.0, 1.0]], requires_grad=True)
    target, allowed = torch.tensor([0, 0]), torch.ones(2, 3, dtype=torch.bool)
    value = loss(lost, target, allowed)
    value.backward()
    assert value.item() == loss(lost[1:], target[1:], allowed[1:]).item() and not lost.grad[0].any()


def test_no_pair_at_all_costs_nothing():
    given = torch.full((2, 2), NAN, requires_grad=True)
    value = bce(given, torch.tensor([0, 1]), torch.ones(2, 2, dtype=torch.bool))
    value.backward()
    assert value.item() == 0.0 and not given.grad.any()


@pytest.mark.parametrize("seed", range(3))
def test_list_mle_is_its_formula_and_teaches_only_the_student(seed):
    scores, _, allowed = example(seed=seed)
    teacher = example(seed=seed + 10)[0].requires_grad_()
    assert list_mle(scores, teacher, allowed).item() == pytest.approx(
        list_mle_by_hand(scores, teacher.detach(), allowed), rel=1e-9
    )
    run, values = filled(lambda s: list_mle(s, teacher, allowed), scores)
    assert gradcheck(run, (values,))
    run(values).backward()
    assert teacher.grad is None
    order = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
    right, wrong = (list_mle(s, order, torch.ones(1, 3, dtype=torch.bool)) for s in (order, order.flip(1)))
    assert right < wrong


@pytest.mark.parametrize("seed", range(3))
def test_dual_reg_is_its_formula_and_teaches_both(seed):
    one, _, allowed = example(seed=seed)
    two = example(seed=seed + 20)[0]
    assert dual_reg(one, two, allowed, 0.3).item() == pytest.approx(dual_by_hand(one, two, allowed, 0.3), rel=1e-9)
    assert dual_reg(two, one, allowed, 0.3).item() == pytest.approx(dual_by_hand(one, two, allowed, 0.3), rel=1e-9)
    for this, other in ((one, two), (two, one)):
        run, values = filled(lambda s, other=other: dual_reg(s, other, allowed, 0.3), this)
        assert gradcheck(run, (values,))
        run(values).backward()
        assert values.grad.any()
    assert dual_reg(one, one, allowed, 0.3).item() == 0.0


def test_ranks_count_from_one_and_break_ties_by_column():
    scores = torch.tensor([[1.0, 3.0, 1.0, NAN, 9.0]])
    allowed = torch.tensor([[True, True, True, True, False]])
    assert ranks(scores, allowed)[0, :3].tolist() == [2, 1, 3]


def test_lambdarank_minds_the_top():
    """Of two equal margins, the one whose swap moves the answer further up the list weighs more."""
    scores = torch.tensor([[0.0, 0.1, -5.0, -5.1]], dtype=torch.float64)
    allowed = torch.ones(1, 4, dtype=torch.bool)
    gradients = []
    for own in (0, 3):
        given = scores.clone().requires_grad_()
        lambdarank(
            given, torch.tensor([own]), allowed & ~torch.eye(4, dtype=torch.bool)[1 if own == 3 else 2]
        ).backward()
        gradients.append(given.grad.abs())
    assert gradients[0][0, 1] > gradients[1][0, 2] > 0


@pytest.mark.parametrize("bad", [0.0, -1.0, NAN])
def test_settings_must_be_above_zero(bad):
    scores, target, allowed = example()
    for call in (
        lambda: bce(scores, target, allowed, bad),
        lambda: hinge(scores, target, allowed, bad),
        lambda: dual_reg(scores, scores, allowed, bad),
        lambda: token_match(*matching(), bad),
    ):
        with pytest.raises(ValueError, match="is not above 0"):
            call()


def matching(pairs=4, seed=0):
    """Attention of a cross-encoder, and vectors with frames of their own: some texts longer here, some there, some empty."""
    rng = torch.Generator().manual_seed(seed)
    queries = torch.randn(pairs, 7, 3, dtype=torch.float64, generator=rng)
    documents = torch.randn(pairs, 9, 3, dtype=torch.float64, generator=rng)
    query_content = torch.rand(pairs, 7, generator=rng) > 0.4
    document_content = torch.rand(pairs, 9, generator=rng) > 0.4
    attention = torch.rand(pairs, 5, 6, dtype=torch.float64, generator=rng)
    attention[0, 3:], attention[0, :, 4:] = 0, 0
    attention[1, 1] = 0
    attention[1, :, 2] = 0  # a column that is there, and that no row looks at
    if pairs > 2:
        document_content[2] = False
    return attention, queries, query_content, documents, document_content


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_token_match_is_its_formula(seed, temperature):
    given = matching(seed=seed)
    assert token_match(*given, temperature).item() == pytest.approx(match_by_hand(*given, temperature), rel=1e-9)


def test_token_match_gradients_and_its_teacher():
    attention, queries, query_content, documents, document_content = matching()
    attention.requires_grad_()
    queries.requires_grad_()
    documents.requires_grad_()
    run = lambda q, d: token_match(attention, q, query_content, d, document_content, 0.5)  # noqa: E731
    assert gradcheck(run, (queries, documents))
    run(queries, documents).backward()
    assert attention.grad is None
    assert not queries.grad[~query_content].any() and not documents.grad[~document_content].any()
    assert not queries.grad[2].any() and queries.grad[0].any() and documents.grad[0].any()


def test_padding_of_either_side_changes_nothing():
    attention, queries, query_content, documents, document_content = matching()
    before = token_match(attention, queries, query_content, documents, document_content, 0.5)
    wide = torch.nn.functional.pad(attention, (0, 3, 0, 2))
    far = [torch.nn.functional.pad(side, (0, 0, 0, 4), value=1e30) for side in (queries, documents)]
    more = [torch.nn.functional.pad(side, (0, 4)) for side in (query_content, document_content)]
    after = token_match(wide, far[0], more[0], far[1], more[1], 0.5)
    # wider attention lets in no token: its columns are zero, and its rows too
    torch.testing.assert_close(after, before)


def test_frames_do_not_count():
    """The same vectors behind markers and special tokens match the same attention."""
    torch.manual_seed(0)
    queries, documents = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    attention = torch.rand(2, 3, 5)
    all_of = [torch.ones(side.shape[:2], dtype=torch.bool) for side in (queries, documents)]
    bare = token_match(attention, queries, all_of[0], documents, all_of[1], 0.5)
    framed = [torch.cat([torch.randn(2, 2, 4), side, torch.randn(2, 1, 4)], 1) for side in (queries, documents)]
    masks = [torch.nn.functional.pad(side, (2, 1)) for side in all_of]
    torch.testing.assert_close(token_match(attention, framed[0], masks[0], framed[1], masks[1], 0.5), bare)
    assert bare > 0


def test_what_already_looks_alike_costs_nothing():
    queries, documents = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    attention = torch.softmax(torch.einsum("pik,pjk->pij", queries, documents) / 0.5, 2) * 0.3
    masks = [torch.ones(side.shape[:2], dtype=torch.bool) for side in (queries, documents)]
    assert token_match(attention, queries, masks[0], documents, masks[1], 0.5).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("empty", ["pairs", "attention", "content"])
def test_nothing_in_common_costs_nothing(empty):
    attention, queries, query_content, documents, document_content = matching()
    queries.requires_grad_()
    given = [attention, queries, query_content, documents, document_content]
    if empty == "pairs":
        given = [side[:0] for side in given]
    elif empty == "attention":
        given[0] = torch.zeros_like(attention)
    else:
        given[2] = torch.zeros_like(query_content)
    value = token_match(*given, 0.5)
    value.backward()
    assert value.item() == 0.0 and (queries.grad is None or not queries.grad.any())


def test_terms_are_named_and_scaled():
    scores, target, allowed = example()
    other = example(seed=5)[0]
    evidence = Evidence({"cross": scores.float(), "late": other.float()}, target, allowed)
    terms = [
        pointwise("cross", 2.0, scale=0.5), pairwise_logistic("cross"), pairwise_hinge("cross", 0.3, weight=2.0),
        listwise_lambda("cross"), distil_order("late", "cross"), agree("cross", "late", 0.5),
    ]  # fmt: skip
    loss, parts = total(terms, evidence, 0)
    names = [
        "bce.cross",
        "ranknet.cross",
        "hinge.cross",
        "lambdarank.cross",
        "list_mle.cross.late",
        "dual_reg.cross.late",
    ]
    assert list(parts) == names
    assert parts["bce.cross"].item() == pytest.approx(bce_by_hand(0.5 * scores, target, allowed, 2.0), rel=1e-5)
    assert parts["list_mle.cross.late"].item() == pytest.approx(list_mle_by_hand(other, scores, allowed), rel=1e-5)
    assert loss.item() == pytest.approx(sum(parts.values()).item() + parts["hinge.cross"].item(), rel=1e-6)
