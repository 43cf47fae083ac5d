"""The gradient of one batch, exactly, with as much or as little memory as wanted.

Vectors first, then the loss on them, then back through the encoders from ∂L/∂vector:

    ∂L/∂θ = Σ_chunks (∂V_chunk/∂θ)ᵀ ∂L/∂V_chunk

* *whole*: each chunk's graph is kept; one forward pass, one backward pass;
* *cached* (GradCache: Gao et al. 2021, arXiv 2101.06983): vectors are made without graphs, and each chunk runs again
  under the same random state when its gradient is known. Same gradients, memory of one chunk.

A tower gives one tensor, or several *readings* of one forward pass by name (late interaction gives token vectors and which of
them are present). What is ragged is padded with zeros (false); floating readings carry gradients, others none.

Chunks are cut by length, so that little of a batch is padding. With several processes every one sees all vectors,
computes the whole batch's loss, sends back the gradient of its own rows, and adds up parameter gradients: the loss and
the gradients are those of one process with the whole batch. One engine serves every case, so that none can differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatcoat.models.encode import batches_by_length, pad
from flatcoat.models.fast.training import trained_quickly
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
    with trained_quickly(student.module, student.runtime):
        evidence, leaves, backward = _observe(student, batch, processes, _remembered if cached else _kept)
        loss, parts = total(terms, evidence, step)
        (scale * loss).backward()
        backward({name: _own(value, processes) for name, value in leaves.items() if value.requires_grad}, False)
    negatives = (evidence.allowed.sum(1) - 1).float().mean()
    values = {name: value.item() for name, value in parts.items()}
    return Outcome(loss.item(), values, negatives.item(), evidence)


def term_norms(
    student: Student, batch: Batch, terms: Sequence[Term], step: int, *, processes: Processes, cached: bool = False
) -> dict[str, float]:
    """The norm of each weighted term's own gradient, on each part of the model that the student names: `PART/TERM`.

    Leaves gradients unset and the random state as it was.
    """
    before = random_state(student.runtime.device)
    evidence, leaves, backward = _observe(student, batch, processes, _remembered if cached else _kept)
    moving = [value for value in leaves.values() if value.requires_grad]
    norms = {}
    for term in terms:
        weight = term.weight_at(step)
        for value in moving:
            value.grad = None
        loss = weight * term.loss(evidence)
        if weight and loss.requires_grad:
            loss.backward(retain_graph=True)
            backward({name: _own(value, processes) for name, value in leaves.items() if value.requires_grad}, True)
        for part, parameters in student.parts().items():
            processes.add_gradients(parameters)
            squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
            norms[f"{part}/{term.name}"] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
        student.module.zero_grad(set_to_none=True)
    set_random_state(before, student.runtime.device)
    return norms


def _observe(
    student: Student, batch: Batch, processes: Processes, forward: Any
) -> tuple[Evidence, dict[str, Tensor], Backward]:
    """The evidence of the whole batch, the readings it was made from, and the way back through the encoders."""
    towers, texts = student.towers(), student.texts(batch)
    tokens = {name: towers[name].tokenize(list(texts[name])) for name in towers}
    chunks = list(_chunks(student, tokens))
    made, backward = forward(student, chunks, {name: len(rows) for name, rows in tokens.items()}, processes)
    leaves = {name: leaf(processes.gather(value)) for name, value in made.items()}
    return student.evidence(leaves, _marks(batch, processes, student.runtime.device)), leaves, backward


def _chunks(student: Student, tokens: Mapping[str, list[list[int]]]) -> Iterator[Chunk]:
    for name, rows in tokens.items():
        pad_id = student.towers()[name].pad_id
        for chosen in batches_by_length([len(row) for row in rows], student.runtime.tokens):
            ids, mask = pad([rows[i] for i in chosen], pad_id, student.runtime.device)
            yield Chunk(name, chosen, ids, mask)


Readings = dict[str, Tensor]


def _forward(student: Student, chunk: Chunk) -> Readings:
    """What a tower makes of a chunk, by `TOWER` or `TOWER/READING`."""
    with student.runtime.autocast():
        made = student.towers()[chunk.tower](chunk.ids, chunk.mask)
    readings = {chunk.tower: made} if isinstance(made, Tensor) else {f"{chunk.tower}/{n}": v for n, v in made.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in readings.items()}


def leaf(value: Tensor) -> Tensor:
    """A tensor to take the gradient at; masks and counts have none."""
    return value.requires_grad_() if value.is_floating_point() else value


def _own(value: Tensor, processes: Processes) -> Tensor:
    gradient = torch.zeros_like(value) if value.grad is None else value.grad
    return gradient[processes.slice(len(value))]


Backward = Callable[[Mapping[str, Tensor], bool], None]  # gradients at readings; whether graphs are wanted again


def _assemble(
    chunks: Sequence[Chunk], parts: Sequence[Readings], sizes: Mapping[str, int], processes: Processes
) -> Readings:
    """Each tower's readings in the order of its texts, ragged ones padded to the widest of all processes."""
    result: Readings = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        found = [(chunk.rows, part[name].detach()) for chunk, part in zip(chunks, parts, strict=True) if name in part]
        widths = processes.most(np.array([value.shape[1:] for _, value in found], dtype=np.int64).max(0))
        result[name] = found[0][1].new_zeros(sizes[name.split("/")[0]], *widths)
        for rows, value in found:
            result[name][(rows, *(slice(width) for width in value.shape[1:]))] = value
    return result


