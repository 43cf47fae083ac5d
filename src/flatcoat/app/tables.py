"""The tables of a recipe: every setting, its default, and what it may be."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Table(BaseModel):
    """One table of a recipe: frozen, and nothing in it that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class CollectionTable(Table):
    """Which documents, queries and judgements."""

    source: str
    train: str = "train"
    dev: str | None = None
    test: str = "test"
    strict: bool = False


class ModelTable(Table):
    """Where the model starts, and what is to differ from its checkpoint (absent: the checkpoint's own).

    Dense models have `pooling`, `normalise` and `separate`. Sparse ones (SPLADE) have `aggregate`; `queries`, which may share
    the documents' weights, have weights of their own (`separate`) or be a `lookup` of weights by token, the corpus's IDF to
    begin with; and `query_terms` and `document_terms`, the most terms a text keeps in training and after. `freeze` holds
    the network (`encoder`) or its embeddings as they are.
    """

    kind: Literal["dense", "sparse"] = "dense"
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

    @model_validator(mode="after")
    def _of_its_kind(self) -> ModelTable:
        dense = {"pooling": None, "normalise": None, "separate": False}
        sparse = {"aggregate": None, "queries": None, "query_terms": None, "document_terms": None}
        if self.kind == "dense" and self.freeze == "encoder":
            raise ValueError('freeze = "encoder" leaves a dense model nothing to train; embeddings may be frozen')
        for name, default in (sparse if self.kind == "dense" else dense).items():
            if getattr(self, name) != default:
                other = "sparse" if self.kind == "dense" else "dense"
                raise ValueError(f"{name} is a setting of {other} models; this one is {self.kind}")
        return self


class RuntimeTable(Table):
    """How it is run. bf16 moves scores by about 1e-3; the report says what precision made it."""

    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    training_precision: Literal["fp32", "bf16"] = "fp32"
    batch_tokens: int = Field(default=2048, ge=16)
    training_batch_tokens: int = Field(default=4096, ge=16)
    gradient_checkpointing: bool = False


