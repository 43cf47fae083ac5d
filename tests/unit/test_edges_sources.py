"""Sources that are not as they should be: lines, training files, tables, runs and judgements; each told by its place."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from flatcoat.data import lines
from flatcoat.data.collection import build_store, open_collection
from flatcoat.data.problems import Problems
from flatcoat.data.trec import format_qrels, format_run, read_qrels, read_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.records import Ranking


def built(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return build_store(str(tmp_path / name), tmp_path / "store")


def told(collection):
    """The kinds of problems, each with its count."""
    return {kind: said["count"] for kind, said in collection.facts["problems"].items()}


LINE = {"query": "who", "pos": ["one"], "neg": ["two"]}


def test_lines_of_another_kind_are_left_out_and_counted(tmp_path):
    wrong = [[1], {**LINE, "pos": "one"}, {"pos": ["one"]}]  # no object, a text for a list, no query
    lines_of = [json.dumps(line) for line in [LINE, *wrong, {**LINE, "query": "what"}]]
    made = built(tmp_path, "x.jsonl", "\n\n".join(lines_of) + "\n{\n")
    assert told(made) == {"bad line": 4}
    assert list(made.queries.texts()) == ["who", "what"]


@pytest.mark.parametrize(
    "good,bad",
    [
        ({"query_id": 1, "query": "a", "positive_passages": [{"docid": 5, "text": "one"}]}, {"query_id": 2}),
        ({"query_id": 1, "query": "a", "positive_passages": [{"text": "one"}]},
         {"query_id": 2, "query": "b", "positive_passages": ["two"]}),
        ({"question": "a", "positive_ctxs": [{"text": "one"}]}, 7),
    ],
)  # fmt: skip
def test_records_of_an_array_that_are_not_like_the_first_are_left_out(tmp_path, good, bad):
    made = built(tmp_path, "x.json", json.dumps([good, bad]))
    assert told(made) == {"bad line": 1}
    assert list(made.queries.texts()) == ["a"] and list(made.documents.texts()) == ["one"]


def test_an_array_that_is_cut_off_is_refused(tmp_path):
    with pytest.raises(FlatcoatError, match=r"x.json: not valid JSON"):
        built(tmp_path, "x.json", '[{"query": ')


def test_a_corpus_beside_a_training_file(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(
        '{"docid": 1, "document_text": "one", "lang": "en"}\n{"docid": 2}\n{"_id": "3", "title": "T", "text": "three"}\n'
    )
    record = {"query_id": 9, "query_text": "who", "positive_document_ids": ["1"], "negative_document_ids": ["3", "7"]}
    made = built(tmp_path, "x.jsonl", json.dumps(record) + "\n")
    assert list(made.documents.texts()) == ["one", "T three"] and made.documents.metadata(0) == {"lang": "en"}
    assert told(made) == {"missing field": 1, "negative with an unknown id": 1}
    assert np.asarray(made.negatives("train")).tolist() == [[0, 1]]
    assert np.asarray(made.negatives("dev")).shape == (0, 2)


def test_files_of_no_known_layout_are_refused(tmp_path):
    (tmp_path / "x.xml").write_text("<x/>")
    with pytest.raises(Misuse, match="a file of no known layout"):
        build_store(str(tmp_path / "x.xml"), tmp_path / "store")
    with pytest.raises(FlatcoatError, match="x.jsonl:1: fields a, b are of no layout known"):
        built(tmp_path, "x.jsonl", '{"a": 1, "b": 2}\n')


def test_triples_with_unknown_ids_are_left_out(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "collection.tsv").write_text("1\tone\n2\tA title\ttwo\n\n3\n")
    (folder / "queries.train.tsv").write_text("q1\twho\n")
    (folder / "qidpidtriples.train.tsv").write_text("q1\t1\t2\nq9\t1\t2\nwho is it\tone text\ttwo text\n")
    made = build_store(str(folder), tmp_path / "store")
    assert list(made.documents.texts()) == ["one", "A title two", "one text", "two text"]
    assert told(made) == {"bad line": 1, "triple with unknown ids": 1}
    assert len(made.judgements("train")) == 2 and len(made.negatives("train")) == 2


def test_lines_are_bounded_and_damage_is_named(tmp_path, monkeypatch):
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(b"abc\nde\xff\r\n"))
    problems = Problems()
    assert list(lines.text_lines(file, problems)) == [(f"{file}:1", "abc"), (f"{file}:2", "de\ufffd")]
    assert problems.counts == {"bad UTF-8": 1}
    file.write_bytes(gzip.compress(b"abc\n" * 99)[:-12])
    with pytest.raises(FlatcoatError, match="x.gz: a damaged gzip file"):
        list(lines.text_lines(file, problems))
    with pytest.raises(FlatcoatError, match="cannot be read"):
        list(lines.text_lines(tmp_path, problems))
    monkeypatch.setattr(lines, "LONGEST", 4)
    (tmp_path / "y").write_text("abc\nabcd\n")
    with pytest.raises(FlatcoatError, match="y:2: a line of more than"):
        list(lines.text_lines(tmp_path / "y", problems))


def test_a_kept_store_that_is_damaged_is_refused_where_it_was_asked_for_and_else_made_again(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(LINE) + "\n")
    for store in (tmp_path / "store", None):
        made = open_collection(str(tmp_path / "x.jsonl"), store)
        (made.path / "queries" / "texts.bin").write_bytes(b"wha")
        if store:
            with pytest.raises(FlatcoatError, match="altered since it was written"):
                open_collection(str(tmp_path / "x.jsonl"), store)
        else:
            assert list(open_collection(str(tmp_path / "x.jsonl")).queries.texts()) == ["who"]


def test_a_kept_store_whose_source_changed_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(LINE) + "\n")
    open_collection(str(tmp_path / "x.jsonl"), tmp_path / "store")
    (tmp_path / "x.jsonl").write_text(json.dumps({**LINE, "query": "whom"}) + "\n")
    with pytest.raises(FlatcoatError, match=r"x.jsonl changed after .*store was built from it"):
        open_collection(str(tmp_path / "x.jsonl"), tmp_path / "store")
    (tmp_path / "x.jsonl").unlink()
    with pytest.raises(FlatcoatError, match=r"x.jsonl changed after|no such folder or file"):
        open_collection(str(tmp_path / "x.jsonl"), tmp_path / "store")


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_a_run_with_a_score_that_is_not_finite_is_not_written(score):
    with pytest.raises(FlatcoatError, match="is not finite"):
        format_run({"q": Ranking(("d",), np.array([score]))})


@pytest.mark.parametrize("id", ["", "a b", "a\tb", "a\u00a0b", "\ufeffa", "\ud800"])
def test_an_id_that_is_no_column_is_not_written(id):
    with pytest.raises(FlatcoatError, match="cannot be written"):
        format_run({"q": Ranking((id,), np.ones(1))})
    with pytest.raises(FlatcoatError, match="cannot be written"):
        format_qrels({id: {"d": 1}})


@pytest.mark.parametrize(
    "read,text,said",
    [
        (read_run, "q d 1\n\nq d 2\n", ":3: document 'd' stands twice for query 'q'"),
        (read_run, "q Q0 d 1\n", ":1: 4 columns; a run has 6"),
        (read_run, "q d one\n", ":1: score 'one' is not a number"),
        (read_run, "q d 1_0\n", ":1: score '1_0' is not a number"),
        (read_run, "q d inf\n", ":1: score 'inf' is not finite"),
        (read_qrels, "q 0 d 1\nq d\n", ":2: 2 columns; qrels have 4"),
        (read_qrels, "q 0 d 1.5\n", ":1: grade '1.5' is not a whole number"),
        (read_qrels, "a\tb\tc\n\nq\td\t1\nq\td\t2\n", ":4: document 'd' has the grade 2 for query 'q', and 1 before"),
    ],
)
def test_lines_of_runs_and_judgements_that_cannot_be(tmp_path, read, text, said):
    (tmp_path / "x").write_text(text)
    with pytest.raises(FlatcoatError) as error:
        read(tmp_path / "x")
    assert str(error.value).startswith(f"{tmp_path / 'x'}{said}")
