"""Every kind of negatives in the loop: it trains, a killed run resumes to the same bits, and the corrected loss is what it estimates."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_training import BASE, same_when_killed

from flatcoat.app.build import ModelEncode
from flatcoat.app.cli import app
from flatcoat.app.negative_tables import NegativesTable
from flatcoat.app.recipe import load_recipe
from flatcoat.app.samplers import drawing, positives_by_query
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import load_pairs
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense
from flatcoat.objectives.contrastive import corrected, nll, nll_corrected
from flatcoat.records import silent
from flatcoat.training.loop import LoopSettings, Training
from flatcoat.training.processes import Processes
from flatcoat.training.step import gradient
from flatcoat.training.student import Batch, DenseStudent

SMALL = {"landmarks": 8, "sample": 20, "clusters": 6, "trees": 2}
KINDS = {
    "stochastic": {"kind": "stochastic", "size": 10, "every": 3},
    "cache": {"kind": "cache", "size": 12, "renew": 3, "replace": "lru"},
    "exhaustive": {"kind": "exhaustive", "every": 4, "choose": "top", "pool": 5},
    "dynnibal": {"kind": "dynnibal", "every": 4, "dynnibal": SMALL},
    "dynnibal late": {
        "kind": "dynnibal",
        "every": 4,
        "dynnibal": {**SMALL, "lag": 3, "follow": "repair", "corrector": "network"},
    },
    "dynnibal warm": {
        "kind": "dynnibal",
        "every": 3,
        "warmup": 4,
        "dynnibal": {**SMALL, "method": "best", "follow": "rebuild"},
    },
}


@pytest.fixture(scope="module")
def pairs(toy, tmp_path_factory):
    return load_pairs(build_store(str(toy), tmp_path_factory.mktemp("store") / "s"), "train")


def training(tiny, pairs, folder, table, correct=False, **changes):
    model = load_dense(str(tiny))
    model.runtime = Runtime(batch_tokens=256)
    encode = ModelEncode(model, model.runtime, pairs.collection, silent)
    rows, positives = positives_by_query(pairs)
    sampler = drawing(
        NegativesTable(**table),
        len(pairs.collection.documents),
        encode,
        10.0,
        0,
        lambda q: positives[np.searchsorted(rows, q)],
        print,
    )
    settings = LoopSettings(**{**BASE, **changes})
    term = nll_corrected("dual", 0.1) if correct else nll("dual", 0.1)
    return Training(DenseStudent(model), pairs, [term], settings, folder, sampler=sampler, encode=encode)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("at", [2, 6])
def test_a_killed_run_resumes_to_the_same_bits(tiny, pairs, tmp_path, kind, at):
    keys = ("step", "loss", "gradient_norm")
    same_when_killed(
        lambda name, **more: training(tiny, pairs, tmp_path / name, KINDS[kind], **more), tmp_path, at, keys
    )


def test_the_log_tells_of_the_draws(tiny, pairs, tmp_path, capsys):
    training(tiny, pairs, tmp_path, KINDS["dynnibal"]).run()
    assert "step 4: draws within 1 of the softmax (total variation)" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["negatives/stale"] for line in lines[:6]] == [0, 1, 2, 3, 0, 1]
    assert all(0 <= line["negatives/accepted"] <= 1 for line in lines)
    assert "negatives/of_best" in lines[4] and "seconds_before" in lines[0]


def test_corrected_training_learns(tiny, pairs, tmp_path):
    run = training(tiny, pairs, tmp_path, KINDS["dynnibal"], correct=True, steps=60, negatives=6)
    run.run()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_corrected_is_its_formula_and_nears_the_full_softmax():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(50)
    scores = torch.from_numpy(values)[None]
    target, tau, n = torch.tensor([3]), 0.5, 200_000
    full = -(scores[0, 3] / tau - torch.logsumexp(scores[0] / tau, 0))
    q = rng.random(50) + 0.1
    q[3] = 0
    q /= q.sum()
    own = torch.from_numpy(rng.choice(50, (1, n), p=q))
    log_q = torch.from_numpy(np.log(q[own.numpy()]))
    found = corrected(scores, target, own, log_q, tau)
    positive, drawn = np.exp(values[3] / tau), own[0].numpy()
    by_hand = -np.log(positive / (positive + np.mean(np.exp(values[drawn] / tau) / q[drawn])))
    assert found.item() == pytest.approx(float(by_hand), rel=1e-9)
    assert found.item() == pytest.approx(full.item(), abs=0.01)
    with pytest.raises(ValueError, match="temperature"):
        corrected(scores, target, own, log_q, 0.0)


def test_corrected_gradients_against_finite_differences():
    torch.manual_seed(0)
    scores = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    own = torch.tensor([[3, 4], [5, 5], [7, 8]])
    log_q = torch.log(torch.rand(3, 2, dtype=torch.float64))
    log_q[0, 1] = float("inf")  # one that answers the query
    assert torch.autograd.gradcheck(lambda s: corrected(s, torch.tensor([0, 1, 2]), own, log_q, 0.3), (scores,))
    scores.grad = None
    corrected(scores, torch.tensor([0, 1, 2]), own, log_q, 0.3).backward()
    assert scores.grad is not None and scores.grad[0, 4] == 0 and torch.isfinite(scores.grad).all()


def test_the_step_engine_finds_each_querys_own_draws(tiny):
    """Against the formula over each query's own columns; a known positive among the draws counts for nothing, a repeat twice."""
    model = load_dense(str(tiny))
    student = DenseStudent(model)
    texts = ["a cat", "a dog", "red car", "blue car", "a cat", "red car"]
    keys = np.array([1, 2, 3, 4, 1, 3])
    log_q = np.log(np.array([[0.1, 0.2], [0.3, 0.4]], np.float32))
    batch = Batch(["cat", "dog"], texts, keys, np.array([[1, -1], [2, 4]]), None, log_q)
    outcome = gradient(student, batch, [nll_corrected("dual", 0.2)], 0, processes=Processes())
    scores = outcome.evidence.scores["dual"].detach().double().numpy() / 0.2
    # query 0 drew documents 2 and 3; query 1 drew 4 and 5; keys 2 and 4 answer query 1
    one = np.exp(scores[0, 0]) / (np.exp(scores[0, 0]) + (np.exp(scores[0, 2]) / 0.1 + np.exp(scores[0, 3]) / 0.2) / 2)
    two = np.exp(scores[1, 1]) / (np.exp(scores[1, 1]) + (np.exp(scores[1, 4]) / 0.3 + np.exp(scores[1, 5]) / 0.4) / 2)
    assert outcome.loss == pytest.approx(-(np.log(one) + np.log(two)) / 2, rel=1e-5)


