from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.evaluation.fidelity import Judge, setting_of
from flatcoat.index import multivector_kernels, multivector_simd
from flatcoat.index.multivector import MultiVectorIndex, MultiVectorSettings
from flatcoat.index.multivector_build import cells_for, decoded, encode, fit, invert, nearest
from flatcoat.index.multivector_exact import BLOCK, MaxSimExact, maxsim_slowly
from flatcoat.representations import MultiVector
from flatcoat.testing.multi_index import DIM, MultiIndexContract, tokens

ALL = 10**6
FULL = MultiVectorSettings(nprobe=ALL, candidates=ALL, rescore=ALL)


class TestRescored(MultiIndexContract):
    least_recall = 0.97

    def build(self, vectors):
        return MultiVectorIndex.build(vectors, MultiVectorSettings(nprobe=8, candidates=60, rescore=60))


class TestInt8(MultiIndexContract):
    least_recall, close = 0.97, 0.02

    def build(self, vectors):
        return MultiVectorIndex.build(vectors, replace(FULL, kept="int8"))


class TestCodesAlone(MultiIndexContract):
    least_recall, close = 0.95, 0.02

    def build(self, vectors):
        return MultiVectorIndex.build(vectors, MultiVectorSettings(bits=8, nprobe=ALL, candidates=ALL, rescore=None))


def same(found, truth):
    np.testing.assert_array_equal(found.rows, truth.rows)
    np.testing.assert_array_equal(found.scores, truth.scores)


def items(*rows):
    return MultiVector.of([np.array(row, np.float32).reshape(-1, 2) for row in rows], 2)


def test_the_score_is_its_formula():
    documents = items([[1, 0], [0, 1]], [[2, 0]], [], [[-1, -1]])
    queries = items([[1, 0], [0, 3]], [[-1, 0]])
    for found in (maxsim_slowly(queries, documents, 4), MaxSimExact(documents).search(queries, 4)):
        assert found.rows.tolist() == [[0, 1, 3, -1], [3, 0, 1, -1]]
        assert found.scores.tolist() == [[4, 2, -4, -np.inf], [1, 0, -2, -np.inf]]


def test_a_representation_is_cut_and_joined_without_loss():
    vectors = tokens(9, 0, 4)
    parts = [vectors[:4], vectors[4:4], vectors[4:]]
    again = MultiVector.joined(parts, DIM)
    np.testing.assert_array_equal(again.start, vectors.start)
    np.testing.assert_array_equal(again.vectors, vectors.vectors)
    assert parts[2].vectors.base is not None and len(parts[1]) == 0 and vectors.dim == DIM
    np.testing.assert_array_equal(vectors.item(5), vectors[5:6].vectors)
    assert len(MultiVector.joined([], DIM)) == 0 and MultiVector.joined([], DIM).vectors.shape == (0, DIM)
    with pytest.raises(IndexError, match="step 1"):
        vectors[::2]
    with pytest.raises(IndexError, match="item 9 of 9"):
        vectors.item(9)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_exact_search_answers_as_its_slow_twin(data):
    """Whole numbers, so that every order of summing gives the same bits: rows, ties and all."""
    dim = data.draw(st.integers(1, 5))
    item = st.lists(st.lists(st.integers(-3, 3), min_size=dim, max_size=dim), max_size=6)

    def drawn(least):
        made = data.draw(st.lists(item, min_size=least, max_size=9))
        return MultiVector.of([np.array(one, np.float32).reshape(-1, dim) for one in made], dim)

    documents, queries = drawn(1), drawn(0)
    k, half = data.draw(st.integers(1, len(documents))), data.draw(st.booleans())
    if half:
        documents = MultiVector(documents.start, documents.vectors.astype(np.float16))
    same(
        MaxSimExact(documents, threads=data.draw(st.integers(1, 3))).search(queries, k),
        maxsim_slowly(queries, documents, k),
    )
    if len(documents.vectors):
        same(MultiVectorIndex.build(documents, FULL).search(queries, k), maxsim_slowly(queries, documents, k))


def test_blocks_and_threads_do_not_change_a_bit(monkeypatch):
    vectors, queries = tokens(200, 0, 9), tokens(40, 0, 70, seed=1)
    whole = MaxSimExact(vectors, threads=1).search(queries, 50)
    assert BLOCK > 200
    monkeypatch.setattr("flatcoat.index.multivector_exact.BLOCK", 7)
    monkeypatch.setattr("flatcoat.index.multivector_exact.TOGETHER", 3)
    same(MaxSimExact(vectors, threads=3).search(queries, 50), whole)
    for setting in (MultiVectorSettings(rescore=None), MultiVectorSettings(kept="int8", candidates=60)):
        one, two = (MultiVectorIndex.build(vectors, setting, threads=n) for n in (1, 3))
        same(one.search(queries, 20), two.search(queries, 20))
        np.testing.assert_array_equal(one.parts.coded.codes, two.parts.coded.codes)