def _send_back(chunk: Chunk, part: Readings, gradients: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The readings of a chunk that move, and the gradient at each."""
    moving = {name: value for name, value in part.items() if value.requires_grad}
    cut = [gradients[n][(chunk.rows, *(slice(w) for w in v.shape[1:]))] for n, v in moving.items()]
    return list(moving.values()), cut


def _kept(
    student: Student, chunks: Sequence[Chunk], sizes: Mapping[str, int], processes: Processes
) -> tuple[Readings, Backward]:
    """Forward with graphs."""
    parts = [_forward(student, chunk) for chunk in chunks]

    def backward(gradients: Mapping[str, Tensor], again: bool) -> None:
        pairs = [_send_back(chunk, part, gradients) for chunk, part in zip(chunks, parts, strict=True)]
        values, cut = [v for own, _ in pairs for v in own], [g for _, own in pairs for g in own]
        torch.autograd.backward(values, cut, retain_graph=again)

    return _assemble(chunks, parts, sizes, processes), backward


def _remembered(
    student: Student, chunks: Sequence[Chunk], sizes: Mapping[str, int], processes: Processes
) -> tuple[Readings, Backward]:
    """Forward without graphs, each chunk's random state noted; backward runs it again."""
    parts, states = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(random_state(student.runtime.device))
            parts.append(_forward(student, chunk))

    def backward(gradients: Mapping[str, Tensor], again: bool) -> None:
        after = random_state(student.runtime.device)
        for chunk, state in zip(chunks, states, strict=True):
            set_random_state(state, student.runtime.device)
            values, cut = _send_back(chunk, _forward(student, chunk), gradients)
            if values:  # a frozen tower has nothing to send back to
                torch.autograd.backward(values, cut)
        set_random_state(after, student.runtime.device)

    return _assemble(chunks, parts, sizes, processes), backward


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
    world = torch.tensor(processes.world)
    marks = {"keys": keys, "known": known, "target": target, "world": world}
    if batch.teacher is not None:
        # each process scored its own queries with every document of the whole batch
        marks["teacher"] = processes.gather(torch.from_numpy(batch.teacher).to(device))
    if batch.log_q is not None:
        drawn = batch.log_q.shape[1]
        place = torch.arange(queries, device=device).repeat(processes.world)
        first = ranks * documents + queries + place * drawn  # where a query's own draws begin
        marks["own"] = first[:, None] + torch.arange(drawn, device=device)
        marks["log_q"] = processes.gather(torch.from_numpy(batch.log_q).to(device))
    return marks
