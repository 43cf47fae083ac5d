"""PyLate's scores and losses over random token vectors: its published formulas, and its own functions where it is installed.

PyLate 1.6 pins an older sentence-transformers; `pip install --no-deps pylate==1.6.0` puts its functions beside this one. Its distillation
brings each query's scores to 0…1 before the softmax. It multiplies products by the documents' mask, so that padding wins with 0 where all
products are negative; here it cannot win. So its functions are compared on vectors without negative products, and the difference by itself.
"""

from __future__ import annotations

import pytest
import torch

from flatcoat.models.maxsim import maxsim
from flatcoat.objectives.contrastive import contrastive
from flatcoat.objectives.distil import kl

SEEDS = range(4)


def tokens(seed, items, width, dim=6, positive=False):
    """Unit token vectors in float64 and which are present, at least one an item."""
    rng = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, width, dim, dtype=torch.float64, generator=rng)
    vectors = vectors.abs() if positive else vectors
    present = torch.rand(items, width, generator=rng) > 0.3
    present[:, 0] = True
    return torch.nn.functional.normalize(vectors, dim=-1).requires_grad_(), present


def colbert_formula(queries, query_present, documents, document_present):
    """Σ_i max_j ⟨q_i, d_j⟩, token by token."""
    rows = []
    for q, here in zip(queries, query_present, strict=True):
        rows.append(
            torch.stack(
                [(q[here] @ d[there].T).amax(1).sum() for d, there in zip(documents, document_present, strict=True)]
            )
        )
    return torch.stack(rows)


def contrastive_formula(scores, groups):
    """Cross-entropy of every query over all documents; its own are `groups` in a row, the first of them the answer."""
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(scores)) * groups)


def distillation_formula(scores, teacher):
    """KL of the teacher's softmax to that of scores brought to 0…1."""
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    student = ((scores - low) / (high - low + 1e-8)).log_softmax(1)
    wanted = teacher.log_softmax(1)
    return (wanted.exp() * (wanted - student)).sum(1).mean()


def close(ours, theirs, *leaves, tolerance=1e-10):
    torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance, rtol=tolerance)
    for mine, wanted in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(mine, wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("seed", SEEDS)
def test_pylate_formula_of_colbert_scores(seed):
    queries, documents = tokens(seed, 3, 5), tokens(seed + 50, 4, 8)
    ours, wanted = maxsim(*queries, *documents), colbert_formula(*queries, *documents)
    torch.testing.assert_close(ours, wanted, atol=1e-12, rtol=1e-12)
    close((ours * ours).sum(), (wanted * wanted).sum(), queries[0], documents[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_pylate_formula_of_contrastive(seed):
    queries, documents = tokens(seed, 3, 5), tokens(seed + 50, 6, 8)
    wanted = contrastive_formula(colbert_formula(*queries, *documents) / 0.5, 2)
    ours = contrastive(maxsim(*queries, *documents), torch.arange(3) * 2, torch.ones(3, 6, dtype=torch.bool), 0.5)
    close(ours, wanted, queries[0], documents[0], tolerance=1e-5)  # ours takes the softmax in float32


def own_scores(scores, ways):
    """Each query's own documents of all, [query, way]."""
    columns = torch.arange(len(scores))[:, None] * ways + torch.arange(ways)
    return scores.gather(1, columns)


def min_max(scores):
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    return (scores - low) / (high - low + 1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_pylate_formula_of_distillation(seed):
    queries, documents = tokens(seed, 3, 5), tokens(seed + 50, 12, 8)
    teacher = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    wanted = distillation_formula(own_scores(colbert_formula(*queries, *documents), 4), teacher)
    ours = kl(min_max(own_scores(maxsim(*queries, *documents), 4)), teacher, torch.ones(3, 4, dtype=torch.bool))
    close(ours, wanted, queries[0], documents[0], tolerance=2e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_pylate_colbert_scores_and_kd_scores(seed):
    scores = pytest.importorskip("pylate.scores", reason="pip install --no-deps pylate==1.6.0")
    queries, documents = tokens(seed, 3, 5, positive=True), tokens(seed + 50, 12, 8, positive=True)
    ours = maxsim(*queries, *documents)
    theirs = scores.colbert_scores(queries[0], documents[0], queries[1], documents[1])
    torch.testing.assert_close(ours.double(), theirs.double(), atol=1e-5, rtol=1e-5)
    grouped = [part.reshape(3, 4, *part.shape[1:]) for part in documents]
    theirs = scores.colbert_kd_scores(queries[0], grouped[0], queries[1], grouped[1])
    torch.testing.assert_close(own_scores(ours, 4).double(), theirs.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_pylate_lets_padding_win_with_nothing_and_we_do_not(seed):
    """Theirs is Σ_i max(0, max_j ⟨q_i, d_j⟩) where a document is padded; ours never has the 0."""
    scores = pytest.importorskip("pylate.scores", reason="pip install --no-deps pylate==1.6.0")
    queries, documents = tokens(seed, 3, 5, dim=3), tokens(seed + 50, 12, 4, dim=3)
    padded = ~documents[1].all(1)
    best = torch.einsum("qik,djk->qdij", queries[0], documents[0]).masked_fill(~documents[1][None, :, None], -9).amax(3)
    best = best.masked_fill(~queries[1][:, None], 0)
    torch.testing.assert_close(maxsim(*queries, *documents), best.sum(2), atol=1e-12, rtol=1e-12)
    wanted = torch.where(padded[None, :, None], best.clamp_min(0), best).sum(2)
    theirs = scores.colbert_scores(queries[0], documents[0], queries[1], documents[1])
    torch.testing.assert_close(theirs.double(), wanted, atol=1e-5, rtol=1e-5)


class Given(torch.nn.Module):
    """A model that gives back the token vectors it is given."""

    skiplist: tuple[int, ...] = ()
    do_query_expansion = False

    def forward(self, features):
        return {"token_embeddings": features["vectors"]}


def features(part):
    vectors, present = part
    return {"vectors": vectors, "attention_mask": present.long(), "input_ids": torch.full(present.shape, 7)}


@pytest.mark.parametrize("seed", SEEDS)
def test_pylate_contrastive_and_distillation_losses(seed):
    losses = pytest.importorskip("pylate.losses", reason="pip install --no-deps pylate==1.6.0")
    queries, positives, negatives = (
        tokens(seed, 3, 5, positive=True),
        tokens(seed + 1, 3, 8, positive=True),
        tokens(seed + 2, 3, 8, positive=True),
    )
    leaves = [queries[0], positives[0], negatives[0]]
    theirs = losses.Contrastive(Given(), temperature=0.5)([features(p) for p in (queries, positives, negatives)])
    documents = torch.cat([positives[0], negatives[0]]), torch.cat([positives[1], negatives[1]])
    ours = contrastive(
        maxsim(*unit(queries), *unit(documents)), torch.arange(3), torch.ones(3, 6, dtype=torch.bool), 0.5
    )
    close(ours, theirs, *leaves, tolerance=1e-5)
    documents = tokens(seed + 3, 12, 8, positive=True)
    teacher = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    theirs = losses.Distillation(Given())([features(queries), features(documents)], teacher)
    ours = kl(
        min_max(own_scores(maxsim(*unit(queries), *unit(documents)), 4)), teacher, torch.ones(3, 4, dtype=torch.bool)
    )
    close(ours, theirs, queries[0], documents[0], tolerance=2e-5)


def unit(part):
    """PyLate's losses bring token vectors to unit length themselves; the gradient passes through that."""
    return torch.nn.functional.normalize(part[0], dim=-1), part[1]
