"""What does late interaction's score cost a training step, in time and memory?  Flatcoat, its definition, sentence-transformers.

    python benchmarks/maxsim.py [--queries 32] [--documents 32 64] [--tokens 180] [--fill 1.0 0.6] [--steps 15] [--rounds 5]

A step goes from token vectors to scores of every query with every document, their softmax, and back to the gradients of the token
vectors: all that lies between the encoder's forward and backward pass. The same unit vectors for all, in fp32: queries of 32 tokens,
documents padded to `--tokens`, their lengths drawn evenly so that the share `--fill` of places is a token. `plain` is the definition,
`maxsim_slowly`; sentence-transformers is what MultiVectorMultipleNegativesRankingLoss does with the vectors. The losses are compared.
Memory is what the process holds at most above inputs and outputs. Fresh processes, alternating; the time is of the median step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common import alternate, medians, peak_megabytes, write_table

PEER = "sentence-transformers"
NAMES = [PEER, "plain", "flatcoat"]
QUERY_TOKENS, DIM = 32, 128


def inputs(args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token vectors and which are present, of queries and documents."""
    rng = torch.Generator().manual_seed(0)
    count, fill = args.documents[0], args.fill[0]
    queries = F.normalize(torch.randn(args.queries, QUERY_TOKENS, DIM, generator=rng), dim=-1)
    documents = F.normalize(torch.randn(count, args.tokens, DIM, generator=rng), dim=-1)
    lengths = args.tokens * (1 - (1 - fill) * 2 * torch.rand(count, 1, generator=rng))
    present = torch.arange(args.tokens)[None] < lengths.round().clamp(min=1)
    return queries, torch.ones(queries.shape[:2], dtype=torch.bool), documents, present


def scorer(name: str) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """From token vectors to scores [query, document]."""
    if name == PEER:
        from sentence_transformers.multi_vector_encoder.scoring import colbert_scores

        def theirs(queries: Tensor, query_present: Tensor, documents: Tensor, present: Tensor) -> Tensor:
            groups = [x.view(len(queries), -1, *x.shape[1:]) for x in (documents, present)]
            return colbert_scores(queries, groups[0], queries_mask=query_present, documents_mask=groups[1])

        return theirs
    from flatcoat.models.maxsim import maxsim, maxsim_slowly

    return maxsim if name == "flatcoat" else maxsim_slowly


def forget_peak() -> bool:
    """Let the kernel count the peak anew, where it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def held(kind: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) / 1024
    return peak_megabytes()


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One engine's steps."""
    queries, query_present, documents, present = inputs(args)
    queries.requires_grad_(), documents.requires_grad_()
    queries.grad, documents.grad = (
        torch.ones_like(queries),
        torch.ones_like(documents),
    )  # room for the gradients, touched
    target = torch.arange(args.queries) * (len(documents) // args.queries)
    score = scorer(args.one)
    seconds, loss = [], torch.zeros(())

    def step() -> Tensor:
        loss = F.cross_entropy(score(queries, query_present, documents, present), target)
        loss.backward()
        return loss

    F.cross_entropy(
        queries[:, 0] @ documents[: args.queries, 0].T, torch.arange(args.queries)
    ).backward()  # libraries are loaded now
    exact = forget_peak()
    before = held("VmRSS")
    for _ in range(args.steps):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    return {"ms": 1000 * statistics.median(seconds[1:]), "held": held("VmHWM") - before, "loss": loss.item(),
            "exact": exact}  # fmt: skip


def row(args: argparse.Namespace, documents: int, fill: float) -> list[list[Any]]:
    """One setting's lines of the table."""
    extra = ["--documents", str(documents), "--fill", str(fill)]
    extra += [str(x) for k in ("queries", "tokens", "steps") for x in (f"--{k}", getattr(args, k))]
    found = alternate(__file__, NAMES, args.rounds, extra)
    losses = [line["loss"] for lines in found.values() for line in lines]
    if max(losses) - min(losses) > 1e-4:
        raise SystemExit(f"the engines do not agree: losses from {min(losses)} to {max(losses)}")
    rows = []
    for name in NAMES:
        middle, low, high = medians(found[name], "ms")
        faster = [statistics.median(b["ms"] / a["ms"] for a, b in zip(found[name], found[other], strict=True))
                  for other in NAMES[:2]]  # fmt: skip
        own = medians(found[name], "held")[0]
        shares = [own / medians(found[other], "held")[0] for other in NAMES[:2]]
        rows.append([documents, fill, name, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}", *(f"{x:.2f}" for x in faster),
                     f"{own:.1f}", *(f"{x:.3f}" for x in shares)])  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--documents", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--tokens", type=int, default=180)
    parser.add_argument("--fill", type=float, nargs="+", default=[1.0, 0.6])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=NAMES)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args)))
        return
    rows = [line for pair in itertools.product(args.documents, args.fill) for line in row(args, *pair)]
    header = ["documents", "fill", "engine", "ms a step", "least", "most", f"times {PEER}'s speed", "times plain's speed",
              "MB held", f"share of {PEER}", "share of plain"]  # fmt: skip
    note = (
        f"fp32, {args.queries} queries of {QUERY_TOKENS} tokens, documents of {args.tokens} places, {DIM} dimensions, "
    )
    write_table(
        "maxsim", "maxsim", header, rows, note + f"{torch.get_num_threads()} threads, {args.rounds} alternating rounds"
    )


if __name__ == "__main__":
    main()
