"""Re-ranking: the best of a run by a scorer, the rest below in its order; the verb, and what bad input gets."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.app.verbs_rerank import load_scorer
from flatcoat.app.verbs_rerank import rerank as verb
from flatcoat.data.collection import open_collection
from flatcoat.data.trec import read_run, write_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.base import Runtime, Scorer
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.colbert_checkpoint import load_late, save_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross
from flatcoat.models.splade_checkpoint import load_splade
from flatcoat.records import Ranking
from flatcoat.search.rerank import EncodedScorer, rerank

RUN = {
    "a": Ranking.of({"d1": 9.0, "d2": 8.0, "d3": 7.0, "d4": 6.0, "d5": 5.5}),
    "b": Ranking.of({"d2": 3.0, "d9": 2.0}),
    "c": Ranking.of({}),
}


class ByText:
    """A scorer that reads its scores from the document's text, and keeps what it was asked."""

    def __init__(self, scale=1.0):
        self.scale, self.asked = scale, []

    def score(self, queries, documents):
        self.asked.append(list(zip(queries, documents, strict=True)))
        return np.array([self.scale * float(text.removeprefix("text d")) for text in documents], dtype=np.float32)


def again(scorer, k, run=RUN):
    return rerank(run, scorer, lambda id: f"query {id}", lambda id: f"text {id}", k)


def test_the_best_are_ordered_anew_and_the_rest_keep_their_order():
    scorer = ByText()
    made = again(scorer, 3)
    assert made["a"].doc_ids == ("d3", "d2", "d1", "d4", "d5")
    assert made["a"].scores.tolist() == [3.0, 2.0, 1.0, 0.0, -1.0]
    assert made["b"].doc_ids == ("d9", "d2") and made["c"].doc_ids == ()
    assert list(made) == list(RUN)
    assert scorer.asked == [[("query a", "text d1"), ("query a", "text d2"), ("query a", "text d3"),
                             ("query b", "text d2"), ("query b", "text d9")]]  # fmt: skip


@pytest.mark.parametrize("scale", [1e30, -1e30, 1e-30, 1e7, -1e7, 0.0])
def test_the_rest_stays_below_in_order_at_any_scale(scale):
    run = {"a": Ranking.of({f"d{i}": 100.0 - i for i in range(50)})}
    made = again(ByText(scale), 5, run)["a"]
    assert set(made.doc_ids[:5]) == {f"d{i}" for i in range(5)}
    assert made.doc_ids[5:] == tuple(f"d{i}" for i in range(5, 50))
    single = made.scores.astype(np.float32)
    assert (np.diff(single[4:]) < 0).all()


def test_what_is_written_is_read_again(tmp_path):
    made = again(ByText(0.1), 2)
    write_run(tmp_path / "r.trec", made)
    back = read_run(tmp_path / "r.trec")
    assert {q: r.doc_ids for q, r in back.items()} == {q: r.doc_ids for q, r in made.items() if len(r)}


def test_windows_bound_what_is_held_and_change_nothing(monkeypatch):
    run = {f"q{i}": Ranking.of({f"d{j}": float(-j) for j in range(i % 4)}) for i in range(20)}
    whole = again(ByText(), 3, run)
    monkeypatch.setattr("flatcoat.search.rerank.WINDOW", 7)
    small = ByText()
    cut = again(small, 3, run)
    assert {q: r.doc_ids for q, r in cut.items()} == {q: r.doc_ids for q, r in whole.items()}
    assert [len(window) for window in small.asked] == [7, 7, 7, 7, 2]


def test_progress_counts_windows(monkeypatch):
    monkeypatch.setattr("flatcoat.search.rerank.WINDOW", 2)
    seen = []

    def track(items, total=None, label=""):
        seen.append((total, label))
        yield from items

    rerank(RUN, ByText(), str, lambda id: f"text {id}", 3, track=track)
    assert seen == [(3, "rerank")]


def test_nothing_to_rerank():
    assert again(ByText(), 3, {}) == {}
    with pytest.raises(Misuse, match="k=0 re-ranks nothing"):
        again(ByText(), 0)


def test_a_score_that_is_not_finite_is_an_error():
    with pytest.raises(FlatcoatError, match="the score of query 'a' with document 'd1' is not finite"):
        again(ByText(float("nan")), 2)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_encoders_score_pairs_by_dot_product(kind, tiny, tiny_mlm):
    model = load_dense(str(tiny)) if kind == "dense" else load_splade(str(tiny_mlm))
    scorer = EncodedScorer(model)
    queries, documents = ["otter", "a heron", "otter"] * 7, ["the otter lives", "the otter lives", "x"] * 7
    made = [encode(texts) for encode, texts in ((model.encode_queries, queries), (model.encode_documents, documents))]
    left, right = (side.vectors if kind == "dense" else side.array() for side in made)
    assert isinstance(scorer, Scorer)
    np.testing.assert_allclose(scorer.score(queries, documents), (left * right).sum(1), atol=1e-5)
    assert scorer.score([], []).shape == (0,)


