"""Dual-encoder students, dense and sparse: a batch's texts in, and from its vectors the evidence.

A student has *towers* (named functions from tokens to vectors) and *evidence* (from all vectors of all processes to
scores). The step engine in between decides how forward and backward passes are cut up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from flatcoat.models.base import Runtime
from flatcoat.models.dense import DenseModel
from flatcoat.models.splade import SpladeModel
from flatcoat.models.texts import TextTower
from flatcoat.objectives.total import Evidence


@dataclass(frozen=True)
class Batch:
    """This process's share of a batch. `documents` are the positives, in order, then the drawn negatives.

    `keys` are 64-bit hashes of document texts, equal for equal texts; `known[i]` the keys of everything that answers
    query i; `teacher` another model's scores of this share's queries with the documents of the whole batch, where there is
    one, not a number where it said nothing; `log_q` the log-probability that each query's own negatives were drawn with.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    keys: np.ndarray  # int64 [document]
    known: np.ndarray  # int64 [query, most]; padded with -1
    teacher: np.ndarray | None = None  # float32 [query, document of all processes]
    log_q: np.ndarray | None = None  # float32 [query, negative]


@runtime_checkable
class Student(Protocol):
    """What the step engine needs of a model in training."""

    runtime: Runtime

    @property
    def module(self) -> nn.Module:
        """What the optimizer moves."""
        ...

    def towers(self) -> Mapping[str, Any]:
        """The towers by the part of the batch they encode; each gives a tensor, or several by name."""
        ...

    def texts(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        """The texts, or pairs of texts, by the tower that encodes them."""
        ...

    def evidence(self, vectors: Mapping[str, Tensor], marks: Mapping[str, Tensor]) -> Evidence:
        """Scores of the whole batch from the vectors of the whole batch."""
        ...

    def parts(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """The parameters whose gradients are worth a look, by what they are called in the log."""
        ...

    def factor(self, name: str) -> float:
        """What the learning rate of a parameter is multiplied by."""
        ...


class DenseStudent:
    """A dual encoder in training: scores are dot products of every query with every document."""

    scorer = "dual"

    def __init__(self, model: DenseModel | SpladeModel):
        self.model, self.runtime = model, model.runtime

    @property
    def module(self) -> nn.Module:
        """What the optimizer moves."""
        return self.model

    def towers(self) -> Mapping[str, TextTower]:
        """The towers by the part of the batch they encode."""
        return {"query": self.model.query, "document": self.model.document}

    def texts(self, batch: Batch) -> Mapping[str, Sequence[str]]:
        """The texts by the tower that encodes them."""
        return {"query": batch.queries, "document": batch.documents}

    def evidence(self, vectors: Mapping[str, Tensor], marks: Mapping[str, Tensor]) -> Evidence:
        """Scores of all queries against all documents, with known positives and repeats kept from competing.

        `extra` holds the vectors themselves, for regularisers; `scores["teacher"]` a teacher's, where there is one.
        """
        scores = {self.scorer: vectors["query"] @ vectors["document"].T}
        if "teacher" in marks:
            scores["teacher"] = marks["teacher"]
        target = marks["target"]
        extra = {**vectors, **own_draws(marks)} if "log_q" in marks else dict(vectors)
        return Evidence(scores, target, allowed(marks["keys"], marks["known"], target), extra)

    def parts(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """All of it."""
        return {"gradient": [p for p in self.module.parameters() if p.requires_grad]}

    def factor(self, name: str) -> float:
        """One rate for all."""
        return 1.0


class SparseStudent(DenseStudent):
    """A sparse dual encoder in training; its vectors are term weights."""

    scorer = "sparse"


def own_draws(marks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where each query's own negatives stand among all documents, and the log-probability of each: infinite for one that answers it.

    A document that was drawn twice counts twice, as an estimate wants it.
    """
    own, keys, known = marks["own"], marks["keys"], marks["known"]
    answers = (keys[own][:, :, None] == known[:, None, :]).any(-1) | (keys[own] == keys[marks["target"]][:, None])
    return {"own": own, "log_q": marks["log_q"].masked_fill(answers, float("inf"))}


def allowed(keys: Tensor, known: Tensor, target: Tensor) -> Tensor:
    """Which documents may compete: all but the query's other known positives, texts equal to its own positive included.

    A text that stands in the batch twice counts once as a negative: its later places are masked.
    """
    answers = (keys[None, :, None] == known[:, None, :]).any(-1)
    own = keys[None, :] == keys[target][:, None]
    may = ~(answers | own | _repeats(keys)[None, :])
    may[torch.arange(len(target), device=target.device), target] = True
    return may


def _repeats(keys: Tensor) -> Tensor:
    """Whether an equal key stands earlier."""
    same = keys[None, :] == keys[:, None]
    return torch.tril(same, diagonal=-1).any(1)
