"""Which engine for late interaction?  Flatcoat's multi-vector index and its peers on the same vectors and queries.

    python benchmarks/multivector_search.py COLLECTION --cache FOLDER [--split dev-en] [--documents 100000] [--queries 300]
        [--peers mean-pool,muvera,qdrant,lancedb --peers-python PYTHON] [--limit SECONDS] [--settings 2:32:512:100,…]

Vectors: `multivector_vectors.py` (token states of all-MiniLM-L6-v2, 128 dimensions by PCA, unit length); judged documents
are all in. Times are processor time of one query on one thread; Flatcoat takes as long for any query of up to 32 vectors.
`recall@10` is the share of the ten best found, equal scores counting as equals, `nDCG@10 share` what is left of exact
search's. A setting is bits:nprobe:candidates:rescore, the last 0 (codes alone) or with i (re-scored from signed bytes).
MB: the index, and with the vectors that it reads at search.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peers import said_by, timed

if TYPE_CHECKING:
    from flatcoat.index.multivector import MultiVectorIndex, MultiVectorSettings
    from flatcoat.multi_vectors import MultiFolder
    from flatcoat.representations import MultiVector

K = 10
SETTINGS = "2:32:256:100,2:32:512:100,2:32:1024:100,2:32:2048:200,2:100000:2048:200,2:32:1024:100i,2:32:1024:0,4:32:1024:0,1:32:2048:200"


def read_setting(text: str) -> MultiVectorSettings:
    """bits:nprobe:candidates:rescore, the last with i for signed bytes."""
    from flatcoat.index.multivector import MultiVectorSettings

    bits, nprobe, candidates, rescore = text.split(":")
    width = int(rescore.removesuffix("i"))
    return MultiVectorSettings(
        bits=int(bits),  # pyright: ignore[reportArgumentType]
        nprobe=int(nprobe),
        candidates=int(candidates),
        rescore=width or None,
        kept="int8" if rescore.endswith("i") else "full",
    )


def built(documents: MultiVector, settings: MultiVectorSettings, cache: Path) -> tuple[MultiVectorIndex, float, float]:
    """An index, kept in `cache` with the seconds that it took and its bytes."""
    from flatcoat.index.multivector import MultiVectorIndex

    folder = cache / f"index-{len(documents)}-{settings.bits}-{settings.kept}"
    if not (folder / "built.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.process_time()
        MultiVectorIndex.build(documents, settings, threads=1).save(folder, vectors=False)
        (folder / "built.json").write_text(json.dumps(time.process_time() - begin))
    size = sum(file.stat().st_size for file in folder.glob("*.npy") if file.stem not in ("bytes", "steps"))
    index = MultiVectorIndex.load(folder, settings, documents if settings.kept == "full" else None, threads=1)
    return index, json.loads((folder / "built.json").read_text()), size / 1e6


def kernels(index: MultiVectorIndex, documents: MultiVector, query: MultiVector) -> dict[str, float]:
    """Processor microseconds a candidate of each stage, of 1000 candidates drawn at random."""
    import flatcoat.index.multivector as engine
    from flatcoat.index.multivector_exact import exact_scores, lanes_of

    rows = np.sort(np.random.default_rng(0).choice(len(documents), min(1000, len(documents)), replace=False))
    rows, asked = rows.astype(np.int32), lanes_of(query)
    scores, table = index._tables(asked[0], len(query.vectors))
    parts, out, totals = index.parts, np.empty(len(rows), np.float32), np.empty(len(rows), np.int64)
    packs = engine.packed(query.vectors, parts.codec.spread, parts.codec.padded)
    coded = rows, parts.start, parts.coded.cells, parts.coded.codes, parts.coded.gains, parts.levels, len(query.vectors)
    floats = documents[: min(2000, len(documents))]
    floats = type(documents)(floats.start, floats.vectors.astype(np.float32))
    some = (rows % len(floats)).astype(np.int32)
    work = {
        "cells": lambda: engine.kernels().scan_cells(rows, parts.start, parts.coded.cells, table, totals),
        f"codes, {parts.codec.bits} bits": lambda: engine.kernels().score_codes(*coded, *packs, scores, out),
        "full, float16": lambda: exact_scores(documents, rows, *asked),
        "full, float32": lambda: exact_scores(floats, some, *asked),
    }
    if (kept := parts.bytes) is not None:
        ones = engine.packed(query.vectors, np.ones(index.dim, np.float32), kept[0].shape[1])
        given = rows, parts.start, *kept, len(query.vectors), *ones, out
        work["full, int8"] = lambda: engine.kernels().score_bytes(*given)
    made = {}
    for name, run in work.items():
        run()
        spent = []
        for _ in range(9):
            begin = time.process_time_ns()
            run()
            spent.append((time.process_time_ns() - begin) / 1e3 / len(rows))
        made[name] = float(np.median(spent))
    return made


Row = tuple[str, str, float, float, float, list[list[int]], list[float]]


def ours(documents: MultiVector, queries: MultiVector, settings: str, cache: Path) -> Iterator[Row]:
    """Flatcoat's settings: engine, setting, build seconds, MB of the index, MB read beside it, rows, milliseconds."""
    for text in settings.split(","):
        setting = read_setting(text)
        index, seconds, size = built(documents, setting, cache)
        beside = 0.0
        if setting.rescore:
            beside = (documents.vectors.nbytes if index.parts.bytes is None else index.parts.bytes[0].nbytes) / 1e6
        found, spent = timed(lambda i, index=index: index.search(queries[i : i + 1], K).rows[0], len(queries), 3)
        name = f"{setting.bits} bits, {'all' if setting.nprobe > 65536 else setting.nprobe} cells probed, {setting.candidates} candidates"
        said = (
            f"MaxSim of {setting.rescore}{' by int8' if setting.kept == 'int8' else ''}"
            if setting.rescore
            else "codes alone"
        )
        yield "Flatcoat", f"{name}, {said}", seconds, size, beside, found, spent


