"""Precisions side by side: rates by turns, cosines by hand, what is sampled, which is chosen; the verb, and what bad input gets."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import call

from flatcoat.app import speed as measuring
from flatcoat.app.speed import Row, Speed, choose, measure_encoder, measure_scorer
from flatcoat.app.speed_sample import Pairs, Sample, TooFew, pairs_of, pairs_of_run, sample_of
from flatcoat.data.collection import open_collection
from flatcoat.errors import FlatcoatError
from flatcoat.evaluation.measures import evaluate, means
from flatcoat.index.exact import search_slowly
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.load import load_model
from flatcoat.records import Ranking
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.search.engine import named
from flatcoat.search.precisions import ROUNDS, alternate, cosines, precisions_of


def row(precision, rate, change, first=100.0):
    return Row(precision, rate, rate / first, 1.0, 1.0, None, 0.5, change, change, change)


class Clock:
    """Time that passes as work says."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_precisions_take_turns_and_one_slow_round_decides_nothing():
    clock, asked = Clock(), []
    seconds = {"fp32": 0.04, "bf16": 0.02, "int8": 0.01}

    def work(name):
        def make(count):
            asked.append((name, count))
            busy = 100.0 if name == "int8" and sum(n == name for n, _ in asked) in (1, 2, 4, 5) else 0.0
            clock.now += seconds[name] * count + (
                0.0 if len(asked) <= 6 else busy
            )  # twice something else had the machine
            return f"{name} {count}"

        return make

    made, rates = alternate({name: work(name) for name in seconds}, 300, clock=clock)
    assert made == {name: f"{name} 300" for name in seconds}
    assert rates == pytest.approx({"fp32": 25, "bf16": 50, "int8": 100})
    assert [name for name, _ in asked] == list(seconds) * (2 + ROUNDS)
    assert [count for _, count in asked[:6]] == [8, 8, 8, 300, 300, 300]
    assert {count for _, count in asked[6:]} == {50}  # what the slowest does in two seconds


def test_few_texts_are_all_that_a_round_has():
    clock = Clock()

    def make(count):
        clock.now += 10.0 * count

    _, rates = alternate({"fp32": make}, 3, clock=clock)
    assert rates == pytest.approx({"fp32": 0.1})


def test_cosines_by_hand():
    left = np.array([[1, 0], [1, 1], [0, 0], [0, 0]], np.float32)
    right = np.array([[2, 0], [1, 0], [0, 0], [0, 3]], np.float32)
    wanted = [1, 2**-0.5, 1, 0]
    start = np.array([0, 1, 1, 4])
    for of in (Dense, Sparse.of, lambda vectors: MultiVector(start, vectors)):
        np.testing.assert_allclose(cosines(of(left), of(right)), wanted, atol=1e-12)
    with pytest.raises(ValueError, match="want one fellow each"):
        cosines(Dense(left), Dense(right[:3]))
    with pytest.raises(ValueError, match="want one fellow each"):
        cosines(Sparse.of(left), Sparse.of(right[:3]))
    with pytest.raises(ValueError, match="want two of a kind"):
        cosines(Dense(left), Sparse.of(right))


@pytest.mark.parametrize(
    ("bf16", "int8", "chosen"),
    [
        ((150, 0.0), (500, -0.0019), "int8"),
        ((150, 0.0), (500, -0.002), "bf16"),
        ((150, 0.0), (500, -0.5), "bf16"),
        ((150, -0.01), (500, -0.01), "fp32"),
        ((150, 0.0), (500, float("nan")), "bf16"),
        ((50, 0.3), (90, 0.3), "fp32"),
        ((150, 0.01), (140, 0.5), "bf16"),
        ((104, 0.0), (103, 0.0), "fp32"),  # within what rounds differ by
    ],
)
def test_the_quickest_that_loses_next_to_nothing_is_chosen(bf16, int8, chosen):
    rows = (row("fp32", 100, 0.0), row("bf16", *bf16), row("int8", *int8))
    assert choose(rows).precision == chosen
    assert Speed("documents", 10, 20, None, "gold", rows).as_json()["quickest"] == chosen


@pytest.fixture
def collection(toy):
    return open_collection(str(toy))


def test_a_sample_holds_what_answers_its_queries(collection):
    sample = sample_of(collection, "train", 30, 12, seed=3)
    assert len(sample.documents) == 30 and len(sample.queries) == 12 and sample.qrels is not None
    assert set(sample.qrels) == set(sample.queries)
    for query, judged in sample.qrels.items():
        assert judged == collection.qrels("train")[query] and set(judged) <= set(sample.documents)
    again, other = sample_of(collection, "train", 30, 12, seed=3), sample_of(collection, "train", 30, 12, seed=4)
    assert again == sample and set(other.documents) != set(sample.documents)
    whole = sample_of(collection, "test", 512, 200)
    assert len(whole.documents) == 60 and len(whole.queries) == 10 and whole.why == "split 'test'"


