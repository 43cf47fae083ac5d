"""The checks of a recipe that can be made before time is spent: its settings, its files, its collection, its model, its teacher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app.cascade import settings as cascade_settings
from flatcoat.app.family import as_trained
from flatcoat.app.tables import Recipe
from flatcoat.checks import collection as of_collection
from flatcoat.checks import judgements, negatives, settings, texts
from flatcoat.checks.base import Finding, lowered
from flatcoat.data.pairs import Pairs
from flatcoat.data.store import Collection
from flatcoat.errors import Misuse
from flatcoat.evaluation.measures import deepest
from flatcoat.index.vector import VectorSettings
from flatcoat.models.source import resolve

TO_TRAIN = "it is to be trained"
FATAL = ("finite", "dead", "collapse", "similarity", "marker", "normalisation")  # without cure in what comes after


def ranking_stages(recipe: Recipe) -> list[Recipe]:
    """The recipe of each ranking stage before the last, and the recipe itself."""
    return [*(recipe.of_stage(stage) for stage in recipe.before if stage.task == "rank"), recipe]


def named_sources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Each model that a recipe names, under its key."""
    yield "model.start", recipe.model.start
    for stage in ranking_stages(recipe) if recipe.training.steps else []:
        cross = stage.cascade.cross if stage.cascade else None
        asked = (
            ("negatives.model", stage.negatives.model),
            ("negatives.judge", stage.negatives.judge),
            ("cascade.cross", cross),
        )
        yield from ((name, source) for name, source in asked if source)
        yield from (("teacher.model", source) for source in (stage.teacher.sources if stage.teacher else ()))


def given_files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """Each file that a recipe's training reads, under its key."""
    taught = recipe.teacher.file if recipe.teacher else None
    for name, file in (("negatives.file", recipe.negatives.file), ("teacher.file", taught)):
        if file is not None:
            yield name, Path(file)


def sources_there(recipe: Recipe) -> None:
    """Raise Misuse where a model or a file that a recipe names is not there; nothing of it is read yet."""
    for stage in ranking_stages(recipe) if recipe.training.steps else []:
        for name, file in given_files(stage):
            if not file.is_file():
                raise Misuse(f"{name} {file}: no such file")
    for name, source in dict.fromkeys(named_sources(recipe)):
        try:
            resolve(source)
        except Misuse as error:
            raise Misuse(f"{name}: {error}") from error


def of_settings(recipe: Recipe) -> list[Finding]:
    """What a recipe's own numbers say, before anything is read."""
    table = recipe.collection
    found = settings.splits(table.train, table.dev, table.test) if recipe.training.steps else []
    for index in recipe.indexes:
        if index.kind == "ivf" and (index.cells or index.nprobe):
            own = VectorSettings(**index.given())
            found += settings.probes(f"index {index.label}", own.cells, own.nprobe) if own.cells else []
    for stage in ranking_stages(recipe) if recipe.training.steps else []:
        found += _of_training(stage)
    return found


def _of_training(recipe: Recipe) -> list[Finding]:
    training = recipe.training
    found = settings.warmup(training.steps, training.warmup)
    drawn = 0 if recipe.negatives.kind == "none" else recipe.negatives.per_query
    if recipe.model.kind != "cross":
        found += settings.few_negatives(training.batch, drawn)
    if recipe.sparsity is not None:
        sides = (recipe.sparsity.query_weight, recipe.sparsity.document_weight)
        found += settings.ramp(sides, recipe.sparsity.ramp)
    return found


def of_corpus(recipe: Recipe, collection: Collection) -> list[Finding]:
    """What a recipe's numbers say of a collection of this size."""
    size = len(collection.documents)
    found = settings.measure_depth(deepest(recipe.evaluation.measures), size)
    for stage in ranking_stages(recipe) if recipe.training.steps else []:
        table = stage.negatives
        if table.kind in ("bm25", "model", "periodic", "simans"):
            found += settings.window(table.first, table.last, table.per_query, size)
    return found


def of_texts(collection: Collection) -> list[Finding]:
    """What a collection's documents say by themselves."""
    found = texts.empty_texts(collection) + texts.repeated_texts(collection)
    return found + texts.broken_characters(collection)


