"""The gradient of one batch, exactly, with as much or as little memory as wanted.

Vectors first, then the loss on them, then back through the encoders from ∂L/∂vector:

* *whole*: each chunk's graph is kept; one forward pass, one backward pass;
* *cached* (GradCache: Gao et al. 2021, arXiv 2101.06983): vectors are made without graphs, and each chunk runs again
  under the same random state when its gradient is known. Same gradients, memory of one chunk.

Chunks are cut by length, so that little of a batch is padding. With several processes every one sees all vectors,
computes the whole batch's loss, sends back the gradient of its own rows, and adds up parameter gradients: the loss and
the gradients are those of one process with the whole batch. One engine serves every case, so that none can differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flatcoat.models.encode import batches_by_length, pad
from flatcoat.objectives.total import Evidence, Term, total
from flatcoat.training.processes import Processes
from flatcoat.training.student import Batch, Student


@dataclass(frozen=True)
class Chunk:
    """Rows of one tower's texts that are encoded together."""

    tower: str
    rows: list[int]
    ids: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Outcome:
    """One batch's loss, its parts, and how many negatives a query really had."""

    loss: float
    parts: dict[str, float]
    negatives: float
    evidence: Evidence


def gradient(
    student: Student,
    batch: Batch,
    terms: Sequence[Term],
    step: int,
    *,
    processes: Processes,
    cached: bool = False,
    scale: float = 1.0,
) -> Outcome:
    """Add the gradient of `scale` × the batch's loss to the parameters' `.grad`; give the loss unscaled."""
    towers = student.towers()
    texts = student.texts(batch)
    tokens = {name: towers[name].tokenize(list(texts[name])) for name in towers}
    chunks = list(_chunks(student, tokens))
    forward = _remembered if cached else _kept
    vectors, backward = forward(student, chunks, {name: len(rows) for name, rows in tokens.items()})
    leaves = {name: processes.gather(value).requires_grad_() for name, value in vectors.items()}
    marks = _marks(batch, processes, student.runtime.device)
    evidence = student.evidence(leaves, marks)
    loss, parts = total(terms, evidence, step)
    (scale * loss).backward()
    backward({name: _own(leaf, processes) for name, leaf in leaves.items()})
    negatives = (evidence.allowed.sum(1) - 1).float().mean()
    values = {name: value.item() for name, value in parts.items()}
    return Outcome(loss.item(), values, negatives.item(), evidence)


def _chunks(student: Student, tokens: Mapping[str, list[list[int]]]) -> Iterator[Chunk]:
    for name, rows in tokens.items():
        pad_id = student.towers()[name].pad_id
        for chosen in batches_by_length([len(row) for row in rows], student.runtime.batch_tokens):
            ids, mask = pad([rows[i] for i in chosen], pad_id, student.runtime.device)
            yield Chunk(name, chosen, ids, mask)


def _forward(student: Student, chunk: Chunk) -> Tensor:
    with student.runtime.autocast():
        return student.towers()[chunk.tower](chunk.ids, chunk.mask).float()


def _own(leaf: Tensor, processes: Processes) -> Tensor:
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return gradient[processes.slice(len(leaf))]


Backward = Callable[[Mapping[str, Tensor]], None]


def _assemble(student: Student, chunks: Sequence[Chunk], parts: Sequence[Tensor], sizes: Mapping[str, int]):
    """Each tower's vectors in the order of its texts."""
    result = {}
    for name, size in sizes.items():
        dim = student.towers()[name].dim
        result[name] = torch.empty(size, dim, device=student.runtime.device)
        for chunk, part in zip(chunks, parts, strict=True):
            if chunk.tower == name:
                result[name][chunk.rows] = part.detach()
    return result


def _kept(student: Student, chunks: Sequence[Chunk], sizes: Mapping[str, int]) -> tuple[dict[str, Tensor], Backward]:
    """Forward with graphs."""
    parts = [_forward(student, chunk) for chunk in chunks]

    def backward(gradients: Mapping[str, Tensor]) -> None:
        moving = [(part, chunk) for part, chunk in zip(parts, chunks, strict=True) if part.requires_grad]
        torch.autograd.backward([part for part, _ in moving], [gradients[c.tower][c.rows] for _, c in moving])

    return _assemble(student, chunks, parts, sizes), backward


def _remembered(
    student: Student, chunks: Sequence[Chunk], sizes: Mapping[str, int]
) -> tuple[dict[str, Tensor], Backward]:
    """Forward without graphs, each chunk's random state noted; backward runs it again."""
    parts, states = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(random_state(student.runtime.device))
            parts.append(_forward(student, chunk))

    def backward(gradients: Mapping[str, Tensor]) -> None:
        after = random_state(student.runtime.device)
        for chunk, state in zip(chunks, states, strict=True):
            set_random_state(state, student.runtime.device)
            part = _forward(student, chunk)
            if part.requires_grad:  # a frozen tower has nothing to send back to
                part.backward(gradients[chunk.tower][chunk.rows])
        set_random_state(after, student.runtime.device)

    return _assemble(student, chunks, parts, sizes), backward


def random_state(device: str) -> tuple[Tensor, ...]:
    """The states of the generators that dropout draws from."""
    cpu = torch.get_rng_state()
    return (cpu, torch.cuda.get_rng_state(device)) if device.startswith("cuda") else (cpu,)


def set_random_state(states: Sequence[Tensor], device: str) -> None:
    """Restore `random_state`."""
    torch.set_rng_state(states[0])
    if device.startswith("cuda"):
        torch.cuda.set_rng_state(states[1], device)


def _marks(batch: Batch, processes: Processes, device: str) -> dict[str, Tensor]:
    """Keys, known positives and targets of the whole batch."""
    keys = processes.gather(torch.from_numpy(batch.keys).to(device))
    known = processes.gather(torch.from_numpy(batch.known).to(device))
    queries, documents = len(batch.queries), len(batch.documents)
    ranks = torch.arange(processes.world, device=device).repeat_interleave(queries)
    target = ranks * documents + torch.arange(queries, device=device).repeat(processes.world)
    marks = {"keys": keys, "known": known, "target": target}
    if batch.teacher is not None:
        # each process scored its own queries with every document of the whole batch
        marks["teacher"] = processes.gather(torch.from_numpy(batch.teacher).to(device))
    return marks
