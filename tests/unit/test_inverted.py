from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index import sparse_kernels
from flatcoat.index.inverted import HEAVIEST, InvertedIndex, InvertedSettings, search_slowly_sparse
from flatcoat.representations import Sparse
from flatcoat.testing.sparse_index import SparseIndexContract, zipfian

BLOCK = sparse_kernels.BLOCK
KINDS = [
    InvertedSettings(bits=8),
    InvertedSettings(bits=16),
    InvertedSettings(bits=32),
    InvertedSettings("pruned", mass=100),
]


class TestBits32(SparseIndexContract):
    def build(self, vectors):
        return InvertedIndex.build(vectors, InvertedSettings(bits=32))


class TestBits16(SparseIndexContract):
    close = 1e-3

    def build(self, vectors):
        return InvertedIndex.build(vectors, InvertedSettings(bits=16))


class TestBits8(SparseIndexContract):
    least_recall, close = 0.97, 0.05

    def build(self, vectors):
        return InvertedIndex.build(vectors)


class TestPruned(SparseIndexContract):
    least_recall, close = 0.9, 0.05

    def build(self, vectors):
        return InvertedIndex.build(vectors, InvertedSettings("pruned"))


def same(found, truth):
    np.testing.assert_array_equal(found.rows, truth.rows)
    np.testing.assert_array_equal(found.scores, truth.scores)


def agrees(index, queries, k):
    """The law: an index answers as the slow twin over what it holds and what it asks."""
    found = index.search(queries, k)
    same(found, search_slowly_sparse(index.dequantised(), index.used(queries), k))
    return found


def test_the_slow_twin_is_its_formula():
    documents, queries = zipfian(40, 10), zipfian(5, 6, seed=1)
    scores = queries.array().astype(np.float64) @ documents.array().T.astype(np.float64)
    found = search_slowly_sparse(documents, queries, 40)
    for q in range(5):
        order = sorted((r for r in range(40) if scores[q, r] > 0), key=lambda r: (-np.float32(scores[q, r]), r))
        assert found.rows[q].tolist() == order + [-1] * (40 - len(order))
        np.testing.assert_allclose(found.scores[q, : len(order)], scores[q, order], rtol=1e-6)


@pytest.mark.parametrize("setting", KINDS, ids=str)
@pytest.mark.parametrize("rows", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 300])
def test_blocks_do_not_change_the_answer(setting, rows):
    index = InvertedIndex.build(zipfian(rows, 8, vocab_size=150), setting)
    for k in (1, min(rows, 10), min(rows, 300)):
        agrees(index, zipfian(12, 9, seed=3, vocab_size=150), k)


@pytest.mark.parametrize("setting", KINDS, ids=str)
def test_equal_documents_come_by_rising_row(setting):
    one = zipfian(3, 10, vocab_size=60)
    index = InvertedIndex.build(Sparse.joined([one] * 4000, 60), setting)
    found = agrees(index, one[:1], 50)
    assert found.rows[0].tolist() == list(range(0, 150, 3))


@pytest.mark.parametrize("setting", KINDS, ids=str)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_index_answers_as_its_slow_twin(setting, data):
    vocab = data.draw(st.integers(1, 6))
    weight = st.one_of(
        st.just(0.0), st.floats(2**-20, 9, width=32), st.sampled_from([1e-12, 1e-3, 1.0, 255.5, 1e12, 1e15])
    )
    row = st.lists(weight, min_size=vocab, max_size=vocab)
    documents = Sparse.of(np.array(data.draw(st.lists(row, min_size=1, max_size=12)), np.float32))
    queries = Sparse.of(np.array(data.draw(st.lists(row, min_size=1, max_size=4)), np.float32))
    index = InvertedIndex.build(documents, setting)
    agrees(index, queries, data.draw(st.integers(1, len(documents))))
    cut = data.draw(st.integers(1, len(documents)))
    grown = InvertedIndex.build(documents[:cut], setting).add(documents[cut:])
    agrees(grown, queries, len(documents))


def test_a_weight_is_kept_to_half_a_step():
    documents = zipfian(300, 20)
    for bits, levels in ((8, 255), (16, 65535)):
        held = InvertedIndex.build(documents, InvertedSettings(bits=bits)).dequantised()
        most = documents.array().max(0)
        np.testing.assert_array_equal(held.terms, documents.terms)
        step = 2 * most[documents.terms] / levels
        assert (np.abs(held.weights - documents.weights) <= step / 2 + 1e-7).all()
        assert (held.weights > 0).all()
    same_bits = InvertedIndex.build(documents, InvertedSettings(bits=32)).dequantised()
    np.testing.assert_array_equal(same_bits.weights, documents.weights)


def test_bits_8_lose_little_of_what_floats_find():
    documents, queries = zipfian(20000, 25), zipfian(60, 8, seed=5)
    truth = search_slowly_sparse(documents, queries, 10)
    index = InvertedIndex.build(documents)
    found = index.search(queries, 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.rows, truth.rows, strict=True)]) > 0.97
    np.testing.assert_allclose(found.scores, truth.scores, rtol=0.02)


