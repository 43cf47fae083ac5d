"""The verb that reads a run's best documents again: rerank."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flatcoat.app.progress import say, tracker
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection, TextTable
from flatcoat.data.trec import format_run, read_run, write_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.records import Run


def rerank(
    model: str, run_file: Path, collection: str, k: int, out: str, split: str | None, precision: str, device: str, quiet: bool,
    allow: list[str] | None = None,
) -> None:  # fmt: skip
    """`flatcoat rerank`."""
    if k < 1:
        raise Misuse(f"-k {k}: re-ranks nothing; want at least 1")
    if not run_file.is_file():
        raise Misuse(f"{run_file}: no such run; want MODEL RUN COLLECTION")
    from flatcoat.app.verbs_speed import AUTO, choose_to_rerank, first_runtime

    runtime = first_runtime(device, precision)
    opened, run = open_collection(collection), read_run(run_file)
    if split is not None:
        run = _of_split(run, opened, split, run_file)
    missing_ids(run, opened, k, run_file, collection)
    from flatcoat.checks.base import enforce
    from flatcoat.checks.cross import spread
    from flatcoat.checks.run import rank_order
    from flatcoat.models.cross import CrossModel
    from flatcoat.search.rerank import rerank as again

    note = partial(say, quiet=quiet)
    enforce(rank_order(run_file), allow or (), note)
    scorer = load_scorer(model, runtime)
    enforce(spread(scorer) if isinstance(scorer, CrossModel) else [], allow or (), note)
    if precision == AUTO:
        chosen = choose_to_rerank(scorer, run, opened, split, k, quiet)
        getattr(scorer, "encoder", scorer).runtime = replace(runtime, precision=chosen)
    made = again(run, scorer, _by_id(opened.queries), _by_id(opened.documents), k, track=tracker(quiet))
    if out == "-":
        sys.stdout.write(format_run(made, "flatcoat-rerank"))
    else:
        write_run(Path(out), made, "flatcoat-rerank")
    count = sum(min(k, len(ranking)) for ranking in run.values())
    say(f"{count} documents of {len(run)} queries re-ranked: {out}", quiet)


def load_scorer(source: str, runtime: Any) -> Any:
    """What scores pairs: a cross-encoder, a model with a score of its own, or the dot product of an encoder's vectors.

    Raises:
        Misuse: no such model.
        FlatcoatError: a folder that is not a model, or a model without weights for its queries.
    """
    from flatcoat.models.load import load_model
    from flatcoat.search.rerank import EncodedScorer

    loaded: Any = load_model(source)
    if getattr(getattr(loaded, "query", None), "fresh", False):
        raise FlatcoatError(f"{source} has no weights for a lookup of queries; re-rank with the model that was trained")
    loaded.runtime = runtime
    loaded.to(runtime.device)
    return loaded if hasattr(loaded, "score") else EncodedScorer(loaded)


def missing_ids(run: Run, opened: Collection, k: int, run_file: Path, collection: str) -> None:
    """Raise FlatcoatError on queries, or documents to be read, that the collection has not."""
    for name, table, ids in (
        ("queries", opened.queries, list(run)),
        ("documents", opened.documents, list(dict.fromkeys(d for r in run.values() for d in r.doc_ids[:k]))),
    ):
        lost = [id for id in ids if table.lookup.row(id) is None]
        if lost:
            raise FlatcoatError(
                f"{run_file}: {len(lost)} of its {len(ids)} {name} are not of {collection}, for example {lost[0]!r}; "
                "re-rank a run of this collection"
            )


def _of_split(run: Run, opened: Collection, split: str, run_file: Path) -> Run:
    ids = {opened.queries.ids[int(row)] for row in opened.query_rows(split)}
    kept = {query: ranking for query, ranking in run.items() if query in ids}
    if not kept:
        raise FlatcoatError(f"{run_file}: none of its {len(run)} queries is of split {split!r}")
    return kept


def _by_id(table: TextTable) -> Callable[[str], str]:
    def text(id: str) -> str:
        row = table.lookup.row(id)
        if row is None:
            raise FlatcoatError(f"id {id!r} is not of this collection")
        return table.text(row)

    return text
