"""Getting ready for a run or a training: every check that can still save its time, the cheap ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flatcoat.app import build, ready
from flatcoat.app.tables import Recipe
from flatcoat.app.train import before_training, told_before
from flatcoat.checks.base import Finding, enforce, to_stderr
from flatcoat.data.pairs import Pairs
from flatcoat.data.store import Collection


def check_settings(
    recipe: Recipe, allow: tuple[str, ...] = (), note: Callable[[str], None] = to_stderr
) -> list[Finding]:
    """Before anything is read: a recipe's own numbers, and whether what it names is there; warnings go to `note`.

    Raises:
        Misuse: a model or file that is not there.
        FlatcoatError: an error that is not allowed.
    """
    ready.sources_there(recipe)
    found = ready.of_settings(recipe)
    enforce(found, allow, note)
    return found


def make_ready(
    recipe: Recipe,
    collection: Collection,
    allow: tuple[str, ...] = (),
    note: Callable[[str], None] = to_stderr,
    *,
    companion: bool = False,
) -> list[Finding]:
    """Before anything is made: the collection, the pairs of every stage, the model that starts, the teacher beside it.

    `companion` leaves out what was said of the same collection already.

    Raises:
        Misuse: no batch can be made, a split is not there, or a measure is unknown.
        FlatcoatError: an error that is not allowed.
    """
    found: list[Finding] = []
    for some in found_of(recipe, collection, companion=companion):
        enforce(some, allow, note)
        found += some
    return found


def found_of(recipe: Recipe, collection: Collection, *, companion: bool = False) -> Iterator[list[Finding]]:
    """The findings before anything is made, a group at a time: what is asked for later is not computed before. Raises Misuse."""
    if not companion:
        yield ready.of_collection_for(recipe, collection)
    yield ready.of_corpus(recipe, collection)
    stages = ready.ranking_stages(recipe) if recipe.training.steps else []
    paired: list[Pairs] = []
    for stage in stages:
        pairs = before_training(stage, collection)
        paired.append(pairs)
        yield told_before(stage, collection, pairs, again=len(paired) > 1)
        yield ready.of_negatives(stage, collection, pairs)
    model: Any = build.model(recipe.model, recipe.runtime)
    yield ready.of_start(recipe, model, collection)
    for stage, pairs in zip(stages, paired, strict=True):
        yield _of_teacher(stage, collection, pairs, model)


def _of_teacher(stage: Recipe, collection: Collection, pairs: Pairs, model: Any) -> list[Finding]:
    from flatcoat.app.ready_teacher import of_teacher
    from flatcoat.models.cross_checkpoint import is_cross
    from flatcoat.models.source import resolve

    if stage.teacher is None:
        return []
    new = stage.model.kind == "cross" and not is_cross(resolve(stage.model.start))  # a head that says nothing yet
    new = new or getattr(getattr(model, "query", None), "fresh", False)
    return of_teacher(stage, collection, pairs, None if new else model)