@pytest.mark.parametrize("heavy", [1.0, 1e3, HEAVIEST])
def test_totals_never_overflow(heavy):
    """Every weight at its greatest, and as many query terms as there are."""
    documents = Sparse.of(np.full((3, 3000), heavy, np.float32))
    index = InvertedIndex.build(documents)
    asked = index._prepared(documents[:1])
    assert (asked.ints.astype(np.int64) * 255).sum() < 1 << 24
    found = agrees(index, documents[:2], 3)
    assert found.rows[0].tolist() == [0, 1, 2] and np.isfinite(found.scores).all()


def test_many_terms_with_one_heavy():
    weights = np.full((1, 40000), 1e-6, np.float32)
    weights[0, 7] = 3.0
    index = InvertedIndex.build(Sparse.of(np.ones((2, 40000), np.float32)))
    agrees(index, Sparse.of(weights), 2)


@pytest.mark.parametrize("setting", KINDS, ids=str)
def test_threads_do_not_change_a_bit(setting, tmp_path):
    documents, queries = zipfian(3 * BLOCK, 6, vocab_size=90), zipfian(80, 5, seed=1, vocab_size=90)
    one, two = (InvertedIndex.build(documents, setting, threads=n) for n in (1, 3))
    for name, index in (("one", one), ("two", two)):
        (tmp_path / name).mkdir()
        index.save(tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    same(one.search(queries, 10), two.search(queries, 10))
    alone = [two.search(queries[i : i + 1], 10) for i in range(len(queries))]
    np.testing.assert_array_equal(np.concatenate([t.rows for t in alone]), one.search(queries, 10).rows)


@pytest.mark.parametrize("setting", KINDS, ids=str)
def test_an_index_opens_as_it_was_saved(setting, tmp_path):
    documents, queries = zipfian(700, 15), zipfian(9, 8, seed=1)
    index = InvertedIndex.build(documents[:500], setting).add(documents[500:]).delete([3, 699, 500])
    index.save(tmp_path)
    again = InvertedIndex.load(tmp_path, setting)
    assert len(again) == 700 and len(again.segments) == 2
    same(index.search(queries, 20), again.search(queries, 20))
    same(index.add(documents).search(queries, 20), again.add(documents).search(queries, 20))
    assert isinstance(again.segments[0].base.base, np.memmap)


@pytest.mark.parametrize("setting", KINDS, ids=str)
def test_adding_is_building_anew(setting):
    documents, queries = zipfian(1000, 12), zipfian(20, 8, seed=1)
    heaviest_first = np.argsort(-np.maximum.reduceat(documents.weights, documents.start[:-1]), kind="stable")
    array = documents.array()[heaviest_first]
    array[0] = array.max(0)  # the first row has each term's greatest weight: later ones need no coarser shift
    documents = Sparse.of(array)
    whole = InvertedIndex.build(documents, setting)
    for edges in ([600], [10, 20, 40, 900], [1, 2, 3, 4, 5, 6, 7]):
        grown = InvertedIndex.build(documents[: edges[0]], setting)
        for low, high in zip(edges, [*edges[1:], 1000], strict=True):
            grown = grown.add(documents[low:high])
        assert len(grown) == 1000
        same(grown.search(queries, 30), whole.search(queries, 30))
        sizes = [s.rows for s in grown.segments]
        assert all(a > b for a, b in pairwise(sizes))
        joined, numbers = grown.compacted()
        assert numbers.tolist() == list(range(1000)) and len(joined.segments) == 1
        same(joined.search(queries, 30), whole.search(queries, 30))
    assert whole.add(documents[:0]) is whole


@pytest.mark.parametrize("setting", KINDS, ids=str)
def test_weights_beyond_the_old_ones_can_be_added(setting):
    small, queries = zipfian(100, 10), zipfian(10, 8, seed=1)
    large = Sparse(small.start, small.terms, small.weights * 100, small.vocab_size)
    for grown in (
        InvertedIndex.build(small, setting).add(large[:50]),
        InvertedIndex.build(small[:50], setting).add(large),
    ):
        agrees(grown, queries, 20)


@pytest.mark.parametrize("setting", KINDS, ids=str)
def test_deleted_rows_are_never_found(setting):
    documents, queries = zipfian(600, 12), zipfian(20, 8, seed=1)
    index = InvertedIndex.build(documents, setting)
    gone = index.search(queries, 10).rows[:, :5].ravel()
    left = index.delete(gone[:30]).delete(gone[30:])
    found = agrees(left, queries, 40)
    assert not np.isin(found.rows, gone).any() and len(left) == 600
    small, numbers = left.compacted()
    assert len(small) == 600 - len(set(gone.tolist()))
    again = agrees(small, queries, 40)
    assert not np.isin(numbers[again.rows], gone).any()
    np.testing.assert_allclose(again.scores, found.scores, rtol=1e-3)  # queries may be quantised more finely now
    agrees(left.add(documents[:3]), queries, 40)
    assert not len(index.dead)


def test_deleting_what_is_not_there():
    index = InvertedIndex.build(zipfian(5, 4))
    with pytest.raises(Misuse, match="row 5 cannot be deleted"):
        index.delete([1, 5])
    with pytest.raises(Misuse, match="every row is deleted"):
        index.delete(range(5)).compacted()


def test_query_options_choose_terms():
    queries = Sparse.of(np.array([[3, 0, 2, 1, 0.1], [1, 1, 1, 1, 1]], np.float32))
    documents = Sparse.of(np.eye(5, dtype=np.float32))
    for bits in (8, 16, 32):
        index = InvertedIndex.build(documents, InvertedSettings(bits=bits, query_terms=2))
        assert [set(np.flatnonzero(row)) for row in index.used(queries).array()] == [{0, 2}, {0, 1}]
        agrees(index, queries, 5)
        index = InvertedIndex.build(documents, InvertedSettings(bits=bits, query_share=0.3))
        assert [set(np.flatnonzero(row)) for row in index.used(queries).array()] == [{0, 2, 3}, {0, 1, 2, 3, 4}]
        agrees(index, queries, 5)


def test_a_smaller_mass_costs_recall_and_says_how_much():
    index = InvertedIndex.build(zipfian(4 * BLOCK, 15), InvertedSettings("pruned"))
    queries = zipfian(30, 8, seed=2)
    truth, found = index.with_knob(100).search(queries, 10), []
    for value in index.knob()[1]:
        answer = index.with_knob(value).search(queries, 10)
        found.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(answer.rows, truth.rows, strict=True)]))
    assert found[-1] == 1.0 and found[0] <= found[-1]


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf, 1e30, -1e30])
def test_weights_that_cannot_be_are_refused(weight, bits):
    wrong = Sparse(np.array([0, 1, 3]), np.array([0, 1, 2], np.int32), np.array([1, 2, weight], np.float32), 4)
    with pytest.raises(FlatcoatError, match="item 1 gives term 2 the weight .*above 0 and at most 1e"):
        InvertedIndex.build(wrong, InvertedSettings(bits=bits))
    index = InvertedIndex.build(Sparse.of(np.ones((2, 4), np.float32)), InvertedSettings(bits=bits))
    with pytest.raises(FlatcoatError, match="query 1 gives term 2 the weight"):
        index.search(wrong, 1)


