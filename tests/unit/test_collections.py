"""Every layout in, and every kind of bad input."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from flatcoat.data.collection import build_store, open_collection
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError, Misuse


def beir(folder, corpus, queries=(), qrels=()):
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries))
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, q)) for q in qrels)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder


DOCS = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": "d 2 ü漢", "text": "two"}]
QUERIES = [{"_id": "q1", "text": "what"}]


def opened(spec, tmp_path, **how) -> Collection:
    return build_store(str(spec), tmp_path / "store", **how)


def test_beir(tmp_path):
    c = opened(beir(tmp_path / "c", DOCS, QUERIES, [("q1", "d1", 2), ("q1", "d 2 ü漢", 0)]), tmp_path)
    assert list(c.documents.texts()) == ["T one", "two"]
    assert c.qrels("test") == {"q1": {"d1": 2, "d 2 ü漢": 0}}
    assert c.documents.lookup.row("d 2 ü漢") == 1 and c.documents.lookup.row("nothing") is None
    assert c.facts["problems"] == {}


def test_gzip_and_byte_order_mark(tmp_path):
    folder = beir(tmp_path / "c", DOCS, QUERIES, [("q1", "d1", 1)])
    data = b"\xef\xbb\xbf" + (folder / "corpus.jsonl").read_bytes()
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(data))
    assert len(opened(folder, tmp_path).documents) == 2


@pytest.mark.parametrize(
    ("corpus", "queries", "qrels", "kind", "place"),
    [
        ([*DOCS, DOCS[0]], QUERIES, [("q1", "d1", 1)], "duplicate document id", "corpus.jsonl:3"),
        ([*DOCS, {"_id": "d3", "text": ""}], QUERIES, [("q1", "d1", 1)], "empty document", "corpus.jsonl:3"),
        ([*DOCS, {"text": "no id"}], QUERIES, [("q1", "d1", 1)], "missing field", "corpus.jsonl:3"),
        ([*DOCS, ["not", "object"]], QUERIES, [("q1", "d1", 1)], "bad line", "corpus.jsonl:3"),
        (DOCS, [*QUERIES, {"_id": "q2", "text": " "}], [("q1", "d1", 1)], "empty query", "queries.jsonl:2"),
        (DOCS, QUERIES, [("q9", "d1", 1)], "judgement of an unknown query", "test.tsv:2"),
        (DOCS, QUERIES, [("q1", "d9", 1)], "judgement of an unknown document", "test.tsv:2"),
        (DOCS, QUERIES, [("q1", "d1", "x"), ("q1", "d1", 1)], "bad line", "test.tsv:2"),
    ],
)
def test_problems_are_counted_with_their_place_and_refused_where_strict(tmp_path, corpus, queries, qrels, kind, place):
    folder = beir(tmp_path / "c", corpus, queries, qrels)
    problems = opened(folder, tmp_path).facts["problems"]
    assert list(problems) == [kind] and problems[kind]["count"] == 1
    assert place in problems[kind]["examples"][0]
    with pytest.raises(FlatcoatError, match=place):
        build_store(str(folder), tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_judgements_of_documents_that_the_corpus_lacks_still_count(tmp_path):
    c = opened(beir(tmp_path / "c", DOCS, QUERIES, [("q1", "d1", 1), ("q1", "gone", 1)]), tmp_path)
    assert c.qrels("test") == {"q1": {"d1": 1, "gone": 1}}
    assert len(c.judgements("test")) == 1


def test_bad_bytes_are_replaced_and_reported(tmp_path):
    folder = beir(tmp_path / "c", DOCS)
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "a", "text": "caf\xe9"}\n{broken\n')
    c = opened(folder, tmp_path)
    assert c.documents.text(0) == "caf�"
    assert set(c.facts["problems"]) == {"bad UTF-8", "bad line"}


def test_tsv_and_triples_by_id(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "collection.tsv").write_text("1\tone\n2\ttwo\nbroken\n")
    (folder / "queries.dev.tsv").write_text("q1\twhat\n")
    (folder / "qrels.dev.tsv").write_text("q1\t0\t1\t1\n")
    (folder / "qidpidtriples.train.tsv").write_text("q1\t1\t2\n")
    c = opened(folder, tmp_path)
    assert c.splits == ["dev", "train"] and c.qrels("dev") == {"q1": {"1": 1}}
    assert c.negatives("train").tolist() == [[0, 1]]
    assert c.facts["problems"]["bad line"]["count"] == 1


def test_triples_by_text(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "triples.tsv").write_text("what is it\tthe right one\ta wrong one\nwhat is it\tthe right one\tanother\n")
    c = opened(folder, tmp_path)
    assert len(c.documents) == 3 and len(c.queries) == 1 and len(c.negatives("train")) == 2


TEVATRON = {"query_id": "q", "query": "what", "positive_passages": [{"docid": "p", "title": "T", "text": "yes"}],
            "negative_passages": [{"docid": "n", "text": "no"}]}  # fmt: skip
FLAG = {"query": "what", "pos": ["yes"], "neg": ["no", "never"]}
DPR = {"question": "what", "answers": [], "positive_ctxs": [{"title": "T", "text": "yes"}], "negative_ctxs": [],
       "hard_negative_ctxs": [{"title": "", "text": "no"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("record", "name"), [(TEVATRON, "a.jsonl"), (FLAG, "a.jsonl"), (DPR, "a.jsonl"), (DPR, "a.json")]
)
def test_training_files_of_other_tools(tmp_path, record, name):
    path = tmp_path / name
    path.write_text(json.dumps([record]) if name.endswith(".json") else json.dumps(record) + "\n")
    c = opened(path, tmp_path)
    judged, negatives = c.judgements("train"), c.negatives("train")
    assert [c.queries.text(int(r)) for r in judged[:, 0]] == ["what"]
    assert c.documents.text(int(judged[0, 1])) in ("yes", "T yes")
    assert c.documents.text(int(negatives[0, 1])) == "no"


def test_tevatron_v2_reads_the_corpus_beside_it(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(
        '{"docid": "p", "document_text": "yes"}\n{"docid": "n", "document_text": "no"}\n'
    )
    record = {"query_id": "q", "query_text": "what", "positive_document_ids": ["p"], "negative_document_ids": ["n"]}
    (tmp_path / "train.jsonl").write_text(json.dumps(record) + "\n")
    assert opened(tmp_path / "train.jsonl", tmp_path).negatives("train").tolist() == [[0, 1]]


def test_parquet_pairs(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = arrow.table({"anchor": ["what"], "positive": ["yes"], "negative_1": ["no"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    c = opened(tmp_path / "a.parquet", tmp_path)
    assert len(c.documents) == 2 and len(c.judgements("train")) == 1
    (tmp_path / "b.parquet").write_bytes(b"nothing")
    with pytest.raises(FlatcoatError, match="not a Parquet file"):
        opened(tmp_path / "b.parquet", tmp_path)


@pytest.mark.parametrize("line", ['{"a": 1}', '{"query": "x"}'])
def test_an_unknown_layout_says_which_are_known(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(FlatcoatError, match=r"a.jsonl:1: .*no layout known .*tevatron"):
        opened(tmp_path / "a.jsonl", tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(Misuse, match="no such folder"):
        open_collection(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Misuse, match="neither corpus.jsonl"):
        open_collection(str(tmp_path / "empty"))
    with pytest.raises(FlatcoatError, match="no documents"):
        open_collection(str(beir(tmp_path / "c", [])))


def test_a_corpus_that_changes_under_its_store(tmp_path):
    folder = beir(tmp_path / "c", DOCS, QUERIES, [("q1", "d1", 1)])
    first = open_collection(str(folder))
    assert open_collection(str(folder)).path == first.path
    named = tmp_path / "named"
    open_collection(str(folder), named)
    beir(folder, [*DOCS, {"_id": "d3", "text": "three"}], QUERIES, [("q1", "d1", 1)])
    assert len(open_collection(str(folder)).documents) == 3  # the cache follows
    with pytest.raises(FlatcoatError, match=r"corpus.jsonl changed after .*named was built"):
        open_collection(str(folder), named)


def test_an_absent_split_names_those_there_are(tmp_path):
    c = opened(beir(tmp_path / "c", DOCS, QUERIES, [("q1", "d1", 1)]), tmp_path)
    with pytest.raises(Misuse, match="no split 'dev'; it has test"):
        c.judgements("dev")


def test_python_code(tmp_path):
    package = tmp_path / "site" / "pkg"
    package.mkdir(parents=True)
    code = (
        'def f(x):\n    """Add one to the number given. More."""\n    return x + 1\n\ndef g():\n    """Too short."""\n'
    )
    (package / "a.py").write_text(code)
    (package / "b.py").write_text(code.replace("def f", "def f2") + "def broken(:\n")
    (package / "c.py").write_text(code)
    c = opened(f"python:{tmp_path / 'site'}", tmp_path)
    assert [c.queries.text(i) for i in range(len(c.queries))] == ["Add one to the number given"]
    assert [c.documents.text(i) for i in range(len(c.documents))] == ["def f(x):\n    return x + 1"]
    assert c.facts["problems"]["file that does not parse"]["count"] == 1


def test_python_splits_share_no_sentence_and_no_code(tmp_path):
    package = tmp_path / "site"
    package.mkdir()
    for i in range(60):
        body = f'def f{i % 40}(x):\n    """Return the number {"abcdefgh"[i % 8] * 3} of the things given."""\n    return {i % 40}\n'
        (package / f"m{i}.py").write_text(body)
    c = opened(f"python:{package}", tmp_path)
    seen: dict[str, set[int]] = {}
    for split in c.splits:
        seen[split] = set(np.asarray(c.judgements(split))[:, 0].tolist())
    for a in seen:
        for b in seen:
            assert a == b or not seen[a] & seen[b]


def test_a_store_of_another_source_is_refused(tmp_path):
    one, two = beir(tmp_path / "a", DOCS), beir(tmp_path / "b", DOCS[:1])
    open_collection(str(one), tmp_path / "store")
    with pytest.raises(FlatcoatError, match=r"was built from .*a, not from .*b"):
        open_collection(str(two), tmp_path / "store")


def test_new_files_of_a_source_are_noticed(tmp_path):
    folder = beir(tmp_path / "c", DOCS, QUERIES, [("q1", "d1", 1)])
    assert open_collection(str(folder)).splits == ["test"]
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert open_collection(str(folder)).splits == ["dev", "test"]


def test_python_is_known_by_its_place_and_follows_changes(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "src").mkdir(parents=True)
        code = f'def {name}(x):\n    """Give the number of the {name} things."""\n    return x + 1\n'
        (tmp_path / name / "src" / "m.py").write_text(code)
    texts = []
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        texts.append(list(open_collection("python:src").documents.texts()))
    assert texts[0] != texts[1]
    (tmp_path / "b" / "src" / "m.py").write_text(code.replace("x + 1", "x + 2"))
    assert "x + 2" in open_collection("python:src").documents.text(0)


def test_python_code_that_is_cut_by_lines(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "m.py").write_text(
        'X = 1\n\f\ndef f(x):\n    """Return the value given plus one."""\n    y = x + 1\n    return y\n'
        'def g(x): "Return the value given plus two."; return x + 2\n'
        'def h(x):\n    """Return the value given plus three."""; y = x\n    return y + 3\n'
    )
    c = opened(f"python:{folder}", tmp_path)
    assert list(c.documents.texts()) == ["def f(x):\n    y = x + 1\n    return y"]
