from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.bm25 import Bm25Index, Bm25Settings, split_identifiers, top_rows
from flatcoat.index.exact import ROWS, ExactIndex, search_slowly
from flatcoat.index.store import open_index, write_bm25, write_vector_index
from flatcoat.index.vector import VectorIndex, VectorSettings, rescore
from flatcoat.records import Ranking
from flatcoat.representations import Dense
from flatcoat.search.fuse import normalised_score, reciprocal_rank
from flatcoat.testing.index import unit
from flatcoat.vectors import VectorFolder, write_vectors


def test_blocks_do_not_change_the_exact_answer(monkeypatch):
    vectors, queries = unit(3000, 8), unit(7, 8, seed=1)
    whole = ExactIndex(vectors).search(Dense(queries), 50)
    monkeypatch.setattr("flatcoat.index.exact.ROWS", 64)
    blocked = ExactIndex(vectors).search(Dense(queries), 50)
    np.testing.assert_array_equal(whole.rows, blocked.rows)
    np.testing.assert_array_equal(whole.rows, search_slowly(vectors, queries, 50).rows)
    assert ROWS > 64


def test_unnormalised_vectors_are_ranked_by_dot_product_not_distance():
    vectors = np.array([[1, 0], [10, 0], [0, 1]], np.float32)
    for index in (ExactIndex(vectors), VectorIndex.build(vectors, VectorSettings("hnsw"))):
        assert index.search(Dense(np.array([[1, 0]], np.float32)), 3).rows[0].tolist() == [1, 0, 2]


def test_hnsw_never_answers_with_fewer_than_k():
    index = VectorIndex.build(unit(500, 8), VectorSettings("hnsw", ef_search=10))
    assert (index.search(Dense(unit(3, 8, seed=1)), 200).rows >= 0).all()


def test_rescoring_is_exact_and_sorted():
    vectors, queries = unit(100, 8), unit(4, 8, seed=1)
    candidates = np.array([[5, 3, -1, 9]] * 4)
    found = rescore(vectors, queries, candidates, 3)
    for i in range(4):
        truth = sorted([5, 3, 9], key=lambda d: -float(vectors[d] @ queries[i]))
        assert found.rows[i].tolist() == truth


def test_bm25_is_its_formula():
    docs = ["red fox runs", "red red hen", "blue whale swims far away"]
    settings = Bm25Settings(stem=False, stopwords=False)
    found = Bm25Index.build(docs, settings).search(["red fox"], 3)
    tokens = [d.split() for d in docs]
    mean = sum(map(len, tokens)) / 3
    scores = []
    for words in tokens:
        score = 0.0
        for term in ("red", "fox"):
            df = sum(term in other for other in tokens)
            idf = np.log(1 + (3 - df + 0.5) / (df + 0.5))
            tf = words.count(term)
            score += idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * len(words) / mean))
        scores.append(score)
    order = [int(i) for i in np.argsort(-np.array(scores)) if scores[i] > 0]
    assert found.rows[0].tolist() == [*order, -1]
    np.testing.assert_allclose(found.scores[0][:2], sorted(scores, reverse=True)[:2], rtol=1e-5)


def test_identifiers_are_split_and_kept():
    assert (
        split_identifiers("load_stateDict HTTPServer2 x")
        == "load_stateDict load state Dict HTTPServer2 HTTP Server 2 x"
    )


def test_top_rows_with_ties():
    scores = np.array([1.0, 3.0, 3.0, 2.0, 3.0], np.float32)
    assert top_rows(scores, 2).tolist() == [1, 2]
    assert top_rows(scores, 5).tolist() == [1, 2, 4, 3, 0]


@pytest.fixture
def folder(tmp_path):
    facts = {"model": "m", "corpus": "c"}
    return write_vectors(tmp_path / "vectors", unit(300, 16), [f"d{i}" for i in range(300)], facts)


