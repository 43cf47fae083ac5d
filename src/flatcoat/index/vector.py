"""Approximate inner-product search through faiss (Douze et al. 2024, arXiv 2401.08281), re-scored exactly.

| kind | what faiss does | knob |
|---|---|---|
| scan | every vector, as 4-bit codes of 2 dimensions each (Jégou et al. 2011; André et al. 2015) | `rescore` |
| bits | every vector, as one bit a dimension (RaBitQ, Gao & Long 2024, arXiv 2405.12497) | `rescore` |
| sq   | every vector, as 8-bit numbers | `rescore` |
| hnsw | a graph (Malkov & Yashunin 2018, arXiv 1603.09320) | `ef_search` |
| ivf  | the nearest k-means cells | `nprobe` |

Each gives `max(rescore × k, LEAST)` candidates where it compresses, which are scored again with the full vectors, so that
the scores returned are always the exact ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from flatcoat.errors import Misuse, need
from flatcoat.index.base import TopK, asked
from flatcoat.index.exact import ExactIndex
from flatcoat.representations import Dense

Kind = Literal["scan", "bits", "sq", "hnsw", "ivf"]
COMPRESSED = ("scan", "bits", "sq")
LEAST = 40  # candidates re-scored, whatever k is
BYTES_AT_ONCE = 64 << 20
TRAIN_ROWS = 65536
CODES = 16


@dataclass(frozen=True)
class VectorSettings:
    """How an approximate index is built and searched; None where the kind has no such setting.

    `cells` None is √n rounded to a power of two. `nprobe` and `ef_search` are costs at search time.
    """

    kind: Kind = "scan"
    rescore: int = 4
    links: int = 32
    ef_build: int = 200
    ef_search: int = 128
    cells: int | None = None
    nprobe: int = 8


def _factory(settings: VectorSettings, n: int, dim: int) -> str:
    cells = settings.cells or 2 ** round(np.log2(max(1.0, np.sqrt(n))))
    if settings.kind == "ivf" and not 1 <= cells <= n:
        raise Misuse(f"cells={cells} for {n} vectors; use 1 to {n}")
    return {
        "scan": f"PQ{dim // 2 if dim % 2 == 0 else dim}x4fs",
        "bits": "RaBitQfs",
        "sq": "SQ8",
        "hnsw": f"HNSW{settings.links},Flat",
        "ivf": f"IVF{cells},Flat",
    }[settings.kind]


def build(vectors: np.ndarray, settings: VectorSettings) -> Any:
    """A faiss index over `vectors` [n, dim]; training rows are drawn with a fixed seed. Raises Misuse where there are no vectors."""
    faiss: Any = need("faiss", "search")
    if not len(vectors):
        raise Misuse("an index needs at least one vector")
    n, dim = vectors.shape
    index = faiss.index_factory(dim, _factory(settings, n, dim), faiss.METRIC_INNER_PRODUCT)
    if settings.kind == "hnsw":
        index.hnsw.efConstruction = settings.ef_build
    # few points a centroid are the user's choice, not a warning's
    if settings.kind == "ivf":
        index.cp.min_points_per_centroid = 1
    if settings.kind == "scan":
        index.pq.cp.min_points_per_centroid = 1
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(n, TRAIN_ROWS, replace=False)) if n > TRAIN_ROWS else slice(None)
    if not index.is_trained:
        sample = np.ascontiguousarray(vectors[rows], dtype=np.float32)
        # a code book of 16 wants as many points; repeating the few there are gives each its own entry
        index.train(sample if len(sample) >= CODES or settings.kind != "scan" else np.resize(sample, (CODES, dim)))
    for start in range(0, n, TRAIN_ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + TRAIN_ROWS], dtype=np.float32))
    return index


class VectorIndex:
    """A faiss index beside the full vectors it was made from."""

    def __init__(self, index: Any, vectors: np.ndarray, settings: VectorSettings, where: object = "memory"):
        self.index, self.vectors, self.settings, self.where = index, vectors, settings, where

    @classmethod
    def build(cls, vectors: np.ndarray, settings: VectorSettings) -> VectorIndex:
        """Build in memory."""
        return cls(build(vectors, settings), vectors, settings)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Dense, k: int) -> TopK:
        """About the k best rows of each query, with exact scores."""
        wanted = asked(queries, k, self.vectors.shape, self.where)
        if self.settings.kind not in COMPRESSED:
            scores, rows = self.index.search(wanted, k, params=self._parameters(k))
            return TopK(rows.astype(np.int64), np.where(rows < 0, np.float32("-inf"), scores))
        width = min(len(self), max(self.settings.rescore * k, LEAST))
        if width == len(self):  # every row would be scored exactly anyway
            return ExactIndex(self.vectors, self.where).search(queries, k)
        _, rows = self.index.search(wanted, width)
        return rescore(self.vectors, wanted, rows, k)

    def _parameters(self, k: int) -> Any:
        faiss: Any = need("faiss", "search")
        if self.settings.kind == "ivf":
            return faiss.SearchParametersIVF(nprobe=min(self.settings.nprobe, self.index.nlist))
        # faiss keeps only ef_search candidates, so fewer than k of them would silently cut the answer
        return faiss.SearchParametersHNSW(efSearch=max(self.settings.ef_search, k))

    def knob(self) -> tuple[str, list[int]]:
        """The setting that trades cost for quality, and values for it, cheapest first."""
        kind = self.settings.kind
        if kind == "ivf":
            cells = int(self.index.nlist)
            return "nprobe", sorted({min(cells, 2**i) for i in range(20)})
        if kind == "hnsw":
            return "ef_search", [16, 32, 64, 128, 256, 512, 1024]
        return "rescore", [1, 2, 4, 10, 20, 50, 100]

    def with_knob(self, value: int) -> VectorIndex:
        """The same index under another setting of its knob."""
        name, _ = self.knob()
        settings = replace(self.settings, **{name: value})
        return VectorIndex(self.index, self.vectors, settings, self.where)


def rescore(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray, k: int) -> TopK:
    """Exact scores of candidate rows [query, candidate] (-1 for none), and the k best of them."""
    best_rows = np.full((len(queries), k), -1, dtype=np.int64)
    best_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    step = max(1, BYTES_AT_ONCE // (rows.shape[1] * vectors.shape[1] * 4))
    for start in range(0, len(queries), step):
        part = rows[start : start + step]
        gathered = vectors[np.maximum(part, 0)]
        scores = np.matmul(gathered, queries[start : start + step, :, None])[:, :, 0]
        scores[part < 0] = -np.inf
        order = np.lexsort((part, -scores), axis=1)[:, :k]
        width = order.shape[1]
        best_rows[start : start + step, :width] = np.take_along_axis(part, order, 1)
        best_scores[start : start + step, :width] = np.take_along_axis(scores, order, 1)
    return TopK(best_rows, best_scores)
