"""Threads that compute on one core each, beside others that do not."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch


@cache
def _openmp() -> list[Any]:
    """The OpenMP runtimes of this process."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp").lib_controllers


def alone() -> None:
    """Let the calling thread compute by itself from now on.

    `torch.set_num_threads` would also set MKL's count, which is the process's: a product that another thread computes
    meanwhile would be cut otherwise, and rounded otherwise. OpenMP keeps a count a thread.
    """
    torch.get_num_threads()  # a thread's first look sets its count; ours comes behind it
    for runtime in _openmp():
        runtime.set_num_threads(1)
