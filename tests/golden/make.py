"""Write the golden folders of the present format versions: `python tests/golden/make.py`. Never overwrite an old version's."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flatcoat.data.collection import build_store
from flatcoat.data.toy import write_toy
from flatcoat.index.bm25 import Bm25Settings
from flatcoat.index.store import write_bm25, write_vector_index
from flatcoat.index.vector import VectorSettings
from flatcoat.testing.index import unit
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


if __name__ == "__main__":
    main(Path(__file__).parent)
