"""The GPU's way there, against the CPU's: the torch form always, the Triton kernel by its interpreter, a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from flatcoat.models.streamed_head import plain_head, streamed_head, winners
from flatcoat.models.streamed_head_cuda import by_slices

INTERPRETED = """
import torch
from flatcoat.models.streamed_head_cuda import by_kernel, by_slices, compiled
for seed, (b, t, d, v) in enumerate([(2, 7, 16, 300), (1, 130, 96, 129), (3, 64, 64, 128)]):
    rng = torch.Generator().manual_seed(seed)
    states, weight = torch.randn(b, t, d, generator=rng), torch.randn(v, d, generator=rng) / d**0.5
    bias = torch.randn(v, generator=rng) - 1
    ours, plain = by_kernel(compiled(), states, weight, bias), by_slices(states, weight, bias)
    torch.testing.assert_close(ours[0], plain[0], atol=1e-5, rtol=1e-5)
    won = plain[0] > 1e-3
    assert (ours[1][won] == plain[1][won]).all() and won.any()
"""


def case(device="cpu"):
    rng = torch.Generator().manual_seed(0)
    states, weight = torch.randn(3, 9, 16, generator=rng), torch.randn(5000, 16, generator=rng) / 4
    return states.to(device), weight.to(device), (torch.randn(5000, generator=rng) - 1).to(device)


def test_the_torch_form_is_the_cpus_answer():
    ours, there = by_slices(*case()), winners(*case())
    torch.testing.assert_close(ours[0], there[0], atol=1e-5, rtol=1e-5)
    assert (ours[1] == there[1])[there[0] > 1e-3].all()


def test_the_kernel_in_its_interpreter():
    pytest.importorskip("triton", reason="Triton comes with CUDA builds of torch")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_cpus_values_and_gradients():
    found = []
    for device, head in (("cpu", plain_head), ("cuda", streamed_head)):
        given = [x.requires_grad_() for x in case(device)]
        out = head(given[0], None, given[1], given[2])
        out.sum().backward()
        found.append([out.detach().cpu(), *(x.grad.cpu() for x in given)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