def ask_peer(name: str, arrays: Path, python: str, limit: int) -> list[dict[str, Any]]:
    """What a peer left; nothing, and a word of why, where it is not installed or took longer than `limit` seconds."""
    file, script = arrays / f"{name}.json", Path(__file__).with_name("multivector_peers.py")
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS")
    return said_by(name, [python, str(script), name, "--arrays", str(arrays)], file, names, limit)


def exact_answer(documents: MultiFolder, queries: MultiVector, cache: Path) -> Any:
    """What exact search finds (rows, scores) and takes (ms), kept in `cache`."""
    from flatcoat.index.multivector_exact import MaxSimExact

    file = cache / f"truth-{len(documents)}-{len(queries)}.npz"
    if not file.exists():
        index = MaxSimExact(documents.vectors, threads=1)
        begin = time.process_time()
        top = index.search(queries, K)
        spent = (time.process_time() - begin) * 1e3 / len(queries)
        np.savez(file, rows=top.rows, scores=top.scores, ms=spent)
    return np.load(file)


class Judge:
    """Holds the exact answer and the judgements."""

    def __init__(self, documents: MultiFolder, asked: MultiFolder, qrels: dict, args: argparse.Namespace):
        self.documents, self.queries = documents, asked.vectors[: args.queries]
        self.names = asked.ids[: args.queries]
        self.qrels = {name: qrels[name] for name in self.names}
        self.truth = exact_answer(documents, self.queries, args.cache)
        self.best = self.ndcg(self.truth["rows"].tolist())

    def ndcg(self, found: Sequence[Sequence[int]]) -> float:
        """Mean nDCG@10 of rankings as they stand: a rank's score falls by one."""
        from flatcoat.evaluation.measures import evaluate, means
        from flatcoat.records import Ranking

        run = {}
        for name, some in zip(self.names, found, strict=True):
            ids = [self.documents.ids[row] for row in some if row >= 0]
            run[name] = Ranking.of([(one, -float(at)) for at, one in enumerate(ids)])
        return means(evaluate(self.qrels, run, ["nDCG@10"]))["nDCG@10"]

    def recall(self, found: Sequence[Sequence[int]]) -> float:
        """Mean share of the K best found, by the true scores of what was found."""
        from flatcoat.index.multivector_exact import exact_scores, lanes_of

        shares = []
        for i, some in enumerate(found):
            rows = np.array([row for row in some if row >= 0], np.int32)
            floor = float(self.truth["scores"][i, -1])
            scores = exact_scores(self.documents.vectors, rows, *lanes_of(self.queries[i : i + 1]))[0]
            shares.append((scores >= floor - 1e-5 * abs(floor)).sum() / K)
        return float(np.mean(shares))


