"""What a stable-greedy tree costs against the number of targets: building, drawing, following a drift; memory at the end.

    python benchmarks/negatives/scale.py [--most 20000000] [--dim 64]

Synthetic unit vectors in clusters of clusters (64 × 64 × N/16 centres, noise at each level). Drawing is 64 targets for each of 128
queries, median of 5, beside an exhaustive softmax draw (one matrix product in blocks) where that is not above 2 million. A drift turns
all vectors a little by a common linear map and adds noise to each, by `cosine` between old and new. Writes results/negatives_scale.tsv;
the exponent is fitted over the sizes from 10,000 on.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import write_table
from flatcoat.mining.draws import softmax_draw
from flatcoat.mining.sg_follow import insert, keep, rebuild, repair
from flatcoat.mining.sg_tree import SGTree, TreeSettings
from flatcoat.mining.softmax_tree import SoftmaxSettings, SoftmaxTree

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 20_000_000)
QUERIES, DRAWS, BLOCK = 128, 64, 200_000
METHODS = {
    "descend": SoftmaxSettings(),
    "uniform": SoftmaxSettings(members="uniform"),
    "best": SoftmaxSettings(method="best"),
}


def clustered(n: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors in clusters of clusters."""
    rng = np.random.default_rng(seed)
    levels = [
        np.random.default_rng(7 + i).standard_normal((size, dim), dtype=np.float32) for i, size in enumerate((64, 4096))
    ]
    levels.append(np.random.default_rng(9).standard_normal((max(1, n // 16), dim), dtype=np.float32))
    out = np.empty((n, dim), np.float32)
    for start in range(0, n, BLOCK):
        own = rng.integers(0, len(levels[2]), min(BLOCK, n - start))
        part = levels[0][own % 64] + 0.8 * levels[1][own % 4096] + 0.7 * levels[2][own]
        part += 0.6 * rng.standard_normal(part.shape, dtype=np.float32)
        out[start : start + len(own)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out


def drifted(vectors: np.ndarray, cosine: float, seed: int) -> np.ndarray:
    """Vectors after a common linear map and noise of their own, in equal parts, of which the mean cosine is as said."""
    dim = vectors.shape[1]
    turn = np.random.default_rng(seed).standard_normal((dim, dim)).astype(np.float32) / np.sqrt(dim)
    size = np.sqrt((1 / cosine**2 - 1) / 2)
    out = np.empty_like(vectors)
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        noise = np.random.default_rng([seed, start]).standard_normal(part.shape, dtype=np.float32) / np.sqrt(dim)
        part = part + size * (part @ turn + noise)
        out[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def inserted(vectors: np.ndarray, settings: TreeSettings) -> SGTree:
    """The same forest made by compiled insertion of one point after another, as public code builds it."""
    first = np.arange(settings.trees)
    tree = SGTree.build(vectors, settings, rows=first)
    insert(tree, np.arange(settings.trees, len(vectors)))
    return tree


def gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def row(n: int, dim: int, settings: TreeSettings) -> list[Any]:
    vectors, queries = clustered(n, dim, 1), clustered(QUERIES, dim, 2)
    build, tree = timed(lambda: SGTree.build(vectors, settings))
    draws = {}
    for name, said in METHODS.items():
        sampler = SoftmaxTree(tree, said)
        spent = [timed(lambda s=sampler, i=i: s.draw(queries, DRAWS, np.random.default_rng(i)))[0] for i in range(5)]
        draws[name] = 1000 * float(np.median(spent))
    exact = one_by_one = float("nan")
    if n <= 2_000_000:
        one_by_one = timed(lambda: inserted(vectors, settings))[0]
    if n <= 2_000_000:

        def brute() -> None:
            for start in range(0, QUERIES, 16):
                softmax_draw(queries[start : start + 16] @ vectors.T, DRAWS, 20.0, np.random.default_rng(0))

        exact = 1000 * timed(brute)[0]
    cells = [n, f"{build:.2f}", f"{one_by_one:.2f}", *(f"{draws[name]:.1f}" for name in draws), f"{exact:.0f}"]
    for cosine in (0.999, 0.99):
        moved = drifted(vectors, cosine, 3)
        kept, lost = timed(lambda moved=moved: keep(tree.with_vectors(tree.vectors), moved))
        spent, found = timed(lambda moved=moved: repair(tree.with_vectors(tree.vectors), moved))
        anew, _ = timed(lambda moved=moved: SGTree.build(moved, settings))
        cells += [f"{kept:.3f}", f"{lost:.2f}", f"{spent:.2f}", f"{found.moved / n:.2f}", f"{anew:.2f}"]
        if cosine == 0.999:
            by_three, _ = timed(lambda moved=moved: rebuild(tree.with_vectors(tree.vectors), moved, 0.02))
            cells.append(f"{by_three:.2f}")
        del moved
    return [*cells, f"{gigabytes():.2f}"]


HEADER = [
    "targets", "build s", "insert one by one s", "draw ms, descend", "draw ms, uniform members", "draw ms, best", "exhaustive ms",
    "keep s at .999", "left their cluster", "repair s at .999", "hung anew", "build anew s", "Algorithm 3 s",
    "keep s at .99", "left their cluster", "repair s at .99", "hung anew", "build anew s", "peak GB so far",
]  # fmt: skip


def exponent(rows: list[list[Any]], column: int) -> float:
    """The slope of log cost against log size."""
    x, y = np.log([r[0] for r in rows]), np.log([float(r[column]) for r in rows])
    return float(np.polyfit(x, y, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--base", type=float, default=1.1)
    parser.add_argument("--trees", type=int, default=8)
    parser.add_argument("--name", default="negatives_scale")
    args = parser.parse_args()
    settings = TreeSettings(args.base, args.trees)
    row(1000, args.dim, settings)  # compile
    rows = []
    for n in SIZES:
        if n <= args.most:
            rows.append(row(n, args.dim, settings))
            print(*zip(HEADER, rows[-1], strict=True), flush=True)
    fitted = ", ".join(f"{HEADER[c]} ~ N^{exponent(rows, c):.2f}" for c in (1, 3, 4, 5)) if len(rows) > 1 else ""
    write_table(
        args.name,
        "negatives/scale",
        HEADER,
        rows,
        f"{args.dim} dimensions, base {args.base}, {args.trees} trees; {fitted}",
    )


if __name__ == "__main__":
    main()
