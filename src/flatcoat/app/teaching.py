"""The tables that say what learns from what: terms of a loss by name, and what learns beside the model.

A term's name is its formula's, its teacher's where there is one, and its student's: `nll.dual`, `kl.late.dual`, `att.cross.late`.
In a recipe a table of them reads like the sum that is minimised:

    [terms]
    nll.cross = 1.0
    nll.dual = 1.0
    kl.cross.dual = { weight = 1.0, ramp = 0.2 }
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from flatcoat.app.table import Table
from flatcoat.errors import nearest

ALONE = ("nll", "bce", "ranknet", "hinge", "lambdarank")  # of one scorer's scores and the judgements
TAUGHT = ("kl", "margin_mse", "listmle")  # of a teacher's scores and a student's


class TermTable(Table):
    """One term: its weight; the shares of the run where it begins and ends; the share over which its weight grows from nothing.

    `temperature` divides the scores of an `nll`, both scores of a `kl` or a `reg` (absent: 1), and the products of an `att` (absent: 0.1).
    """

    weight: float = Field(default=1.0, ge=0)
    temperature: float | None = Field(default=None, gt=0)
    start: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)
    ramp: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _acts(self) -> TermTable:
        if self.start >= self.end:
            raise ValueError(f"start {self.start:g} is not before end {self.end:g}: the term would never act")
        return self


class CascadeTable(Table):
    """What learns beside the model: its own token vectors (`late`), its term weights (`sparse`, beside a dense model), and a
    cross-encoder that starts from `cross`.

    `late_dim` is the width of token vectors (absent: 128, or the encoder's own where that is less). Scores are divided by
    `late_temperature` and `cross_temperature`. The cross-encoder scores each query's positive, its drawn negatives, and `in_batch`
    positives of its neighbours; `cross_length` cuts its pairs; its learning rate is `cross_rate` times the model's, 0 for one
    that only teaches; `late_rate` is that of a new projection.
    """

    late: bool = False
    late_dim: int | None = Field(default=None, ge=1)
    late_temperature: float = Field(default=1.0, gt=0)
    late_rate: float = Field(default=1.0, ge=0)
    skip_punctuation: bool = False
    sparse: bool = False
    cross: str | None = None
    cross_length: int | None = Field(default=None, ge=8)
    cross_temperature: float = Field(default=1.0, gt=0)
    cross_rate: float = Field(default=1.0, ge=0)
    in_batch: int = Field(default=0, ge=0)


def flat_terms(values: Any) -> Any:
    """Terms by their dotted names, however the TOML nests them; a term is a number or a table of TermTable's keys."""
    if not isinstance(values, Mapping):
        return values
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value and not set(value) & set(TermTable.model_fields):
            flat |= {f"{name}.{rest}": inner for rest, inner in flat_terms(value).items()}
        else:
            flat[name] = {"weight": value} if isinstance(value, int | float) else value
    return flat


class TermsTable(Table):
    """The terms of a loss by name."""

    terms: dict[str, TermTable] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, values: Any) -> Any:
        return {"terms": flat_terms(values.get("terms", values) if isinstance(values, Mapping) else values)}

    def weighing(self) -> dict[str, TermTable]:
        """Those that weigh something."""
        return {name: term for name, term in self.terms.items() if term.weight}


def check_terms(terms: Mapping[str, TermTable], scorers: set[str], main: str | None) -> None:
    """Raise ValueError where a term is none, of a scorer that this recipe has not, or has a temperature that it does not use."""
    known = [f"{kind}.{s}" for kind in ALONE for s in sorted(scorers - {"teacher"})]
    known += [f"{kind}.{t}.{s}" for kind in TAUGHT for t in sorted(scorers) for s in sorted(scorers - {t, "teacher"})]
    if {"late", "cross"} <= scorers:
        known.append("att.cross.late")
    if main in ("dual", "sparse"):
        known += ["reg.query", "reg.document"]
    for name, term in terms.items():
        if name not in known:
            said = f"{nearest(name, known)}; scorers here: {', '.join(sorted(scorers))}"
            raise ValueError(f"{name} is no term of this recipe{said}")
        if term.temperature is not None and name.split(".")[0] not in ("nll", "kl", "reg", "att"):
            raise ValueError(f"{name} has no temperature; nll, kl, reg and att do")


def paper_terms(scorers: set[str], main: str | None) -> dict[str, TermTable]:
    """ERNIE-Search's own sum over the scorers there are, each term weighing 1: everything learns from the judgements, and each
    from what is above it: cross-encoder, late interaction, dual encoder.
    """
    chain = [name for name in ("cross", "late") if name in scorers]
    students = [*chain, *([main] if main else []), *(["sparse"] if "sparse" in scorers and main != "sparse" else [])]
    names = [f"nll.{name}" for name in students]
    names += [f"kl.{t}.{s}" for i, t in enumerate(students) for s in students[i + 1 :] if t in chain]
    if len(chain) == 2:
        names.append("att.cross.late")
    return {name: TermTable() for name in names}
