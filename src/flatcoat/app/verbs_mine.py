"""`flatcoat mine`: hard negatives of a split's queries, by ranking or by the samplers that training has."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app.build import ModelEncode, from_options
from flatcoat.app.negative_tables import WITH_QUERIES, NegativesTable
from flatcoat.app.progress import say, tracker
from flatcoat.app.recipe import apply_change
from flatcoat.app.samplers import drawing, mining_index, positives_by_query
from flatcoat.app.tables import ModelTable
from flatcoat.app.verbs_shards import Asked, Judge, mine_by_workers, negative_line, negative_lines
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.data.trec import names_run, read_run
from flatcoat.errors import FlatcoatError, Misuse, nearest
from flatcoat.files import write_text
from flatcoat.mining.mine import Mined, MineSettings
from flatcoat.records import Run, silent

KINDS = ("list", *WITH_QUERIES)
BLOCK = 256


def mine(
    model: str, collection: str, out: str, split: str, first: int, last: int, absolute_margin: float | None,
    relative: float | None, max_score: float | None, approximate: bool, judge: str | None, judge_above: float,
    kind: str, per_query: int, seed: int, settings_: list[str] | None, precision: str, device: str, quiet: bool,
    workers: str | None = None, allow: list[str] | None = None,
) -> None:  # fmt: skip
    """`flatcoat mine`."""
    from flatcoat.data.pairs import load_pairs
    from flatcoat.mining.mine import mine as dig
    from flatcoat.models.base import runtime_of

    runtime_of(device, precision)  # what is wrong with them is said before anything is looked at
    if kind not in KINDS:
        raise Misuse(f"--kind {kind}{nearest(kind, list(KINDS))}: one of {', '.join(KINDS)}")
    if workers is not None:
        settings = MineSettings(first, last, absolute_margin, relative, max_score)
        by = None if judge is None else Judge(judge, judge_above)
        _check(model, open_collection(collection), split, (first, last), allow, quiet)
        _divided(model, collection, out, split, kind, settings, approximate, by, precision, device, quiet, workers)
        return
    if kind != "list":
        _check(model, open_collection(collection), split, None, allow, quiet)
        _draw(model, collection, out, split, kind, per_query, settings_, seed, precision, device, quiet)
        return
    settings = MineSettings(first, last, absolute_margin, relative, max_score)
    opened = open_collection(collection)
    _check(model, opened, split, (first, last), allow, quiet)
    pairs = load_pairs(opened, split)
    rows, positives = positives_by_query(pairs)
    index, queries, vectors = _source(model, opened, rows, approximate, precision, device, quiet)
    refuse = None
    if judge is not None:
        from flatcoat.app.denoise import refusing
        from flatcoat.models.base import runtime_of

        refuse = refusing(judge, judge_above, opened, rows, runtime_of(device, precision))
    mined = dig(
        index, queries, positives, settings,
        vectors=vectors, keys=pairs.keys, refuse=refuse, track=tracker(quiet),
    )  # fmt: skip
    _report(opened, rows, mined, out, quiet)


def _check(
    model: str, opened: Collection, split: str, window: tuple[int, int] | None, allow: list[str] | None, quiet: bool
) -> None:
    """The checks that can still save the time of mining: the split, the window, and the run that is mined from."""
    from flatcoat.checks.base import enforce
    from flatcoat.checks.judgements import absent, answered
    from flatcoat.checks.run import rank_order
    from flatcoat.checks.settings import window as ranks

    found = answered(opened, split) + absent(opened, split)
    if window is not None:
        found += ranks(*window, 1, len(opened.documents))
    if names_run(model) and Path(model).is_file():
        found += rank_order(Path(model))
    enforce(found, allow or (), partial(say, quiet=quiet))


def _report(opened: Collection, rows: np.ndarray, mined: Mined, out: str, quiet: bool) -> None:
    _write(negative_lines(opened, rows, mined), out)
    empty = int((mined.rows < 0).all(1).sum())
    say(f"{int((mined.rows >= 0).sum())} negatives for {len(rows)} queries; {empty} queries have none", quiet)


def _divided(
    model: str, collection: str, out: str, split: str, kind: str, settings: MineSettings, approximate: bool,
    judge: Judge | None, precision: str, device: str, quiet: bool, workers: str,
) -> None:  # fmt: skip
    """A model's negatives, mined by workers."""
    from flatcoat.models.load import kind_of
    from flatcoat.models.source import resolve

    if kind != "list" or out == "-" or model == "bm25" or names_run(model):
        raise Misuse(
            "--workers: wants a model that mines lists (not bm25, a run or --kind), and --out with a file to write"
        )
    opened = open_collection(collection)
    table = from_options(ModelTable, {"kind": kind_of(resolve(model)), "start": model})
    loaded = _loaded(model, precision, "cpu")
    asked = Asked(loaded, table, collection, opened, device, tracker(quiet), lambda text: say(text, quiet))
    rows, mined = mine_by_workers(Path(out), asked, workers, split, settings, approximate=approximate, judge=judge)
    _report(opened, rows, mined, out, quiet)


