"""The tables of a recipe: every setting, its default, and what it may be."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from flatcoat.app.model_tables import DEFAULT_INDEX, INDEXES, KINDS, IndexTable, ModelTable, SparsityTable
from flatcoat.app.negative_tables import NegativesTable
from flatcoat.app.table import Table
from flatcoat.app.teaching import CascadeTable, TermsTable, TermTable, check_terms, paper_terms


class CollectionTable(Table):
    """Which documents, queries and judgements."""

    source: str
    train: str = "train"
    dev: str | None = None
    test: str = "test"
    strict: bool = False


class RuntimeTable(Table):
    """How it is run. bf16 moves scores by about 1e-3; the report says what precision made it."""

    device: str = "auto"
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    training_precision: Literal["fp32", "bf16"] = "fp32"
    batch_tokens: int = Field(default=0, ge=0)
    training_batch_tokens: int = Field(default=4096, ge=16)
    gradient_checkpointing: bool = False

    @field_validator("precision", mode="before")
    @classmethod
    def _said(cls, value: Any) -> Any:
        if value == "auto":
            raise ValueError(
                "auto is measured for a model that is there, as flatcoat speed MODEL COLLECTION does; "
                "say fp32, bf16 or int8 here"
            )
        return value


class TrainingTable(Table):
    """The loop; steps = 0 trains nothing. `scale` is accepted as the inverse of `temperature`. Where several terms are added up,
    the norm of each one's gradient is logged every `norms_every` steps.
    """

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
    norms_every: int | None = Field(default=100, ge=1)

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
    scores by `kl_temperature`. `corrected` makes the contrastive part an estimate of the softmax over all documents: of each query's
    own draws alone, each by the probability it was drawn with.
    """

    contrastive: float = Field(default=1.0, ge=0)
    corrected: bool = False
    margin_mse: float = Field(default=0.0, ge=0)
    kl: float = Field(default=0.0, ge=0)
    kl_temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _something(self) -> LossTable:
        if not self.contrastive + self.margin_mse + self.kl:
            raise ValueError("every part weighs 0; give contrastive, margin_mse or kl a weight")
        return self


class TeacherTable(Table):
    """Whose scores are learnt from: another `model` (dense, sparse, late interaction or a cross-encoder), several (`models`: the mean of
    each one's scores at mean 0 and deviation 1), or a `file` of JSON lines with query_id, document_ids and scores. `scale` multiplies
    its scores; a cosine wants about 20, logits of a cross-encoder 1; `fit` finds the one at which the teacher is as sure as it is right.
    """

    model: str | None = None
    models: tuple[str, ...] = ()
    file: str | None = None
    scale: Literal["fit"] | float = 1.0

    @model_validator(mode="after")
    def _one(self) -> TeacherTable:
        if [self.model is not None, bool(self.models), self.file is not None].count(True) != 1:
            raise ValueError("teacher wants either a model or a file, or several models")
        if isinstance(self.scale, float) and not self.scale > 0:
            raise ValueError(f"scale {self.scale:g} is not above 0")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The models it is made of."""
        return self.models or ((self.model,) if self.model else ())


class AlsoTable(Table):
    """Another recipe, run beside this one over this one's collection: its systems join the table, and hybrids with them."""

    name: str = Field(pattern=r"^\w[\w.\-]*$")
    recipe: str


class LexicalTable(Table):
    """The BM25 baseline."""

    k1: float = Field(default=0.9, ge=0)
    b: float = Field(default=0.4, ge=0, le=1)
    stem: bool = True
    stopwords: bool = True
    identifiers: bool = False


class EvaluationTable(Table):
    """What is measured. Dev runs while training see `dev_documents` of the corpus, and say so. A cross-encoder re-ranks the best
    `rerank` of a system.
    """

    measures: tuple[str, ...] = ("nDCG@10", "RR@10", "R@100")
    k: int = Field(default=100, ge=1)
    dev_queries: int = Field(default=500, ge=1)
    dev_documents: int = Field(default=5000, ge=1)
    rerank: int = Field(default=20, ge=2)


BESIDE = ("late", "sparse")  # indexes of what learns beside a model


