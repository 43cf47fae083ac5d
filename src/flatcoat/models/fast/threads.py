"""Threads that compute on one core each, beside others that do not."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


SMALL = 1 << 16  # numbers that are not worth a second thread


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def in_parts(count: int, work: Callable[[int, int], object]) -> None:
    """Call `work(first, last)` for stretches of 0 … count, one a thread of torch's. `work` must hold no lock."""
    threads = min(torch.get_num_threads(), count // SMALL)
    if threads < 2:
        work(0, count)
        return
    ends = [count * i // threads for i in range(threads + 1)]
    for _ in _pool(os.getpid(), threads).map(work, ends[:-1], ends[1:]):
        pass