@pytest.mark.parametrize("kind", ["codes", "full", "int8"])
def test_equal_documents_come_by_rising_row(kind):
    setting = replace(FULL, rescore=None if kind == "codes" else ALL, kept="int8" if kind == "int8" else "full")
    one = tokens(3, 1, 5)
    index = MultiVectorIndex.build(MultiVector.joined([one] * 40, DIM), setting)
    assert index.search(one[:1], 30).rows[0].tolist() == list(range(0, 90, 3))


def test_codes_answer_as_the_vectors_they_stand_for():
    vectors, queries = tokens(150, 0, 12, dim=24), tokens(12, 1, 40, dim=24, seed=1)
    for bits, loss in ((1, 0.4), (2, 0.12), (4, 0.01), (8, 0.0005)):
        setting = replace(FULL, bits=bits, rescore=None)
        index = MultiVectorIndex.build(vectors, setting)
        held = index.decoded()
        assert ((held.vectors - vectors.vectors) ** 2).sum(1).mean() < loss
        every = maxsim_slowly(queries, held, len(vectors))
        found = index.search(queries, len(vectors))
        for q in range(len(queries)):
            mine = dict(zip(found.rows[q].tolist(), found.scores[q].tolist(), strict=True))
            true = dict(zip(every.rows[q].tolist(), every.scores[q].tolist(), strict=True))
            lanes = queries.start[q + 1] - queries.start[q]
            assert mine.keys() == true.keys()
            worst = max(abs(mine[row] - true[row]) for row in true if row >= 0)
            assert worst < 0.004 * lanes + 1e-6, "a query's rounding to bytes is all that parts them"


def tile(raise_bytes):
    @numba.njit
    def go(best, weights, start, scale, bytes_, factors, table, which, groups):
        for at in range(0, len(best), 32):
            for first in range(0, len(bytes_), 4):
                raise_bytes(best, at, weights, start, scale, bytes_, factors, table, table.shape[1], which, first,
                            len(bytes_) - 1, groups)  # fmt: skip

    return go


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("extreme", [False, True])
def test_products_in_the_processors_words_are_the_plain_ones(count, extreme):
    rng, groups = np.random.default_rng(count), 6
    lanes = rng.integers(-127, 128, (64, 4 * groups))
    bytes_ = rng.integers(0, 256, (count, 4 * groups)).astype(np.uint8)
    if extreme:
        lanes[:], bytes_[:] = -127, 255
    weights = np.ascontiguousarray(lanes.astype(np.int8).reshape(2, 32, groups, 4).transpose(0, 2, 1, 3))
    start, scale = rng.integers(-99, 99, 64).astype(np.int32), rng.random(64).astype(np.float32)
    factors, which = rng.random(count).astype(np.float32), rng.integers(0, 5, count).astype(np.int32)
    table = rng.standard_normal((5, 64)).astype(np.float32)
    dots = (start + bytes_.astype(np.int64) @ lanes.T).astype(np.float32)
    truth = (dots * factors[:, None] * scale + table[which]).max(axis=0)
    for raise_bytes in (multivector_simd.raise_bytes, multivector_simd.raise_bytes_plainly):
        best = np.full(64, -np.inf, np.float32)
        tile(raise_bytes)(best, weights, start, scale, bytes_, factors, table, which, groups)
        np.testing.assert_allclose(best, truth, rtol=1e-6, atol=1e-4)


def test_without_the_special_instructions_the_cells_are_the_same(tmp_path):
    """What is compiled for a processor without VNNI finds what is compiled for this one."""
    code = (
        "import sys, numpy as np\n"
        "from flatcoat.index.multivector_build import nearest\n"
        "from flatcoat.index.multivector_simd import has_vnni\n"
        "given = np.load(sys.argv[1])\n"
        "assert not has_vnni()\n"
        "np.save(sys.argv[2], nearest(given[:300], given[300:], 1))\n"
    )
    given = np.random.default_rng(0).standard_normal((340, 20)).astype(np.float32)
    np.save(tmp_path / "given.npy", given)
    plain = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": "+avx2,+f16c,+fma", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code, str(tmp_path / "given.npy"), str(tmp_path / "found.npy")]
    subprocess.run(command, check=True, env={**os.environ, **plain})
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), nearest(given[:300], given[300:], 1))