def test_too_few_judged_queries_and_fp32_itself_is_the_judge(collection):
    sample = sample_of(collection, "absent", 40, 15)
    assert sample.qrels is None and len(sample.queries) == 15 and sample.why == "no split 'absent'"
    assert all(id.startswith("q-") for id in sample.queries)
    wide = sample_of(collection, "test", 20, 200)
    assert wide.qrels is not None and len(wide.queries) == 10


def written(folder, corpus, queries=(), judged=()):
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = [json.dumps({"_id": id, "title": "", "text": text}) for id, text in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n" if lines else "")
    if judged:
        text = "".join(f"{q}\t{d}\t{grade}\n" for q, d, grade in judged)
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + text)
    return folder


def test_graded_nought_comes_before_random_ones(tmp_path):
    corpus = [(f"d{i}", f"text {i}") for i in range(500)]
    asked = [(f"q{i}", f"question {i}") for i in range(10)]
    judged = [(f"q{i}", f"d{40 * i + j}", int(j == 0)) for i in range(10) for j in range(2)]
    sample = sample_of(open_collection(str(written(tmp_path / "c", corpus, asked, judged))), "test", 24, 10)
    assert {d for _, d, _ in judged} <= set(sample.documents) and len(sample.documents) == 24
    few = sample_of(open_collection(str(tmp_path / "c")), "test", 24, 10, seed=1)
    assert few.qrels and {d for _, d, _ in judged} <= set(few.documents)


def test_where_nobody_asked_first_sentences_ask(tmp_path):
    corpus = [(f"d{i}", f"The otter number {i} swims. It eats fish.") for i in range(30)]
    sample = sample_of(open_collection(str(written(tmp_path / "c", corpus))), "test", 25, 12)
    assert sample.qrels is None and len(sample.queries) == 12
    assert all(text == f"The otter number {id[1:]} swims." for id, text in sample.queries.items())
    with pytest.raises(TooFew, match="5 documents are too few to rank; want at least 20"):
        sample_of(open_collection(str(written(tmp_path / "few", corpus[:5]))), "test", 25, 12)


@pytest.mark.parametrize("kind", ["dense", "sparse", "late"])
def test_an_encoder_is_measured_and_left_as_it_was(kind, models, collection):
    model = load_model(str(models[kind]))
    model.runtime = Runtime("cpu", "bf16", 77)
    seen = []

    def track(items, total=None, label=""):
        seen.append((total, label))
        yield from items

    found = measure_encoder(model, sample_of(collection, "train", 40, 30), track=track)
    assert [row.precision for row in found.rows] == list(precisions_of("cpu"))
    assert (found.unit, found.documents, found.gold) == ("documents", 40, "judgements of split 'train'")
    first, *rest = found.rows
    assert first.times == 1 and first.change == first.low == first.high == 0 and first.least == pytest.approx(1)
    for other in rest:
        assert other.rate > 0 and other.times == pytest.approx(other.rate / first.rate)
        assert 0.95 < other.least <= other.mean <= 1 + 1e-9 and other.apart is None
    assert model.runtime == Runtime("cpu", "bf16", 77)
    assert seen == [((2 + ROUNDS) * len(found.rows), "measure precisions")]


def test_quality_is_that_of_exact_search(models, collection):
    model, sample = load_dense(str(models["dense"])), sample_of(collection, "train", 40, 30)
    documents = model.encode_documents(list(sample.documents.values())).vectors
    top = search_slowly(documents, model.encode_queries(list(sample.queries.values())).vectors, 10)
    run = named(top, list(sample.queries), list(sample.documents))
    wanted = means(evaluate(sample.qrels, run, ["nDCG@10"]))["nDCG@10"]
    assert measure_encoder(model, sample).rows[0].quality == pytest.approx(wanted, abs=1e-6)


class Lossy:
    """A model whose int8 gives something else."""

    def __init__(self, model, spoil):
        self.model, self.spoil, self.runtime = model, spoil, model.runtime
        self.query, self.document = model.query, model.document

    def _made(self, made):
        return Dense(self.spoil(made.vectors)) if self.runtime.precision == "int8" else made

    def encode_documents(self, texts):
        return self._made(self.model.encode_documents(texts))

    def encode_queries(self, texts):
        return self._made(self.model.encode_queries(texts))


