"""How near are draws down a tree to the softmax they stand for, on encodings of real text?

    python benchmarks/negatives/draws.py --vectors FOLDER --queries FOLDER [--beta 20]

Folders are of `flatcoat encode`. 64 queries, 64 draws each by chains of 4, one thread; the mean score of draws beside that of exact ones,
what share of moves chains made, the effective sample size of their proposals (a share), and the median γ that is
guaranteed. Writes results/negatives_draws.tsv.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import write_table
from flatcoat.mining.sg_tree import SGTree, TreeSettings
from flatcoat.mining.softmax_tree import SoftmaxSettings, SoftmaxTree, exact_log_p
from flatcoat.vectors import VectorFolder

QUERIES, DRAWS, CHAIN = 64, 64, 4
WAYS = [("mh", "uniform", 100), ("mh", "uniform", 1000), ("mh", "descend", 100), ("mh", "descend", 1000), ("mh", "descend", 3000),
        ("best", "uniform", 100), ("best", "descend", 1000)]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--beta", type=float, default=20.0)
    args = parser.parse_args()
    targets = unit(np.asarray(VectorFolder.open(args.vectors).vectors, np.float32))
    asked = np.asarray(VectorFolder.open(args.queries).vectors, np.float32)
    asked = unit(asked[np.sort(np.random.default_rng(0).permutation(len(asked))[:QUERIES])])
    tree = SGTree.build(targets, TreeSettings(1.1, 8), threads=1)
    p, scores = np.exp(exact_log_p(asked, targets, args.beta)), asked @ targets.T
    rows: list[list[object]] = [["exact softmax", "", "", f"{(p * scores).sum(1).mean():.3f}", "", "", "", ""]]
    for method, members, clusters in WAYS:
        settings = SoftmaxSettings(args.beta, method, 2.0, clusters, chain=CHAIN, members=members)
        sampler = SoftmaxTree(tree, settings, threads=1)
        sampler.draw(asked[:2], DRAWS, np.random.default_rng(0))
        began = time.perf_counter()
        found, report = sampler.draw(asked, DRAWS, np.random.default_rng(1))
        spent = 1000 * (time.perf_counter() - began) / QUERIES
        mean = np.take_along_axis(scores, found.rows, 1).mean()
        rows.append([method, members, clusters, f"{mean:.3f}", f"{report.accepted:.2f}", f"{report.effective:.2f}",
                     f"{report.gamma:.1e}", f"{spent:.2f}"])  # fmt: skip
    write_table(
        "negatives_draws",
        "negatives/draws",
        ["method", "members", "clusters", "mean score of draws", "accepted", "effective", "γ guaranteed", "ms a query"],
        rows,
        f"{len(targets)} targets of {targets.shape[1]} dimensions, β = {args.beta:g}, {QUERIES} queries, {DRAWS} draws, chains of {CHAIN}",
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
