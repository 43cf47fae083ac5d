"""Every check of the catalogue finds its planted fault and passes a clean case; the catalogue is what the code gives, and the page is
made of it.
"""

from __future__ import annotations

import ast
import importlib.util

import numpy as np
import pytest
from planted import (
    DEEP,
    ECHO,
    FULL,
    HEALTHY,
    PLAIN,
    ROOT,
    SHARED,
    SOURCE,
    SPLITS,
    UNJUDGED,
    Shop,
    broken,
    collapsed_tokens,
    expanded,
    flat_cross,
    folder_saying,
    gradient,
    hashed,
    healthy,
    labels,
    marked,
    measured,
    pairs,
    punctuated,
    ranked,
    recipe_of,
    related,
    retrieval,
    rows,
    taught,
    tokenizer_of,
    top,
    tower,
    trec,
)

from flatcoat.checks import (
    belongs,
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
    teacher,
    texts,
    towers,
    training,
    vectors,
)
from flatcoat.checks.catalogue import CATALOGUE, NOTES
from flatcoat.data.pairs import epoch_batches
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late
from flatcoat.records import Ranking
from flatcoat.representations import MultiVector
from flatcoat.testing.index import unit
from flatcoat.testing.multi_index import tokens


@pytest.fixture(scope="module")
def shop(tiny, tiny_mlm, tmp_path_factory):
    return Shop(tiny, tiny_mlm, tmp_path_factory.mktemp("catalogue"))


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
        lambda s: healthy([{t: 1.0 + t + i for t in range(4, 150)} for i in range(30)], 300),
        lambda s: healthy([{4 + (i * 7 + j) % 60: 1.0 + j for j in range(36)} for i in range(30)])),
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
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        for node in ast.walk(statement) if isinstance(statement, ast.FunctionDef) else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Finding", "ok"):
                name = node.args[0 if node.func.id == "ok" else 1]
                found.add((f"{path.stem}.{statement.name}", name.value if isinstance(name, ast.Constant) else None))
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
