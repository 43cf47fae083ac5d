"""The blocked MaxSim against the plain one: values, gradients, memory, and that padding never wins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.models import maxsim as module
from flatcoat.models.maxsim import maxsim, maxsim_slowly, places_first, winners


def case(seed, q=3, m=5, d=4, n=7, k=6, share=0.6, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    queries, documents = (torch.randn(*shape, k, generator=rng, dtype=dtype) for shape in ((q, m), (d, n)))
    query_present, document_present = (torch.rand(shape, generator=rng) < share for shape in ((q, m), (d, n)))
    return queries, query_present, documents, document_present


def run(score, queries, query_present, documents, document_present, **more):
    """Scores and both gradients under random weights of the scores."""
    queries, documents = queries.clone().requires_grad_(), documents.clone().requires_grad_()
    scores = score(queries, query_present, documents, document_present, **more)
    rng = torch.Generator().manual_seed(9)
    scores.backward(torch.randn(scores.shape, generator=rng, dtype=scores.dtype))
    return scores.detach(), queries.grad, documents.grad


def same(given, **more):
    for ours, plain in zip(run(maxsim, *given, **more), run(maxsim_slowly, *given), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [None, 1, 2, 3, 4, 100])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.2])
def test_values_and_gradients_are_the_plain_ones(block, share):
    same(case(1, share=share), block=block)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 5), st.integers(0, 5), st.integers(0, 6), st.floats(0, 1)
)
def test_any_shape(seed, q, m, d, n, share):
    same(case(seed, q=q, m=m, d=d, n=n, share=share), block=1 + seed % 3)


def test_no_queries_and_no_documents():
    for q, d in ((0, 4), (3, 0), (0, 0)):
        given = case(2, q=q, d=d)
        assert maxsim(*given).shape == (q, d)
        same(given)


def test_gradients_are_finite_differences():
    queries, query_present, documents, document_present = case(3, q=2, m=3, d=3, n=4, k=3, dtype=torch.float64)
    score = lambda a, b: maxsim(a, query_present, b, document_present)  # noqa: E731
    assert torch.autograd.gradcheck(score, (queries.requires_grad_(), documents.requires_grad_()))


def test_by_hand():
    queries = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    documents = torch.tensor([[[3.0, 1.0], [1.0, 4.0], [9.0, 9.0]]])
    present = torch.tensor([[True, True, False]])
    scores, to_queries, to_documents = run(maxsim, queries, torch.ones(1, 2, dtype=torch.bool), documents, present)
    weight = torch.randn(1, 1, generator=torch.Generator().manual_seed(9)).item()
    assert scores.item() == 3.0 + 8.0
    torch.testing.assert_close(to_queries, weight * torch.tensor([[[3.0, 1.0], [1.0, 4.0]]]))
    torch.testing.assert_close(to_documents, weight * torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]]))


def test_padding_loses_to_negative_scores():
    """Were padding a zero vector that may win, these scores would be 0."""
    queries, documents = torch.ones(2, 3, 4), -torch.ones(3, 5, 4)
    present = torch.ones(3, 5, dtype=torch.bool)
    present[:, 2:] = False
    documents[:, 2:] = 0.0
    scores = maxsim(queries, torch.ones(2, 3, dtype=torch.bool), documents, present)
    assert (scores == -12.0).all()


def test_what_stands_in_padding_does_not_matter():
    given = case(4)
    plain = run(maxsim, *given)
    queries, query_present, documents, document_present = (x.clone() for x in given)
    queries[~query_present], documents[~document_present] = float("nan"), float("inf")
    for ours, other in zip(run(maxsim, queries, query_present, documents, document_present), plain, strict=True):
        torch.testing.assert_close(ours, other)


def test_the_side_without_tokens_scores_nothing_and_moves_nothing():
    queries, query_present, documents, document_present = case(5, share=1.0)
    query_present[1], document_present[2] = False, False
    scores, to_queries, to_documents = run(maxsim, queries, query_present, documents, document_present)
    assert not scores[1].any()
    assert not scores[:, 2].any()
    assert not to_queries[1].any()
    assert not to_documents[2].any()
    assert scores[0, 0] != 0


def test_of_equals_the_first_wins():
    queries, documents = torch.ones(1, 2, 3), torch.ones(2, 4, 3)
    present = torch.tensor([[False, True, True, True], [True, False, True, True]])
    given = queries, torch.ones(1, 2, dtype=torch.bool), documents, present
    same(given)
    won = winners(queries[0], documents, present, 2)[1]
    assert won.tolist() == [[1, 0], [1, 0]]


def test_present_places_come_first_and_the_first_fills_up():
    present = torch.tensor([[False, True, False, True], [False, False, False, False], [True, True, True, True]])
    places, counts = places_first(present)
    assert counts.tolist() == [2, 0, 4]
    assert places.tolist() == [[1, 3, 1, 1], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_no_products_are_kept_for_the_way_back():
    """Inputs are kept, and two bytes a query token and document."""
    kept = []
    queries, query_present, documents, document_present = case(6, q=8, m=8, d=16, n=50, k=4, share=1.0)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        maxsim(queries.requires_grad_(), query_present, documents.requires_grad_(), document_present)
    assert max(x.numel() for x in kept) == documents.numel()
    assert [x.dtype for x in kept if x.numel() == 8 * 8 * 16] == [torch.int16]


def test_a_block_bounds_what_is_held(monkeypatch):
    held = []
    original = torch.Tensor.max
    monkeypatch.setattr(torch.Tensor, "max", lambda x, *a: held.append(x.numel()) or original(x, *a))
    monkeypatch.setitem(module.BLOCK, "cpu", 2 * 15 * 7)
    maxsim(*case(7, d=9, share=1.0))
    assert held == [210, 210, 210, 210, 105]


def test_one_side_may_be_frozen():
    queries, query_present, documents, document_present = case(8)
    for moving, still in ((queries, documents), (documents, queries)):
        moving, still = moving.clone().requires_grad_(), still.clone()
        first, second = (moving, still) if moving.shape == queries.shape else (still, moving)
        maxsim(first, query_present, second, document_present).sum().backward()
        assert moving.grad is not None
        assert still.grad is None


def test_half_precision_is_raised_and_autocast_kept_out():
    given = case(10)
    exact = maxsim(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(maxsim(*given), exact)
    half = maxsim(given[0].bfloat16(), given[1], given[2].bfloat16(), given[3])
    assert half.dtype == torch.float32
    rounded = maxsim_slowly(given[0].bfloat16().float(), given[1], given[2].bfloat16().float(), given[3])
    torch.testing.assert_close(half, rounded)


def test_twice_is_the_same_to_the_bit():
    given = case(11, q=6, d=20, n=30)
    for a, b in zip(run(maxsim, *given), run(maxsim, *given), strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_agrees():
    given = case(12, q=8, m=16, d=20, n=40, k=32)
    there = run(lambda *x: maxsim(*(y.cuda() for y in x)).cpu(), *given)
    for a, b in zip(there, run(maxsim, *given), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
