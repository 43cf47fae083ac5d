"""The cascade's student: several scorers of one batch, taught by one another (ERNIE-Search: Lu et al. 2022, arXiv 2205.09153).

    S_dual(q, d) = q · d      S_late(q, d) = Σ_i max_j ⟨q_i, d_j⟩      S_sparse(q, d) = Σ_v w_v(q) w_v(d)      S_cross(q, d) = logit

The dual, late and sparse scores come from one forward pass of one encoder and cover every query and every document of all
processes; the cross-encoder scores each query's own candidates (its positive, its drawn negatives and, where asked, some
other queries' positives) and says nothing elsewhere. Scores are divided by their own temperature: softmax of
`evidence.scores[name]` is the scorer's distribution. What teaches what is the list of terms; every teacher is detached there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flatcoat.models.maxsim import maxsim
from flatcoat.models.readings import Cascade
from flatcoat.models.splade import SpladeModel
from flatcoat.objectives.total import Evidence
from flatcoat.training.student import Batch, allowed

AGAIN = "again"  # a second pass of the same texts, under other dropout


@dataclass(frozen=True)
class CascadeSettings:
    """How scores are made.

    `temperatures` by scorer (1 where absent); `in_batch`: other queries' positives that the cross-encoder scores too;
    `attention`: whether it shows its attention, for the token-level term; `twice`: whether the dual encoder reads everything
    a second time under other dropout; `factors`: what the learning rate is multiplied by, by prefix of the parameter's name.
    """

    temperatures: Mapping[str, float] = field(default_factory=dict)
    in_batch: int = 0
    attention: bool = False
    twice: bool = False
    factors: Mapping[str, float] = field(default_factory=dict)


class CrossInput(nn.Module):
    """A cross-encoder's tower as the step engine sees it: logits, and attention beside them where that is asked."""

    def __init__(self, tower: Any, attention: bool):
        super().__init__()
        self.tower, self.attention = tower, attention

    @property
    def pad_id(self) -> int:
        """The token id that padding is made of."""
        return self.tower.pad_id

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Token ids of pairs."""
        return self.tower.tokenize(pairs)

    def forward(self, ids: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """`score` [pair], and `attention` [pair, query token, document token]."""
        if not self.attention:
            return {"score": self.tower(ids, mask)}
        score, attention = self.tower.attend(ids, mask)
        return {"score": score, "attention": attention.detach()}


class CascadeStudent:
    """A cascade in training."""

    def __init__(self, model: Cascade, settings: CascadeSettings):
        self.model, self.settings, self.runtime = model, settings, model.runtime
        self._towers: dict[str, Any] = {}
        readers = model.readers()
        if readers is not None:
            self._towers |= {"query": readers[0], "document": readers[1]}
            if settings.twice:
                self._towers |= {f"query.{AGAIN}": readers[0], f"document.{AGAIN}": readers[1]}
        if model.cross is not None:
            self._towers["cross"] = CrossInput(model.cross.tower, settings.attention)

    @property
    def module(self) -> nn.Module:
        """What the optimizer moves."""
        return self.model

    @property
    def main(self) -> str:
        """The scorer of the dual encoder that is served."""
        return "sparse" if isinstance(self.model.student, SpladeModel) else "dual"

    def towers(self) -> Mapping[str, Any]:
        """The towers by the part of the batch they encode."""
        return self._towers

    def texts(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        """The texts, and the cross-encoder's pairs of them."""
        found: dict[str, Sequence[Any]] = {}
        for name in self._towers:
            side = name.split(".")[0]
            if side == "cross":
                rows, columns = candidates(len(batch.queries), len(batch.documents), self.settings.in_batch)
                found[name] = [
                    (batch.queries[i], batch.documents[j]) for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
                ]
            else:
                found[name] = batch.queries if side == "query" else batch.documents
        return found

    def parts(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """The shared encoder, and the cross-encoder."""
        found: dict[str, Sequence[nn.Parameter]] = {}
        for name, module in (("gradient", self.model.encoder()), ("gradient_cross", self.model.cross)):
            own = [] if module is None else [p for p in module.parameters() if p.requires_grad]
            found |= {name: own} if own else {}
        return found

    def factor(self, name: str) -> float:
        """What the learning rate of a parameter is multiplied by."""
        return next((f for prefix, f in self.settings.factors.items() if name.startswith(prefix)), 1.0)

    def evidence(self, vectors: Mapping[str, Tensor], marks: Mapping[str, Tensor]) -> Evidence:
        """Every scorer's scores of the whole batch; `extra` holds the readings, and the cross-encoder's pairs."""
        target = marks["target"]
        may = allowed(marks["keys"], marks["known"], target)
        scores: dict[str, Tensor] = {}
        extra = dict(vectors)
        for name in ("dual", "sparse"):
            if f"query/{name}" in vectors:
                scores[name] = vectors[f"query/{name}"] @ vectors[f"document/{name}"].T
                # what regularisers of a sparse model look for
                extra |= {side: vectors[f"{side}/{name}"] for side in ("query", "document")}
        if self.settings.twice:
            query, document = (f"{side}{{}}/{self.main}" for side in ("query", "document"))
            again = f".{AGAIN}"
            scores[f"{self.main}.query"] = vectors[query.format(again)] @ vectors[document.format("")].T
            scores[f"{self.main}.document"] = vectors[query.format("")] @ vectors[document.format(again)].T
        if "query/tokens" in vectors:
            query, document = ([vectors[f"{s}/{n}"] for n in ("tokens", "present")] for s in ("query", "document"))
            scores["late"] = maxsim(query[0], query[1], document[0], document[1])
        if "cross/score" in vectors:
            pairs = self._pairs(marks)
            extra["cross/rows"], extra["cross/columns"] = pairs
            scores["cross"] = placed(vectors["cross/score"], *pairs, marks["keys"], target)
        heat = self.settings.temperatures
        scaled = {name: value / heat.get(name.split(".")[0], 1.0) for name, value in scores.items()}
        if "teacher" in marks:
            scaled["teacher"] = marks["teacher"]
        return Evidence(scaled, target, may, extra)

    def _pairs(self, marks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Rows and columns of the cross-encoder's scores, process by process, as they were gathered."""
        world = int(marks["world"])
        queries, documents = len(marks["target"]) // world, len(marks["keys"]) // world
        rows, columns = candidates(queries, documents, self.settings.in_batch)
        every = torch.arange(world)[:, None]
        device = marks["keys"].device
        return (
            (every * queries + rows).reshape(-1).to(device),
            (every * documents + columns).reshape(-1).to(device),
        )


def placed(scores: Tensor, rows: Tensor, columns: Tensor, keys: Tensor, target: Tensor) -> Tensor:
    """Scores of pairs as [query, document], not a number elsewhere.

    A text that stands in the batch several times competes at its first place alone (`student.allowed`), so that is where its score goes,
    whoever drew it; a query's own positive stays at its target. Of a query's equal candidates the first counts.
    """
    first = (keys[None, :] == keys[:, None]).int().argmax(1)
    own = columns == target[rows]
    places = torch.where(own, columns, first[columns])
    code = rows * len(keys) + places
    order = torch.argsort(code, stable=True)
    new = torch.ones_like(code, dtype=torch.bool)
    new[order[1:]] = code[order[1:]] != code[order[:-1]]
    out = torch.full((len(target), len(keys)), torch.nan, device=scores.device)
    return out.index_put((rows[new], places[new]), scores[new])


def candidates(queries: int, documents: int, in_batch: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pairs that a cross-encoder scores in one process's batch: positives, then each query's
    drawn negatives, then the positives of the `in_batch` others of its group.

    Groups are runs of in_batch + 1 queries, the last as long as what is left: as long as groups divide each process's share, the
    pairs do not depend on how many processes there are.
    """
    drawn = (documents - queries) // queries
    own = torch.arange(queries)
    parts = [(own, own)]
    if drawn:
        parts.append((own.repeat_interleave(drawn), queries + torch.arange(queries * drawn)))
    size = torch.clamp(queries - own // (in_batch + 1) * (in_batch + 1), max=in_batch + 1)  # of each query's group
    begins = own // (in_batch + 1) * (in_batch + 1)
    for shift in range(1, in_batch + 1):
        fine = shift < size
        parts.append((own[fine], (begins + (own - begins + shift) % size)[fine]))
    rows, columns = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    return rows, columns