def compare(documents: MultiFolder, asked: MultiFolder, qrels: dict, args: argparse.Namespace) -> list[list[Any]]:
    """Every engine over the same vectors and queries."""
    judge, rows = Judge(documents, asked, qrels, args), []

    def add(engine: str, setting: str, seconds: float, size: float, beside: float, found: Any, spent: Any) -> None:
        middle, high = np.percentile(spent, [50, 99])
        rows.append([engine, setting, f"{judge.recall(found):.4f}", f"{judge.ndcg(found) / judge.best:.4f}",
                     f"{middle:.2f}", f"{high:.2f}", f"{seconds:.0f}", f"{size:.0f}", f"{size + beside:.0f}"])  # fmt: skip
        print(*rows[-1], sep="\t", file=sys.stderr, flush=True)

    whole, spent = np.asarray(documents.vectors.vectors).nbytes / 1e6, [float(judge.truth["ms"])]
    add("Flatcoat exact", f"nDCG@10 {judge.best:.4f}", 0, 0, whole, judge.truth["rows"].tolist(), spent)
    for each in ours(documents.vectors, judge.queries, args.settings, args.cache):
        add(*each)
    with tempfile.TemporaryDirectory(dir=args.cache) as folder:
        for name in ("vectors.npy", "start.npy"):
            (Path(folder) / name).symlink_to((documents.path / name).resolve())
        np.save(Path(folder) / "queries.npy", judge.queries.vectors)
        np.save(Path(folder) / "query_start.npy", judge.queries.start)
        for name in filter(None, args.peers.split(",")):
            for said in ask_peer(name, Path(folder), args.peers_python, args.limit):
                add(name, said["setting"], said["built"], said["mb"], 0, said["rows"], said["ms"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("multivector-cache"))
    parser.add_argument("--split", default="dev-en")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--settings", default=SETTINGS)
    parser.add_argument("--peers", default="", help="of mean-pool,muvera,qdrant,lancedb")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--limit", type=int, default=1200, help="seconds for each peer")
    args = parser.parse_args()
    from threadpoolctl import threadpool_limits

    from common import write_table
    from multivector_vectors import encoded

    documents, asked, qrels = encoded(args.collection, args.split, args.documents, args.cache)
    with threadpool_limits(1):
        rows = compare(documents, asked, qrels, args)
        index, _, _ = built(documents.vectors, read_setting("2:32:512:100i"), args.cache)
        costs = kernels(index, documents.vectors, asked.vectors[:1])
    tokens = len(documents.vectors.vectors)
    note = (f"{len(documents)} documents of {tokens / len(documents):.0f} vectors of {documents.vectors.dim} (float32: "
            f"{tokens * documents.vectors.dim * 4 / 1e6:.0f} MB); {args.queries} queries of "
            f"{len(asked.vectors.vectors) / len(asked):.0f}; k = {K}, one thread\n"
            "µs a candidate of each stage, one thread: " + ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items())
            + f"\nload while measuring {os.getloadavg()[0]:.1f}")  # fmt: skip
    header = [
        "engine",
        "setting",
        "recall@10",
        "nDCG@10 share",
        "cpu ms p50",
        "p99",
        "build cpu s",
        "index MB",
        "with vectors MB",
    ]
    write_table("multivector_search", "multivector_search", header, rows, note)


if __name__ == "__main__":
    main()