def planted(monkeypatch, rates):
    """Rates that are said, not measured."""
    said = lambda work, count, **_: ({name: make(count) for name, make in work.items()}, dict(rates))  # noqa: E731
    monkeypatch.setattr(measuring, "alternate", said)


@pytest.mark.parametrize("split", ["train", "absent"])
@pytest.mark.parametrize("spoil", [lambda v: -v, lambda v: v * np.nan], ids=["turned", "nan"])
def test_a_lossy_precision_is_refused_however_quick(split, spoil, models, collection, monkeypatch):
    planted(monkeypatch, {"fp32": 100.0, "bf16": 150.0, "int8": 900.0})
    model, sample = load_dense(str(models["dense"])), sample_of(collection, split, 40, 30)
    turned = lambda v: spoil(v) if len(v) == 40 else v  # noqa: E731  # the documents alone: the best are last
    found = measure_encoder(Lossy(model, turned), sample)
    assert found.rows[2].change < -0.1 and found.rows[2].least < 0.01
    assert found.quickest().precision == "bf16"
    assert measure_encoder(model, sample).quickest().precision == "int8"  # the same rates, nothing lost
    if split == "absent":
        assert found.rows[0].quality == 1.0 and found.gold == "fp32's own ten best (no split 'absent')"


def test_where_fp32_finds_nothing_that_is_judged_it_is_the_judge(models, collection):
    sample = sample_of(collection, "train", 40, 30)
    lost = sample._replace(qrels={query: {"nowhere": 1} for query in sample.queries})
    found = measure_encoder(load_dense(str(models["dense"])), lost)
    assert found.rows[0].quality == 1.0 and found.gold.startswith("fp32's own ten best (fp32 finds nothing that split")


def test_a_broken_model_is_said(models, collection):
    model = load_dense(str(models["dense"]))
    for parameter in model.document.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(FlatcoatError, match="fp32's own numbers are not finite"):
        measure_encoder(model, sample_of(collection, "train", 40, 30))


def test_scores_of_pairs_are_compared_by_their_spread(monkeypatch):
    planted(monkeypatch, {"fp32": 10.0, "bf16": 20.0, "int8": 40.0})

    class Scorer:
        runtime = Runtime("cpu")

        def score(self, queries, documents):
            scores = np.array([float(text) for text in documents])
            return {"fp32": scores, "bf16": scores + 0.5, "int8": -scores}[self.runtime.precision]

    documents = {f"d{i}": str(i) for i in range(4)}
    sample = Sample({"a": "x", "b": "y"}, documents, {"a": {"d3": 1}, "b": {"d2": 1}}, "split 'test'")
    found = measure_scorer(Scorer(), Pairs(sample, {"a": ("d0", "d3"), "b": ("d1", "d2")}))
    spread = np.std([0, 3, 1, 2])
    assert [row.apart for row in found.rows] == pytest.approx([0, 0.5 / spread, 6 / spread])
    assert [row.quality for row in found.rows] == pytest.approx([1, 1, 1 / np.log2(3)])
    assert found.pairs == 4 and found.unit == "pairs" and found.quickest().precision == "bf16"
    assert [row.least for row in found.rows] == [None] * 3


def test_pairs_hold_the_answers_and_what_shares_words(collection):
    sample = sample_of(collection, "train", 60, 40)
    pairs = pairs_of(sample)
    assert len(pairs.candidates) == len(pairs.sample.queries) == 10
    for query, ids in pairs.candidates.items():
        assert len(ids) == len(set(ids)) == 16 and set(sample.qrels[query]) <= set(ids)
    query = next(q for q in pairs.candidates if q.endswith("-food"))
    assert set(pairs.candidates[query]) & {
        query.replace("q-", "d-").replace("-food", end) for end in ("-home", "-young")
    }


def test_pairs_of_a_run_are_its_own(collection):
    ids = [collection.documents.ids[i] for i in range(60)]
    judged = collection.qrels("test")
    run = {collection.queries.ids[i]: Ranking.of({id: float(-j) for j, id in enumerate(ids)}) for i in range(60)}
    pairs = pairs_of_run(run, collection, None, 60, 160)
    assert len(pairs.candidates) == 10 and all(list(found) == ids[:16] for found in pairs.candidates.values())
    assert set(pairs.candidates) <= set(judged)
    assert pairs.sample.qrels is None and pairs.sample.why.endswith("judged queries of split 'test' are too few")
    best = {q: Ranking.of({next(iter(judged[q])): 1.0, "d-otter-home": 0.5}) for q in judged}
    assert pairs_of_run(best, collection, None, 100, 256).sample.qrels == judged
    with pytest.raises(TooFew, match="2 queries of 16 documents are too few"):
        pairs_of_run(dict(list(run.items())[:2]), collection, None, 60, 160)