class StageTable(Table):
    """A stage of training before the recipe's own: post-training on the documents' text (`mlm`, `retromae`), or `rank`ing, with
    whole tables of its own or, without one, the recipe's; what it makes is where the next begins. Post-training takes
    from `training` the steps, batch, rate and schedule; `mask` is the share of tokens hidden, `length` the tokens of a text.
    """

    name: str = Field(pattern=r"^\w[\w\-]*$")
    task: Literal["mlm", "retromae", "rank"] = "rank"
    training: TrainingTable | None = None
    negatives: NegativesTable | None = None
    cascade: CascadeTable | None = None
    terms: TermsTable | None = None
    mask: float | None = Field(default=None, gt=0, lt=1)
    decoder_mask: float = Field(default=0.5, gt=0, lt=1)
    length: int = Field(default=128, ge=8)

    @model_validator(mode="after")
    def _of_its_task(self) -> StageTable:
        if self.task != "rank" and (self.negatives or self.cascade or self.terms):
            raise ValueError(
                f"{self.name}: negatives, cascade and terms are of stages that rank; this one is {self.task}"
            )
        if self.task != "rank" and self.training is None:
            raise ValueError(
                f"{self.name}: post-training wants a table training of its own, with steps, batch and rate"
            )
        return self


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
    cascade: CascadeTable | None = None
    terms: TermsTable | None = None
    before: tuple[StageTable, ...] = ()
    also: tuple[AlsoTable, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_a_kind(cls, values: Any) -> Any:
        """What a kind of model has for defaults: its index, scores as they are, a sparsity to reach."""
        model = values.get("model") if isinstance(values, dict) else None
        kind = model.get("kind", "dense") if isinstance(model, dict) else "dense"
        if kind not in KINDS[1:]:
            return values
        training = values.get("training", {})
        if isinstance(training, dict) and not {"temperature", "scale"} & set(training):
            training = {**training, "temperature": 1.0}
        indexes: list[Any] = [{"kind": DEFAULT_INDEX[kind]}] if kind in DEFAULT_INDEX else []
        values = {"indexes": indexes, **values, "training": training}
        return _with_sparsity(values) if kind == "sparse" else values

    @model_validator(mode="after")
    def _whole(self) -> Recipe:
        kind = self.model.kind
        if "sparse" not in self.scorers and self.sparsity is not None:
            raise ValueError('sparsity is a table of sparse models; say model.kind = "sparse"')
        for index in self.indexes:
            if index.kind not in INDEXES[kind]:
                raise ValueError(f"an index of kind {index.kind} does not hold {kind} vectors")
        return self

    @model_validator(mode="after")
    def _learning(self) -> Recipe:
        if self.taught and self.loss != LossTable():
            raise ValueError("loss is of one scorer alone; here terms say what is minimised: nll.dual, kl.late.dual")
        if self.taught:
            learns = any(".teacher." in name for name in self.every_term())
        else:
            learns = bool(self.loss.margin_mse + self.loss.kl)
        if learns and self.teacher is None:
            raise ValueError("loss.margin_mse and loss.kl learn from a teacher: say teacher.model or teacher.file")
        if self.teacher is not None and not learns:
            raise ValueError(
                "there is a teacher, but nothing learns from it: give loss.margin_mse, loss.kl or a term kl.teacher a weight"
            )
        return self

    @model_validator(mode="after")
    def _teaching(self) -> Recipe:
        table, kind = self.cascade, self.model.kind
        wrong = {
            f"a cascade teaches a dense or a sparse model; this one is {kind}": table is not None and self.main is None,
            "cascade.sparse is for a dense model; this one is sparse itself": table is not None
            and table.sparse
            and kind == "sparse",
            "a lookup of queries has no states to read token vectors from; a cascade wants a network": table is not None
            and self.model.queries == "lookup",
            "freeze = encoder holds what the terms are to move": self.taught and self.model.freeze == "encoder",
            "a cross-encoder cannot search for its negatives; say negatives.kind = bm25, model or given": kind
            == "cross"
            and self.negatives.kind == "periodic",
            "negatives.model names the model to mine with, of negatives.kind = model, and of no other": (
                self.negatives.kind == "model"
            )
            != (self.negatives.model is not None),
        }
        for message, here in wrong.items():
            if here:
                raise ValueError(message)
        if self.taught:
            check_terms(self.every_term(), self.scorers, self.main)
            if not any(term.weight for term in self.every_term().values()):
                raise ValueError("every term weighs 0; give one a weight")
        return self

    @property
    def main(self) -> str | None:
        """The scorer of the model that is served, where it is a dual encoder."""
        return {"dense": "dual", "sparse": "sparse"}.get(self.model.kind)

    @property
    def scorers(self) -> set[str]:
        """Whose scores a batch shows."""
        found = {"dense": {"dual"}, "sparse": {"sparse"}, "late": {"late"}, "cross": {"cross"}}[self.model.kind]
        table = self.cascade or CascadeTable()
        said = {
            "late": table.late,
            "cross": table.cross is not None,
            "sparse": table.sparse,
            "teacher": self.teacher is not None,
        }
        return found | {name for name, there in said.items() if there}

    @property
    def taught(self) -> bool:
        """Whether a list of terms says what is minimised, in place of the table of one scorer's loss."""
        return self.terms is not None or self.cascade is not None or self.model.kind in ("late", "cross")

    def every_term(self) -> dict[str, TermTable]:
        """The terms of the loss by name; without a table of them, the paper's."""
        return self.terms.terms if self.terms is not None else paper_terms(self.scorers - {"teacher"}, self.main)

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        labels = [index.label for index in self.indexes]
        for what, names in (("also", [o.name for o in self.also]), ("before", [stage.name for stage in self.before])):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} {', '.join(names)}: each wants its own name")
        if len(set(labels)) != len(labels) or {"exact", "bm25", *BESIDE} & set(labels):
            kept = ", ".join(("exact", "bm25", *BESIDE))
            raise ValueError(f"indexes {', '.join(labels)}: each wants its own name, other than {kept}")
        return self

    @model_validator(mode="after")
    def _stages(self) -> Recipe:
        table, kind = self.cascade or CascadeTable(), self.model.kind
        for stage in self.before:
            if stage.task == "rank":
                self.of_stage(stage)
            elif kind == "cross" or (kind == "late" and stage.task == "retromae"):
                raise ValueError(f"{stage.name}: a {kind} model has no vector to post-train by {stage.task}")
            own = stage.cascade or CascadeTable()
            for name, used in (("late_dim", own.late and table.late), ("cross", own.cross and table.cross)):
                one, two = getattr(own, name), getattr(table, name)
                if used and one != two:
                    raise ValueError(
                        f"{stage.name}: cascade.{name} is {one} there and {two} after, which takes up what it made"
                    )
        return self

    @model_validator(mode="after")
    def _in_use(self) -> Recipe:
        if self.loss.corrected and not self.negatives.has_log_q:
            raise ValueError(
                "loss.corrected wants draws from all documents whose probability is known: negatives.kind uniform, dynnibal with "
                "method mh or rejection, or exhaustive with choose = softmax"
            )
        if self.negatives.judge is not None and self.negatives.kind not in ("bm25", "model", "periodic"):
            raise ValueError(
                f"negatives.judge looks at what is mined; negatives.kind = {self.negatives.kind} mines nothing"
            )
        if self.model.dropout == 0 and any(
            name.startswith("reg.") and t.weight for name, t in self.every_term().items()
        ):
            raise ValueError("reg compares two passes under dropout, and model.dropout is 0: it would always be 0")
        return self

    def of_stage(self, stage: StageTable) -> Recipe:
        """The recipe that a ranking stage is."""
        own = {name: getattr(stage, name) for name in ("training", "negatives") if getattr(stage, name) is not None}
        said: dict[str, Any] = {**{name: getattr(self, name) for name in type(self).model_fields}, **own,
                "cascade": stage.cascade, "terms": stage.terms, "before": (), "also": ()}  # fmt: skip
        if stage.training is not None and "temperature" not in stage.training.model_fields_set:
            said["training"] = said["training"].model_copy(update={"temperature": self.training.temperature})
        own, table = stage.terms.terms if stage.terms else {}, stage.cascade or CascadeTable()
        if stage.terms is not None or stage.cascade is not None or self.taught:
            said["loss"] = LossTable()
            said["teacher"] = self.teacher if any(".teacher." in name for name in own) else None
        if self.model.kind != "sparse" and not table.sparse:
            said["sparsity"] = None
        return type(self)(**said)


def _with_sparsity(values: dict[str, Any]) -> dict[str, Any]:
    sparsity = values.get("sparsity", {})
    if values["model"].get("queries") == "lookup" and isinstance(sparsity, dict):
        if sparsity.get("query_weight") or sparsity.get("query_terms") is not None:
            raise ValueError(
                "sparsity of queries: a lookup has the terms of its text; there is nothing to make sparser"
            )
        sparsity = {**sparsity, "query_weight": 0.0}
    return {**values, "sparsity": sparsity}
