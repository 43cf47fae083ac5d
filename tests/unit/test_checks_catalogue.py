"""Every check of the catalogue finds its planted fault and passes a clean case; the catalogue is what the code gives, and the page is
made of it.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flatcoat.app.inspect import inspect
from flatcoat.checks import (
    belongs,
    best_pooling,
    checkpoint,
    collection,
    cross,
    index,
    judgements,
    late,
    negatives,
    results,
    run,
    settings,
    sparse,
    teacher,
    texts,
    towers,
    training,
    vectors,
)
from flatcoat.checks.base import Finding
from flatcoat.checks.catalogue import CATALOGUE, NOTES
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import epoch_batches, load_pairs
from flatcoat.errors import FlatcoatError
from flatcoat.files import write_json
from flatcoat.index.exact import ExactIndex
from flatcoat.models.checkpoint import Overrides, load_dense
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
from flatcoat.models.colbert_layouts import describe_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross
from flatcoat.models.splade_checkpoint import load_splade
from flatcoat.records import Ranking
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.testing.index import unit
from flatcoat.testing.multi_index import tokens
from flatcoat.vectors import write_vectors

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "flatcoat"
MARKED = LateOverrides(8, 12, 24, query_marker="q", document_marker="d", expand=True, skip_punctuation=True)


class Shop:
    """What the cases are made of: small models and collections, each made once."""

    def __init__(self, tiny, tiny_mlm, home):
        self.tiny, self.mlm, self.home, self.made = tiny, tiny_mlm, home, {}

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def dense(self):
        return self.once("dense", lambda: load_dense(str(self.tiny)))

    def splade(self):
        return self.once("splade", lambda: load_splade(str(self.mlm)))

    def late(self, name="late"):
        def make():
            save_late(load_late(str(self.tiny), MARKED), self.home / "late")
            return self.home / "late"

        return self.once(name, make)

    def cross(self):
        return self.once("cross", lambda: load_cross(str(self.tiny), CrossOverrides(seed=0)))

    def store(self, documents, splits=None, queries=None):
        """A collection of texts; `splits` has (query, document, grade) by numbers, or a document's id."""
        folder = self.home / f"c{len(self.made)}-{len(list(self.home.iterdir()))}"
        (folder / "qrels").mkdir(parents=True)
        lines = [json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(documents)]
        (folder / "corpus.jsonl").write_text("".join(lines))
        asked = queries or [f"question number {i}" for i in range(40)]
        lines = [json.dumps({"_id": f"q{i}", "text": text}) + "\n" for i, text in enumerate(asked)]
        (folder / "queries.jsonl").write_text("".join(lines))
        for split, rows in (splits or {"test": [(0, 0, 1)]}).items():
            lines = [f"q{q}\t{d if isinstance(d, str) else f'd{d}'}\t{g}\n" for q, d, g in rows]
            (folder / "qrels" / f"{split}.tsv").write_text("q\td\ts\n" + "".join(lines))
        return build_store(str(folder), folder.with_name(f"{folder.name}-store"))


@pytest.fixture(scope="module")
def shop(tiny, tiny_mlm, tmp_path_factory):
    return Shop(tiny, tiny_mlm, tmp_path_factory.mktemp("catalogue"))


PLAIN = [f"text {i}" for i in range(60)]
SPLITS = {"train": [(i, i, 1) for i in range(20)], "test": [(20 + i, 20 + i, 1) for i in range(10)]}


def ranked(relevant=1, queries=12, scores=None):
    made = {
        f"q{i}": Ranking.of({f"d{j}": float(10 - j) if scores is None else scores for j in range(10)})
        for i in range(queries)
    }
    return made, {f"q{i}": {f"d{relevant}": 1} for i in range(queries)}


def trec(shop, upside):
    file = shop.home / f"{upside}.trec"
    file.write_text("".join(f"q Q0 d{j} {j + 1} {j if upside else 9 - j} tag\n" for j in range(9)))
    return file


def terms(rows, words=64):
    """Sparse vectors of texts given as {term: weight}."""
    weights = np.zeros((len(rows), words), np.float32)
    for i, row in enumerate(rows):
        for term, weight in row.items():
            weights[i, term] = weight
    return Sparse.of(weights)


NAMES, NOISE = [f"w{i}" for i in range(64)], np.arange(64) < 4
HEALTHY = [{10 + i: 1.0, 11 + i: 2.0} for i in range(30)]


def healthy(rows=HEALTHY):
    return sparse.health(terms(rows), NAMES, NOISE)


