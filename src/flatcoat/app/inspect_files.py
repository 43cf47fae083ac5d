"""`flatcoat check` of files: runs, recipes, a teacher's scores, mined negatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.checks.run import (
    finds_itself,
    missing_queries,
    rank_order,
    relevant_found,
    strange_documents,
    strange_queries,
    tied,
    upside_down,
)
from flatcoat.data.collection import open_collection
from flatcoat.data.lines import json_lines
from flatcoat.data.problems import Problems
from flatcoat.data.trec import read_qrels, read_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.records import Qrels, Run

SPLITS = ("train", "dev", "test")


def of_judged_run(path: Path, run: Run, qrels: Qrels) -> list[Finding]:
    """The checks of a run that can be made with its judgements."""
    found = rank_order(path) + tied(run) + finds_itself(run) + strange_queries(run, qrels)
    return found + missing_queries(run, qrels) + relevant_found(run, qrels) + upside_down(run, qrels)


def of_run_file(path: Path, qrels: Path | None, on: str | None) -> list[Finding]:
    """The checks of a TREC run. Raises FlatcoatError where it is empty."""
    run = read_run(path)
    if not run:
        raise FlatcoatError(f"{path}: no line of a run; want qid Q0 docid rank score tag")
    found = rank_order(path) + tied(run) + finds_itself(run)
    if qrels is not None:
        found = of_judged_run(path, run, read_qrels(qrels))
    if on is not None:
        lookup = open_collection(on).documents.lookup
        found += strange_documents(run, lambda doc: lookup.row(doc) is not None)
    if qrels is None:
        found.append(Finding("warning", "hint", "give --qrels to check it against judgements"))
    return found


def of_recipe(path: Path) -> list[Finding]:
    """All checks that `run` makes of a recipe before it makes anything, those of its companions too."""
    from flatcoat.app import ready
    from flatcoat.app.recipe import load_recipe

    recipe = load_recipe(path)
    found = [ok("recipe", "every key is known and every value is right")]
    found += ready.of_settings(recipe)
    try:
        ready.sources_there(recipe)
        collection = open_collection(recipe.collection.source, strict=recipe.collection.strict)
    except FlatcoatError as error:
        return [*found, Finding("error", "sources", str(error), "name what is there")]
    found.append(ok("sources", "collection, models and files are there"))
    found += _ready(recipe, collection)
    for table in recipe.also:
        other = load_recipe(Path(table.recipe)).model_copy(update={"collection": recipe.collection})
        own = ready.of_settings(other) + _ready(other, collection, companion=True)
        found += [Finding(f.level, f.check, f"also {table.name}: {f.message}", f.cure) for f in own]
    return found


def _ready(recipe: Any, collection: Any, *, companion: bool = False) -> list[Finding]:
    from flatcoat.app.ready_run import found_of

    found: list[Finding] = []
    try:
        for some in found_of(recipe, collection, companion=companion):
            found += some
    except FlatcoatError as error:
        found.append(Finding("error", "recipe", str(error)))
    return found


def lines_of(path: Path) -> str | None:
    """Teacher or negatives, by the first line of a JSONL file; None where it is neither."""
    for _, record in json_lines(path, Problems()):
        if isinstance(record.get("scores"), list) and "document_ids" in record:
            return "teacher"
        return "negatives" if isinstance(record.get("negatives"), list) and "query_id" in record else None
    return None


def of_lines(path: Path, kind: str, on: str | None) -> list[Finding]:
    """The checks of a teacher's scores or of mined negatives, `on` the collection that they are of.

    Raises:
        Misuse: no collection is named.
        FlatcoatError: a line that is none, or an id that the collection has not.
    """
    from flatcoat.app.ready_teacher import of_scores
    from flatcoat.app.samplers import read_negatives
    from flatcoat.checks.negatives import false_negatives, for_all
    from flatcoat.data.pairs import load_pairs
    from flatcoat.training.teacher import read_teacher

    if on is None:
        raise Misuse(f"{path}: {kind} of a collection; say which: --on COLLECTION")
    collection = open_collection(on)
    if kind == "teacher":
        teacher = read_teacher(path, collection)
        return of_scores(teacher, load_pairs(collection, _split_of(collection, teacher.scores)))
    own = read_negatives(path, collection)
    pairs = load_pairs(collection, _split_of(collection, own[:, 0].tolist()))
    return for_all(own, pairs) + false_negatives(own, pairs)


def _split_of(collection: Any, queries: Any) -> str:
    """The split that most of the queries are of."""
    rows = np.unique(np.fromiter(queries, np.int64))
    named = [*(s for s in SPLITS if s in collection.splits), *(s for s in collection.splits if s not in SPLITS)]
    if not named:
        raise Misuse(f"{collection.facts['source'].get('spec')}: no judgements to check against")
    return max(named, key=lambda split: int(np.isin(collection.query_rows(split), rows).sum()))