@pytest.fixture(scope="module")
def cross(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("rerank") / "cross"
    save_cross(load_cross(str(tiny), CrossOverrides(seed=2)), path)
    return path


@pytest.fixture
def first(toy, tmp_path):
    """A run of the toy's test queries over all of its documents, by id."""
    opened = open_collection(str(toy))
    docs = [opened.documents.ids[i] for i in range(len(opened.documents))]
    run = {
        opened.queries.ids[int(row)]: Ranking.of({doc: float(len(docs) - i) for i, doc in enumerate(docs)})
        for row in opened.query_rows("test")
    }
    write_run(tmp_path / "first.trec", run)
    return tmp_path / "first.trec", opened


def call_verb(model, run, collection, out, k=5, split=None, precision="fp32"):
    verb(str(model), run, str(collection), k, str(out), split, precision, "cpu", True)


@pytest.fixture(scope="module")
def late(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("rerank-late") / "late"
    save_late(load_late(str(tiny)), path)
    return path


@pytest.mark.parametrize("kind", ["cross", "late", "dense", "sparse"])
def test_the_verb_gives_the_scorers_scores(kind, cross, late, tiny, tiny_mlm, first, toy, tmp_path):
    path, opened = first
    model = {"cross": cross, "late": late, "dense": tiny, "sparse": tiny_mlm}[kind]
    call_verb(model, path, toy, tmp_path / "second.trec")
    before, after = read_run(path), read_run(tmp_path / "second.trec")
    scorer = load_scorer(str(model), Runtime())

    def text(table, id):
        return table.text(table.lookup.row(id))

    assert set(after) == set(before)
    for query, ranking in after.items():
        best = before[query].doc_ids[:5]
        scores = scorer.score([text(opened.queries, query)] * 5, [text(opened.documents, doc) for doc in best])
        wanted = Ranking.of(list(zip(best, scores.tolist(), strict=True)))
        assert set(ranking.doc_ids[:5]) == set(best) and ranking.doc_ids[5:] == before[query].doc_ids[5:]
        np.testing.assert_allclose(ranking.scores[:5], wanted.scores, atol=1e-5)


def test_the_verb_keeps_to_a_split_and_writes_to_stdout(cross, first, toy, capsys):
    path, opened = first
    call_verb(cross, path, toy, "-", k=1, split="test")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(opened.query_rows("test")) * len(opened.documents)
    assert all(line.endswith(" flatcoat-rerank") for line in lines)
    other = next(split for split in opened.splits if not set(opened.query_rows(split)) & set(opened.query_rows("test")))
    with pytest.raises(FlatcoatError, match=f"none of its .* queries is of split '{other}'"):
        call_verb(cross, path, toy, "-", split=other)


def test_bad_input_gets_one_line(cross, first, toy, tmp_path):
    path, _ = first
    lines = path.read_text().splitlines()
    lost = tmp_path / "lost.trec"
    lost.write_text("\n".join([*lines, lines[0].split()[0] + " Q0 nowhere 1 999 x"]) + "\n")
    for run, settings, said in (
        (lost, {}, "1 of its 6 documents are not of .*, for example 'nowhere'"),
        (path, {"k": 0}, "-k 0: re-ranks nothing"),
        (path, {"precision": "int4"}, "--precision int4: want fp32, bf16 or int8"),
        (tmp_path / "none.trec", {}, "no such run; want MODEL RUN COLLECTION"),
    ):
        with pytest.raises(FlatcoatError, match=said) as caught:
            call_verb(cross, run, toy, tmp_path / "out.trec", **settings)
        assert "\n" not in str(caught.value)
    strange = tmp_path / "strange.trec"
    strange.write_text("whose Q0 d 1 1.0 x\n")
    with pytest.raises(FlatcoatError, match="1 of its 1 queries are not of .*, for example 'whose'"):
        call_verb(cross, strange, toy, tmp_path / "out.trec")
    with pytest.raises(Misuse, match="no such folder"):
        call_verb("./nowhere", path, toy, tmp_path / "out.trec")
    assert not (tmp_path / "out.trec").exists()
    lost.write_text("\n".join([*lines, lines[0].split()[0] + " Q0 nowhere 1 -999 x"]) + "\n")
    call_verb(cross, lost, toy, tmp_path / "out.trec")  # what is not read need not be there


def test_a_lookup_without_weights_is_refused(tiny_mlm, first, toy, monkeypatch):
    from flatcoat.models.splade_checkpoint import SparseOverrides

    fresh = load_splade(str(tiny_mlm), SparseOverrides(queries="lookup"))
    monkeypatch.setattr("flatcoat.models.load.load_model", lambda source: fresh)
    with pytest.raises(FlatcoatError, match="no weights for a lookup of queries"):
        load_scorer(str(tiny_mlm), Runtime())