def folder_saying(shop, name, **said):
    folder = shop.home / name
    folder.mkdir(exist_ok=True)
    write_json(folder / "config_sentence_transformers.json", said)
    return folder


def taught(good=True, spread=1.0, queries=20):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(queries, 4)).astype(np.float32)
    scores[:, 0] += 3 if good else -3
    return spread * scores


def pairs(shop):
    return shop.once("pairs", lambda: load_pairs(shop.store(PLAIN, SPLITS), "train"))


class Reversed:
    """An index that ranks the farthest first."""

    def __init__(self, vectors):
        self.index = ExactIndex(-vectors)

    def __len__(self):
        return len(self.index)

    def search(self, queries, k):
        return self.index.search(queries, k)


def retrieval(shop, wrong):
    made = unit(80, 16)
    return index.loses(Reversed(made) if wrong else ExactIndex(made), ExactIndex(made), Dense(made[:10]), "x")


def measured(shop, wrong):
    from flatcoat.data.toy import toy_sentences

    model = load_dense(str(shop.tiny), Overrides(pooling="cls" if wrong else "mean"))
    if wrong:
        import torch

        with torch.no_grad():
            for layer in model.query.backbone.encoder.layer:
                layer.attention.output.dense.weight.zero_()
    rows = [document for _, _, document in toy_sentences()[:30]]
    return best_pooling.pooling_by_measure(model, rows, rows)


def marked(shop, lost):
    source = shop.late()
    if lost:
        folder = shop.home / "unmarked"
        shutil.copytree(source, folder, dirs_exist_ok=True)
        config = folder / "config_sentence_transformers.json"
        write_json(config, {**json.loads(config.read_text()), "query_prefix": "[Q] "})
        own = folder / "flatcoat.json"  # no word of what the files were
        kept = {name: value for name, value in json.loads(own.read_text()).items() if name not in ("files", "sha256")}
        write_json(own, kept)
        source = folder
    return late.markers(describe_late(source), load_late(str(source)))


def expanded(shop, far):
    model = load_late(str(shop.late()))
    said = describe_late(shop.late())
    wanted = said._replace(query=said.query._replace(expansion=20)) if far else said
    return late.expansion(wanted, model)


def punctuated(shop, kept):
    model = load_late(str(shop.late()))
    if kept:
        model.document.skip_ids = model.document.skip_ids[:0]
    return late.punctuation(model.document)


def collapsed_tokens():
    made = tokens(40, 1, 9)
    return MultiVector(made.start, np.repeat(made.vectors[:1], len(made.vectors), 0))


def scorer_of(sign):
    class Overlap:
        def score(self, queries, documents):
            shared = [len(set(q.split()) & set(d.split())) for q, d in zip(queries, documents, strict=True)]
            return np.array(shared, np.float32) * sign

    return Overlap()


def related(sign):
    asked = [f"where is word{i}" for i in range(20)]
    return cross.related(scorer_of(sign), asked, [f"word{i} is there" for i in range(20)])


def flat_cross(shop, zero):
    import torch

    model = shop.cross()
    if zero:
        model = load_cross(str(shop.tiny), CrossOverrides(seed=0))
        with torch.no_grad():
            model.tower.backbone.classifier.weight.zero_()
    return cross.spread(model)


def labels(shop, count):
    folder = shop.home / f"labels{count}"
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", {"id2label": {str(i): str(i) for i in range(count)}})
    return cross.one_label(folder)


def tokenizer_of(shop, unknown):
    return texts.vocabulary_fit(
        shop.dense().document.tokenizer, shop.store(["Привет мир"] * 3 if unknown else ["the otter"])
    )


def top(shop, noisy):
    """The heaviest terms of a question, every entry of the vocabulary a word, or a mark."""
    model = shop.splade()
    real = model.encode_queries(sparse.PROBES[:2])
    word = "." if noisy else "badger"
    fake = SimpleNamespace(query=model.query, vocabulary=[word] * len(model.vocabulary), encode_queries=lambda _: real)
    return sparse.clean_top(fake)


def gradient(clear):
    total = [0.0]

    def norm():
        total[0] = 1.0 if clear else total[0] + 1.0
        return total[0]

    return training.piled_up(norm)


def hashed(shop, damaged):
    folder = shop.home / f"v-{damaged}"
    write_vectors(folder, unit(20, 8), [f"d{i}" for i in range(20)], {})
    if damaged:
        data = bytearray((folder / "vectors.npy").read_bytes())
        data[-1] ^= 1
        (folder / "vectors.npy").write_bytes(bytes(data))
    try:
        return inspect(str(folder), None, None)
    except FlatcoatError as error:  # the line that the verb ends with
        return [Finding("error", "hashes", str(error))]


