"""How fast are documents encoded into term weights?  Flatcoat and sentence-transformers, same checkpoint, fp32.

    python benchmarks/encode_sparse.py COLLECTION [--model tiny|minilm] [--documents 500] [--length 128] [--rounds 3]

Both encode the same documents at the same length with their default batches. Weights must agree. Flatcoat's bf16 is shown
beside them, with its own agreement: it is not the default.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from common import alternate, medians, peak_megabytes, quietly, write_table
from train_sparse import PEER, checkpoint

OURS = {"flatcoat": "fp32", "flatcoat-bf16": "bf16", "flatcoat-int8": "int8"}
SAVED = Path(tempfile.gettempdir()) / "flatcoat-encode-sparse.npz"


def texts(collection: str, count: int) -> list[str]:
    """Some documents, drawn with a fixed seed."""
    from flatcoat.data.collection import open_collection

    documents = open_collection(collection).documents
    rows = np.random.default_rng(0).permutation(len(documents))[:count]
    return list(documents.texts(rows))


def one(args: argparse.Namespace, folder: Path) -> None:
    documents = texts(args.collection, args.documents)
    if args.one == PEER:
        from sentence_transformers import SparseEncoder

        model = quietly(lambda: SparseEncoder(str(folder), device="cpu"))
        encode = lambda batch: model.encode(batch, show_progress_bar=False)  # noqa: E731
    else:
        from flatcoat.models.base import Runtime
        from flatcoat.models.splade_checkpoint import load_splade

        ours = load_splade(str(folder))
        ours.runtime = Runtime(precision=OURS[args.one])  # pyright: ignore[reportArgumentType]
        encode = ours.encode_documents
    encode(documents[:64])
    before, start = peak_megabytes(), time.perf_counter()
    found = encode(documents)
    seconds = time.perf_counter() - start
    peak = peak_megabytes()
    weights = found.to_dense().numpy() if args.one == PEER else found.array()
    if args.one == PEER:
        np.savez(SAVED, weights=weights)
    truth = np.load(SAVED)["weights"]
    cosines = (weights * truth).sum(1) / np.maximum(
        np.linalg.norm(weights, axis=1) * np.linalg.norm(truth, axis=1), 1e-9
    )
    print(json.dumps({"rate": len(documents) / seconds, "peak": peak, "held": peak - before,
                      "least_cosine": float(cosines.min())}))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--model", default="both", choices=["tiny", "minilm", "both"])
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        with tempfile.TemporaryDirectory() as place:
            one(args, checkpoint(args.model, Path(place) / "model", args.length))
        return
    names = [PEER, *OURS]
    rows = []
    for model in ("tiny", "minilm") if args.model == "both" else (args.model,):
        extra = [args.collection, "--model", model, "--documents", str(args.documents), "--length", str(args.length)]
        found = alternate(__file__, names, args.rounds, extra)
        for name in names:
            middle, low, high = medians(found[name], "rate")
            ratios = sorted(a["rate"] / b["rate"] for a, b in zip(found[name], found[PEER], strict=True))
            rows.append([model, name, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}", f"{ratios[len(ratios) // 2]:.2f}",
                         f"{medians(found[name], 'peak')[0]:.0f}", f"{medians(found[name], 'least_cosine')[1]:.6f}"])  # fmt: skip
    header = ["model", "engine", "documents/s", "least", "most", "median of ratios", "peak MB", "least cosine"]
    note = f"fp32, {args.documents} documents of at most {args.length} tokens, {args.rounds} alternating rounds"
    write_table("encode_sparse", "encode_sparse", header, rows, note)


if __name__ == "__main__":
    main()
