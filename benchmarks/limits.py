"""What could this machine do at most?  Matrix products in fp32, bf16 and int8, and reading memory, by thread count.

    python benchmarks/limits.py [--rounds 5]

The products are those of a layer of MiniLM (1,024 tokens, 384 → 1,536 and back) and a square one of 2,048; fp32 by MKL, as
torch does it, and by oneDNN. The best of each is the limit that other benchmarks give shares of.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from common import alternate, medians, write_table

SHAPES = ((1024, 384, 1536), (1024, 1536, 384), (2048, 2048, 2048))


def rate(work: Callable[[], Any], amount: float, times: int = 15) -> float:
    """Amount a second, in billions, in the median of some runs."""
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return amount / sorted(found)[times // 2] / 1e9


def limits(threads: int) -> dict[str, float]:
    """Billions of operations (bytes, for reads) a second of this process."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    best: dict[str, float] = {}
    for tokens, width, out in SHAPES:
        x, w, b = torch.randn(tokens, width), torch.randn(out, width), torch.randn(out)
        low = [t.bfloat16() for t in (x, w, b)]
        qx, qw = (torch.randint(-127, 127, t.shape, dtype=torch.int8) for t in (x, w))
        work = {
            "fp32, MKL": lambda x=x, w=w, b=b: F.linear(x, w, b),
            "fp32, oneDNN": lambda x=x, w=w, b=b: torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], ""),
            "bf16": lambda low=low: F.linear(*low),
            "int8": lambda qx=qx, qw=qw: torch._int_mm(qx, qw.t()),
        }
        for name, one in work.items():
            best[name] = max(best.get(name, 0.0), rate(one, 2.0 * tokens * width * out))
    memory = torch.ones(1 << 27)
    best["reads, GB/s"] = rate(lambda: memory.sum(), 4.0 * len(memory))
    best["fp32"] = max(best["fp32, MKL"], best["fp32, oneDNN"])
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(limits(int(args.one))))
        return
    import torch

    names = [str(n) for n in sorted({1, torch.get_num_threads()})]
    found = alternate(__file__, names, args.rounds, [])
    keys = ["fp32, MKL", "fp32, oneDNN", "bf16", "int8", "reads, GB/s"]
    rows = [[name, *(f"{medians(found[name], key)[0]:.0f}" for key in keys)] for name in names]
    write_table("limits", "limits", ["threads", *keys], rows, f"GFLOP/s (int8: GOP/s), medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
