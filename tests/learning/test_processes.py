"""`flatcoat train` under a launcher: two processes end where one does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

OPTIONS = (
    "--cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 "
    "--num_cpu_threads_per_process 1"
)
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", *OPTIONS.split()]


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


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_two_processes_train_the_model_of_one(tiny, tiny_mlm, toy, tmp_path, kind):
    recipe = tmp_path / "toy.toml"
    start = tiny if kind == "dense" else tiny_mlm
    recipe.write_text(f"""
[collection]
source = "{toy}"
[model]
start = "{start}"
dropout = 0.0
{SPARSE.format(tiny=tiny) if kind == "sparse" else ""}
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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    for launcher, name in (([sys.executable], "one"), (LAUNCHER, "two")):
        words = [*launcher, "-m", "flatcoat", "train", str(recipe), "--out", str(tmp_path / name)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    start = load_file(start / "model.safetensors")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-5, rtol=1e-3)
    assert any(not torch.equal(one[name], start[name]) for name in one)
