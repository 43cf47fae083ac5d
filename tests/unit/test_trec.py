from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatcoat.data.trec import format_qrels, format_run, read_qrels, read_run
from flatcoat.errors import FlatcoatError
from flatcoat.records import Ranking

IDS = st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=8)
SCORES = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1, max_size=5), max_size=4))
def test_runs_come_back_to_the_same_bytes(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("runs") / "run.trec"
    text = format_run({q: Ranking.of(scored) for q, scored in run.items()}, "tag")
    path.write_text(text, encoding="utf-8")
    assert format_run(read_run(path), "tag") == text


@given(st.dictionaries(IDS, st.dictionaries(IDS, st.integers(-1, 9), min_size=1, max_size=5), min_size=1, max_size=4))
def test_qrels_come_back_to_the_same_bytes(tmp_path_factory, qrels):
    path = tmp_path_factory.mktemp("qrels") / "a.qrels"
    path.write_text(format_qrels(qrels), encoding="utf-8")
    assert read_qrels(path) == qrels
    assert format_qrels(read_qrels(path)) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 0.5", "5 columns; a run has 6"),
        ("q Q0 d 1 high tag", "score 'high' is not a number"),
        ("q Q0 d 1 nan tag", "not finite"),
        ("q Q0 d 1 1 t\nq Q0 d 2 1 t", ":2: document 'd' stands twice"),
    ],
)
def test_bad_runs_name_file_and_line(tmp_path, line, message):
    path = tmp_path / "run.trec"
    path.write_text(line + "\n")
    with pytest.raises(FlatcoatError, match=message):
        read_run(path)


def test_white_space_in_an_id_is_refused():
    with pytest.raises(FlatcoatError, match="white space"):
        format_run({"q": Ranking.of({"a b": 1.0})})


def test_tevatron_and_beir_columns(tmp_path):
    (tmp_path / "run.tsv").write_text("q\td\t0.5\n")
    assert read_run(tmp_path / "run.tsv")["q"].doc_ids == ("d",)
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    assert read_qrels(tmp_path / "qrels.tsv") == {"q": {"d": 1}}
    (tmp_path / "bad.qrels").write_text("q 0 d yes\n")
    with pytest.raises(FlatcoatError, match=r"bad.qrels:1: grade 'yes'"):
        read_qrels(tmp_path / "bad.qrels")
