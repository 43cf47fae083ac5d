"""Write the golden folders of the present format versions: `python tests/golden/make.py`. Never overwrite an old version's."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flatcoat.data.collection import build_store
from flatcoat.data.toy import write_toy
from flatcoat.index.bm25 import Bm25Settings
from flatcoat.index.inverted import InvertedSettings
from flatcoat.index.multivector import MultiVectorSettings
from flatcoat.index.store import write_bm25, write_inverted, write_multivector, write_vector_index
from flatcoat.index.vector import VectorSettings
from flatcoat.multi_vectors import write_multi
from flatcoat.sparse_vectors import write_sparse
from flatcoat.testing.index import unit
from flatcoat.testing.multi_index import tokens
from flatcoat.testing.sparse_index import zipfian
from flatcoat.vectors import write_vectors


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        collection = build_store(str(write_toy(Path(folder) / "toy")), out / "collection-1")
    ids = list(collection.documents.ids)
    vectors = write_vectors(out / "vectors-1", unit(len(ids), 16), ids, {"model": "golden"})
    for kind in ("scan", "bits", "sq", "hnsw", "ivf"):
        settings = VectorSettings(kind, cells=4, nprobe=4)  # pyright: ignore[reportArgumentType]
        write_vector_index(out / f"index-{kind}-1", vectors, settings, copy=True)
    write_bm25(out / "index-bm25-1", collection.documents.texts(), ids, {}, Bm25Settings())
    sparse(out)
    multi(out)


def sparse(out: Path) -> None:
    """The folders of sparse vectors and of indexes over them."""
    made = zipfian(60, 12, seed=0, vocab_size=50)
    ids, words = [f"d{i}" for i in range(60)], [f"t{i}" for i in range(50)]
    folder = write_sparse(out / "sparse-1", made, ids, words, {"model": "golden"})
    for kind in ("inverted", "pruned"):
        write_inverted(out / f"index-{kind}-1", folder, InvertedSettings(kind))  # pyright: ignore[reportArgumentType]


def multi(out: Path) -> None:
    """The folders of several vectors an item and of an index over them."""
    folder = write_multi(out / "multi-1", tokens(30, 0, 6), [f"d{i}" for i in range(30)], {"model": "golden"})
    write_multivector(out / "index-multivector-1", folder, MultiVectorSettings(cells=8), copy=True)


if __name__ == "__main__":
    main(Path(__file__).parent)
