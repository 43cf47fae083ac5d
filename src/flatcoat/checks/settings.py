"""What is suspicious in a recipe before anything is read: each a function of a few of its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flatcoat.checks.base import Finding, ok

FEW = 4  # documents that compete with a positive: fewer are too easy
FLAT = 0.5  # the most that a softmax over cosines can give the positive, below which it teaches little
PROBED = 0.2


def warmup(steps: int, warming: int) -> list[Finding]:
    """Whether the learning rate gets where it is to go.

    A published recipe warmed up for 95 % of its steps (PeterGriffinJin/Search-R1#28); its peak was hardly ever used.
    """
    if steps and warming >= steps:
        message = f"the rate rises for {warming} steps, and there are {steps}: it never gets to its peak"
        return [Finding("warning", "warmup", message, "training.warmup of about a tenth of the steps is usual")]
    if steps and warming > steps / 2:
        message = f"the rate rises for {warming} of {steps} steps"
        return [Finding("warning", "warmup", message, "training.warmup of about a tenth of the steps is usual")]
    return [ok("warmup", f"{warming} of {steps} steps")]


def temperature(heat: float, documents: int) -> list[Finding]:
    """Whether a softmax over cosines can be sure of anything: `documents` compete, each cosine divided by `heat`.

    Cosines lie in −1 … 1, so the positive has at most 1 / (1 + (n − 1)·exp(−2 / heat)): at 1, hardly a tenth of 64
    (huggingface/sentence-transformers#3179: the loss stays high, however good the model).
    """
    best = 1 / (1 + max(0, documents - 1) * math.exp(-2 / heat))
    said = f"a softmax over {documents} cosines at temperature {heat:g} gives a perfect positive {best:.0%}"
    if best < FLAT:
        return [
            Finding("warning", "temperature", said, "vectors are of unit length: training.temperature of about 0.05")
        ]
    return [ok("temperature", said)]


def few_negatives(batch: int, drawn: int) -> list[Finding]:
    """Whether anything competes with the positive: the batch's other positives, and what is drawn for each query.

    With a batch of 2 and no other negatives the loss is soon 0 (facebookresearch/DPR#243).
    """
    rivals = (batch - 1) + batch * drawn
    if rivals < FEW:
        message = f"{rivals} documents compete with each positive (a batch of {batch}, {drawn} drawn for each query)"
        return [Finding("warning", "few-negatives", message, "a larger training.batch, or negatives.kind = bm25")]
    return [ok("few-negatives", f"{rivals} documents compete with each positive")]


def window(first: int, last: int, per_query: int, documents: int) -> list[Finding]:
    """Whether the ranks that negatives are mined from are there, and hard.

    `range_max` past what is there, or a window that gives too few, was silent for years
    (huggingface/sentence-transformers#3504, AnswerDotAI/RAGatouille#100).
    """
    if first >= documents:
        message = f"negatives are mined from rank {first} on, and there are {documents} documents: nothing is found"
        return [Finding("error", "negatives-window", message, "a smaller negatives.first")]
    if last - first + 1 < per_query:
        message = f"ranks {first} to {last} hold fewer than the {per_query} negatives that each query is to have"
        return [Finding("warning", "negatives-window", message, "a greater negatives.last")]
    if last > documents / 2:
        message = f"negatives are mined down to rank {last} of {documents} documents: most are easy ones"
        return [Finding("warning", "negatives-window", message, "a smaller negatives.last")]
    return [ok("negatives-window", f"ranks {first} to {last} of {documents} documents")]


def splits(train: str, dev: str | None, test: str) -> list[Finding]:
    """Whether what is measured is what was learnt from (embeddings-benchmark/mteb#1036: leaks of train into test)."""
    found = []
    for name, split in (("test", test), ("dev", dev)):
        if split == train:
            message = f"collection.{name} is {split!r}: all queries measured are also queries of {train!r}"
            found.append(Finding("error", "splits", message, "measure on queries that training has not seen"))
    return found or [ok("splits", f"train {train!r}, dev {dev!r}, test {test!r}")]


def measure_depth(deepest: int, documents: int) -> list[Finding]:
    """Whether a measure looks deeper than the corpus is: recall of everything is 1, whoever ranks.

    A recall of what was never cut off says nothing (the reverse of stanford-futuredata/ColBERT#280).
    """
    if deepest >= documents:
        message = f"a measure looks at the best {deepest} of {documents} documents: it is the same for every system"
        return [Finding("warning", "measure-depth", message, "a smaller cut-off, as in R@10")]
    return [ok("measure-depth", f"the deepest measure looks at {deepest} of {documents} documents")]


def ramp(weights: Sequence[float | None], share: float) -> list[Finding]:
    """Whether the weight of a sparse model's regulariser grows from nothing, as SPLADE's does (arXiv 2107.05720).

    At full weight from the first step, it is cheapest to have no term at all (naver/splade#31, taoshen58/LexMAE#2).
    """
    if any(weights) and share == 0:
        message = "the regulariser weighs all it ever will from the first step: representations tend to die"
        return [Finding("warning", "ramp", message, "sparsity.ramp of about a third of the run")]
    return [ok("ramp", f"over {share:.0%} of the run")]


def probes(name: str, cells: int, probed: int) -> list[Finding]:
    """How many of an inverted file's cells are searched: what lies in the others cannot be found.

    One of ten cells turned 36.5 nDCG@10 into 31.2 on TREC-COVID; deepset-ai/haystack#747 is the same surprise.
    """
    said = f"{name}: {probed} of {cells} cells are searched"
    if probed < PROBED * cells:
        return [Finding("warning", "probes", f"{said}; what lies in the others is never found",
                        "a greater nprobe: flatcoat fidelity finds the one that meets a target")]  # fmt: skip
    return [ok("probes", said)]
