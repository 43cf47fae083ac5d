"""The tables of a recipe that say which negatives training sees."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from flatcoat.app.table import Table

Kind = Literal[
    "none", "given", "uniform", "periodic", "bm25", "model", "simans", "stochastic", "cache", "exhaustive", "dynnibal"
]
WITH_QUERIES = ("stochastic", "cache", "exhaustive", "dynnibal")  # these encode a batch's queries at each draw
LISTED = ("bm25", "model", "periodic", "simans")  # these mine a list a query


class DynnibalTable(Table):
    """Of negatives.kind = dynnibal: a tree over codes of all documents that follows the model (docs/negatives.md). Every
    `negatives.every` steps `sample` documents are encoded; `landmarks` of them give codes. A share `uniform` of the negatives is uniform.
    """

    landmarks: int = Field(default=128, ge=1)
    choice: Literal["uniform", "kmeans", "leverage", "pivots"] = "kmeans"
    sample: int = Field(default=8192, ge=10)
    corrector: Literal["ridge", "network"] = "ridge"
    budget: float | None = Field(default=None, gt=0)
    full_every: int | None = Field(default=None, ge=1)
    uniform: float = Field(default=0.5, ge=0, le=1)
    lag: int = Field(default=0, ge=0)
    follow: Literal["keep", "anew", "repair", "rebuild"] = "keep"
    drift: float | None = Field(default=None, ge=0)
    method: Literal["mh", "rejection", "best"] = "mh"
    opens: Literal["near", "mass"] = "near"
    members: Literal["descend", "uniform"] = "descend"
    clusters: int = Field(default=1000, ge=1)
    gamma: float = Field(default=2.0, gt=1)
    chain: int = Field(default=2, ge=1)
    tries: int = Field(default=1000, ge=1)
    base: float = Field(default=1.1, ge=1.01, le=4)
    trees: int = Field(default=8, ge=1)
    distance: Literal["euclidean", "exp"] = "euclidean"


class NegativesTable(Table):
    """Hard negatives a query, besides those of the batch. `periodic` mines with the model in training, `model` once with the dense
    or sparse one that `model` names, `bm25` with words; `given` takes those of `file` (JSONL as
    `flatcoat mine` writes it, or a TREC run), or the collection's own. What is mined loses what the cross-encoder `judge`, trained
    with bce.cross so that its logits are of probabilities, gives one of more than `judge_above`. `simans` is periodic, drawn by
    exp(−a·(s − s⁺ − b)²). Others draw anew for each batch: `stochastic` from `size` random documents, encoded every `every` steps,
    `cache` from `size` kept vectors of which `renew` are encoded a step, `exhaustive` from all, encoded every `every` steps, `dynnibal`
    from all by a tree. `choose` is softmax, or top of the best `pool`. Until step `warmup` negatives are uniform.
    """

    kind: Kind = "none"
    file: str | None = None
    per_query: int = Field(default=1, ge=1)
    first: int = Field(default=1, ge=1)
    last: int = Field(default=50, ge=1)
    absolute_margin: float | None = None
    relative: float | None = None
    max_score: float | None = None
    every: int | None = Field(default=None, ge=1)
    approximate: bool = False
    model: str | None = None
    judge: str | None = None
    judge_above: float = Field(default=0.1, gt=0, lt=1)
    a: float = Field(default=0.5, ge=0)
    b: float = 0.0
    size: int | None = Field(default=None, ge=1)
    renew: int = Field(default=64, ge=0)
    replace: Literal["fifo", "lru"] = "fifo"
    choose: Literal["softmax", "top"] = "softmax"
    pool: int | None = Field(default=None, ge=1)
    warmup: int = Field(default=0, ge=0)
    dynnibal: DynnibalTable | None = None

    @property
    def has_log_q(self) -> bool:
        """Whether draws are of all documents, with a probability that is known."""
        return (
            self.kind == "uniform"
            or (self.dynnibal is not None and self.dynnibal.method != "best")
            or (self.kind == "exhaustive" and self.choose == "softmax")
        )

    @model_validator(mode="before")
    @classmethod
    def _with_its_table(cls, given: Any) -> Any:
        """DynnibalTable's defaults where DyNNIBAL draws, so that the resolved recipe says them; and nowhere else."""
        return {"dynnibal": {}, **given} if isinstance(given, dict) and given.get("kind") == "dynnibal" else given

    @model_validator(mode="after")
    def _of_its_kind(self) -> NegativesTable:
        if self.kind in ("stochastic", "cache") and self.size is None:
            raise ValueError(f"kind = {self.kind} wants size, the documents whose vectors are kept")
        if self.warmup and self.kind not in WITH_QUERIES:
            raise ValueError(
                f"warmup is of {', '.join(WITH_QUERIES)}; kind = {self.kind} has its negatives from the start"
            )
        if self.kind != "dynnibal" and self.dynnibal is not None:
            raise ValueError(f"there is a table negatives.dynnibal, but kind = {self.kind}")
        return self
