"""What is written is read back the same, or refused in one line: over any text and any number."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flatcoat.data.collection import build_store
from flatcoat.data.trec import read_qrels, read_run, write_qrels, write_run
from flatcoat.errors import FlatcoatError
from flatcoat.index.ciff import read_ciff, write_ciff
from flatcoat.index.sparse_jsonl import read_anserini, write_anserini
from flatcoat.records import Ranking
from flatcoat.representations import Sparse
from flatcoat.vectors import write_vectors

ODD = [
    "\x85", "\u2028", "\u2029", "\x1c", "\x0b", "\xa0", "\ufeff", "\ufeffa",
    "\t", "\r", "\n", "\r\n", "\0", "\ud800", "a\ud800", "²", "1_0",
            "#", '"', "\\", "a b", " ", "", "💥", "é", "e\u0301", "nan", "0", "-0", "null", "../../x", "\x1b[2J", "a" * 300,
]  # fmt: skip
names = st.one_of(st.sampled_from(ODD), st.text(max_size=8), st.text(alphabet=st.characters(), max_size=4))
plain = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=6)
numbers = st.one_of(
    st.floats(), st.integers(-(10**400), 10**400), st.sampled_from([1e-320, -0.0, 1e308, 3.4e38, 16777217.0])
)
law = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """Nothing here has to outlive a loss of power."""
    monkeypatch.setattr("flatcoat.files.sync", lambda _: None)


def line(error: FlatcoatError) -> None:
    assert str(error).strip() and len(str(error).splitlines()) == 1, str(error)


@law
@given(
    st.dictionaries(
        st.one_of(plain, names),
        st.dictionaries(st.one_of(plain, names), st.floats(allow_nan=False), min_size=1, max_size=3),
        max_size=3,
    )
)
def test_runs(tmp_path: Path, scored):
    path = tmp_path / "x.trec"
    run = {query: Ranking.of(scores) for query, scores in scored.items()}
    try:
        write_run(path, run)
    except FlatcoatError as error:
        return line(error)
    again = read_run(path)
    assert {q: (list(r.doc_ids), r.scores.tolist()) for q, r in again.items()} == {
        q: (list(r.doc_ids), r.scores.tolist()) for q, r in run.items()
    }
    text = path.read_bytes()
    write_run(path, again)
    assert path.read_bytes() == text


@law
@given(
    st.dictionaries(
        st.one_of(plain, names),
        st.dictionaries(st.one_of(plain, names), st.integers(-(10**17), 10**17), min_size=1, max_size=3),
        max_size=3,
    )
)
def test_qrels(tmp_path: Path, qrels):
    try:
        write_qrels(tmp_path / "x.qrels", qrels)
    except FlatcoatError as error:
        return line(error)
    assert read_qrels(tmp_path / "x.qrels") == qrels


@law
@given(st.lists(names, min_size=1, max_size=4))
def test_ids_of_vectors(tmp_path: Path, ids):
    try:
        made = write_vectors(tmp_path / "v", np.ones((len(ids), 2)), ids, {})
    except FlatcoatError as error:
        return line(error)
    assert made.ids == ids


@pytest.mark.parametrize("kind", ["ciff", "jsonl"])
@law
@given(st.lists(names, min_size=1, max_size=3), st.lists(names, min_size=1, max_size=3), st.data())
def test_sparse_vectors(tmp_path: Path, kind, ids, vocabulary, data):
    weights = st.one_of(st.floats(width=32), st.sampled_from([0.01, 1.0, 21474836.0, 1e-30]))
    drawn = data.draw(st.lists(weights, min_size=len(ids), max_size=len(ids)))
    terms = np.array([i % len(vocabulary) for i in range(len(ids))], np.int32)
    vectors = Sparse(np.arange(len(ids) + 1), terms, np.array(drawn, np.float32), len(vocabulary))
    write, read = (write_ciff, read_ciff) if kind == "ciff" else (write_anserini, read_anserini)
    path = tmp_path / "x"
    try:
        write(path, vectors, ids, vocabulary)
    except FlatcoatError as error:
        return line(error)
    found, again, known = read(path)
    assert again == ids and [known[t] for t in found.terms] == [vocabulary[t] for t in vectors.terms]
    np.testing.assert_allclose(found.weights, np.maximum(np.floor(vectors.weights * 100.0 + 0.5), 1) / 100, rtol=1e-6)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), names),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(names, inner, max_size=2)),
    max_leaves=5,
)


@law
@given(st.lists(st.tuples(names, names, names, values), min_size=1, max_size=4))
def test_a_beir_folder(tmp_path_factory: pytest.TempPathFactory, documents):
    folder = tmp_path_factory.mktemp("beir")
    lines = [
        json.dumps({"_id": id, "title": title, "text": text, "own": value}) for id, title, text, value in documents
    ]
    (folder / "corpus.jsonl").write_text("".join(f"{each}\n" for each in lines))
    try:
        made = build_store(str(folder), folder / "store")
    except FlatcoatError as error:
        return line(error)
    table = made.documents
    first: dict[str, tuple[str, str, str, object]] = {}
    for document in documents:
        first.setdefault(_mended(document[0]), document)
    kept = {id: document for id, document in first.items() if id and not any(ord(c) < 32 for c in id)}
    assert list(table.ids) == list(kept) and [table.lookup.row(id) for id in kept] == list(range(len(kept)))
    assert list(table.titles) == [_mended(d[1]) for d in kept.values()] and list(table.bodies) == [
        _mended(d[2]) for d in kept.values()
    ]
    for row, (_, _, _, value) in enumerate(kept.values()):
        if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            assert table.metadata(row)["own"] == value


def _mended(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@law
@given(numbers, plain)
def test_numbers_in_lines(tmp_path: Path, number, word):
    """A number of any kind, where a score or a weight should be: read right, or named with its line."""
    assume(word)
    said = json.dumps(number)
    path = tmp_path / "x.jsonl"
    path.write_text(
        json.dumps({"id": "a", "vector": {}}) + f'\n{{"id": "b", "vector": {{{json.dumps(word)}: {said}}}}}\n'
    )
    try:
        found, _, terms = read_anserini(path, scale=1.0)
    except FlatcoatError as error:
        line(error)
        assert f"{path}:2" in str(error)
        return
    assert terms == [word] and found.weights[0] == np.float32(number) and 0 < found.weights[0] < np.inf


def test_files_of_nothing(tmp_path: Path):
    for name, read in (("x.trec", read_run), ("x.qrels", read_qrels)):
        (tmp_path / name).write_bytes(b"")
        assert read(tmp_path / name) == {}
    with pytest.raises(FlatcoatError, match="empty"):
        (tmp_path / "x.ciff").write_bytes(b"")
        read_ciff(tmp_path / "x.ciff")
