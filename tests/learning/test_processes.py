"""`flatcoat train` under a launcher: two processes end where one does."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from safetensors.torch import load_file

OPTIONS = (
    "--cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 "
    "--num_cpu_threads_per_process 1"
)
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", *OPTIONS.split()]


def test_two_processes_train_the_model_of_one(tiny, toy, tmp_path):
    recipe = tmp_path / "toy.toml"
    recipe.write_text(f"""
[collection]
source = "{toy}"
[model]
start = "{tiny}"
dropout = 0.0
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
    start = load_file(tiny / "model.safetensors")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-5, rtol=1e-3)
    assert any(not torch.equal(one[name], start[name]) for name in one)