def test_recipes_that_cannot_be_meant(tmp_path, toy):
    path = tmp_path / "r.toml"
    base = f'[collection]\nsource = "{toy}"\n[model]\nstart = "m"\n'
    wrong = {
        '[negatives]\nkind = "cache"\n': "wants size",
        '[negatives]\nkind = "bm25"\nwarmup = 3\n': "warmup is of",
        '[negatives]\nkind = "uniform"\n[negatives.dynnibal]\nsample = 20\n': "there is a table negatives.dynnibal",
        '[loss]\ncorrected = true\n[negatives]\nkind = "bm25"\n': "loss.corrected wants draws",
        '[loss]\ncorrected = true\n[negatives]\nkind = "dynnibal"\n[negatives.dynnibal]\nmethod = "best"\n': "loss.corrected wants draws",
        '[negatives]\nkind = "dynibal"\n': "dynnibal",
    }
    for text, said in wrong.items():
        path.write_text(base + text)
        with pytest.raises(Exception, match=said):
            load_recipe(path)


@pytest.mark.parametrize(
    ("kind", "model"),
    [(k, m) for k in ("stochastic", "dynnibal") for m in ("dense", "sparse", "late")] + [("simans", "dense")],
)
def test_train_with_a_kind_and_a_model(kind, model, request, toy, tmp_path):
    from typer.testing import CliRunner

    folder = request.getfixturevalue("tiny_mlm" if model == "sparse" else "tiny")
    said = {"simans": "every = 2\nlast = 5", "stochastic": "size = 8", "dynnibal": "every = 2"}[kind]
    more = "[negatives.dynnibal]\nsample = 20\nlandmarks = 8\n" if kind == "dynnibal" else ""
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'[collection]\nsource = "{toy}"\n[model]\nkind = "{model}"\nstart = "{folder}"\n[training]\nsteps = 4\nbatch = 4\nwarmup = 1\n'
        f'[negatives]\nkind = "{kind}"\nper_query = 2\n{said}\n{more}'
    )
    done = CliRunner().invoke(app, ["train", str(path), "--out", str(tmp_path / "m"), "--quiet", "--allow", "leakage"])
    assert done.exit_code == 0, done.output + str(done.exception)


@pytest.mark.parametrize("kind", ["stochastic", "exhaustive", "dynnibal"])
def test_mine_draws_with_the_same_samplers(tiny, toy, tmp_path, kind):
    from typer.testing import CliRunner

    out = tmp_path / "n.jsonl"
    words = ["mine", str(tiny), str(toy), "--kind", kind, "--per-query", "5", "--out", str(out), "--quiet"]
    words += {
        "stochastic": ["--set", "size=9"],
        "dynnibal": ["--set", "dynnibal.sample=20", "--set", "dynnibal.landmarks=8"],
    }.get(kind, [])
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output + str(done.exception)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 40
    for line in lines:
        assert len(line["negatives"]) == len(line["log_q"]) <= 5 and all(value <= 0 for value in line["log_q"])
        assert line["query_id"].replace("q-", "d-") not in line["negatives"]