@pytest.mark.parametrize("settings", [None, *(VectorSettings(kind) for kind in ("scan", "bits", "sq", "hnsw", "ivf"))])
def test_an_index_opens_as_it_was_built(folder, tmp_path, settings):
    queries = Dense(unit(5, 16, seed=1))
    made = write_vector_index(tmp_path / "index", folder, settings)
    before = made.index.search(queries, 10)
    again = open_index(tmp_path / "index", verify=True)
    np.testing.assert_array_equal(before.rows, again.index.search(queries, 10).rows)
    assert again.ids[0] == "d0" and again.facts["of"]["model"] == "m" and again.bytes > 300 * 16 * 4


def test_a_copied_index_needs_nothing_else(folder, tmp_path):
    write_vector_index(tmp_path / "index", folder, VectorSettings(), copy=True)
    (folder.path / "vectors.npy").unlink()
    assert len(open_index(tmp_path / "index").index) == 300


def test_vectors_that_are_gone_or_altered(folder, tmp_path):
    write_vector_index(tmp_path / "index", folder, VectorSettings())
    path = folder.path / "vectors.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-4])
    with pytest.raises(FlatcoatError, match="altered since"):
        open_index(tmp_path / "index")
    path.unlink()
    with pytest.raises(FlatcoatError, match="are gone"):
        open_index(tmp_path / "index")


def test_a_damaged_index_is_refused(folder, tmp_path):
    write_vector_index(tmp_path / "index", folder, VectorSettings())
    (tmp_path / "index" / "index.faiss").write_bytes(b"short")
    with pytest.raises(FlatcoatError, match="5 bytes where the manifest says"):
        open_index(tmp_path / "index")


def test_bm25_opens_memory_mapped(tmp_path):
    write_bm25(tmp_path / "index", ["red fox", "blue hen"], ["a", "b"], {"corpus": "c"}, Bm25Settings())
    opened = open_index(tmp_path / "index", verify=True)
    assert opened.index.search(["foxes", "unknownword"], 2).rows.tolist() == [[0, -1], [-1, -1]]


BUILD = """
import sys
from pathlib import Path
from flatcoat.index.bm25 import Bm25Settings
from flatcoat.index.store import write_bm25
for stem in (True, False):
    said = Bm25Settings(stem=stem)
    write_bm25(Path(sys.argv[1]) / str(stem), ["red foxes run", "", "a blue hen runs", "the foxes' henhouse"], list("abcd"), {}, said)
"""


def test_a_lexical_index_has_the_same_bytes_whatever_python_hashes_by(tmp_path):
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", BUILD, str(tmp_path / seed)], env=environment, check=True)
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(files) > 10
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_too_many_cells_are_refused(folder):
    with pytest.raises(Misuse, match="cells=1000 for 300 vectors"):
        VectorIndex.build(folder.vectors, VectorSettings("ivf", cells=1000))


def test_vectors_open_and_count(folder):
    assert len(VectorFolder.open(folder.path).ids) == 300
    (folder.path / "ids.txt").write_text("d0\n")
    with pytest.raises(FlatcoatError, match="bytes where the manifest"):
        VectorFolder.open(folder.path)


def test_fusing():
    one, two = (
        {"q": Ranking.of({"a": 9.0, "b": 5.0})},
        {"q": Ranking.of({"b": 0.9, "c": 0.1}), "p": Ranking.of({"z": 1.0})},
    )
    fused = reciprocal_rank([one, two])
    assert fused["q"].doc_ids == ("b", "a", "c") and fused["p"].doc_ids == ("z",)
    assert fused["q"].scores[0] == pytest.approx(1 / 62 + 1 / 61)
    by_score = normalised_score([one, two], [1.0, 0.5])
    assert by_score["q"].as_dict() == {"a": 1.0, "b": 0.5, "c": 0.0}
    with pytest.raises(Misuse, match="1 weights for 2 runs"):
        reciprocal_rank([one, two], [1.0])
