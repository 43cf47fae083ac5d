"""What other tools and other languages write is no error, and --quiet is what it says."""

from __future__ import annotations

import gzip
import os
from types import SimpleNamespace

import pytest
from commands import call

from flatcoat.checks.base import Finding, enforce
from flatcoat.checks.run import rank_order
from flatcoat.checks.texts import vocabulary_fit
from flatcoat.data.trec import names_run
from flatcoat.errors import FlatcoatError
from flatcoat.search.journal import Journal

WARNING, ERROR = Finding("warning", "length", "short"), Finding("error", "pooling", "wrong", "mend it")


def run_lines(rank):
    return "".join(f"q{q} Q0 d{i} {rank(i)} {9.5 - i} tag\n" for q in range(3) for i in range(5))


def one(findings):
    (found,) = findings
    return found


@pytest.mark.parametrize("rank", [lambda i: 0, lambda i: 1, lambda i: i, lambda i: i + 1])
def test_a_rank_column_of_one_number_is_no_distance(tmp_path, rank):
    (tmp_path / "x.trec").write_text(run_lines(rank))
    assert one(rank_order(tmp_path / "x.trec")).level == "ok"


def test_a_packed_run_is_read_by_the_check_as_by_the_reader(tmp_path, capsys):
    (tmp_path / "qrels").write_text("".join(f"q{q} 0 d0 1\n" for q in range(3)))
    for name, rank in (("good", lambda i: i + 1), ("bad", lambda i: 5 - i)):
        (tmp_path / f"{name}.trec.gz").write_bytes(gzip.compress(run_lines(rank).encode()))
    assert call("evaluate", tmp_path / "qrels", tmp_path / "good.trec.gz", "--measures", "RR@5") == 0
    assert call("evaluate", tmp_path / "qrels", tmp_path / "bad.trec.gz", "--measures", "RR@5") == 1
    assert [call("check", tmp_path / f"{name}.trec.gz") for name in ("good", "bad")] == [0, 1]
    named = {
        "a.trec": True,
        "a.run.gz": True,
        "a.tsv": True,
        "a.jsonl": False,
        "trec": False,
        "pypi:a": False,
        "a.gz": False,
    }
    assert {name: names_run(name) for name in named} == named
    assert "rank-order: " in capsys.readouterr().err


class Letters:
    """A tokenizer that gives each character a token."""

    unk_token_id = None

    def __call__(self, texts, **_):
        return {"input_ids": [[1] * len(text) for text in texts]}


class Texts(list):
    """Documents in memory."""

    def texts(self, rows):
        return [self[int(row)] for row in rows]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("水獭是一种半水生的哺乳动物，主要以鱼类为食。", "ok"),
        ("カワウソは川に住む。", "ok"),
        ("นากอาศัยอยู่ในแม่น้ำ", "ok"),
        ("Выдра живёт в реке и питается рыбой", "warning"),
    ],
)
def test_where_no_space_divides_words_a_character_is_one(text, level):
    assert one(vocabulary_fit(Letters(), SimpleNamespace(documents=Texts([text] * 3)))).level == level


def test_quiet_hides_warnings_and_no_error(capsys):
    told: list[str] = []
    enforce([WARNING, ERROR], ["pooling"], told.append)
    assert told == ["warning: length: short"]
    assert capsys.readouterr().err == "flatcoat: error: pooling: wrong; mend it\n"
    with pytest.raises(FlatcoatError, match=r"^pooling: wrong; mend it$"):  # who has no --allow proposes none
        enforce([ERROR], None)


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_quiet_command_says_no_warning(toy, tmp_path, capsys, quiet):
    corpus = tmp_path / "toy" / "corpus.jsonl"
    corpus.parent.mkdir()
    source = (toy / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    same = [line.replace('"_id": "', '"_id": "again-') for line in source]
    corpus.write_text("\n".join(source + same) + "\n", encoding="utf-8")
    capsys.readouterr()
    assert call("index", tmp_path / "toy", "--kind", "bm25", "--out", tmp_path / "index", *quiet) == 0
    said = capsys.readouterr().err
    assert said == "" if quiet else "warning: repeated-texts: " in said


def test_a_note_that_cannot_be_written_keeps_no_descriptor(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    journal = Journal(tmp_path, {})
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(3):
        journal._acknowledge(10)
    assert len(os.listdir("/proc/self/fd")) == before
