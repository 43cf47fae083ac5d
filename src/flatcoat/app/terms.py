"""From a recipe's table of terms to the list that training adds up. Scores in the evidence are divided by their temperature already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from flatcoat.app.tables import Recipe
from flatcoat.app.teaching import TermTable

if TYPE_CHECKING:
    import torch

    from flatcoat.objectives.total import Evidence, Term

ATTENTION = (
    0.1  # what token products are divided by, where the recipe says nothing: unit vectors, so about a tenth apart
)


def taught_terms(recipe: Recipe) -> list[Term]:
    """The terms of a recipe that weigh something, each under its name, its weight a function of the step."""
    steps = recipe.training.steps
    return [
        replace(_term(name, table, recipe), name=name, weight=weight_of(table, steps))
        for name, table in recipe.every_term().items()
        if table.weight
    ]


def weight_of(table: TermTable, steps: int) -> float | Callable[[int], float]:
    """A number, or a function of the step (from 0): nothing outside the term's share of the run, growing over its ramp."""
    if (table.start, table.end, table.ramp) == (0.0, 1.0, 0.0):
        return table.weight
    begins, ends, grows = (share * steps for share in (table.start, table.end, table.ramp))

    def weight(step: int) -> float:
        if step < begins or step >= ends:
            return 0.0
        return table.weight * (min(1.0, (step - begins + 1) / grows) if grows else 1.0)

    return weight


def _term(name: str, table: TermTable, recipe: Recipe) -> Term:
    from flatcoat.objectives import contrastive, distil, dual_reg, listwise, pairwise, pointwise
    from flatcoat.objectives.total import Term

    kind, *names = name.split(".")
    heat = table.temperature or 1.0
    if kind == "att":
        return Term(name, lambda e: matched(e, table.temperature or ATTENTION))
    if kind == "reg":
        return dual_reg.agree(str(recipe.main), f"{recipe.main}.{names[0]}", heat)
    if kind in ("kl", "margin_mse", "listmle"):
        teacher, student = names
        if kind == "kl":
            return distil.distil_kl(student, teacher, temperature=heat)
        make = distil.distil_margin if kind == "margin_mse" else listwise.distil_order
        return make(student, teacher)
    alone: dict[str, Callable[[], Term]] = {
        "nll": lambda: contrastive.nll(names[0], heat),
        "bce": lambda: pointwise.pointwise(names[0]),
        "ranknet": lambda: pairwise.pairwise_logistic(names[0]),
        "hinge": lambda: pairwise.pairwise_hinge(names[0]),
        "lambdarank": lambda: listwise.listwise_lambda(names[0]),
    }
    return alone[kind]()


def matched(evidence: Evidence, temperature: float) -> torch.Tensor:
    """The token-level term over the cross-encoder's pairs."""
    from flatcoat.objectives.token_match import token_match

    rows, columns, found = evidence.extra["cross/rows"], evidence.extra["cross/columns"], evidence.extra
    return token_match(
        found["cross/attention"], found["query/tokens"][rows], found["query/content"][rows],
        found["document/tokens"][columns], found["document/content"][columns], temperature,
    )  # fmt: skip