@pytest.mark.parametrize("kind", ["dense", "sparse", "late", "cross"])
def test_the_verb_prints_a_table_and_the_quickest(kind, models, toy, capsys):
    assert call("speed", models[kind], toy, "--device", "cpu", "--quiet") == 0
    lines = capsys.readouterr().out.splitlines()
    header, *rows = [line.split("\t") for line in lines[:-2]]
    unit = "pairs" if kind == "cross" else "documents"
    assert header[:3] == ["precision", f"{unit}/s", "x fp32"] and header[-2:] == ["nDCG@10", "Δ nDCG@10 [95 %]"]
    assert [cells[0] for cells in rows] == list(precisions_of("cpu")) and all(len(r) == len(header) for r in rows)
    assert rows[0][-1] == "+0.00% [+0.00%, +0.00%]"
    assert "60 documents" in lines[-2] and "torch" in lines[-2]
    assert lines[-1].startswith("quickest within 0.2 %: ")


def test_the_verb_prints_json(models, toy, capsys):
    words = (
        "speed",
        models["dense"],
        toy,
        "--device",
        "cpu",
        "--json",
        "--documents",
        30,
        "--queries",
        5,
        "--split",
        "train",
    )
    assert call(*words) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["unit"], said["documents"], said["queries"], said["device"]) == ("documents", 30, 5, "cpu")
    assert said["quickest"] in [row["precision"] for row in said["rows"]]
    assert (
        said["rows"][0]["change"] == 0 and said["gold"] == "judgements of split 'train'" and said["most_loss"] == 0.002
    )
    assert {"processor", "versions", "date"} <= set(said["machine"])


def test_the_last_line_names_the_gain(models, toy, capsys, monkeypatch):
    planted(monkeypatch, {"fp32": 100.0, "bf16": 150.0, "int8": 511.0})
    assert call("speed", models["dense"], toy, "--device", "cpu") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "quickest within 0.2 %: int8 (5.1x fp32)"
    planted(monkeypatch, {"fp32": 100.0, "bf16": 50.0, "int8": 11.0})
    assert call("speed", models["dense"], toy, "--device", "cpu") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "quickest within 0.2 %: fp32"


def test_bad_input_gets_one_line(models, toy, tmp_path, capsys):
    dense = models["dense"]
    empty = written(tmp_path / "empty", [])
    few = written(tmp_path / "few", [("a", "an otter"), ("b", "a heron")])
    for words, code, said in (
        (("./nowhere", toy), 2, "no such folder"),
        ((dense, tmp_path / "nowhere"), 2, "no such folder or file"),
        ((dense, empty), 1, "no documents were found"),
        ((dense, few), 1, "2 documents are too few to rank; want at least 20"),
        ((dense, toy, "--split", "tets"), 2, "no split 'tets'; it has dev, test, train"),
        ((dense, toy, "--documents", 5), 2, "--documents 5: too few to rank; want at least 20"),
        ((dense, toy, "--queries", 0), 2, "--queries 0: want at least 1"),
    ):
        assert call("speed", *words, "--device", "cpu") == code, words
        out, err = capsys.readouterr()
        assert said in err and err.count("\n") == 1 and not out


def test_queries_that_are_a_lookup(tiny_mlm, collection):
    from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade

    model = load_splade(str(tiny_mlm), SparseOverrides(queries="lookup"))
    sample = sample_of(collection, "train", 40, 30)
    with pytest.raises(FlatcoatError, match="no weights for a lookup of queries yet"):
        measure_encoder(model, sample)
    model.query.fresh = False
    model.query.weight.data.fill_(1.0)
    assert len(measure_encoder(model, sample).rows) == len(precisions_of("cpu"))


def test_what_a_graphics_card_runs():
    assert precisions_of("cuda:0") == ("fp32", "bf16") and precisions_of("cpu")[:2] == ("fp32", "bf16")


def test_a_scorer_that_encodes_has_its_encoders_runtime_set(models, collection):
    from flatcoat.app.verbs_rerank import load_scorer

    scorer = load_scorer(str(models["dense"]), Runtime("cpu", "fp32", 99))
    found = measure_scorer(scorer, pairs_of(sample_of(collection, "train", 40, 30)))
    assert found.rows[1].apart > 0 and scorer.encoder.runtime == replace(Runtime("cpu"), batch_tokens=99)