class TrainingTable(Table):
    """The loop; steps = 0 trains nothing. `scale` is accepted as the inverse of `temperature`."""

    steps: int = Field(default=1000, ge=0)
    batch: int = Field(default=64, ge=2)
    rate: float = Field(default=2e-5, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "linear"
    warmup: int = Field(default=50, ge=0)
    floor: float = Field(default=0.1, ge=0, le=1)
    temperature: float = Field(default=0.05, gt=0)
    accumulate: int = Field(default=1, ge=1)
    clip: float | None = Field(default=1.0, gt=0)
    cached: bool = False
    seed: int = Field(default=0, ge=0)
    save_every: int | None = Field(default=100, ge=1)
    evaluate_every: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    measure: str = "nDCG@10"
    tensorboard: bool = False

    @model_validator(mode="before")
    @classmethod
    def _scale(cls, values: Any) -> Any:
        if isinstance(values, dict) and "scale" in values:
            values = dict(values)
            scale = values.pop("scale")
            if "temperature" in values:
                raise ValueError("says both scale and temperature; scale = 1 / temperature, give one")
            if not isinstance(scale, int | float) or scale <= 0:
                raise ValueError(f"scale {scale!r} is not a number above 0")
            values["temperature"] = 1.0 / scale
        return values


class LossTable(Table):
    """What training minimises: the weights of its parts. `margin_mse` and `kl` want a teacher; `kl` divides both models'
    scores by `kl_temperature`.
    """

    contrastive: float = Field(default=1.0, ge=0)
    margin_mse: float = Field(default=0.0, ge=0)
    kl: float = Field(default=0.0, ge=0)
    kl_temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _something(self) -> LossTable:
        if not self.contrastive + self.margin_mse + self.kl:
            raise ValueError("every part weighs 0; give contrastive, margin_mse or kl a weight")
        return self


class TeacherTable(Table):
    """Whose scores are learnt from: another `model` (dense or sparse), or a `file` of JSON lines with query_id,
    document_ids and scores. `scale` multiplies its scores; a cosine wants about 20, logits of a cross-encoder 1.
    """

    model: str | None = None
    file: str | None = None
    scale: float = Field(default=1.0, gt=0)


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


class AlsoTable(Table):
    """Another recipe, run beside this one over this one's collection: its systems join the table, and hybrids with them."""

    name: str = Field(pattern=r"^\w[\w.\-]*$")
    recipe: str


class NegativesTable(Table):
    """Hard negatives a query, besides those of the batch. `periodic` and `bm25` mine; `given` takes those of `file` (JSONL as
    `flatcoat mine` writes it, or a TREC run), or the collection's own.
    """

    kind: Literal["none", "given", "uniform", "periodic", "bm25"] = "none"
    file: str | None = None
    per_query: int = Field(default=1, ge=1)
    first: int = Field(default=1, ge=1)
    last: int = Field(default=50, ge=1)
    absolute_margin: float | None = None
    relative: float | None = None
    max_score: float | None = None
    every: int | None = Field(default=None, ge=1)
    approximate: bool = False


class IndexTable(Table):
    """One approximate index beside the exact one; absent settings are its kind's defaults. Sparse models have `inverted`
    (exact over weights of 8 or 16 bits) and `pruned`; both may drop light terms of a query.
    """

    kind: Literal["scan", "bits", "sq", "hnsw", "ivf", "inverted", "pruned"] = "scan"
    name: str | None = Field(default=None, pattern=r"^\w[\w.\-]*$")
    rescore: int = Field(default=4, ge=1)
    links: int = Field(default=32, ge=2)
    ef_build: int = Field(default=200, ge=1)
    ef_search: int = Field(default=128, ge=1)
    cells: int | None = Field(default=None, ge=1)
    nprobe: int = Field(default=8, ge=1)
    bits: Literal[8, 16, 32] = 8
    query_terms: int | None = Field(default=None, ge=1)
    query_share: float = Field(default=0.0, ge=0, le=1)
    mass: int = Field(default=80, ge=1, le=100)
    candidates: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _of_its_kind(self) -> IndexTable:
        sparse = self.kind in ("inverted", "pruned")
        own = {"bits", "query_terms", "query_share", *(("mass", "candidates") if self.kind == "pruned" else ())}
        for name, field in type(self).model_fields.items():
            of_sparse = name in ("bits", "query_terms", "query_share", "mass", "candidates")
            known = name in ("kind", "name") or (name in own if sparse else not of_sparse)
            if not known and getattr(self, name) != field.default:
                raise ValueError(f"{name} is no setting of an index of kind {self.kind}")
        if self.kind == "pruned" and self.bits != 8:
            raise ValueError(f"kind pruned works on weights of 8 bits, not {self.bits}")
        return self

    @property
    def label(self) -> str:
        """What the index is called in folders and tables."""
        return self.name or self.kind


class LexicalTable(Table):
    """The BM25 baseline."""

    k1: float = Field(default=0.9, ge=0)
    b: float = Field(default=0.4, ge=0, le=1)
    stem: bool = True
    stopwords: bool = True
    identifiers: bool = False


class EvaluationTable(Table):
    """What is measured. Dev runs while training see `dev_documents` of the corpus, and say so."""

    measures: tuple[str, ...] = ("nDCG@10", "RR@10", "R@100")
    k: int = Field(default=100, ge=1)
    dev_queries: int = Field(default=500, ge=1)
    dev_documents: int = Field(default=5000, ge=1)


class Recipe(Table):
    """A whole run."""

    collection: CollectionTable
    model: ModelTable
    runtime: RuntimeTable = RuntimeTable()
    training: TrainingTable = TrainingTable()
    negatives: NegativesTable = NegativesTable()
    lexical: LexicalTable = LexicalTable()
    indexes: tuple[IndexTable, ...] = (IndexTable(),)
    evaluation: EvaluationTable = EvaluationTable()
    loss: LossTable = LossTable()
    teacher: TeacherTable | None = None
    sparsity: SparsityTable | None = None
    also: tuple[AlsoTable, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_a_kind(cls, values: Any) -> Any:
        """What a sparse model has for defaults: an inverted index, scores as they are, a sparsity to reach."""
        model = values.get("model") if isinstance(values, dict) else None
        if not isinstance(model, dict) or model.get("kind") != "sparse":
            return values
        sparsity = values.get("sparsity", {})
        if model.get("queries") == "lookup" and isinstance(sparsity, dict):
            if sparsity.get("query_weight") or sparsity.get("query_terms") is not None:
                raise ValueError(
                    "sparsity of queries: a lookup has the terms of its text; there is nothing to make sparser"
                )
            values = {**values, "sparsity": {**sparsity, "query_weight": 0.0}}
        training = values.get("training", {})
        if isinstance(training, dict) and not {"temperature", "scale"} & set(training):
            training = {**training, "temperature": 1.0}
        return {"indexes": [{"kind": "inverted"}], "sparsity": {}, **values, "training": training}

    @model_validator(mode="after")
    def _whole(self) -> Recipe:
        sparse = self.model.kind == "sparse"
        if not sparse and self.sparsity is not None:
            raise ValueError('sparsity is a table of sparse models; say model.kind = "sparse"')
        for index in self.indexes:
            if (index.kind in ("inverted", "pruned")) != sparse:
                raise ValueError(f"an index of kind {index.kind} does not hold {self.model.kind} vectors")
        if (self.loss.margin_mse or self.loss.kl) and self.teacher is None:
            raise ValueError("loss.margin_mse and loss.kl learn from a teacher: say teacher.model or teacher.file")
        if self.teacher is not None and (self.teacher.model is None) == (self.teacher.file is None):
            raise ValueError("teacher wants either a model or a file")
        if self.teacher is not None and not self.loss.margin_mse + self.loss.kl:
            raise ValueError("there is a teacher, but nothing learns from it: give loss.margin_mse or loss.kl a weight")
        return self

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        labels = [index.label for index in self.indexes]
        names = [other.name for other in self.also]
        if len(set(names)) != len(names):
            raise ValueError(f"also {', '.join(names)}: each wants its own name")
        if len(set(labels)) != len(labels) or {"exact", "bm25"} & set(labels):
            raise ValueError(f"indexes {', '.join(labels)}: each wants its own name, other than exact and bm25")
        return self
