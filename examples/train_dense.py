"""Train a dual encoder in Python, without a recipe, and measure what it learnt.

python examples/train_dense.py MODEL COLLECTION OUT [STEPS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from flatcoat.data.collection import open_collection
from flatcoat.data.pairs import load_pairs
from flatcoat.data.store import Collection
from flatcoat.evaluation.measures import evaluate, means
from flatcoat.index.exact import ExactIndex
from flatcoat.mining.uniform import Uniform
from flatcoat.models.checkpoint import load_dense, save_dense
from flatcoat.models.dense import DenseModel
from flatcoat.objectives.contrastive import nll
from flatcoat.search.engine import named, search_texts
from flatcoat.training.loop import LoopSettings, Training
from flatcoat.training.student import DenseStudent


def measured(model: DenseModel, collection: Collection, split: str = "test") -> dict[str, float]:
    """Exact search with a model, judged."""
    rows = collection.query_rows(split)
    index = ExactIndex(model.encode_documents(collection.documents.texts()).vectors)
    top = search_texts(model.encode_queries, index, collection.queries.texts(rows), k=100)
    run = named(top, [collection.queries.ids[int(row)] for row in rows], collection.documents.ids)
    return means(evaluate(collection.qrels(split), run))


def main(source: str, name: str, out: Path, steps: int = 100) -> tuple[dict[str, float], dict[str, float]]:
    """Train into OUT/model; give the measures before and after."""
    collection, model = open_collection(name, out / "store"), load_dense(source)
    before = measured(model, collection)
    settings = LoopSettings(steps=steps, batch=16, rate=1e-3, warmup=steps // 10, negatives=2)
    terms = [nll("dual", 0.05)]  # softmax over the batch's documents and what the sampler drew, at τ = 0.05
    sampler = Uniform(len(collection.documents))
    training = Training(
        DenseStudent(model), load_pairs(collection, "train"), terms, settings, out / "training", sampler=sampler
    )
    training.run()  # run(resume=True) goes on from the last checkpoint, to the same bits
    save_dense(model, out / "model")
    return before, measured(model, collection)


if __name__ == "__main__":
    for when, values in zip(
        ("before", "after"), main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:])), strict=True
    ):
        sys.stdout.write(f"{when}  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()) + "\n")
