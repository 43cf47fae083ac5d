"""An index that is updated answers as one that is built anew; exchange through the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_cli import call

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.inverted import InvertedSettings
from flatcoat.index.store import open_index, write_inverted
from flatcoat.index.update import update_inverted
from flatcoat.representations import Sparse
from flatcoat.sparse_vectors import SparseFolder, write_sparse

WORDS = [f"w{i}" for i in range(40)]
FACTS = {"model": "m", "corpus": "c"}


def some(size: int, seed: int) -> Sparse:
    rng = np.random.default_rng(seed)
    # powers of two, which 8 bits hold exactly: updated and fresh then score alike to the bit
    weights = (rng.random((size, 40)) < 0.3) * 2.0 ** rng.integers(-2, 3, (size, 40))
    weights[:, 0] = 4.0
    return Sparse.of(weights.astype(np.float32))


def folder(path, size, seed, prefix, facts=FACTS):
    return write_sparse(path, some(size, seed), [f"{prefix}{i}" for i in range(size)], WORDS, facts)


def named(index, queries, k):
    top = index.index.search(queries, k)
    return [
        [(index.ids[r], s) for r, s in zip(rows, scores, strict=True) if r >= 0]
        for rows, scores in zip(top.rows.tolist(), top.scores.tolist(), strict=True)
    ]


@pytest.mark.parametrize("kind", ["inverted", "pruned"])
@pytest.mark.parametrize("gone", [3, 20])  # tombstones, and so many that the index is compacted
def test_an_updated_index_answers_like_a_new_one(tmp_path, kind, gone):
    first, more = folder(tmp_path / "a", 30, 0, "a"), folder(tmp_path / "b", 15, 1, "b")
    settings = InvertedSettings(kind, mass=100)
    write_inverted(tmp_path / "index", first, settings)
    ids = [f"a{i}" for i in range(30)][:gone]
    made = update_inverted(tmp_path / "index", more, ids)
    assert (made.facts["deleted"] == 0) == (gone == 20)
    whole = Sparse.joined([first.vectors[gone:30], more.vectors], 40)
    left = write_sparse(tmp_path / "c", whole, [*first.ids[gone:], *more.ids], WORDS, FACTS)
    fresh = write_inverted(tmp_path / "fresh", left, settings)
    asked = some(8, 5)
    again = open_index(tmp_path / "index", verify=True)
    for ours, theirs in zip(named(again, asked, 10), named(fresh, asked, 10), strict=True):
        np.testing.assert_allclose([s for _, s in ours], [s for _, s in theirs], rtol=1e-6)
        least = ours[-1][1]
        assert {d for d, s in ours if s > least} == {d for d, s in theirs if s > least}
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_updated_says_why(tmp_path):
    first = folder(tmp_path / "a", 5, 0, "a")
    write_inverted(tmp_path / "index", first, InvertedSettings())
    before = {p.name: p.read_bytes() for p in (tmp_path / "index").iterdir()}
    for arguments, error, word in (
        ((None, ["z"]), FlatcoatError, "no document 'z'"),
        ((folder(tmp_path / "x", 2, 1, "a"), []), FlatcoatError, "has document 'a0' already"),
        ((folder(tmp_path / "y", 2, 1, "b", {"model": "other"}), []), FlatcoatError, "another model"),
        ((folder(tmp_path / "z", 2, 1, "c", {**FACTS, "side": "queries"}), []), FlatcoatError, "side 'queries'"),
        ((write_sparse(tmp_path / "w", some(2, 1), ["d", "d"], WORDS, FACTS), []), FlatcoatError, "'d' twice"),
        ((None, []), Misuse, "nothing to add"),
    ):
        with pytest.raises(error, match=word):
            update_inverted(tmp_path / "index", *arguments)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "index").iterdir()}


def test_a_document_is_replaced_in_one_call(tmp_path):
    write_inverted(tmp_path / "index", folder(tmp_path / "a", 5, 0, "a"), InvertedSettings())
    made = update_inverted(tmp_path / "index", folder(tmp_path / "x", 1, 9, "a"), ["a0"])
    found = named(made, some(1, 9), 5)[0]
    assert len(found) == 5 and [d for d, _ in found].count("a0") == 1


def test_the_verbs(tmp_path, capsys):
    folder(tmp_path / "a", 30, 0, "a")
    folder(tmp_path / "b", 5, 1, "b")
    assert call("index", tmp_path / "a", "--kind", "inverted", "--out", tmp_path / "index", "--quiet") == 0
    (tmp_path / "gone.txt").write_text("a1\na2\n")
    capsys.readouterr()
    assert call("update", tmp_path / "index", "--add", tmp_path / "b", "--delete", tmp_path / "gone.txt") == 0
    assert "33 documents, 2 deleted" in capsys.readouterr().err
    assert call("update", tmp_path / "index", "--delete", tmp_path / "nowhere") == 2
    for name in ("ciff", "anserini"):
        file, back = tmp_path / f"v.{name}", tmp_path / f"back-{name}"
        assert call("export", tmp_path / "a", "--to", name, "--out", file, "--quiet") == 0
        assert call("import", file, "--from", name, "--out", back, "--quiet") == 0
        assert call("index", back, "--kind", "inverted", "--out", tmp_path / f"i-{name}", "--quiet") == 0
    like = tmp_path / "like"
    assert call("import", tmp_path / "v.ciff", "--like", tmp_path / "a", "--out", like, "--quiet") == 0
    np.testing.assert_allclose(SparseFolder.open(like).vectors.array(), some(30, 0).array(), atol=0.006)
    assert SparseFolder.open(like).vocabulary == WORDS
    for scale in ("0", "-1"):
        assert call("export", tmp_path / "a", "--scale", scale, "--out", tmp_path / "x") == 2
        assert call("import", tmp_path / "v.ciff", "--scale", scale, "--out", tmp_path / "x") == 2
    (tmp_path / "gone.bin").write_bytes(b"\xff\xfe")
    assert call("update", tmp_path / "index", "--delete", tmp_path / "gone.bin") == 2
    capsys.readouterr()
    assert call("fidelity", tmp_path / "index", tmp_path / "a", tmp_path / "b") == 2
    assert "row by row" in capsys.readouterr().err
    line = json.loads((tmp_path / "v.anserini").read_text().splitlines()[0])
    assert line["id"] == "a0" and line["vector"]["w0"] == 400
    assert call("export", tmp_path / "a", "--to", "cif", "--out", tmp_path / "x") == 2
    assert "ciff or anserini" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "vector": {"w": 1}}\n{oops\n')
    assert call("import", tmp_path / "bad.jsonl", "--from", "anserini", "--out", tmp_path / "y") == 1
    assert "bad.jsonl:2: not valid JSON" in capsys.readouterr().err