def of_split(collection: Collection, split: str, *, whole: bool = False) -> list[Finding]:
    """What the judgements of a split say; `whole` where made questions are to stand in their passages, which are searched, not measured."""
    found = judgements.answered(collection, split) + judgements.absent(collection, split)
    return found if whole else found + texts.echoes(collection, split)


def of_collection_for(recipe: Recipe, collection: Collection) -> list[Finding]:
    """The checks of a collection that a recipe is to use: its texts, and the splits that are measured."""
    table = recipe.collection
    found = of_texts(collection)
    found += of_collection.only_judged(collection, table.test) if table.test in collection.splits else []
    for split in dict.fromkeys(s for s in (table.dev, table.test) if s in collection.splits):
        found += of_split(collection, str(split), whole="withhold=false" in table.source)
    return found


def of_start(recipe: Recipe, model: Any, collection: Collection) -> list[Finding]:
    """The checks of the model that a recipe starts with; what training is to mend is a warning."""
    table, training = recipe.model, bool(recipe.training.steps)
    found = [] if table.kind == "cross" else as_trained(table, model)
    found += of_lengths(model, collection)
    alone = of_model(table.kind, table.start, model, trained=not training)
    found += lowered(alone, TO_TRAIN) if training else alone
    if table.kind == "dense" and training:
        said = model.query.settings.normalise and model.document.settings.normalise
        if said:
            drawn = 0 if recipe.negatives.kind == "none" else recipe.negatives.per_query
            found += settings.temperature(recipe.training.temperature, recipe.training.batch * (1 + drawn))
    return found


def before_encoding(kind: str, source: str, model: Any, collection: Collection, split: str | None) -> list[Finding]:
    """The checks of a model that is to encode a collection's documents, or a split's queries."""
    found = of_model(kind, source, model)
    weaker = [f for f in found if f.check not in FATAL]
    found = [f for f in found if f.check in FATAL] + lowered(weaker, "vectors are still what it says")
    return found if split is not None else found + of_texts(collection) + of_lengths(model, collection)


def of_lengths(model: Any, collection: Collection) -> list[Finding]:
    """What a model cuts off of a collection, and whether it knows its language."""
    tower = model.tower if hasattr(model, "tower") else model.document
    found = texts.vocabulary_fit(tower.tokenizer, collection)
    if hasattr(model, "tower"):
        return found
    return found + of_collection.truncated(tower.lengths, collection, tower.settings.max_length)


def of_model(kind: str, source: str, model: Any, *, trained: bool = True) -> list[Finding]:
    """The checks of a model by itself, on a few texts; `trained` where it is to be used as it is."""
    from flatcoat.checks.checkpoint import prompts, similarity
    from flatcoat.checks.cross import spread
    from flatcoat.checks.late import late_model
    from flatcoat.checks.sparse import PROBES, sparse_model
    from flatcoat.checks.vectors import every_vector
    from flatcoat.models.colbert_checkpoint import is_late
    from flatcoat.models.colbert_layouts import describe_late

    folder = resolve(source)
    if kind == "dense":
        query, document = model.query.settings, model.document.settings
        found = prompts(folder, query.prompt, document.prompt)
        found += similarity(folder, unit=query.normalise and document.normalise)
        return found + every_vector(model.encode_documents(PROBES).vectors, "probing texts", unit=document.normalise)
    if kind == "sparse":
        return [] if getattr(model.query, "fresh", False) else sparse_model(model)
    if kind == "late":
        return late_model(describe_late(folder) if is_late(folder) else None, model)
    return spread(model)


def of_negatives(recipe: Recipe, collection: Collection, pairs: Pairs) -> list[Finding]:
    """The checks of negatives that are given, in a file or by the collection."""
    from flatcoat.app.samplers import read_negatives

    if recipe.negatives.kind != "given":
        return []
    file = recipe.negatives.file
    own = read_negatives(Path(file), collection) if file else np.asarray(collection.negatives(pairs.split))
    found = negatives.for_all(own, pairs)
    if recipe.teacher is not None and recipe.teacher.file == file and file is not None:
        return found  # a teacher's list has the positives too
    return found + negatives.false_negatives(own, pairs)


def student_scale(recipe: Recipe) -> float:
    """What a student's scores are multiplied by in the loss."""
    if not recipe.taught:
        return 1 / recipe.training.temperature
    return 1 / cascade_settings(recipe).temperatures.get(recipe.main or recipe.model.kind, 1.0)
