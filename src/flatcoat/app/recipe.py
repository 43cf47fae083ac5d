"""Recipes: TOML that says what differs from the defaults. Unknown keys are refused with the nearest name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flatcoat.errors import Misuse, nearest


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
    """Where the model starts, and what is to differ from its checkpoint (absent: the checkpoint's own)."""

    start: str
    pooling: Literal["cls", "mean", "max", "last"] | None = None
    normalise: bool | None = None
    query_length: int | None = Field(default=None, ge=2)
    document_length: int | None = Field(default=None, ge=2)
    query_prompt: str | None = None
    document_prompt: str | None = None
    separate: bool = False
    dropout: float | None = Field(default=None, ge=0, lt=1)


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
    """One approximate index beside the exact one; absent settings are its kind's defaults."""

    kind: Literal["scan", "bits", "sq", "hnsw", "ivf"] = "scan"
    name: str | None = Field(default=None, pattern=r"^\w[\w.\-]*$")
    rescore: int = Field(default=4, ge=1)
    links: int = Field(default=32, ge=2)
    ef_build: int = Field(default=200, ge=1)
    ef_search: int = Field(default=128, ge=1)
    cells: int | None = Field(default=None, ge=1)
    nprobe: int = Field(default=8, ge=1)

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

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        labels = [index.label for index in self.indexes]
        if len(set(labels)) != len(labels) or {"exact", "bm25"} & set(labels):
            raise ValueError(f"indexes {', '.join(labels)}: each wants its own name, other than exact and bm25")
        return self


def load_recipe(path: Path, changes: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `KEY=VALUE` changes through the same checks.

    Raises:
        Misuse: no such file, not TOML, an unknown key, or a value that is not right.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Misuse(f"{path}: no such recipe") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise Misuse(f"{path}: not valid TOML ({error})") from error
    for change in changes or []:
        _apply(values, change)
    return parse_recipe(values, str(path))


def parse_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Check a recipe's values. Raises Misuse with the key, what is wrong, and what would be right."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "recipe"
        if first["type"] == "extra_forbidden":
            known = _keys_at(first["loc"][:-1])
            hint = nearest(str(first["loc"][-1]), known) or f"; known keys: {', '.join(known)}"
            raise Misuse(f"{where}: {key}: unknown key{hint}") from error
        given = f", not {first['input']!r}" if first["type"] != "missing" and key != "recipe" else ""
        raise Misuse(f"{where}: {key}: {first['msg']}{given}") from error


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = Recipe
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = IndexTable if part == "indexes" else annotation
    return list(model.model_fields) + (["scale"] if model is TrainingTable else [])


def _apply(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise Misuse(f"--set {change}: want KEY=VALUE, as in training.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise Misuse(f"--set {change}: {table} is not a table")
    values[last] = value


def format_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML, which loads back equal."""
    lines: list[str] = []
    for name, table in recipe.model_dump(exclude_none=True).items():
        if isinstance(table, tuple | list):
            for entry in table:
                lines += [f"[[{name}]]", *_entries(entry), ""]
            if not table:
                lines = [f"{name} = []", "", *lines]
        else:
            lines += [f"[{name}]", *_entries(table), ""]
    return "\n".join(lines).rstrip() + "\n"


def _entries(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items()]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if ord(c) >= 32 and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
