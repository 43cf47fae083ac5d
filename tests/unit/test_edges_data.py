"""Pairs of a split, and functions that Python files hold: what counts, what is refused, and what training sees."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flatcoat.columns import text_hash
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import epoch_batches, load_pairs
from flatcoat.data.python_code import first_sentence, functions_of, module_split, python_root
from flatcoat.errors import FlatcoatError


def collection(tmp_path, documents, queries, judged):
    """A store of a BEIR folder; its one split is test."""
    folder = tmp_path / "c"
    (folder / "qrels").mkdir(parents=True)
    for name, items in (("corpus", documents), ("queries", queries)):
        rows = [json.dumps({"_id": id, "text": text}) + "\n" for id, text in items.items()]
        (folder / f"{name}.jsonl").write_text("".join(rows))
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judged)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return build_store(str(folder), tmp_path / "store")


def test_pairs_are_the_positives_and_equal_questions_share_theirs(tmp_path):
    made = collection(
        tmp_path,
        {"d1": "one", "d2": "two", "d3": "three", "d4": "one"},  # d1 and d4 say the same
        {"q1": "what", "q2": "who", "q3": "what"},
        [("q1", "d1", 2), ("q1", "d2", 0), ("q2", "d2", 1), ("q3", "d3", 1)],
    )
    pairs = load_pairs(made, "test")
    assert len(pairs) == 3
    ids = [(made.queries.ids[q], made.documents.ids[d]) for q, d in zip(pairs.queries, pairs.documents, strict=True)]
    assert sorted(ids) == [("q1", "d1"), ("q2", "d2"), ("q3", "d3")]  # the judgement of 0 is none
    asked = dict(zip((query for query, _ in ids), pairs.query_keys.tolist(), strict=True))
    assert asked == {"q1": text_hash("what"), "q2": text_hash("who"), "q3": text_hash("what")}
    assert pairs.keys.tolist() == [text_hash(text) for text in ("one", "two", "three", "one")]
    both = sorted([text_hash("one"), text_hash("three")])
    rows = [made.queries.lookup.row(id) for id in ("q1", "q2", "q3")]
    assert pairs.widest == 2
    assert pairs.known_of(np.array(rows)).tolist() == [both, [text_hash("two"), -1], both]
    assert pairs.answers(np.array([1, 0])) == [made.documents.text(int(pairs.documents[i])) for i in (1, 0)]


def test_a_text_that_is_shown_stands_in_for_its_document(tmp_path):
    made = collection(
        tmp_path,
        {"d1": "one", "d2": "two"},
        {"q1": "what", "q2": "who"},
        [("q1", "d1", 0), ("q1", "d2", 1), ("q2", "d1", 1)],
    )
    pairs = load_pairs(made, "test")
    shown = ["not this", "two, less the question", ""]  # one a judgement, those of 0 too
    assert pairs.shown is None
    assert pairs.judged is not None and pairs.judged.tolist() == [1, 2]
    seen = type(pairs)(**{**vars(pairs), "shown": shown})
    assert seen.answers(np.array([0, 1])) == ["two, less the question", "one"]


def test_a_split_without_a_positive_is_refused(tmp_path):
    made = collection(tmp_path, {"d1": "one"}, {"q1": "what"}, [("q1", "d1", 0)])
    with pytest.raises(FlatcoatError, match="split 'test' has no judgement above 0"):
        load_pairs(made, "test")


def test_a_pair_that_waits_comes_into_the_next_batch_and_none_is_lost():
    keys = np.array([7] * 5 + list(range(100, 105)))
    batches = epoch_batches(keys, 2, 0, 0)
    assert batches.shape == (5, 2)  # each has one of the five equal questions
    assert sorted(batches.reshape(-1).tolist()) == list(range(10))
    assert all(len(set(keys[batch].tolist())) == 2 for batch in batches)


def written(tmp_path, code):
    (tmp_path / "m.py").write_text(code, encoding="utf-8")
    return functions_of(tmp_path / "m.py", tmp_path)


SAYS = '"""Return the sum of both numbers."""'


def test_a_function_is_its_code_without_docstring_decorator_and_indent(tmp_path):
    found = written(
        tmp_path,
        "\ufeffimport x\n\n\nclass C:\n    @x.cached\n"
        f"    async def f(self, a):\n        {SAYS}\n        y = a\n\n        return y\n",
    )
    assert [(one.id, one.module, one.sentence) for one in found] == [
        ("m.py:6:f", "m.py", "Return the sum of both numbers")
    ]
    assert found[0].code == "async def f(self, a):\n    y = a\n\n    return y"


@pytest.mark.parametrize("body", ["pass", "...", "raise NotImplementedError", "raise", "'only a word'", ""])
def test_a_function_that_does_nothing_is_none(tmp_path, body):
    assert written(tmp_path, f"def f(a, b):\n    {SAYS}\n    {body}\n") == []


def test_two_statements_or_one_that_does_something_are_a_function(tmp_path):
    assert len(written(tmp_path, f"def f(a, b):\n    {SAYS}\n    return a + b\n")) == 1
    assert len(written(tmp_path, f"def f(a, b):\n    {SAYS}\n    pass\n    raise ValueError\n")) == 1


@pytest.mark.parametrize(
    "said",
    [
        "Sum both numbers.",
        ">>> f(1, 2) gives three here",
        ":param a: the first of both numbers",
        "See also the other function",
    ],
)
def test_a_docstring_that_describes_nothing_is_none(tmp_path, said):
    assert written(tmp_path, f'def f(a, b):\n    """{said}"""\n    return a + b\n') == []


def test_long_code_is_cut(tmp_path):
    lines = "".join(f"    a += 1{i:06d}\n" for i in range(1000))
    assert len(written(tmp_path, f"def f(a):\n    {SAYS}\n{lines}")[0].code) == 4000


@pytest.mark.parametrize("code", ["def f(:\n", "x = '\x00'\n"])
def test_what_does_not_parse_is_raised(tmp_path, code):
    with pytest.raises((SyntaxError, ValueError)):
        written(tmp_path, code)


@pytest.mark.parametrize(
    "docstring,sentence",
    [
        ("One sentence\n   over two lines.\n\nMore.", "One sentence over two lines"),
        ("As in e.g. this one. And more.", "As in e.g. this one"),
        ("Whether it is so? Then yes.", "Whether it is so?"),
        ("No stop at all", "No stop at all"),
    ],
)
def test_the_first_sentence(docstring, sentence):
    assert first_sentence(docstring) == sentence


def test_splits_by_name_are_fixed_and_come_as_often_as_said():
    drawn = [module_split(f"package/module_{i}.py") for i in range(2000)]
    assert drawn == [module_split(f"package/module_{i}.py") for i in range(2000)]
    assert abs(drawn.count("test") - 200) < 60 and abs(drawn.count("dev") - 100) < 45


def test_code_of_no_folder_is_refused_and_of_no_name_is_this_pythons(tmp_path):
    with pytest.raises(FlatcoatError, match="no such folder"):
        build_store(f"python:{tmp_path / 'none'}", tmp_path / "store")
    assert (python_root("") / "numpy").is_dir()
    assert python_root("src").as_posix() == "src"


def test_a_sentence_that_many_functions_share_is_left_out_and_counted(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    shared = "".join(f"def f{i}(a, b):\n    {SAYS}\n    return a + b + {i}\n" for i in range(11))
    own = '\ndef g(a):\n    """Give back what was given here."""\n    return a\n'
    (folder / "m.py").write_text(shared + own)
    (folder / "test_m.py").write_text(own.replace("return a", "return 1"))  # a test is no document
    (folder / "tests").mkdir()
    (folder / "tests" / "m.py").write_text(own.replace("return a", "return 2"))
    made = build_store(f"python:{folder}", tmp_path / "store")
    assert list(made.queries.texts()) == ["Give back what was given here"]
    assert len(made.documents) == 12
    assert made.facts["problems"]["sentence shared by many functions"]["count"] == 1
