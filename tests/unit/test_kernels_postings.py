"""Loops over posting lists on small inputs, which run as plain Python too (NUMBA_DISABLE_JIT=1): forms, coding, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError
from flatcoat.index import sparse_kernels, sparse_varint
from flatcoat.index.ciff import read_ciff, write_ciff
from flatcoat.index.inverted import InvertedIndex, InvertedSettings, search_slowly_sparse
from flatcoat.representations import Sparse
from flatcoat.testing.sparse_index import zipfian

ROWS = 900


def far_apart() -> Sparse:
    """Term 0 is everywhere, term 1 in the first ten rows and far behind them, term 2 in the last row alone."""
    weights = np.zeros((ROWS, 3), np.float32)
    weights[:, 0] = 1 + np.arange(ROWS) % 7
    weights[[*range(10), 700], 1] = 2
    weights[ROWS - 1, 2] = 3
    return Sparse.of(weights)


def test_each_form_of_a_posting_list_is_read_back_and_found():
    vectors = far_apart()
    index = InvertedIndex.build(vectors, InvertedSettings())
    forms = index.segments[0].forms
    assert forms.tolist() == [sparse_kernels.DENSE, sparse_kernels.GAPS, sparse_kernels.NUMBERS]
    np.testing.assert_allclose(index.dequantised().array(), vectors.array(), rtol=0.01)
    queries = Sparse.of(np.eye(3, dtype=np.float32))
    found, truth = index.search(queries, 12), search_slowly_sparse(index.dequantised(), index.used(queries), 12)
    np.testing.assert_array_equal(found.rows, truth.rows)
    assert found.rows[1].tolist() == [*range(10), 700, -1]
    assert found.rows[2].tolist() == [ROWS - 1] + [-1] * 11


@pytest.mark.parametrize("bits", [16, 32])
def test_plain_weights_answer_as_the_slow_twin(bits):
    vectors, queries = zipfian(60, 9, seed=0, vocab_size=30), zipfian(5, 4, seed=1, vocab_size=30)
    index = InvertedIndex.build(vectors, InvertedSettings(bits=bits))
    for k in (3, 60):  # fewer than match, and more
        found, truth = index.search(queries, k), search_slowly_sparse(index.dequantised(), index.used(queries), k)
        np.testing.assert_array_equal(found.rows, truth.rows)
        np.testing.assert_allclose(found.scores, truth.scores, rtol=1e-6)


def row(terms, weights, vocab_size=3):
    return Sparse(np.array([0, len(terms)]), np.array(terms, np.int32), np.array(weights, np.float32), vocab_size)


@pytest.mark.parametrize(
    "terms,weights", [([1], [0.0]), ([1], [-1.0]), ([1], [np.nan]), ([1], [1e30]), ([3], [1.0]), ([-1], [1.0])]
)
def test_entries_that_cannot_be_are_refused_in_items_and_queries(terms, weights):
    with pytest.raises(FlatcoatError, match="item"):
        InvertedIndex.build(row(terms, weights), InvertedSettings())
    index = InvertedIndex.build(row([0], [1.0]), InvertedSettings())
    with pytest.raises(FlatcoatError, match="query"):
        index.search(row(terms, weights), 1)


def test_a_term_twice_in_one_item_is_refused_and_in_two_is_not():
    with pytest.raises(FlatcoatError, match="item"):
        InvertedIndex.build(row([1, 1], [1.0, 2.0]), InvertedSettings())
    both = Sparse(np.array([0, 1, 2]), np.array([1, 1], np.int32), np.array([1, 2], np.float32), 3)
    assert len(InvertedIndex.build(both, InvertedSettings())) == 2


def test_a_heap_keeps_the_greatest_whatever_their_order():
    wanted = np.random.default_rng(0).permutation(40).astype(np.uint64)
    for order in (wanted, np.sort(wanted), np.sort(wanted)[::-1]):
        keys, size = np.zeros(6, np.uint64), 0
        for key in order:
            size = sparse_kernels.offer(keys, size, key)
        assert sorted(keys.tolist()) == [34, 35, 36, 37, 38, 39] and keys[0] == 34


def test_whole_numbers_stay_below_their_room():
    numbers, step = sparse_kernels.quantise(np.array([1.0, 1.0]), np.array([3.5, 0.0]), 2.0)
    assert step == 2.0 and numbers.tolist() == [1.0, 1.0]  # 3.5 of at most 4
    halves, step = sparse_kernels.quantise(np.full(4, 0.5), np.ones(4), 2.0)
    assert step == 2.0 and halves.tolist() == [0.0] * 4  # by a step of 1 all were rounded up to 4
    for weights in ([1.5] * 5, [0.5] * 7, [7.4, 2.6]):
        made, step = sparse_kernels.quantise(np.array(weights), np.ones(len(weights)), 1.0)
        assert made.sum() < 2.0 and np.abs(made * step - weights).max() <= step / 2


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31 - 1, 2**62])
def test_a_number_is_read_as_it_was_written_and_not_when_cut(value):
    out = np.zeros(12, np.uint8)
    end = sparse_varint.put_number(np.int64(value), out, 2)
    assert end - 2 == max(1, -(-int(value).bit_length() // 7))
    assert sparse_varint.take_number(out, 2, end) == (value, end)
    assert sparse_varint.take_number(out, 2, end - 1) == (0, -1)


def test_a_number_of_too_many_bytes_is_none():
    assert sparse_varint.take_number(np.full(20, 0x80, np.uint8), 0, 20) == (0, -1)


ROW_NUMBERS, VALUES = np.array([0, 5, 400, 70_000], np.uint32), np.array([1, 300, 7, 2**31 - 1], np.int64)


def coded():
    out = np.zeros(200, np.uint8)
    return out[: sparse_varint.put_postings(ROW_NUMBERS, VALUES, out)]


def test_postings_are_read_as_they_were_written():
    data = coded()
    assert data[:6].tolist() == [0x22, 4, 0x08, 0, 0x10, 1]  # a message of four bytes: gap 0, tf 1
    rows, values = np.zeros(9, np.int64), np.zeros(9, np.int64)
    assert sparse_varint.take_postings(data, 0, len(data), rows, values) == (4, len(data))
    assert rows[:4].tolist() == ROW_NUMBERS.tolist() and values[:4].tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    "at,byte,told",
    [(1, 100, 0), (2, 0x18, 2), (5, 0x80, 4), (1, 0x80, 0)],  # too long, a field of no posting, an end within a number
)
def test_a_malformed_posting_is_told_by_its_place(at, byte, told):
    data = coded()[:6].copy()
    data[at] = byte
    rows, values = np.zeros(9, np.int64), np.zeros(9, np.int64)
    assert sparse_varint.take_postings(data, 0, len(data), rows, values) == (0, ~told)


def test_what_follows_postings_ends_them():
    data = np.concatenate([coded(), np.array([0x2A, 0], np.uint8)])
    rows, values = np.zeros(9, np.int64), np.zeros(9, np.int64)
    assert sparse_varint.take_postings(data, 0, len(data), rows, values) == (4, len(data) - 2)


def test_a_file_of_postings_is_read_as_it_was_written(tmp_path):
    vectors = Sparse.of(np.array([[1, 0, 2.5], [0, 0, 0], [0, 3, 1]], np.float32))
    write_ciff(tmp_path / "x", vectors, ["a", "b", "c"], ["one", "two", "three"])
    found, ids, vocabulary = read_ciff(tmp_path / "x")
    assert ids == ["a", "b", "c"] and sorted(vocabulary) == ["one", "three", "two"]
    columns = [vocabulary.index(term) for term in ("one", "two", "three")]
    np.testing.assert_allclose(found.array()[:, columns], vectors.array())
