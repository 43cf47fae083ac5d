"""SPLADE as naver's papers have it, written again by hand over random inputs, is what our heads and regularisers give.

w_j = max_i log(1 + relu(logit_ij))   (v2: arXiv 2109.10086),   w_j = Σ_i log(1 + relu(logit_ij))   (v1: arXiv 2107.05720)
FLOPS = Σ_j ( (1/N) Σ_i w_ij )²   (Paria et al. 2020),   L1 = (1/N) Σ_i Σ_j w_ij,   score = Σ_j w_j(q) w_j(d)
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.models.streamed_head import plain_head, streamed_head
from flatcoat.objectives.flops import anti_collapse, flops, l1
from flatcoat.representations import Sparse

SEEDS = range(5)


def drawn(seed, texts=3, length=6, hidden=8, vocabulary=30):
    """States, a mask of at least one token a text, and a decoder."""
    rng = torch.Generator().manual_seed(seed)
    states = torch.randn(texts, length, hidden, generator=rng)
    mask = (torch.rand(texts, length, generator=rng) > 0.4).long()
    mask[:, 0] = 1
    return states, mask, torch.randn(vocabulary, hidden, generator=rng), torch.randn(vocabulary, generator=rng) - 1


def pooled(states, mask, weight, bias, aggregate):
    """Number by number, in Python's own floats."""
    found = np.zeros((len(states), len(weight)))
    for text in range(len(states)):
        for term in range(len(weight)):
            own = [
                math.log(1 + max(0.0, float(states[text, i].double() @ weight[term].double()) + float(bias[term])))
                for i in range(states.shape[1])
                if mask[text, i]
            ]
            found[text, term] = max(own) if aggregate == "max" else sum(own)
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("aggregate", ["max", "sum"])
@pytest.mark.parametrize("head", [plain_head, streamed_head])
def test_naver_splade_pooling_over_random_states(seed, aggregate, head):
    inputs = drawn(seed)
    np.testing.assert_allclose(head(*inputs, aggregate).numpy(), pooled(*inputs, aggregate), atol=2e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_naver_splade_pooling_gradient_over_random_states(seed):
    """Of the maximum, the winner's: log's derivative times the state, and nothing where no position is above zero."""
    states, mask, weight, bias = drawn(seed)
    states.requires_grad_()
    upstream = torch.randn(len(states), len(weight), generator=torch.Generator().manual_seed(seed))
    (gradient,) = torch.autograd.grad((streamed_head(states, mask, weight, bias) * upstream).sum(), states)
    wanted = torch.zeros_like(states)
    logits = (states @ weight.T + bias).detach().masked_fill(mask[..., None] == 0, float("-inf"))
    for text in range(len(states)):
        for term in range(len(weight)):
            at = int(logits[text, :, term].argmax())
            best = float(logits[text, at, term])
            if best > 0:
                wanted[text, at] += upstream[text, term] * weight[term] / (1 + best)
    torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_naver_splade_flops_and_l1_over_random_weights(seed):
    weights = torch.randn(7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).relu()
    rows = weights.tolist()
    by_hand = sum((sum(row[j] for row in rows) / 7) ** 2 for j in range(11))
    assert flops(weights).item() == pytest.approx(by_hand, rel=1e-12)
    assert l1(weights).item() == pytest.approx(sum(map(sum, rows)) / 7, rel=1e-12)
    assert anti_collapse(weights, 2 * weights).item() == pytest.approx(1.25 / (sum(map(sum, rows)) / 7) ** 2, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_naver_splade_scores_are_the_dot_products_an_index_gives(seed):
    queries, documents = (streamed_head(*drawn(seed + part, texts=8)).numpy() for part in (0, 100))
    top = InvertedIndex.build(Sparse.of(documents), InvertedSettings(bits=32)).search(Sparse.of(queries), 8)
    wanted = queries.astype(np.float64) @ documents.T.astype(np.float64)
    for q in range(8):
        found = {int(row): float(score) for row, score in zip(top.rows[q], top.scores[q], strict=True) if row >= 0}
        assert found.keys() == set(np.flatnonzero(wanted[q] > 0).tolist())
        for row, score in found.items():
            assert score == pytest.approx(wanted[q, row], rel=1e-5)
