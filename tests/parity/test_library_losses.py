"""Losses are sentence-transformers' of the same name over random inputs, and so are their gradients (float64, 1e-10 unless said).

Where a convention differs it is a factor, and the factor is here: their KL is multiplied by the temperature squared, ours is not; their
LambdaLoss is a mean over pairs, ours over queries of a sum.
"""

from __future__ import annotations

import pytest
import torch

from flatcoat.models.maxsim import maxsim
from flatcoat.objectives.contrastive import contrastive
from flatcoat.objectives.distil import kl, margin_mse
from flatcoat.objectives.flops import flops, l0_flops
from flatcoat.objectives.listwise import lambdarank
from flatcoat.objectives.pairwise import ranknet

pytest.importorskip("sentence_transformers")
SEEDS = range(4)


class Given(torch.nn.Module):
    """A model that gives back what it is given: token vectors and their mask, or a pair's score."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self, scores=None):
        super().__init__()
        self.scores = scores

    def preprocess(self, pairs, **_):
        return {"scores": torch.stack([self.scores[int(q), int(d)] for q, d in pairs])}

    def forward(self, features, **_):
        return features


def drawn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def own_groups(queries, ways):
    """Documents column by column, as their losses lay them: query i has i, i + queries, i + 2 queries, …"""
    columns = torch.arange(queries)[:, None] + queries * torch.arange(ways)
    allowed = torch.zeros(queries, queries * ways, dtype=torch.bool)
    return allowed.scatter(1, columns, True), columns


def agree(ours, theirs, *leaves, tolerance=1e-10):
    torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance, rtol=tolerance)
    mine_all, wanted_all = (torch.autograd.grad(loss, leaves, retain_graph=True) for loss in (ours, theirs))
    for mine, wanted in zip(mine_all, wanted_all, strict=True):
        torch.testing.assert_close(mine, wanted, atol=tolerance, rtol=tolerance)
        assert mine.abs().max() > 1e-6


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cosine", [True, False])
def test_sentence_transformers_multiple_negatives_ranking_loss(seed, cosine):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.util import cos_sim, dot_score

    queries, positives, negatives = (drawn(seed * 3 + i, 5, 8) for i in range(3))
    loss = MultipleNegativesRankingLoss(Given(), scale=20.0, similarity_fct=cos_sim if cosine else dot_score)
    documents = torch.cat([positives, negatives])
    unit = (lambda v: v / v.norm(dim=1, keepdim=True)) if cosine else (lambda v: v)
    scores = unit(queries) @ unit(documents).T
    ours = contrastive(scores, torch.arange(5), torch.ones(5, 10, dtype=torch.bool), 1 / 20)
    theirs = loss.compute_loss_from_embeddings([queries, positives, negatives], torch.empty(0))
    agree(ours, theirs, queries, positives, negatives, tolerance=1e-5)  # ours takes the softmax in float32


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sparse", [False, True])
def test_sentence_transformers_margin_mse_loss(seed, sparse):
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss
    from sentence_transformers.sparse_encoder.losses import SparseMarginMSELoss

    parts = [drawn(seed * 4 + i, 6, 12) for i in range(4)]
    queries, *documents = [part.relu() for part in parts] if sparse else parts
    teacher = drawn(seed + 90, 6, 3).detach() * 4
    loss = (SparseMarginMSELoss if sparse else MarginMSELoss)(Given())
    allowed, columns = own_groups(6, 3)
    wide = torch.full((6, 18), float("nan"), dtype=torch.float64).scatter(1, columns, teacher)
    ours = margin_mse(queries @ torch.cat(documents).T, wide, torch.arange(6), allowed)
    agree(ours, loss.compute_loss_from_embeddings([queries, *documents], teacher), *parts)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sentence_transformers_distill_kl_div_loss(seed, temperature):
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

    queries, *documents = [drawn(seed * 4 + i, 6, 12) for i in range(4)]
    teacher = drawn(seed + 70, 6, 3).detach() * 3
    loss = DistillKLDivLoss(Given(), temperature=temperature)
    allowed, columns = own_groups(6, 3)
    wide = torch.full((6, 18), float("nan"), dtype=torch.float64).scatter(1, columns, teacher)
    ours = kl(queries @ torch.cat(documents).T, wide, allowed, temperature) * temperature**2
    theirs = loss.compute_loss_from_embeddings([queries, *documents], teacher)
    agree(ours, theirs, queries, *documents, tolerance=2e-5)  # ours takes the softmax in float32


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threshold", [None, 6])
def test_sentence_transformers_flops_loss(seed, threshold):
    from sentence_transformers.sparse_encoder.losses import FlopsLoss

    raw = drawn(seed, 7, 12)
    weights = raw.relu()
    ours = flops(weights) if threshold is None else l0_flops(weights, threshold)
    agree(ours, FlopsLoss(Given(), threshold).compute_loss_from_embeddings(weights), raw)


def late(seed, queries=4, ways=2, dim=6):
    """Token vectors and masks: queries, and a list of columns of documents."""
    rng = torch.Generator().manual_seed(seed + 1000)

    def column(i, tokens):
        mask = torch.rand(queries, tokens, generator=rng) > 0.3
        mask[:, 0] = True
        return drawn(seed * 7 + i, queries, tokens, dim), mask

    return column(0, 5), [column(i + 1, 9) for i in range(ways)]


def features(parts):
    return [{"token_embeddings": vectors, "attention_mask": mask.long()} for vectors, mask in parts]


def late_scores(query, documents):
    """Our MaxSim of every query with every document, columns one behind the other."""
    vectors, present = (torch.cat([part[i] for part in documents]) for i in (0, 1))
    return maxsim(*query, vectors, present)


@pytest.mark.parametrize("seed", SEEDS)
def test_sentence_transformers_multi_vector_multiple_negatives_ranking_loss(seed):
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    query, documents = late(seed)
    theirs = MultiVectorMultipleNegativesRankingLoss(Given(), scale=2.0)(features([query, *documents]))
    ours = contrastive(late_scores(query, documents), torch.arange(4), torch.ones(4, 8, dtype=torch.bool), 0.5)
    agree(ours, theirs, query[0], *(part[0] for part in documents), tolerance=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_sentence_transformers_multi_vector_margin_mse_and_kl(seed):
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorDistillKLDivLoss, MultiVectorMarginMSELoss

    query, documents = late(seed, ways=3)
    teacher = drawn(seed + 50, 4, 3).detach() * 2
    allowed, columns = own_groups(4, 3)
    wide = torch.full((4, 12), float("nan"), dtype=torch.float64).scatter(1, columns, teacher)
    leaves = [query[0], *(part[0] for part in documents)]
    theirs = MultiVectorMarginMSELoss(Given())(features([query, *documents]), teacher)
    ours = margin_mse(late_scores(query, documents), wide, torch.arange(4), allowed)
    agree(ours, theirs, *leaves, tolerance=2e-5)  # their MaxSim is in float32
    theirs = MultiVectorDistillKLDivLoss(Given(), temperature=2.0)(features([query, *documents]), teacher)
    agree(4 * kl(late_scores(query, documents), wide, allowed, 2.0), theirs, *leaves, tolerance=2e-5)


def listwise(loss, scores, target):
    """One of their losses over lists: every query with every document, labelled 1 for its own."""
    queries, width = scores.shape
    names = [[str(d) for d in range(width)]] * queries
    labels = [torch.nn.functional.one_hot(t, width).double() for t in target]
    return loss([[str(q) for q in range(queries)], names], labels)


@pytest.mark.parametrize("seed", SEEDS)
def test_sentence_transformers_rank_net_loss(seed):
    from sentence_transformers.cross_encoder.losses import RankNetLoss

    scores, target = drawn(seed, 4, 6), torch.tensor([0, 5, 2, 2])
    theirs = listwise(RankNetLoss(Given(scores), reduction_log="natural"), scores, target)
    agree(ranknet(scores, target, torch.ones(4, 6, dtype=torch.bool)), theirs, scores, tolerance=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_sentence_transformers_lambda_loss_with_lambda_rank_weights(seed):
    from sentence_transformers.cross_encoder.losses import LambdaLoss
    from sentence_transformers.cross_encoder.losses.lambda_loss import LambdaRankScheme

    scores, target = drawn(seed, 4, 6), torch.tensor([0, 5, 2, 2])
    loss = LambdaLoss(Given(scores), weighting_scheme=LambdaRankScheme(), reduction_log="natural")
    pairs_a_query = 5
    ours = lambdarank(scores, target, torch.ones(4, 6, dtype=torch.bool)) / pairs_a_query
    agree(ours, listwise(loss, scores, target), scores, tolerance=1e-5)
