"""Every example runs, on toy data, and is short. Those of Haystack, LangChain and mteb run beside their components' tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flatcoat.data.collection import open_collection
from flatcoat.data.trec import write_run
from flatcoat.models.checkpoint import load_dense
from flatcoat.records import Ranking
from flatcoat.testing.sampler import DOCUMENTS, SamplerContract

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "examples").glob("*.py"))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_by_a_test_and_fits_a_screen():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for path in FILES:
        assert f'example("{path.stem}")' in tests or f'"{path.name}"' in tests, f"{path.name} is run by no test"
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 60, path.name
        assert f"examples/{path.name}" in text.split('"""')[1], f"{path.name} does not say how it is started"


def test_a_dense_model_learns(tiny, toy, tmp_path):
    script = example("train_dense")
    before, after = script.main(str(tiny), str(toy), tmp_path, steps=60)
    assert before.keys() == after.keys() and before != after
    collection = open_collection(str(tmp_path / "store"))
    learnt, fresh = (script.measured(load_dense(str(path)), collection, "train") for path in (tmp_path / "model", tiny))
    assert learnt["RR@10"] > fresh["RR@10"] + 0.05


class TestNeighbours(SamplerContract):
    def build(self):
        return example("custom_sampler").Neighbours(DOCUMENTS, reach=3)


def test_neighbours_are_near_and_their_probability_is_said():
    sampler = example("custom_sampler").Neighbours(100, reach=2)
    positives = np.array([0, 50, 99])
    drawn = sampler.draw(np.arange(3), positives, 2000, np.random.default_rng(0))
    assert [sorted(set(rows)) for rows in drawn.rows.tolist()] == [
        [0, 1, 2, 3, 4],
        [48, 49, 50, 51, 52],
        [95, 96, 97, 98, 99],
    ]
    assert np.exp(drawn.log_q) == pytest.approx(0.2)


def test_training_with_a_sampler_of_ones_own(tiny, toy, tmp_path):
    assert example("custom_sampler").main(str(tiny), str(toy), tmp_path, steps=3).step == 3


def test_two_runs_are_compared(tmp_path):
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(40)))
    good = {f"q{i}": Ranking((f"d{i}", "x"), np.array([2.0, 1.0])) for i in range(40)}
    bad = {f"q{i}": Ranking(("x", f"d{i}"), np.array([2.0, 1.0])) for i in range(40)}
    for name, run in (("good", good), ("bad", bad)):
        write_run(tmp_path / name, run)
    script = example("compare_runs")
    (ndcg, p), (rr, _) = script.main(qrels, tmp_path / "bad", tmp_path / "good")
    assert p < 0.05 and rr.difference == pytest.approx(0.5) and ndcg.measure == "nDCG@10"
    ((same, p),) = script.main(qrels, tmp_path / "bad", tmp_path / "bad", "RR@10")
    assert same.difference == 0 and p == 1


def test_indexes_are_held_against_exact_search():
    script = example("index_against_exact")
    rows = {kind: (built, enough) for kind, built, enough in script.main(*script.clustered(2000, 16, 50))}
    assert rows["scan"][0].recall[10] > 0.99
    assert rows["ivf"][0].recall[10] < 0.9 < 0.99 <= rows["ivf"][1].recall[10]