def recipe_of(shop, start):
    file = shop.home / "r.toml"
    source = shop.once("toy", lambda: shop.store(PLAIN, SPLITS)).facts["source"]["spec"]
    file.write_text(f'[collection]\nsource = "{source}"\n[model]\nstart = "{start}"\n[training]\nsteps = 0\n')
    return [finding for finding in inspect(str(file), None, None) if finding.check == "sources"]


def said(settings_, side="document"):
    return SimpleNamespace(query=SimpleNamespace(settings=settings_), document=SimpleNamespace(settings=settings_))


def tower(prompt="", length=32):
    return said(SimpleNamespace(prompt=prompt, max_length=length))


def broken(shop):
    bad = unit(30, 8)
    bad[3, 2] = np.nan
    return bad


def rows(count, width):
    return np.zeros((count, width), np.float32)


DEEP = {"train": [(i, i, 1) for i in range(20)], "test": [(20 + i, "d-9" + str(i), 1) for i in range(6)]}
ECHO = {"test": [(i, i, 1) for i in range(20)]}
FULL = {"test": [(0, i, 1) for i in range(58)]}
SHARED = {"train": [(0, 1, 1)], "test": [(1, 1, 1)]}
UNJUDGED = {"test": [(i, i, i % 2) for i in range(10)]}
# (function, name) -> a planted fault, a clean case
CASES = {
    ("ready.sources_there", "sources"): (lambda s: recipe_of(s, s.home / "nowhere"), lambda s: recipe_of(s, s.tiny)),
    ("settings.splits", "splits"): (lambda s: settings.splits("train", None, "train"), lambda s: settings.splits("train", "dev", "test")),
    ("settings.warmup", "warmup"): (lambda s: settings.warmup(100, 95), lambda s: settings.warmup(100, 10)),
    ("settings.temperature", "temperature"): (lambda s: settings.temperature(1.0, 64), lambda s: settings.temperature(0.05, 64)),
    ("settings.few_negatives", "few-negatives"): (lambda s: settings.few_negatives(2, 0), lambda s: settings.few_negatives(8, 1)),
    ("settings.window", "negatives-window"): (lambda s: settings.window(60, 90, 1, 50), lambda s: settings.window(1, 50, 1, 5000)),
    ("settings.measure_depth", "measure-depth"): (lambda s: settings.measure_depth(100, 60), lambda s: settings.measure_depth(10, 60)),
    ("settings.ramp", "ramp"): (lambda s: settings.ramp((0.1, 0.1), 0.0), lambda s: settings.ramp((0.1, 0.1), 0.3)),
    ("settings.probes", "probes"): (lambda s: settings.probes("ivf", 10, 1), lambda s: settings.probes("ivf", 10, 5)),
    ("judgements.read_well", "reading"): (
        lambda s: judgements.read_well(s.store(["", *PLAIN])),
        lambda s: judgements.read_well(s.store(PLAIN))),
    ("texts.empty_texts", "empty-texts"): (
        lambda s: texts.empty_texts(s.store([""] * 5 + PLAIN)),
        lambda s: texts.empty_texts(s.store(PLAIN))),
    ("texts.repeated_texts", "repeated-texts"): (
        lambda s: texts.repeated_texts(s.store([*PLAIN, *(t.upper() for t in PLAIN)])), lambda s: texts.repeated_texts(s.store(PLAIN))),
    ("texts.broken_characters", "encoding"): (
        lambda s: texts.broken_characters(s.store([*PLAIN, "it’s café".encode().decode("cp1252")])),
        lambda s: texts.broken_characters(s.store([*PLAIN, "it’s a café, naïve Ångström, Ãozinho, 5 € × 3"]))),
    ("texts.vocabulary_fit", "language"): (lambda s: tokenizer_of(s, True), lambda s: tokenizer_of(s, False)),
    ("texts.echoes", "echo"): (
        lambda s: texts.echoes(s.store([f"Yes. Question number {i}? No." for i in range(40)], ECHO), "test"),
        lambda s: texts.echoes(s.store(PLAIN, ECHO), "test")),
    ("collection.only_judged", "only-judged"): (
        lambda s: collection.only_judged(s.store(PLAIN, FULL), "test"), lambda s: collection.only_judged(s.store(PLAIN, SPLITS), "test")),
    ("collection.leakage", "leakage"): (
        lambda s: collection.leakage(s.store(PLAIN, {"train": [(0, 1, 1)], "test": [(0, 2, 1)]}), "train", "test"),
        lambda s: collection.leakage(s.store(PLAIN, SPLITS), "train", "test")),
    ("collection.leakage", "shared-positives"): (
        lambda s: collection.leakage(s.store(PLAIN, SHARED), "train", "test"),
        lambda s: collection.leakage(s.store(PLAIN, SPLITS), "train", "test")),
    ("judgements.answered", "no-positive"): (
        lambda s: judgements.answered(s.store(PLAIN, UNJUDGED), "test"), lambda s: judgements.answered(s.store(PLAIN, SPLITS), "test")),
    ("judgements.absent", "absent"): (
        lambda s: judgements.absent(s.store(PLAIN, DEEP), "test"), lambda s: judgements.absent(s.store(PLAIN, SPLITS), "test")),
    ("collection.truncated", "truncation"): (
        lambda s: collection.truncated(lambda t: [9] * len(t), s.store(PLAIN), 8),
        lambda s: collection.truncated(lambda t: [8] * len(t), s.store(PLAIN), 8)),
    ("towers.pooling", "pooling"): (lambda s: towers.pooling("mean", "cls"), lambda s: towers.pooling("mean", "mean")),
    ("best_pooling.pooling_by_measure", "best-pooling"): (lambda s: measured(s, True), lambda s: measured(s, False)),
    ("towers.lengths", "prompt"): (lambda s: towers.lengths(tower("query: "), tower()), lambda s: towers.lengths(tower(), tower())),
    ("checkpoint.prompts", "prompts"): (
        lambda s: checkpoint.prompts(folder_saying(s, "p", prompts={"s2p_query": "Instruct: "}), "", ""),
        lambda s: checkpoint.prompts(folder_saying(s, "p", prompts={"query": "query: "}), "query: ", "")),
    ("towers.lengths", "length"): (lambda s: towers.lengths(tower(), tower(length=8)), lambda s: towers.lengths(tower(), tower())),
    ("checkpoint.similarity", "similarity"): (
        lambda s: checkpoint.similarity(folder_saying(s, "e", similarity_fn_name="euclidean"), unit=False),
        lambda s: checkpoint.similarity(folder_saying(s, "e", similarity_fn_name="euclidean"), unit=True)),
    ("towers.normalisation", "normalisation"): (
        lambda s: towers.normalisation(unit(9, 8), 3 * unit(9, 8)), lambda s: towers.normalisation(unit(9, 8), unit(9, 8))),
    ("vectors.finite", "finite"): (lambda s: vectors.finite(broken(s), "texts"), lambda s: vectors.finite(unit(30, 8), "texts")),
    ("vectors.there", "dead"): (
        lambda s: vectors.there(np.concatenate([unit(9, 8), rows(1, 8)]), "texts"), lambda s: vectors.there(unit(9, 8), "texts")),
    ("vectors.spread_out", "collapse"): (
        lambda s: vectors.spread_out(unit(1, 8) + 0.01 * unit(50, 8), "texts"), lambda s: vectors.spread_out(unit(50, 8), "texts")),
    ("vectors.of_unit_length", "normalisation"): (
        lambda s: vectors.of_unit_length(2 * unit(9, 8), "texts"), lambda s: vectors.of_unit_length(unit(9, 8), "texts")),
    ("files.read_manifest", "hashes"): (lambda s: hashed(s, True), lambda s: hashed(s, False)),
    ("sparse.health", "dead"): (lambda s: healthy([*HEALTHY[:20], *[{}] * 10]), lambda s: healthy()),
    ("sparse.health", "collapse"): (lambda s: healthy([HEALTHY[0]] * 30), lambda s: healthy()),
    ("sparse.health", "all-active"): (
        lambda s: healthy([{t: 1.0 + t + i for t in range(4, 40)} for i in range(30)]), lambda s: healthy()),
    ("sparse.health", "noise"): (lambda s: healthy([{**row, 1: 3.0} for row in HEALTHY]), lambda s: healthy()),
    ("sparse.health", "saturation"): (lambda s: healthy([{**row, 50: 0.1} for row in HEALTHY]), lambda s: healthy()),
    ("sparse.clean_top", "noise"): (lambda s: top(s, True), lambda s: top(s, False)),
    ("towers.aggregation", "aggregate"): (lambda s: towers.aggregation("max", "sum"), lambda s: towers.aggregation("max", "max")),
    ("belongs.same_vocabulary", "vocabulary"): (
        lambda s: belongs.same_vocabulary(s.home, ["a", "b"], ["b", "a"]), lambda s: belongs.same_vocabulary(s.home, ["a"], ["a"])),
    ("late.unit_length", "normalisation"): (
        lambda s: late.unit_length(MultiVector(tokens(9, 0, 9).start, 2 * tokens(9, 0, 9).vectors), "texts"),
        lambda s: late.unit_length(tokens(9, 0, 9), "texts")),
    ("late.alike", "collapse"): (lambda s: late.alike(collapsed_tokens(), "texts"), lambda s: late.alike(tokens(40, 1, 9), "texts")),
    ("late.alike", "dead"): (
        lambda s: late.alike(MultiVector.of([tokens(9, 1, 9).item(0), rows(0, 16)], 16), "texts"),
        lambda s: late.alike(tokens(40, 1, 9), "texts")),
    ("late.markers", "marker"): (lambda s: marked(s, True), lambda s: marked(s, False)),
    ("late.expansion", "expansion"): (lambda s: expanded(s, True), lambda s: expanded(s, False)),
    ("late.punctuation", "punctuation"): (lambda s: punctuated(s, True), lambda s: punctuated(s, False)),
    ("late.cut_queries", "query-truncation"): (
        lambda s: late.cut_queries(load_late(str(s.late()), LateOverrides(query_length=4)).query, s.store(PLAIN)),
        lambda s: late.cut_queries(load_late(str(s.late()), LateOverrides(query_length=32)).query, s.store(PLAIN, queries=["a b"]))),
    ("cross.one_label", "labels"): (lambda s: labels(s, 3), lambda s: labels(s, 1)),
    ("cross.spread", "collapse"): (lambda s: flat_cross(s, True), lambda s: flat_cross(s, False)),
    ("cross.related", "related"): (lambda s: related(-1), lambda s: related(1)),
    ("cross.cut_pairs", "truncation"): (
        lambda s: cross.cut_pairs(s.cross(), ["otter"] * 3, ["the otter " * 30] * 3),
        lambda s: cross.cut_pairs(s.cross(), ["otter"], ["otter"])),
    ("teacher.same_scale", "teacher-scale"): (
        lambda s: teacher.same_scale(taught(spread=0.01), taught(), margins=True),
        lambda s: teacher.same_scale(taught(spread=2), taught(), margins=True)),
    ("teacher.squeezed", "teacher-range"): (
        lambda s: teacher.squeezed(1 / (1 + np.exp(-taught()))), lambda s: teacher.squeezed(taught())),
    ("teacher.says_something", "teacher-constant"): (
        lambda s: teacher.says_something(np.ones((9, 4), np.float32)), lambda s: teacher.says_something(taught())),
    ("teacher.right_way_up", "teacher-order"): (lambda s: teacher.right_way_up(taught(False)), lambda s: teacher.right_way_up(taught())),
    ("teacher.stronger", "teacher-weaker"): (
        lambda s: teacher.stronger(taught(False), taught()),
        lambda s: teacher.stronger(taught(), taught())),
    ("teacher.covers", "teacher-covers"): (lambda s: teacher.covers(0, 40), lambda s: teacher.covers(40, 40)),
    ("training.frozen_batches", "frozen-batches"): (
        lambda s: training.frozen_batches(lambda e: epoch_batches(np.arange(64), 8, 0, 0)),
        lambda s: training.frozen_batches(lambda e: epoch_batches(np.arange(64), 8, 0, e))),
    ("negatives.false_negatives", "false-negatives"): (
        lambda s: negatives.false_negatives(np.array([[i, i] for i in range(20)]), pairs(s)),
        lambda s: negatives.false_negatives(np.array([[i, i + 1] for i in range(20)]), pairs(s))),
    ("negatives.for_all", "negatives-cover"): (
        lambda s: negatives.for_all(np.array([[30, 1]]), pairs(s)),
        lambda s: negatives.for_all(np.array([[i, i + 1] for i in range(20)]), pairs(s))),
    ("training.piled_up", "piled-up-gradients"): (lambda s: gradient(False), lambda s: gradient(True)),
    ("belongs.belongs", "index-model"): (
        lambda s: belongs.belongs(s.home, {"model": "a"}, model="b"), lambda s: belongs.belongs(s.home, {"model": "a"}, model="a")),
    ("belongs.belongs", "index-corpus"): (
        lambda s: belongs.belongs(s.home, {"corpus": "a"}, corpus="b"), lambda s: belongs.belongs(s.home, {"corpus": "a"}, corpus="a")),
    ("belongs.precision", "precision"): (
        lambda s: belongs.precision(s.home, {"precision": "bf16"}, "fp32"),
        lambda s: belongs.precision(s.home, {"precision": "fp32"}, "fp32")),
    ("index.unique_ids", "ids"): (lambda s: index.unique_ids(["a", "b", "a"], "x"), lambda s: index.unique_ids(["a", "b"], "x")),
    ("index.loses", "index-recall"): (lambda s: retrieval(s, True), lambda s: retrieval(s, False)),
    ("run.rank_order", "rank-order"): (lambda s: run.rank_order(trec(s, True)), lambda s: run.rank_order(trec(s, False))),
    ("run.upside_down", "upside-down"): (lambda s: run.upside_down(*ranked(8)), lambda s: run.upside_down(*ranked(1))),
    ("run.missing_queries", "missing-queries"): (
        lambda s: run.missing_queries({}, ranked()[1]), lambda s: run.missing_queries(*ranked())),
    ("run.strange_queries", "strange-queries"): (
        lambda s: run.strange_queries(ranked()[0], {"other": {"d": 1}}), lambda s: run.strange_queries(*ranked())),
    ("run.strange_documents", "strange-documents"): (
        lambda s: run.strange_documents(ranked()[0], lambda doc: doc != "d3"),
        lambda s: run.strange_documents(ranked()[0], lambda doc: True)),
    ("run.relevant_found", "nothing-relevant"): (lambda s: run.relevant_found(*ranked(77)), lambda s: run.relevant_found(*ranked())),
    ("run.tied", "ties"): (lambda s: run.tied(ranked(scores=1.0)[0]), lambda s: run.tied(ranked()[0])),
    ("run.shallow", "shallow"): (lambda s: run.shallow(ranked()[0], 100), lambda s: run.shallow(ranked()[0], 10)),
    ("run.finds_itself", "self-match"): (
        lambda s: run.finds_itself({"a": Ranking.of({"a": 2.0, "b": 1.0})}), lambda s: run.finds_itself(ranked()[0])),
    ("results.same_numbers", "results"): (
        lambda s: results.same_numbers({"x": {"nDCG@10": 0.5}}, {"x": {"nDCG@10": 0.4}}),
        lambda s: results.same_numbers({"x": {"nDCG@10": 0.5}}, {"x": {"nDCG@10": 0.5}})),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_it_finds_the_planted_fault_and_passes_the_clean_case(case, shop):
    planted, clean = CASES[case]
    found = planted(shop)
    assert [f for f in found if f.check == case[1] and f.level != "ok"], found
    odd = [f.line() for f in clean(shop) if f.level != "ok"]
    assert not odd
    assert all("\n" not in f.line() for f in found)


def test_every_check_of_the_catalogue_has_its_cases():
    listed = [(check.function, check.name) for check in CATALOGUE]
    assert len(set(listed)) == len(listed) and set(listed) == set(CASES)


def emitted(path):
    """(function, name) of each check that a file's public functions give; a name that is no constant is None."""
    found = set()
    for top in ast.parse(path.read_text(encoding="utf-8")).body:
        for node in ast.walk(top) if isinstance(top, ast.FunctionDef) else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Finding", "ok"):
                name = node.args[0 if node.func.id == "ok" else 1]
                found.add((f"{path.stem}.{top.name}", name.value if isinstance(name, ast.Constant) else None))
    return found


def test_the_catalogue_is_what_the_code_gives():
    given = {pair for path in (SOURCE / "checks").glob("*.py") if path.stem != "base" for pair in emitted(path)}
    listed = {(check.function, check.name) for check in CATALOGUE}
    assert given - listed == set(), "add them to checks/catalogue.py"
    assert {pair for pair in listed - given if pair[0].split(".")[0] not in ("ready", "files")} == set()
    names = {name for _, name in listed} | set(NOTES) | {None}
    elsewhere = {pair for path in (SOURCE / "app").rglob("*.py") for pair in emitted(path)}
    assert {name for _, name in elsewhere} - names == set(), "a check's name is to be in the catalogue"


def test_the_page_is_made_of_the_catalogue():
    spec = importlib.util.spec_from_file_location("checks_page", ROOT / "scripts" / "checks_page.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "checks.md").read_text(encoding="utf-8") == module.checks_markdown(), "run: make docs"