def test_the_nearest_centroid_is_the_nearest():
    rng = np.random.default_rng(0)
    vectors, centroids = (
        rng.standard_normal((500, 20)).astype(np.float32),
        rng.standard_normal((37, 20)).astype(np.float32),
    )
    centroids *= rng.uniform(0.2, 2, (37, 1)).astype(np.float32)
    distances = ((vectors[:, None] - centroids) ** 2).sum(2)
    found = distances[np.arange(500), nearest(vectors, centroids, 1)]
    assert (found <= distances.min(1) * 1.05 + 1e-3).all(), "bytes may take one that is as near but for their rounding"
    np.testing.assert_array_equal(nearest(centroids, centroids, 2), np.arange(37))


def test_postings_name_each_document_of_a_cell_once():
    start, cells = np.array([0, 3, 3, 6]), np.array([2, 0, 2, 2, 2, 1], np.uint16)
    offsets, postings = invert(start, cells, 4)
    assert offsets.tolist() == [0, 1, 2, 4, 4] and postings.tolist() == [0, 2, 0, 2]


def test_the_kernels_of_the_first_two_stages_are_what_they_say():
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (50, 32)).astype(np.uint8)
    table[:, 5:] = 0
    keys = np.zeros((5, 8), np.uint64)
    multivector_kernels.highest(table, keys)
    for lane in range(5):
        order = sorted(range(50), key=lambda cell: (-int(table[cell, lane]), cell))[:8]
        assert [0xFFFFFFFF - (int(key) & 0xFFFFFFFF) for key in keys[lane]] == order
    start, cells = np.arange(0, 91, 3), rng.integers(0, 50, 90).astype(np.uint16)
    offsets, postings = invert(start, cells, 50)
    totals = np.empty(30, np.uint32)
    multivector_kernels.probe(keys, offsets, postings, totals)
    rows, sums = multivector_kernels.touched(totals, np.zeros(0, np.uint8))
    floors = (keys[:, -1] >> np.uint64(32)).astype(int)
    best = np.stack([table[cells[start[d] : start[d + 1]]].max(0) for d in range(30)]).astype(int)
    wanted = np.maximum(best[:, :5] - floors, 0).sum(1)
    assert (
        dict(zip(rows.tolist(), sums.tolist(), strict=True)).items()
        >= {d: s for d, s in enumerate(wanted) if s}.items()
    )
    made = np.empty(30, np.int64)
    multivector_kernels.scan_cells(np.arange(30, dtype=np.int32), start, cells, table, made)
    assert made.tolist() == best.sum(1).tolist()
    for count in (1, 7, 29, 30, 99):
        chosen = multivector_kernels.best_of(made, np.arange(30, dtype=np.int32), count).tolist()
        assert chosen == sorted(sorted(range(30), key=lambda d: (-made[d], d))[:count])


def test_each_stage_loses_less_the_more_it_takes():
    vectors, queries = tokens(3000, 4, 16, dim=32), tokens(40, 8, 8, dim=32, seed=1)
    index = MultiVectorIndex.build(vectors, MultiVectorSettings(cells=256, nprobe=4))
    judge = Judge(MaxSimExact(vectors), queries, ks=(10,), timed=False)
    found = [judge.measure(index.with_knob(value), "").recall[10] for value in (20, 100, 370)]
    assert found == sorted(found) and found[-1] > 0.9
    most = judge.measure(index.under(replace(index.settings, nprobe=ALL, candidates=3000, rescore=3000)), "")
    assert most.recall[10] == 1.0
    assert setting_of(index) == "bits=2, nprobe=4, candidates=512, rescore=100"


@pytest.mark.parametrize("kept", ["full", "int8"])
def test_an_index_that_grew_and_shrank_answers_as_one_built_anew(kept):
    vectors, more, queries = tokens(80, 0, 9), tokens(30, 0, 9, seed=7), tokens(9, 1, 33, seed=1)
    setting = replace(FULL, kept=kept)
    grown = MultiVectorIndex.build(vectors, setting).add(more).delete([0, 5, 90])
    kept_rows = [row for row in range(110) if row not in (0, 5, 90)]
    whole = MultiVector.joined([vectors, more], DIM)
    left = MultiVector.of([whole.item(row) for row in kept_rows], DIM)
    fresh = MultiVectorIndex.build(left, setting).search(queries, 40)
    found = grown.search(queries, 40)
    np.testing.assert_array_equal(found.rows, np.array(kept_rows)[fresh.rows])
    np.testing.assert_array_equal(found.scores, fresh.scores)
    compact, rows = grown.compacted()
    assert rows.tolist() == kept_rows and not len(compact.dead)
    same(compact.search(queries, 40), fresh)
    for narrow in (MultiVectorSettings(candidates=20, nprobe=2, rescore=20, kept=kept), replace(setting, rescore=None)):
        assert not set(grown.under(narrow).search(queries, 20).rows.ravel().tolist()) & {0, 5, 90}
    with pytest.raises(Misuse, match="row 110 cannot be deleted"):
        grown.delete([110])
    with pytest.raises(Misuse, match="8 dimensions"):
        grown.add(tokens(2, 1, 1, dim=8))
    with pytest.raises(Misuse, match="every row is deleted"):
        grown.delete(range(110)).compacted()


