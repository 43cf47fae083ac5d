"""Documents carry a JSON object beside their text, from every layout that has one; a store without any is as before."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.data.collection import build_store
from flatcoat.data.lines import json_lines
from flatcoat.data.metadata import as_json, of_record, plain
from flatcoat.data.problems import Problems
from flatcoat.data.store import Collection, StoreBuilder

GOLDEN = Path(__file__).parents[1] / "golden" / "collection-1"


def store(folder: Path, documents, problems=None) -> Collection:
    folder.mkdir()
    builder = StoreBuilder(folder, problems or Problems())
    for number, metadata in enumerate(documents):
        builder.add_document(f"d{number}", "", f"text {number}", f"d{number}", metadata)
    builder.close({"spec": "test"})
    return Collection.open(folder, verify=True)


def test_metadata_comes_back_by_row(tmp_path):
    said = [None, {"year": 1999, "tags": ["a", "ü漢"], "in": {"x": None, "y": [1.5, True]}}, {}, {"url": "http://x/"}]
    documents = store(tmp_path / "s", said).documents
    assert documents.has_metadata and documents.fields() == ["in", "tags", "url", "year"]
    assert [documents.metadata(row) for row in range(4)] == [{}, said[1], {}, said[3]]


def test_without_metadata_a_store_is_as_it_was(tmp_path, toy):
    plain_store = store(tmp_path / "s", [None, {}, None])
    assert not plain_store.documents.has_metadata and plain_store.documents.fields() == []
    assert plain_store.documents.metadata(1) == {} and "fields" not in plain_store.facts
    assert not list((tmp_path / "s").rglob("metadata*"))
    built, golden = build_store(str(toy), tmp_path / "toy"), Collection.open(GOLDEN)
    assert built.documents.fingerprint == golden.documents.fingerprint
    assert not golden.documents.has_metadata and golden.documents.metadata(3) == {}
    assert built.queries.metadata(0) == {}


def test_metadata_is_part_of_the_fingerprint(tmp_path):
    prints = [
        store(tmp_path / name, said).documents.fingerprint
        for name, said in (("a", [None]), ("b", [{"x": 1}]), ("c", [{"x": 2}]), ("d", [{}]))
    ]
    assert len(set(prints[:3])) == 3 and prints[0] == prints[3]


JSON = st.recursive(
    st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_json_comes_back_equal(said):
    assert json.loads(as_json(said) or "{}") == said


def test_what_json_has_no_word_for():
    said = {"day": datetime.date(2024, 2, 29), "n": np.float32(0.5), "v": np.arange(2), "b": b"\xff", "nan": float("nan"),
            "none": None, 3: "key", "p": Path("a")}  # fmt: skip
    assert json.loads(as_json(said)) == {"day": "2024-02-29", "n": 0.5, "v": [0, 1], "b": "�", "3": "key", "p": "a"}
    big = 16**5000
    assert json.loads(as_json({"n": big, "in": {big: -big}})) == {"n": hex(big), "in": {hex(big): hex(-big)}}
    assert plain({"b", "a", 1}) == [1, "a", "b"]
    assert plain(float("inf")) is None and as_json(None) == as_json({"x": None}) == ""


def test_lone_surrogates_and_bottomless_objects_do_not_stop_the_reading(tmp_path):
    deep: dict = {}
    for _ in range(100_000):
        deep = {"x": deep}
    problems = Problems()
    documents = store(tmp_path / "s", [{"t": "\ud800"}, deep], problems).documents
    assert documents.metadata(0) == {"t": "?"} and documents.metadata(1) == {}
    assert problems.counts == {"bad metadata": 1}


def test_a_records_own_object_wins_over_its_fields():
    problems = Problems()
    record = {"_id": "x", "text": "t", "url": "outer", "lang": "fi", "metadata": {"url": "inner"}}
    assert of_record(record, ("_id", "text"), "here:1", problems) == {"url": "inner", "lang": "fi"}
    assert of_record({"metadata": '{"a": 1}'}, (), "here:2", problems) == {"a": 1}
    assert of_record({"metadata": "[1]"}, (), "here:3", problems) == {} and problems.counts == {"bad metadata": 1}
    assert "here:3" in problems.examples["bad metadata"][0]
    assert of_record({"metadata": '{"a": ' + "1" * 5000 + "}"}, (), "here:4", problems) == {}


def test_a_number_of_too_many_digits_is_a_bad_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": ' + "1" * 5000 + '}\n{"n": 1}\n')
    problems = Problems()
    assert [record for _, record in json_lines(tmp_path / "a.jsonl", problems)] == [{"n": 1}]
    assert problems.counts == {"bad line": 1}


def test_beir_lines(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    lines = [
        {"_id": "a", "title": "T", "text": "one", "metadata": {"url": "u"}, "year": 1},
        {"_id": "b", "text": "two"},
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    documents = build_store(str(folder), tmp_path / "s").documents
    assert [documents.metadata(row) for row in range(2)] == [{"url": "u", "year": 1}, {}]


def test_jsonl_passages_and_the_corpus_beside(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"docid": "p", "document_text": "yes", "place": "x"}\n')
    record = {"query_id": "q", "query_text": "what", "positive_document_ids": ["p"]}
    (tmp_path / "v2.jsonl").write_text(json.dumps(record) + "\n")
    assert build_store(str(tmp_path / "v2.jsonl"), tmp_path / "a").documents.metadata(0) == {"place": "x"}
    passage = {"docid": "p", "text": "yes", "score": 3.5, "metadata": {"k": 1}}
    (tmp_path / "sub").mkdir()
    v1 = tmp_path / "sub" / "v1.jsonl"
    v1.write_text(json.dumps({"query_id": "q", "query": "what", "positive_passages": [passage]}) + "\n")
    assert build_store(str(v1), tmp_path / "b").documents.metadata(0) == {"k": 1}


def test_parquet_columns(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {"id": ["a", "b"], "text": ["one", "two"], "year": [1, None], "day": [datetime.date(2024, 1, 1)] * 2}
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    documents = build_store(str(tmp_path / "a.parquet"), tmp_path / "s").documents
    assert [documents.metadata(row) for row in range(2)] == [{"year": 1, "day": "2024-01-01"}, {"day": "2024-01-01"}]