def _source(
    model: str,
    opened: Collection,
    rows: np.ndarray,
    approximate: bool,
    precision: str,
    device: str,
    quiet: bool,
) -> tuple[Any, Any, Any]:
    """What mines: an index, its queries, and the corpus's vectors where there are any."""
    from flatcoat.index.bm25 import Bm25Index

    texts = opened.queries.texts(rows)
    if model == "bm25":
        return Bm25Index.build(opened.documents.texts()), texts, None
    if names_run(model):
        return _RunIndex(read_run(Path(model)), opened), [opened.queries.ids[int(row)] for row in rows], None
    from flatcoat.models.load import encode_texts
    from flatcoat.representations import MultiVector, Sparse

    loaded = _loaded(model, precision, device)
    vectors = encode_texts(loaded.document, opened.documents.texts(), loaded.runtime, track=tracker(quiet))
    kind = {Sparse: "sparse", MultiVector: "late"}.get(type(vectors), "dense")
    return mining_index(kind, approximate)(vectors), encode_texts(loaded.query, texts, loaded.runtime), vectors


class _RunIndex:
    """A TREC run as an index whose queries are query ids."""

    def __init__(self, run: Run, collection: Collection):
        self.run, self.collection = run, collection

    def __len__(self) -> int:
        return len(self.collection.documents)

    def search(self, queries: list[str], k: int) -> Any:
        from flatcoat.index.base import TopK

        rows, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        for i, query in enumerate(queries):
            ranking = self.run.get(query)
            for j, doc in enumerate(ranking.doc_ids[:k] if ranking else ()):
                row = self.collection.documents.lookup.row(doc)
                if row is None:
                    raise FlatcoatError(f"the run answers query {query!r} with {doc!r}, which the collection has not")
                rows[i, j], scores[i, j] = row, ranking.scores[j]  # pyright: ignore[reportOptionalMemberAccess]
        return TopK(rows, scores)


def _loaded(model: str, precision: str, device: str) -> Any:
    """A model that can search, in its runtime."""
    from flatcoat.models.base import runtime_of
    from flatcoat.models.load import load_model

    runtime = runtime_of(device, precision)
    loaded: Any = load_model(model)
    if not hasattr(loaded, "document"):
        raise Misuse(f"{model}: a cross-encoder cannot search; mine with a dense, sparse or late-interaction model")
    loaded.runtime = runtime
    return loaded.to(runtime.device)


def _write(lines: list[str], out: str) -> None:
    if out == "-":
        sys.stdout.write("".join(lines))
    else:
        write_text(Path(out), "".join(lines))


def _draw(
    model: str, collection: str, out: str, split: str, kind: str, per_query: int, changes: list[str] | None, seed: int,
    precision: str, device: str, quiet: bool,
) -> None:  # fmt: skip
    """Negatives as training would draw them, with the log-probability of each; a query's own positives are left out."""
    from flatcoat.data.pairs import load_pairs

    said: dict[str, Any] = {}
    for change in changes or []:
        apply_change(said, change)
    beta = float(said.pop("beta", 20.0))
    if not beta > 0:
        raise Misuse(f"--set beta={beta:g}: an inverse temperature is above 0")
    table = from_options(NegativesTable, {**said, "kind": kind, "per_query": per_query}, "--set ")
    opened = open_collection(collection)
    pairs = load_pairs(opened, split)
    rows, positives = positives_by_query(pairs)
    loaded = _loaded(model, precision, device)
    encode = ModelEncode(loaded, loaded.runtime, opened, tracker(quiet))
    known: Any = lambda query: positives[np.searchsorted(rows, query)]  # noqa: E731
    sampler = drawing(
        table.model_copy(update={"warmup": 0}),
        len(opened.documents),
        encode,
        beta,
        seed,
        known,
        lambda line: say(line, quiet),
    )
    sampler.after_step(0, encode)
    encode.track = silent
    lines = []
    for start in range(0, len(rows), BLOCK):
        own = rows[start : start + BLOCK]
        first = np.array([answers[0] for answers in positives[start : start + BLOCK]])
        drawn = sampler.draw(own, first, per_query, np.random.default_rng([seed, start]))
        for row, found, log_q, answers in zip(
            own.tolist(), drawn.rows, drawn.log_q, positives[start : start + BLOCK], strict=True
        ):
            kept = ~np.isin(pairs.keys[found], pairs.keys[answers])
            lines.append(negative_line(opened, row, found[kept], "log_q", log_q[kept]))
    _write(lines, out)
    say(f"negatives of {len(rows)} queries, drawn by {kind}", quiet)
