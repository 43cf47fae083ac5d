"""Training learns, resumes to the same bits from any step, and says clearly when it cannot."""

from __future__ import annotations

import json

import pytest
import torch

from flatcoat.app.build import ModelEncode
from flatcoat.app.samplers import positives_by_query
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import load_pairs
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.mine import MineSettings
from flatcoat.mining.periodic import Periodic
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense
from flatcoat.objectives.contrastive import nll
from flatcoat.records import silent
from flatcoat.training.loop import LoopSettings, Training
from flatcoat.training.state import weights_of
from flatcoat.training.student import DenseStudent

BASE = {"steps": 12, "batch": 8, "rate": 2e-3, "warmup": 6, "negatives": 2}


@pytest.fixture(scope="module")
def pairs(toy, tmp_path_factory):
    return load_pairs(build_store(str(toy), tmp_path_factory.mktemp("store") / "s"), "train")


def training(tiny, pairs, folder, evaluate=None, **changes) -> Training:
    model = load_dense(str(tiny))
    model.runtime = Runtime(batch_tokens=256)
    rows, positives = positives_by_query(pairs)
    documents = len(pairs.collection.documents)
    sampler = Periodic(rows, positives, documents, MineSettings(1, 8), every=5, keys=pairs.keys)
    encode = ModelEncode(model, model.runtime, pairs.collection, silent)
    settings = LoopSettings(**{**BASE, **changes})
    student = DenseStudent(model)
    return Training(
        student, pairs, [nll("dual", 0.1)], settings, folder, sampler=sampler, encode=encode, evaluate=evaluate
    )


def bits(run: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in weights_of(run.student.module).items()}


class Killed(Exception):
    pass


# in mid-warm-up, at a refresh of the negatives, between refreshes in another epoch, before the last step
@pytest.mark.parametrize(
    ("at", "how"), [(1, {}), (5, {}), (7, {}), (11, {}), (3, {"cached": True}), (7, {"accumulate": 2})]
)
def test_a_killed_run_resumes_to_the_same_bits(tiny, pairs, tmp_path, at, how):
    same_when_killed(lambda name, **more: training(tiny, pairs, tmp_path / name, **how, **more), tmp_path, at,
                     ("step", "loss", "gradient_norm", "rate", "negatives"))  # fmt: skip


def killed_and_resumed(make, at: int):
    """A run of `make("whole")`, one of `make("cut")` that was killed before step `at` and resumed, and what each of them gave."""
    whole = make("whole")
    said = whole.run()
    killed = make("cut", save_every=at)
    step, count = killed.one_step, iter(range(100))

    def die():
        if next(count) == at:
            raise Killed
        return step()

    killed.one_step = die
    with pytest.raises(Killed):
        killed.run()
    torch.rand(3)  # who resumes has drawn other numbers meanwhile
    again = make("cut", save_every=at)
    return whole, again, said, again.run(resume=True)


def same_when_killed(make, folder, at: int, keys) -> None:
    """A run of `make(name)` that is killed before step `at` and resumed ends with the weights and log of one that was not."""
    whole, again, *_ = killed_and_resumed(make, at)
    for name, value in bits(whole).items():
        assert torch.equal(bits(again)[name], value), name
    logs = [
        [json.loads(line) for line in (folder / n / "log.jsonl").read_text().splitlines()] for n in ("cut", "whole")
    ]
    for key in keys:
        assert [line[key] for line in logs[0]] == [line[key] for line in logs[1]], key


def test_it_overfits(tiny, pairs, tmp_path):
    run = training(tiny, pairs, tmp_path, steps=80, negatives=1)
    run.run()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-5:]) / 5 < 0.2 * losses[0]


def test_best_checkpoint_and_patience(tiny, pairs, tmp_path):
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    run = training(tiny, pairs, tmp_path, evaluate=lambda: next(values), evaluate_every=2, patience=2, steps=40)
    run.run()
    assert run.best == 0.5 and run.best_step == 4 and run.step == 8
    assert (tmp_path / "best" / "weights.safetensors").is_file()


def test_evaluating_does_not_change_training(tiny, pairs, tmp_path):
    plain = training(tiny, pairs, tmp_path / "a")
    plain.run()
    watched = training(tiny, pairs, tmp_path / "b", evaluate=lambda: float(torch.rand(1)), evaluate_every=1)
    watched.run()
    for name, value in bits(plain).items():
        assert torch.equal(bits(watched)[name], value)


def test_a_loss_that_is_not_a_number_stops_and_names_the_step(tiny, pairs, tmp_path):
    run = training(tiny, pairs, tmp_path, rate=1e30, steps=6)
    with pytest.raises(FlatcoatError, match=r"became (nan|inf) at step \d; lower training.rate"):
        run.run()


def test_a_damaged_checkpoint_is_refused(tiny, pairs, tmp_path):
    run = training(tiny, pairs, tmp_path, steps=4, save_every=2)
    run.run()
    weights = tmp_path / "checkpoints" / "step-00000002" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(FlatcoatError, match="sha256"):
        training(tiny, pairs, tmp_path, steps=4).run(resume=True)


def test_a_checkpoint_of_another_seed_is_refused(tiny, pairs, tmp_path):
    training(tiny, pairs, tmp_path, steps=4, save_every=2).run()
    with pytest.raises(FlatcoatError, match="seed=0, now seed=1"):
        training(tiny, pairs, tmp_path, steps=4, seed=1).run(resume=True)


def test_bf16_learns_too(tiny, pairs, tmp_path):
    run = training(tiny, pairs, tmp_path, steps=60, negatives=0)
    run.student.model.runtime = run.student.runtime = Runtime(precision="bf16")
    run.run()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.6 * losses[0]


def test_negatives_without_a_kind_are_refused(tiny, pairs, tmp_path):
    model = load_dense(str(tiny))
    with pytest.raises(Misuse, match="no kind of negatives"):
        Training(DenseStudent(model), pairs, [nll("dual", 0.1)], LoopSettings(**BASE), tmp_path)
