"""What does exact search cost, by size and by queries at once?  Flatcoat, its blocks of library products, and faiss's flat index.

    python benchmarks/exact.py [--rounds 5]

Random unit vectors of 384, k = 10, all cores, engines in turns within one process; `same rows` is the share of rows that agree with
faiss's. With one query all is reading; with many it is products. Blocks are what Flatcoat takes for fewer than 16 queries.
"""

from __future__ import annotations

import argparse
import statistics
import time

import faiss
import numpy as np

from common import write_table
from flatcoat.index.exact import ExactIndex
from flatcoat.representations import Dense


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    for size in (10_000, 100_000, 1_000_000):
        vectors = rng.standard_normal((size, 384), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        flat, ours = faiss.IndexFlatIP(384), ExactIndex(vectors)
        flat.add(vectors)  # pyright: ignore[reportCallIssue]
        for count in (1, 64):
            asked = vectors[:count] + 0.05 * rng.standard_normal((count, 384), dtype=np.float32)
            engines = {"faiss flat": lambda asked=asked, flat=flat: flat.search(asked, 10)[1],  # pyright: ignore[reportCallIssue]
                       "flatcoat, blocks": lambda asked=asked, ours=ours: ours._blocked(asked, 10).rows,
                       "flatcoat": lambda asked=asked, ours=ours: ours.search(Dense(asked), 10).rows}  # fmt: skip
            times: dict[str, list[float]] = {name: [] for name in engines}
            found = {name: work() for name, work in engines.items()}
            for _ in range(args.rounds):
                for name, work in engines.items():
                    start = time.perf_counter()
                    work()
                    times[name].append(1000 * (time.perf_counter() - start))
            base = statistics.median(times["faiss flat"])
            for name, own in times.items():
                same = (np.sort(found[name], 1) == np.sort(found["faiss flat"], 1)).mean()
                middle = statistics.median(own)
                rows.append(
                    [
                        size,
                        count,
                        name,
                        f"{middle:.2f}",
                        f"{min(own):.2f}",
                        f"{max(own):.2f}",
                        f"{base / middle:.2f}",
                        f"{same:.4f}",
                    ]
                )
    header = ["vectors", "queries", "engine", "ms", "least", "most", "times faiss's speed", "same rows"]
    write_table("exact", "exact", header, rows, f"{args.rounds} alternating rounds")


if __name__ == "__main__":
    main()
