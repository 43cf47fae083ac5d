"""`flatcoat train` under a launcher: two processes end where one does."""

from __future__ import annotations

import json

import pytest
import torch
from commands import call
from launching import launch
from safetensors.torch import load_file

SPARSE = """
kind = "sparse"
[sparsity]
document = "df-flops"
document_weight = 0.01
query = "l0-flops"
query_weight = 0.01
threshold = 5
ramp = 0.2
anti_collapse = 0.1
[teacher]
model = "{tiny}"
scale = 20.0
[loss]
kl = 1.0
margin_mse = 0.05
"""


ALLOWED = ("--allow", "teacher-scale")  # a random teacher's scores are of another spread


CASCADE = """
[cascade]
late = true
late_dim = 8
cross = "{tiny}"
in_batch = 1
[terms]
nll.cross = 1.0
nll.late = 1.0
nll.dual = 1.0
kl.cross.late = 1.0
kl.late.dual = {{ weight = 1.0, ramp = 0.5 }}
att.cross.late = 1.0
"""


@pytest.mark.parametrize("kind", ["dense", "sparse", "cascade"])
def test_two_processes_train_the_model_of_one(tiny, tiny_mlm, toy, tmp_path, kind):
    recipe = tmp_path / "toy.toml"
    start = tiny_mlm if kind == "sparse" else tiny
    also = {"sparse": SPARSE, "cascade": CASCADE, "dense": ""}[kind].format(tiny=tiny)
    recipe.write_text(f"""
[collection]
source = "{toy}"
[model]
start = "{start}"
dropout = 0.0
{also}
[training]
steps = 6
batch = 8
rate = 1e-3
warmup = 2
clip = 1.0
[negatives]
kind = "periodic"
last = 8
every = 4
""")
    assert call("train", recipe, "--out", tmp_path / "one", *ALLOWED) == 0
    said = launch(2, ["-m", "flatcoat", "train", str(recipe), "--out", str(tmp_path / "two"), *ALLOWED], tmp_path)
    assert all(f"process {rank} of 2" in words for rank, words in enumerate(said))
    for part in ("", "-late/1_Dense", "-cross") if kind == "cascade" else ("",):
        one, two = (load_file(tmp_path / f"{name}{part}" / "model.safetensors") for name in ("one", "two"))
        for name in one:
            if name.endswith(("key.bias", "classifier.bias")):
                continue  # a softmax does not see them: their gradients are rounding, which Adam blows up to full steps
            torch.testing.assert_close(one[name], two[name], atol=2e-5, rtol=1e-3)
    logs = [
        [json.loads(line) for line in (tmp_path / f"{name}.training" / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for one, two in zip(*logs, strict=True):
        for name in [key for key in one if key.startswith("loss")]:
            assert two[name] == pytest.approx(one[name], rel=2e-4, abs=2e-5), name
    one = load_file(tmp_path / "one" / "model.safetensors")
    start = load_file(start / "model.safetensors")
    assert any(not torch.equal(one[name], start[name]) for name in one)
