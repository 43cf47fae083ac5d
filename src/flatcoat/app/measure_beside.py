"""What learnt beside a model, measured in the same table: its token vectors, its term weights, its cross-encoder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatcoat.app import build
from flatcoat.app.cascade import beside
from flatcoat.app.tables import Recipe
from flatcoat.data.store import Collection
from flatcoat.index.store import open_index
from flatcoat.records import Ranking, Run, Track

if TYPE_CHECKING:
    from flatcoat.app.measure import Bench

NAMES = {"late": "late interaction", "sparse": "sparse reading"}


def add_beside(bench: Bench, recipe: Recipe, collection: Collection, out: Path, run: Run, track: Track) -> None:
    """A row for each; the cross-encoder re-ranks the best of `run`, the model's own."""
    from flatcoat.models.load import load_model

    for name, called in NAMES.items():
        folder = beside(out / "model", name)
        if folder.is_dir():
            model: Any = load_model(str(folder))
            model.runtime = build.runtime(recipe.runtime)
            index = open_index(out / "index" / name)
            queries = model.to(model.runtime.device).encode_queries(bench.texts)
            bench.vectors(f"{called}, {index.kind}", index.index, queries, index.bytes / 1e6)
    folder = beside(out / "model", "cross")
    if folder.is_dir():
        reader: Any = load_model(str(folder))
        reader.runtime = build.runtime(recipe.runtime)
        reader.to(reader.runtime.device)
        add_reranked(bench, recipe, collection, reader, run, "after, exact", track)


def add_reranked(
    bench: Bench, recipe: Recipe, collection: Collection, model: Any, run: Run, of: str, track: Track
) -> Mapping[str, Ranking]:
    """The row of a run whose best a cross-encoder has read again."""
    from flatcoat.search.rerank import rerank

    k = recipe.evaluation.rerank
    asked = dict(zip(bench.ids, bench.texts, strict=True))
    row = collection.documents.lookup.row
    text = lambda doc: collection.documents.texts(np.array([row(doc)]))[0]  # noqa: E731
    started = time.perf_counter()
    made = rerank(run, model, asked.__getitem__, text, k, track=track)
    ms = (time.perf_counter() - started) * 1e3 / max(1, len(run))
    megabytes = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
    bench.add(f"{of}, re-ranked ({k})", made, ms, megabytes)
    return made
