"""What an approximate index loses against exact search, and the cheapest setting that reaches a recall.

python examples/index_against_exact.py [VECTORS.npy QUERIES.npy]
"""

from __future__ import annotations

import sys

import numpy as np

from flatcoat.evaluation.fidelity import Fidelity, Judge
from flatcoat.index.exact import ExactIndex
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.representations import Dense

KINDS = (
    VectorSettings("scan"), VectorSettings("hnsw", ef_search=16), VectorSettings("ivf", cells=64, nprobe=1)
)  # fmt: skip


def clustered(documents: int = 20_000, dim: int = 64, queries: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in clusters, and queries near some of them."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((documents // 20, dim))[rng.integers(0, documents // 20, documents)]
    vectors = (vectors + 0.7 * rng.standard_normal(vectors.shape)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = vectors[:queries] + 0.1 * rng.standard_normal((queries, dim), dtype=np.float32)
    return vectors, asked / np.linalg.norm(asked, axis=1, keepdims=True)


def main(vectors: np.ndarray, queries: np.ndarray, recall: float = 0.99) -> list[tuple[str, Fidelity, Fidelity | None]]:
    """Each kind as it is built, and the setting of it that reaches `recall` at 10."""
    judge = Judge(ExactIndex(vectors), Dense(queries))
    found = []
    for settings in KINDS:
        index = VectorIndex.build(vectors, settings)
        found.append((settings.kind, judge.measure(index, "as built"), judge.cheapest(index, recall=recall)[0]))
    return found


if __name__ == "__main__":
    given = [np.load(path).astype(np.float32) for path in sys.argv[1:3]] or clustered()
    for kind, built, enough in main(given[0], given[1]):
        said = f"{enough.setting} at {enough.cost:.2f}× exact" if enough else "nothing"
        sys.stdout.write(f"{kind}: recall@10 {built.recall[10]:.3f} at {built.cost:.2f}× exact's processor time; "
                         f"0.99 with {said}\n")  # fmt: skip