def test_terms_that_cannot_be_are_refused():
    start, weights = np.array([0, 2]), np.ones(2, np.float32)
    with pytest.raises(FlatcoatError, match="item 0 names term 3 twice"):
        InvertedIndex.build(Sparse(start, np.array([3, 3], np.int32), weights, 5))
    with pytest.raises(FlatcoatError, match="item 0 names term 9 of a vocabulary of 5"):
        InvertedIndex.build(Sparse(start, np.array([3, 9], np.int32), weights, 5))
    with pytest.raises(Misuse, match="at least one vector"):
        InvertedIndex.build(Sparse.of(np.zeros((0, 5), np.float32)))
    with pytest.raises(Misuse, match="99 terms added"):
        InvertedIndex.build(zipfian(5, 4)).add(zipfian(5, 4, vocab_size=99))


def test_entries_need_no_order():
    documents, queries = zipfian(200, 10), zipfian(5, 6, seed=1)
    terms, weights = documents.terms.copy(), documents.weights.copy()
    for low, high in zip(documents.start, documents.start[1:], strict=False):
        terms[low:high], weights[low:high] = terms[low:high][::-1].copy(), weights[low:high][::-1].copy()
    turned = Sparse(documents.start, terms, weights, documents.vocab_size)
    for setting in KINDS:
        same(
            InvertedIndex.build(documents, setting).search(queries, 9),
            InvertedIndex.build(turned, setting).search(queries, 9),
        )


@pytest.mark.parametrize(
    "wrong", [{"kind": "pruned", "bits": 32}, {"query_terms": 0}, {"mass": 101}, {"candidates": 0}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(Misuse):
        InvertedIndex.build(zipfian(5, 4), InvertedSettings(**wrong))


def test_a_damaged_folder_is_refused(tmp_path):
    index = InvertedIndex.build(zipfian(50, 10))
    index.save(tmp_path)
    with pytest.raises(Misuse, match="built with bits=8, not 32"):
        InvertedIndex.load(tmp_path, InvertedSettings(bits=32))
    (tmp_path / "segment0-words.npy").write_bytes(b"short")
    with pytest.raises(FlatcoatError, match="cannot be read"):
        InvertedIndex.load(tmp_path, InvertedSettings())
    (tmp_path / "segment0-words.npy").unlink()
    with pytest.raises(FlatcoatError, match="build the index again"):
        InvertedIndex.load(tmp_path, InvertedSettings())


def test_the_packed_postings_are_small():
    documents = zipfian(BLOCK * 2, 60, vocab_size=3000)
    segment = InvertedIndex.build(documents).segments[0]
    assert len(set(segment.forms.tolist())) == 3  # all three ways of writing postings are in use
    assert sum(getattr(segment, p).nbytes for p in ("words", "lengths", "tops")) / len(documents.terms) < 2.5
