"""Peers of the multi-vector index, each in a process of its own and, where asked, under an interpreter without Flatcoat.

    python benchmarks/multivector_peers.py NAME --arrays FOLDER

FOLDER holds documents (`vectors.npy`, `start.npy`) and queries (`queries.npy`, `query_start.npy`); what was found and
spent goes to FOLDER/NAME.json, setting by setting. Times are processor milliseconds of one query, one thread asked for.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Ask = Callable[[np.ndarray], Sequence[int]]
Say = Callable[[str, Ask, float, float], None]
K, WIDTHS = 10, (100, 500, 2000)


@dataclass(frozen=True)
class Data:
    """Documents and queries of several vectors."""

    start: np.ndarray
    vectors: np.ndarray
    query_start: np.ndarray
    queries: np.ndarray

    def document(self, row: int) -> np.ndarray:
        """One document's vectors, float32."""
        return np.asarray(self.vectors[self.start[row] : self.start[row + 1]], dtype=np.float32)

    def rescored(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The K best of candidates: gather, one matrix product, segment maxima."""
        rows = np.sort(rows[rows >= 0])
        tokens = [self.vectors[self.start[row] : self.start[row + 1]] for row in rows]
        sizes = np.array([len(one) for one in tokens])
        scores = np.concatenate(tokens).astype(np.float32) @ query.T
        best = np.maximum.reduceat(scores, np.cumsum(sizes) - sizes, axis=0).sum(1)
        return rows[np.argsort(-best, kind="stable")[:K]]


def pooled(data: Data) -> np.ndarray:
    """Each document's mean vector, at unit length."""
    out = np.zeros((len(data.start) - 1, data.vectors.shape[1]), np.float32)
    for row in range(len(out)):
        out[row] = data.document(row).mean(axis=0) if data.start[row + 1] > data.start[row] else 0
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def mean_pool(data: Data, folder: Path, say: Say) -> None:
    import faiss

    begin = time.process_time()
    index = faiss.IndexFlatIP(data.vectors.shape[1])
    index.add(pooled(data))
    built = time.process_time() - begin
    for width in WIDTHS:

        def ask(query: np.ndarray, width: int = width) -> Sequence[int]:
            _, rows = index.search(query.mean(axis=0, keepdims=True), width)
            return data.rescored(query, rows[0]).tolist()

        say(f"mean vectors flat, MaxSim of {width}", ask, built, data.vectors.nbytes / 1e6)


class Muvera:
    """Fixed dimensional encodings (MUVERA, Jayaram et al. 2024, arXiv 2405.19504): 2^bits buckets by random signs, each
    bucket's sum (query) or mean (document, empty ones the nearest vector) projected by random signs, `repeats` times."""

    def __init__(self, dim: int, bits: int, repeats: int, size: int):
        rng = np.random.default_rng(0)
        self.planes = rng.standard_normal((repeats, dim, bits)).astype(np.float32)
        self.signs = (rng.integers(0, 2, (repeats, dim, size)) * 2 - 1).astype(np.float32) / np.sqrt(np.float32(size))
        self.codes = (np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1
        self.powers = 1 << np.arange(bits)

    def of(self, vectors: np.ndarray, document: bool) -> np.ndarray:
        """One item's encoding."""
        parts = []
        for planes, signs in zip(self.planes, self.signs, strict=True):
            sides = vectors @ planes > 0
            buckets, made = sides @ self.powers, np.zeros((len(self.codes), vectors.shape[1]), np.float32)
            np.add.at(made, buckets, vectors)
            if document:
                counts = np.bincount(buckets, minlength=len(made))
                made /= np.maximum(counts, 1)[:, None]
                for empty in np.flatnonzero(counts == 0):
                    made[empty] = vectors[np.argmin((sides != self.codes[empty]).sum(1))]
            parts.append((made @ signs).ravel())
        return np.concatenate(parts)


def muvera(data: Data, folder: Path, say: Say) -> None:
    import faiss

    begin = time.process_time()
    coder = Muvera(data.vectors.shape[1], bits=4, repeats=10, size=16)
    dim = len(coder.of(data.document(0), True))
    index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    count, step = len(data.start) - 1, 4096
    for low in range(0, count, step):
        made = np.stack([coder.of(data.document(row), True) for row in range(low, min(low + step, count))])
        if not index.is_trained:
            index.train(made)
        index.add(made)
    built = time.process_time() - begin
    for width in WIDTHS:

        def ask(query: np.ndarray, width: int = width) -> Sequence[int]:
            _, rows = index.search(coder.of(query, False)[None], width)
            return data.rescored(query, rows[0]).tolist()

        say(f"{dim} dimensions as bytes, MaxSim of {width}", ask, built, (count * dim + data.vectors.nbytes) / 1e6)


def qdrant(data: Data, folder: Path, say: Say) -> None:
    import qdrant_edge as q

    begin = time.process_time()
    many = q.MultiVectorConfig(q.MultiVectorComparator.MaxSim)
    half = q.VectorStorageDatatype.Float16
    size = int(data.vectors.shape[1])
    vectors = {
        "mean": q.EdgeVectorParams(size, q.Distance.Dot, hnsw_config=q.HnswIndexConfig(16, 100, 1000, 1)),
        "tokens": q.EdgeVectorParams(size, q.Distance.Dot, multivector_config=many, datatype=half, on_disk=True,
                                     hnsw_config=q.HnswIndexConfig(0, 1, 1000, 1)),
    }  # fmt: skip
    (folder / "qdrant").mkdir()
    shard = q.EdgeShard.create(str(folder / "qdrant"), q.EdgeConfig(vectors=vectors))
    means = pooled(data)
    for low in range(0, len(means), 256):
        rows = range(low, min(low + 256, len(means)))
        given = [q.Point(row, {"mean": means[row].tolist(), "tokens": data.document(row).tolist()}) for row in rows]
        shard.update(q.UpdateOperation.upsert_points(given))
    shard.optimize()
    shard.flush()
    built, held = time.process_time() - begin, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    for width in WIDTHS:

        def ask(query: np.ndarray, width: int = width) -> Sequence[int]:
            first = q.Prefetch(width, query=q.Query.Nearest(query.mean(axis=0).tolist(), "mean"))
            whole = q.Query.Nearest(query.tolist(), "tokens")
            return [int(point.id) for point in shard.query(q.QueryRequest(K, query=whole, prefetches=[first]))]

        say(f"mean vectors HNSW, MaxSim of {width}", ask, built, held)


def lancedb(data: Data, folder: Path, say: Say) -> None:
    import lancedb as lance
    import pyarrow as pa

    begin = time.process_time()
    size = int(data.vectors.shape[1])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(data.vectors).reshape(-1)), size)
    lists = pa.ListArray.from_arrays(pa.array(data.start.astype(np.int32)), flat)
    ids = pa.array(np.arange(len(data.start) - 1))
    table = lance.connect(str(folder / "lance")).create_table("documents", pa.table({"id": ids, "vectors": lists}))
    config = lance.index.IvfPq(distance_type="cosine", num_partitions=1024, num_sub_vectors=size // 4)
    table.create_index("vectors", config=config)
    built, held = time.process_time() - begin, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    for probes, refine in ((16, 10), (64, 10), (64, 50)):

        def ask(query: np.ndarray, probes: int = probes, refine: int = refine) -> Sequence[int]:
            asked = table.search(query, vector_column_name="vectors").limit(K).nprobes(probes).refine_factor(refine)
            return asked.select(["id", "_distance"]).to_arrow()["id"].to_pylist()

        say(f"IVF1024,PQ32, {probes} cells, MaxSim of {K * refine}", ask, built, held)


PEERS: dict[str, Callable[[Data, Path, Say], None]] = {
    "mean-pool": mean_pool, "muvera": muvera, "qdrant": qdrant, "lancedb": lancedb,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(PEERS))
    parser.add_argument("--arrays", type=Path, required=True)
    args = parser.parse_args()
    read = lambda name: np.load(args.arrays / f"{name}.npy", mmap_mode="r")  # noqa: E731
    data = Data(np.array(read("start")), read("vectors"), np.array(read("query_start")), np.array(read("queries")))
    said: list[dict[str, Any]] = []

    def say(setting: str, ask: Ask, built: float, megabytes: float) -> None:
        asked = [data.queries[low:high] for low, high in zip(data.query_start, data.query_start[1:], strict=False)]
        for query in asked[:3]:
            ask(query)
        found, spent = [], []
        for query in asked:
            begin = time.process_time_ns()
            rows = ask(query)
            spent.append((time.process_time_ns() - begin) / 1e6)
            found.append([int(row) for row in rows])
        said.append({"setting": setting, "built": built, "mb": megabytes, "rows": found, "ms": spent})
        (args.arrays / f"{args.name}.json").write_text(json.dumps(said))

    with tempfile.TemporaryDirectory(dir=args.arrays) as folder:
        PEERS[args.name](data, Path(folder), say)


if __name__ == "__main__":
    main()
