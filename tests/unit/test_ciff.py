from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError
from flatcoat.index.ciff import read_ciff, write_ciff
from flatcoat.index.inverted import InvertedIndex, search_slowly_sparse
from flatcoat.index.sparse_jsonl import read_anserini, write_anserini
from flatcoat.index.sparse_varint import put_number, take_number
from flatcoat.representations import Sparse
from flatcoat.testing.sparse_index import zipfian

VOCABULARY = [f"té{n}" for n in range(40)]


def array_of(vectors, vocabulary, order):
    found = vectors.array()
    return np.stack([found[:, vocabulary.index(t)] if t in vocabulary else np.zeros(len(found)) for t in order], 1)


@pytest.fixture
def documents():
    vectors = zipfian(300, 8, vocab_size=40)
    return vectors, [f"d é{n}" for n in range(300)]


@pytest.mark.parametrize(
    "write,read,name", [(write_ciff, read_ciff, "x.ciff"), (write_anserini, read_anserini, "x.jsonl")]
)
def test_what_is_written_is_read(documents, tmp_path, write, read, name):
    vectors, ids = documents
    write(tmp_path / name, vectors, ids, VOCABULARY)
    again, read_ids, vocabulary = read(tmp_path / name)
    assert read_ids == ids and [p.name for p in tmp_path.iterdir()] == [name]
    wanted = np.where(vectors.array() > 0, np.maximum(np.floor(vectors.array().astype(float) * 100 + 0.5), 1), 0) / 100
    np.testing.assert_allclose(array_of(again, vocabulary, VOCABULARY), wanted, rtol=1e-6)
    write(tmp_path / "again", again, read_ids, vocabulary)
    twice, _, terms = read(tmp_path / "again")
    np.testing.assert_array_equal(array_of(twice, terms, VOCABULARY), array_of(again, vocabulary, VOCABULARY))


@pytest.mark.parametrize("write,read", [(write_ciff, read_ciff), (write_anserini, read_anserini)])
def test_items_without_terms_and_no_items(tmp_path, write, read):
    few = Sparse.of(np.array([[0, 0], [0, 3], [0, 0]], np.float32))
    write(tmp_path / "few", few, ["a", "b", "c"], ["x", "y"])
    again, ids, vocabulary = read(tmp_path / "few")
    assert ids == ["a", "b", "c"] and vocabulary == ["y"] and np.diff(again.start).tolist() == [0, 1, 0]
    write(tmp_path / "none", few[:0], [], ["x", "y"])
    assert len(read(tmp_path / "none")[0]) == 0


