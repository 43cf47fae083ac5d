"""Post-training learns, moves the tower it is given, resumes to the same bits, and several processes end where one does."""

from __future__ import annotations

import json

import pytest
import torch
from launching import launch
from safetensors.torch import load_file
from test_training import killed_and_resumed

from flatcoat.data.toy import toy_sentences
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.splade_checkpoint import load_splade
from flatcoat.training.pretrain import PostTraining, PretrainSettings, post_train
from flatcoat.training.state import weights_of

TEXTS = [text for _, query, document in toy_sentences() for text in (query, document)]
BASE = {"batch": 16, "rate": 3e-3, "warmup": 5}
CASES = [("dense", "mlm"), ("dense", "retromae"), ("sparse", "mlm"), ("sparse", "retromae")]


@pytest.fixture
def tower_of(tiny, tiny_mlm):
    return lambda kind: load_dense(str(tiny)).document if kind == "dense" else load_splade(str(tiny_mlm)).document


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_the_loss_on_texts_held_out_falls(tower_of, tmp_path, kind, task):
    tower = tower_of(kind)
    before = {name: value.clone() for name, value in weights_of(tower.backbone).items()}
    names = set(dict(tower.named_parameters()))
    settings = PretrainSettings(task=task, steps=120, **BASE)
    found = post_train(tower, TEXTS, settings, tmp_path, runtime=Runtime(batch_tokens=512))
    assert found["held_out"] == 8
    assert found["loss_after"] < 0.7 * found["loss_before"] and found["accuracy_after"] > found["accuracy_before"] + 0.2
    if task == "retromae":
        for part in ("encoder", "decoder"):
            assert found[f"loss/{part}_after"] < 0.8 * found[f"loss/{part}_before"]
    moved = [n for n, value in weights_of(tower.backbone).items() if not torch.equal(before[n], value)]
    assert any("embeddings" in name for name in moved) and any("attention" in name for name in moved)
    assert set(dict(tower.named_parameters())) == names and not tower.backbone.training
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 121))
    assert {"loss", "accuracy", "rate", "gradient_norm", "seconds"} <= set(lines[0])


def test_the_decoder_learns_from_the_text_s_vector(tower_of, tmp_path):
    """Where a position sees no other token, all that the decoder can know is what the vector carries."""
    settings = PretrainSettings(task="retromae", steps=250, decoder_mask=1.0, mask=0.05, **BASE)
    run = PostTraining(tower_of("dense"), TEXTS, settings, tmp_path, runtime=Runtime(batch_tokens=512))
    run.run()
    told = run.judge()["loss/decoder"]
    pool = run.model.pool
    assert pool is not None
    run.model.pool = lambda states, head, mask: pool(states, head, mask).roll(1, 0)  # another text's
    assert told < run.judge()["loss/decoder"] - 0.5


@pytest.mark.parametrize(("kind", "task", "at"), [("dense", "mlm", 1), ("dense", "retromae", 9), ("sparse", "mlm", 4)])
def test_a_killed_run_ends_as_one_that_was_not(tower_of, tmp_path, kind, task, at):
    def make(name, **more):
        settings = PretrainSettings(task=task, steps=12, **BASE, **more)
        return PostTraining(tower_of(kind), TEXTS, settings, tmp_path / name, runtime=Runtime(batch_tokens=128))

    whole, again, said, resumed = killed_and_resumed(make, at)
    assert resumed == said
    for name, value in weights_of(whole.model).items():
        assert torch.equal(weights_of(again.model)[name], value), name
    cut, uncut = (
        [json.loads(line) for line in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("cut", "whole")
    )
    for line in (*cut, *uncut):
        line.pop("seconds")
    assert cut == uncut


def test_bf16_learns_too(tower_of, tmp_path):
    settings = PretrainSettings(task="retromae", steps=80, **BASE)
    found = post_train(
        tower_of("dense"), TEXTS, settings, tmp_path, runtime=Runtime(precision="bf16", batch_tokens=512)
    )
    assert found["loss_after"] < 0.8 * found["loss_before"]


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from flatcoat.app.build import set_dropout
from flatcoat.models.checkpoint import load_dense
from flatcoat.training.pretrain import PretrainSettings, post_train
from flatcoat.training.processes import join_processes

torch.set_num_threads(1)
out, tower = Path(sys.argv[2]), load_dense(sys.argv[1]).document
set_dropout(tower, 0.0)
settings = PretrainSettings(task="retromae", steps=6, batch=8, rate=1e-3, warmup=2, weight_decay=0.5)
processes = join_processes()
found = post_train(tower, json.loads(sys.argv[3]), settings, out, processes=processes)
save_file(tower.backbone.state_dict(), out / f"{processes.rank}.safetensors")
(out / f"{processes.rank}.json").write_text(json.dumps(found))
"""


def test_two_processes_end_where_one_does(tiny, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    for world, name in ((1, "one"), (2, "two")):
        launch(world, [str(tmp_path / "script.py"), str(tiny), str(tmp_path / name), json.dumps(TEXTS)], tmp_path)
    one, two, peer = (
        load_file(tmp_path / name) for name in ("one/0.safetensors", "two/0.safetensors", "two/1.safetensors")
    )
    start = load_file(tiny / "model.safetensors")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-5, rtol=1e-3)
        assert torch.equal(two[name], peer[name]), name
        assert torch.equal(one[name], start[name]) == ("pooler" in name), name  # what nothing asks does not decay
    said = [json.loads((tmp_path / name).read_text()) for name in ("one/0.json", "two/0.json", "two/1.json")]
    assert said[0] == pytest.approx(said[1], rel=1e-4) and said[1] == said[2]
    logs = [
        [json.loads(line) for line in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("one", "two")
    ]
    for a, b in zip(*logs, strict=True):
        assert [a[key] for key in ("loss", "accuracy")] == pytest.approx(
            [b[key] for key in ("loss", "accuracy")], rel=1e-4
        )
