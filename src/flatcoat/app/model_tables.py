"""The tables of a recipe that are of one kind of model: the model itself, its sparsity, its indexes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from flatcoat.app.table import Table

KINDS = ("dense", "sparse", "late", "cross")
INDEXES = {
    "dense": ("scan", "bits", "sq", "hnsw", "ivf"),
    "sparse": ("inverted", "pruned"),
    "late": ("multivector",),
    "cross": (),
}
DEFAULT_INDEX = {"sparse": "inverted", "late": "multivector"}


class ModelTable(Table):
    """Where the model starts, and what is to differ from its checkpoint (absent: the checkpoint's own).

    Dense models have `pooling`, `normalise` and `separate`. Sparse ones (SPLADE) have `aggregate`; `queries`, which may share
    the documents' weights, have weights of their own (`separate`) or be a `lookup` of weights by token, the corpus's IDF to
    begin with; and `query_terms` and `document_terms`, the most terms a text keeps in training and after. `freeze` holds
    the network (`encoder`) or its embeddings as they are.

    Late-interaction models (ColBERT) have `dim`, the width of token vectors; `query_marker` and `document_marker`, tokens behind the
    first; `expand`, whether queries are filled up to their length with [MASK], attended to or not (`attend_expansion`); and
    `skip_punctuation` of documents. Cross-encoders have lengths: `document_length` is the whole pair's.
    """

    kind: Literal["dense", "sparse", "late", "cross"] = "dense"
    start: str
    pooling: Literal["cls", "mean", "max", "last"] | None = None
    normalise: bool | None = None
    query_length: int | None = Field(default=None, ge=2)
    document_length: int | None = Field(default=None, ge=2)
    query_prompt: str | None = None
    document_prompt: str | None = None
    separate: bool = False
    dropout: float | None = Field(default=None, ge=0, lt=1)
    aggregate: Literal["max", "sum"] | None = None
    queries: Literal["shared", "separate", "lookup"] | None = None
    query_terms: int | None = Field(default=None, ge=1)
    document_terms: int | None = Field(default=None, ge=1)
    freeze: Literal["none", "embeddings", "encoder"] = "none"
    dim: int | None = Field(default=None, ge=1)
    query_marker: str | None = None
    document_marker: str | None = None
    expand: bool | None = None
    attend_expansion: bool | None = None
    skip_punctuation: bool | None = None

    @model_validator(mode="after")
    def _of_its_kind(self) -> ModelTable:
        own = {
            "dense": ("pooling", "normalise", "separate"),
            "sparse": ("aggregate", "queries", "query_terms", "document_terms"),
            "late": ("dim", "query_marker", "document_marker", "expand", "attend_expansion", "skip_punctuation"),
        }
        if self.kind == "dense" and self.freeze == "encoder":
            raise ValueError('freeze = "encoder" leaves a dense model nothing to train; embeddings may be frozen')
        for kind, names in own.items():
            for name in names:
                if kind != self.kind and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is a setting of {kind} models; this one is {self.kind}")
        return self


Regulariser = Literal["flops", "l1", "l0-flops", "df-flops"]


class SparsityTable(Table):
    """How sparse a sparse model is to be. For each side a regulariser, and either its weight or the number of terms that a
    text is to keep, for which a controller finds the weight. `ramp` is the share of the run over which the weight grows
    (quadratically) or the number is reached. `off` are groups of vocabulary entries that are switched off in the checkpoint.
    """

    query: Regulariser = "flops"
    query_weight: float | None = Field(default=None, ge=0)
    query_terms: float | None = Field(default=None, gt=0)
    document: Regulariser = "flops"
    document_weight: float | None = Field(default=None, ge=0)
    document_terms: float | None = Field(default=None, gt=0)
    ramp: float = Field(default=0.33, ge=0, le=1)
    threshold: int = Field(default=100, ge=0)
    df_alpha: float = Field(default=0.1, gt=0, lt=1)
    df_beta: float = Field(default=10.0, gt=0)
    anti_collapse: float = Field(default=0.0, ge=0)
    off: tuple[Literal["special", "punctuation", "stopwords"], ...] = ("special", "punctuation", "stopwords")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for side, terms in (("query", 20.0), ("document", 120.0)):
                given = [f"{side}_weight" in values, f"{side}_terms" in values]
                if all(given):
                    raise ValueError(f"says both {side}_weight and {side}_terms; the one finds the other, give one")
                if not any(given):
                    values = {**values, f"{side}_terms": terms}
        return values

    @model_validator(mode="after")
    def _reachable(self) -> SparsityTable:
        for side in ("query", "document"):
            terms = getattr(self, f"{side}_terms")
            if getattr(self, side) == "l0-flops" and terms is not None and terms <= self.threshold:
                raise ValueError(
                    f"{side}_terms = {terms:g} cannot be reached: texts of up to threshold = {self.threshold} pay nothing"
                )
        return self


SETTINGS = {
    "dense": ("rescore", "links", "ef_build", "ef_search", "cells", "nprobe"),
    "inverted": ("bits", "query_terms", "query_share"),
    "pruned": ("bits", "query_terms", "query_share", "mass", "candidates"),
    "multivector": ("bits", "cells", "nprobe", "candidates", "rescore", "kept"),
}


class IndexTable(Table):
    """One approximate index beside the exact one; absent settings are its kind's defaults. Sparse models have `inverted`
    (exact over weights of 8 or 16 bits) and `pruned`; both may drop light terms of a query. Late-interaction models have `multivector`:
    residuals of 1, 2, 4 or 8 `bits`, the `candidates` whose codes are scored, how many of them are scored again (`rescore`, 0: none), with
    the vectors as they are or as signed bytes (`kept` full or int8).
    """

    kind: Literal["scan", "bits", "sq", "hnsw", "ivf", "inverted", "pruned", "multivector"] = "scan"
    name: str | None = Field(default=None, pattern=r"^\w[\w.\-]*$")
    rescore: int | None = Field(default=None, ge=0)
    links: int | None = Field(default=None, ge=2)
    ef_build: int | None = Field(default=None, ge=1)
    ef_search: int | None = Field(default=None, ge=1)
    cells: int | None = Field(default=None, ge=1)
    nprobe: int | None = Field(default=None, ge=1)
    bits: Literal[1, 2, 4, 8, 16, 32] | None = None
    query_terms: int | None = Field(default=None, ge=1)
    query_share: float | None = Field(default=None, ge=0, le=1)
    mass: int | None = Field(default=None, ge=1, le=100)
    candidates: int | None = Field(default=None, ge=1)
    kept: Literal["full", "int8"] | None = None

    @model_validator(mode="after")
    def _of_its_kind(self) -> IndexTable:
        own = SETTINGS.get(self.kind, SETTINGS["dense"])
        for name in type(self).model_fields:
            if name not in (*own, "kind", "name") and getattr(self, name) is not None:
                raise ValueError(f"{name} is no setting of an index of kind {self.kind}")
        if self.kind == "pruned" and self.bits not in (None, 8):
            raise ValueError(f"kind pruned works on weights of 8 bits, not {self.bits}")
        if self.bits is not None and self.bits not in ((1, 2, 4, 8) if self.kind == "multivector" else (8, 16, 32)):
            raise ValueError(f"bits = {self.bits} is not of an index of kind {self.kind}")
        if self.rescore == 0 and self.kind != "multivector":
            raise ValueError("rescore = 0 leaves codes to decide alone, which only kind multivector may")
        return self

    def given(self) -> dict[str, Any]:
        """The settings that it says."""
        own = SETTINGS.get(self.kind, SETTINGS["dense"])
        return {"kind": self.kind, **{name: value for name in own if (value := getattr(self, name)) is not None}}

    @property
    def label(self) -> str:
        """What the index is called in folders and tables."""
        return self.name or self.kind