def test_a_file_byte_by_byte(tmp_path):
    """One document, one term: the whole file written out by hand from the format's definition."""
    write_ciff(tmp_path / "x", Sparse.of(np.array([[3.0]], np.float32)), ["d"], ["t"], 100.0, "s")
    header = bytes([8, 1, 16, 1, 24, 1, 32, 1, 40, 1, 48, 0xAC, 2]) + b"\x39" + struct.pack("<d", 300) + b"\x42\x01s"
    postings = b"\x0a\x01t" + bytes([16, 1, 24, 0xAC, 2, 0x22, 5, 8, 0, 16, 0xAC, 2])
    record = bytes([8, 0, 0x12, 1]) + b"d" + bytes([24, 0xAC, 2])
    wanted = b"".join(bytes([len(part)]) + part for part in (header, postings, record))
    assert (tmp_path / "x").read_bytes() == wanted


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31 - 1, 2**40])
def test_numbers(value):
    out = np.zeros(12, np.uint8)
    end = put_number(value, out, 0)
    assert take_number(out, 0, end) == (value, end) and end == max(1, -(-value.bit_length() // 7))
    assert take_number(out, 0, end - 1)[1] == -1


def test_ciff_toolkit_reads_it_and_we_read_ciff_toolkit(documents, tmp_path):
    toolkit = pytest.importorskip("ciff_toolkit.read")
    writer = pytest.importorskip("ciff_toolkit.write")
    vectors, ids = documents
    write_ciff(tmp_path / "ours", vectors, ids, VOCABULARY)
    with toolkit.CiffReader(tmp_path / "ours") as file:
        header, lists, records = file.read_header(), list(file.read_postings_lists()), list(file.read_documents())
    assert header.num_docs == 300 and [r.collection_docid for r in records] == ids
    array = np.zeros((300, 40))
    for each in lists:
        row = 0
        for posting in each.postings:
            row += posting.docid
            array[row, VOCABULARY.index(each.term)] = posting.tf / 100
        assert each.df == len(each.postings) and each.cf == sum(p.tf for p in each.postings)
    again, _, vocabulary = read_ciff(tmp_path / "ours")
    np.testing.assert_allclose(array, array_of(again, vocabulary, VOCABULARY), rtol=1e-6)
    assert header.average_doclength == pytest.approx(100 * array.sum() / 300)
    with writer.CiffWriter(tmp_path / "theirs") as file:
        file.write_header(header)
        file.write_postings_lists(lists)
        file.write_documents(records)
    theirs, their_ids, their_terms = read_ciff(tmp_path / "theirs")
    assert their_ids == ids
    np.testing.assert_array_equal(array_of(theirs, their_terms, VOCABULARY), array_of(again, vocabulary, VOCABULARY))


def test_a_ranking_survives(documents, tmp_path):
    vectors, ids = documents
    write_ciff(tmp_path / "x", vectors, ids, VOCABULARY, scale=1000.0)
    again, _, vocabulary = read_ciff(tmp_path / "x", 1000.0)
    queries = zipfian(10, 5, seed=3, vocab_size=40)
    place = {term: n for n, term in enumerate(vocabulary)}
    kept = np.array([VOCABULARY[t] in place for t in queries.terms])
    assert kept.all()
    terms = np.array([place[VOCABULARY[t]] for t in queries.terms], np.int32)
    found = InvertedIndex.build(again).search(Sparse(queries.start, terms, queries.weights, again.vocab_size), 5)
    truth = search_slowly_sparse(vectors, queries, 5)
    np.testing.assert_allclose(found.scores, truth.scores, rtol=0.03)


def test_every_cut_and_many_a_changed_byte_is_noticed_or_read(documents, tmp_path):
    vectors, ids = documents
    write_ciff(tmp_path / "x", vectors[:6], ids[:6], VOCABULARY)
    data = (tmp_path / "x").read_bytes()
    for size in range(len(data)):
        (tmp_path / "y").write_bytes(data[:size])
        with pytest.raises(FlatcoatError, match=r"y: (byte \d+|empty)"):
            read_ciff(tmp_path / "y")
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / "y").write_bytes(changed)
        try:
            read_ciff(tmp_path / "y")
        except FlatcoatError as error:
            assert "byte" in str(error)
    (tmp_path / "y").write_bytes(data + b"\x00")
    with pytest.raises(FlatcoatError, match="after the last document record"):
        read_ciff(tmp_path / "y")
    with pytest.raises(FlatcoatError, match="no such file"):
        read_ciff(tmp_path / "absent")


@pytest.mark.parametrize(
    "weight,what", [(0.0, "whole number"), (-2.0, "whole number"), (1e30, "whole number"), (np.nan, "whole")]
)
@pytest.mark.parametrize("write", [write_ciff, write_anserini])
def test_weights_that_cannot_be_written(tmp_path, write, weight, what):
    vectors = Sparse(np.array([0, 1]), np.zeros(1, np.int32), np.array([weight], np.float32), 1)
    with pytest.raises(FlatcoatError, match=what):
        write(tmp_path / "x", vectors, ["a"], ["t"])
    with pytest.raises(FlatcoatError, match="1 vectors over 1 terms, but 2 ids"):
        write(tmp_path / "x", vectors, ["a", "b"], ["t"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line,what",
    [
        ("[1]", ':2: want {"id"'),
        ('{"id": "x"}', ":2: want"),
        ('{"id": "x", "vector": {"a": 0}}', ":2: token 'a' has the weight 0; want a number above 0"),
        ('{"id": "x", "vector": {"a": "1"}}', "has the weight '1'"),
        ('{"id": "x", "vector": {"a": true}}', "has the weight True"),
        ("{", "not valid JSON"),
    ],
)
def test_lines_that_are_wrong(tmp_path, line, what):
    file = tmp_path / "x.jsonl"
    file.write_text('{"id": 1, "contents": "", "vector": {"a": 3}}\n' + line + "\n")
    with pytest.raises(FlatcoatError, match="x.jsonl") as error:
        read_anserini(file)
    assert what in str(error.value)


def test_a_vocabulary_can_be_given(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"id": 1, "contents": "", "vector": {"b": 300}}) + "\n")
    vectors, ids, vocabulary = read_anserini(file, vocabulary=["a", "b"])
    assert vectors.array().tolist() == [[0, 3]] and ids == ["1"] and vocabulary == ["a", "b"]
    with pytest.raises(FlatcoatError, match="'b' is not of the vocabulary"):
        read_anserini(file, vocabulary=["a"])
    with pytest.raises(FlatcoatError, match="no such file"):
        read_anserini(tmp_path / "absent")
