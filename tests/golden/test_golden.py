"""Folders that an earlier Flatcoat wrote open today and give the same answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flatcoat.data.store import Collection
from flatcoat.data.toy import toy_sentences
from flatcoat.index.exact import search_slowly
from flatcoat.index.inverted import search_slowly_sparse
from flatcoat.index.multivector_exact import MaxSimExact, maxsim_slowly
from flatcoat.index.store import open_index
from flatcoat.multi_vectors import MultiFolder
from flatcoat.representations import Dense
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.testing.index import unit
from flatcoat.testing.multi_index import tokens
from flatcoat.testing.sparse_index import zipfian
from flatcoat.vectors import VectorFolder

HERE = Path(__file__).parent


def test_a_collection_opens():
    collection = Collection.open(HERE / "collection-1", verify=True)
    assert [collection.documents.text(i) for i in range(60)] == [document for _, _, document in toy_sentences()]
    assert collection.splits == ["dev", "test", "train"] and len(collection.qrels("train")) == 40


def test_vectors_open():
    np.testing.assert_array_equal(VectorFolder.open(HERE / "vectors-1", verify=True).vectors, unit(60, 16))


@pytest.mark.parametrize("kind", ["scan", "bits", "sq", "hnsw", "ivf"])
def test_indexes_open(kind):
    queries = unit(4, 16, seed=1)
    found = open_index(HERE / f"index-{kind}-1", verify=True).index.search(Dense(queries), 5)
    truth = search_slowly(unit(60, 16), queries, 5)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.rows, truth.rows, strict=True)]) >= 0.8


def test_bm25_opens():
    index = open_index(HERE / "index-bm25-1", verify=True)
    assert index.ids[int(index.index.search(["the heron eats"], 1).rows[0, 0])].startswith("d-heron")


def test_sparse_vectors_open():
    folder = SparseFolder.open(HERE / "sparse-1", verify=True)
    np.testing.assert_array_equal(folder.vectors.array(), zipfian(60, 12, seed=0, vocab_size=50).array())
    assert folder.ids[59] == "d59" and folder.vocabulary[49] == "t49"


@pytest.mark.parametrize("kind", ["inverted", "pruned"])
def test_inverted_indexes_open(kind):
    index = open_index(HERE / f"index-{kind}-1", verify=True).index
    queries = zipfian(4, 12, seed=1, vocab_size=50)
    truth = search_slowly_sparse(index.dequantised(), index.used(queries), 5)
    found = index.search(queries, 5)
    if kind == "inverted":
        np.testing.assert_array_equal(found.rows, truth.rows)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.rows, truth.rows, strict=True)]) >= 0.8


def test_several_vectors_an_item_open():
    folder = MultiFolder.open(HERE / "multi-1", verify=True)
    vectors = tokens(30, 0, 6)
    np.testing.assert_array_equal(folder.vectors.start, vectors.start)
    np.testing.assert_array_equal(folder.vectors.vectors, vectors.vectors.astype(np.float16))
    assert folder.ids[29] == "d29" and folder.facts["stored"] == "fp16"


def test_a_multi_vector_index_opens():
    index, vectors = (
        open_index(HERE / "index-multivector-1", verify=True).index,
        MultiFolder.open(HERE / "multi-1").vectors,
    )
    queries = tokens(4, 1, 9, seed=1)
    found, truth = index.search(queries, 5), MaxSimExact(vectors).search(queries, 5)
    np.testing.assert_array_equal(found.rows, truth.rows)
    np.testing.assert_array_equal(found.scores, truth.scores)
    held = index.decoded()
    assert ((held.vectors - vectors.vectors) ** 2).sum(1).mean() < 0.1, "codes are read as they were written"
    alone = index.under(replace(index.settings, rescore=None)).search(queries, 30)
    assert (alone.rows[:, :1] == maxsim_slowly(queries, held, 1).rows).all()