@pytest.mark.parametrize("setting", [MultiVectorSettings(), MultiVectorSettings(bits=4, kept="int8"),
                                     MultiVectorSettings(bits=1, rescore=None)], ids=str)  # fmt: skip
def test_what_is_saved_opens_to_the_same_bits(tmp_path, setting):
    queries = tokens(9, 1, 33, seed=1)
    index = MultiVectorIndex.build(tokens(80, 0, 9), setting).delete([3])
    index.save(tmp_path)
    again = MultiVectorIndex.load(tmp_path, setting)
    same(again.search(queries, 20), index.search(queries, 20))
    same(again.add(tokens(5, 1, 4, seed=3)).search(queries, 20), index.add(tokens(5, 1, 4, seed=3)).search(queries, 20))
    with pytest.raises(Misuse, match="bits"):
        MultiVectorIndex.load(tmp_path, replace(setting, bits=8))
    if setting.rescore is None:
        with pytest.raises(Misuse, match="full vectors, which are not there"):
            MultiVectorIndex.load(tmp_path, replace(setting, rescore=5))


def test_settings_that_cannot_be_are_refused():
    for wrong, word in (
        ({"nprobe": 0}, "nprobe=0"), ({"candidates": 0}, "candidates=0"), ({"cells": 0}, "cells=0"),
        ({"cells": 70000}, "cells=70000"), ({"rescore": -1}, "rescore=-1"),
    ):  # fmt: skip
        with pytest.raises(Misuse, match=word):
            replace(MultiVectorSettings(), **wrong).checked()
    with pytest.raises(Misuse, match="at least one vector"):
        MultiVectorIndex.build(tokens(3, 0, 0))
    with pytest.raises(Misuse, match="cells=9 for"):
        MultiVectorIndex.build(tokens(2, 1, 2), MultiVectorSettings(cells=9))
    vectors = tokens(5, 2, 3)
    vectors.vectors[int(vectors.start[3]), 0] = np.nan
    with pytest.raises(FlatcoatError, match="item 3 has a value that is not finite"):
        MultiVectorIndex.build(vectors)
    index = MultiVectorIndex.build(tokens(50, 1, 3))
    with pytest.raises(Misuse, match="built with bits=2"):
        index.under(MultiVectorSettings(bits=4))
    with pytest.raises(FlatcoatError, match="query has a value that is not finite"):
        index.search(MultiVector.of([np.full((1, DIM), np.inf)], DIM), 1)
    with pytest.raises(Misuse, match="4001 vectors"):
        index.search(tokens(1, 4001, 4001), 1)
    assert [cells_for(n) for n in (1, 10, 1000, 8_600_000)] == [1, 10, 256, 32768]


def test_one_value_everywhere_and_great_lengths():
    same_vector = MultiVector.of([np.ones((3, DIM), np.float32)] * 5, DIM)
    assert MultiVectorIndex.build(same_vector).search(same_vector[:1], 5).rows.tolist() == [[0, 1, 2, 3, 4]]
    long = MultiVector(same_vector.start, tokens(5, 3, 3).vectors * np.float32(1e4))
    index = MultiVectorIndex.build(long, replace(FULL, rescore=None, bits=8))
    assert index.search(long, 1).rows[:, 0].tolist() == maxsim_slowly(long, long, 1).rows[:, 0].tolist()


def test_the_codec_keeps_what_it_was_fitted_to():
    vectors = tokens(50, 1, 9)
    codec = fit(vectors, 16, 4, 1)
    assert codec.bits == 4 and codec.padded == 16 and (np.diff(codec.levels) >= 0).all()
    coded = encode(vectors, codec, 1)
    error = ((decoded(coded, codec) - vectors.vectors) ** 2).sum(1).mean()
    assert error < 0.02 < ((codec.centroids[coded.cells] - vectors.vectors) ** 2).sum(1).mean()
