"""`--workers`: encoding a collection and mining its negatives by workers, with the bytes that one process gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flatcoat.app.encode_shards import assemble_dense, assemble_multi, assemble_sparse, encoding, query_rows
from flatcoat.app.mine_shards import QUERIES, joined, judged, mining
from flatcoat.app.shards import parts_of, plan_of, sources
from flatcoat.app.workers import Crew, open_crew, workers_of
from flatcoat.data.store import Collection
from flatcoat.errors import Misuse
from flatcoat.files import digest, remove_folder
from flatcoat.mining.mine import Mined, MineSettings
from flatcoat.multi_vectors import Precision
from flatcoat.records import Track, silent

if TYPE_CHECKING:
    from flatcoat.app.family import Folder
    from flatcoat.app.tables import ModelTable


class Asked(NamedTuple):
    """What workers encode or mine with: a model as a table describes it, a collection by its name and opened, and a device."""

    model: Any
    table: ModelTable
    name: str
    collection: Collection
    device: str = "auto"
    track: Track = silent
    note: Callable[[str], None] = lambda _: None


def encode_asked(path: Path, asked: Asked, split: str | None, workers: str | None) -> Folder:
    """Encode the documents, or a split's queries, in this process or by workers. Raises what either does."""
    from flatcoat.app.encode import encode_documents, encode_queries

    model, source = asked.model, asked.table.start
    if workers is not None:
        return encode_by_workers(path, asked, workers, split=split)
    if split:
        return encode_queries(path, model, source, asked.collection, split, track=asked.track)
    return encode_documents(path, model, source, asked.collection, track=asked.track)


def encode_by_workers(path: Path, asked: Asked, workers: str, *, split: str | None = None) -> Folder:
    """Encode the documents, or a split's queries, into the folder that `encode_documents` or `encode_queries` writes.

    Raises:
        Misuse: `workers` is no number of processes and no Ray cluster.
        FlatcoatError: a shard that three workers were lost on, or that cannot be made.
    """
    said = workers_of(workers)
    with closing(open_crew(said, asked.device)) as crew:
        return _encode(path, asked, crew, split)


def _encode(
    path: Path, asked: Asked, crew: Crew, split: str | None, rows: str = "judged", stored: Precision = "fp16"
) -> Folder:
    from flatcoat.models.encode import WINDOW

    facts, ids = _described(asked, split, rows)
    kind = asked.table.kind
    runtime = asked.model.runtime
    if runtime.precision == "int8" and not crew.device.startswith("cpu"):
        raise Misuse(f"--precision int8: the workers compute on {crew.device}; want bf16 there, or --device cpu")
    keyed = {**facts, "rows": rows, "ids": digest(ids) if split else None, "kind": kind, "stored": stored}
    keyed |= {"device": crew.device, "batch_tokens": runtime.tokens}
    plan = plan_of(path.with_name(f"{path.name}.shards"), keyed, len(ids), WINDOW)
    job = {
        **sources(asked.table, asked.table.start, asked.name, asked.collection, facts["model"], runtime),
        "kind": kind, "split": split, "asked": rows, "stored": stored,
    }  # fmt: skip
    label = "encode queries" if split else "encode"
    with parts_of(plan, crew, encoding, job, track=asked.track, note=asked.note, label=label) as parts:
        tower = asked.model.query if split else asked.model.document
        if kind == "sparse":
            return assemble_sparse(path, parts, ids, asked.model.vocabulary, facts)
        if kind == "late":
            return assemble_multi(path, parts, ids, tower.dim, facts, stored)
        return assemble_dense(path, parts, ids, tower.dim, facts)


def _described(asked: Asked, split: str | None, rows: str) -> tuple[dict[str, Any], Sequence[str]]:
    """The facts of a folder of vectors, as one process gives them, and its ids."""
    from flatcoat.app.encode import facts_of

    collection, source = asked.collection, asked.table.start
    corpus = collection.documents.fingerprint
    if split is None:
        return facts_of(asked.model, source, "documents", corpus), collection.documents.ids
    ids = [collection.queries.ids[int(row)] for row in query_rows(collection, split, rows)]
    facts = facts_of(asked.model, source, "queries", corpus)
    return {**facts, "split": split, "queries": collection.queries.fingerprint}, ids


class Judge(NamedTuple):
    """A cross-encoder, and the probability above which a candidate is an answer to it."""

    source: str
    above: float


def mine_by_workers(
    out: Path, asked: Asked, workers: str, split: str, settings: MineSettings, *,
    approximate: bool = False, judge: Judge | None = None,
) -> tuple[np.ndarray, Mined]:  # fmt: skip
    """Rows of a split's answered queries, int64 [query], and each one's negatives: the corpus and the queries encoded, and the
    queries searched, by workers. What is in work lies in `OUT.work` and is gone on with after a kill.

    Raises:
        Misuse: `workers` is no number of processes and no Ray cluster.
        FlatcoatError: a shard that three workers were lost on, or that cannot be made.
    """
    said = workers_of(workers)
    work = out.with_name(f"{out.name}.work")
    rows = query_rows(asked.collection, split, "answered")
    if not len(rows):
        raise Misuse(f"split {split!r} has no judgement above 0; mining wants queries with answers")
    with closing(open_crew(said, asked.device)) as crew:
        documents = _encoded(work / "documents", asked, crew, None)
        queries = _encoded(work / "queries", asked, crew, split)
        mined = _mine(work, asked, crew, (documents, queries), (split, len(rows)), settings, approximate, judge)
    remove_folder(work)
    return rows, mined


def _encoded(path: Path, asked: Asked, crew: Crew, split: str | None) -> Folder:
    """The vectors of the corpus, or of a split's answered queries, in float32 as mining in memory has them; made once."""
    from flatcoat.app.family import open_vectors

    facts, ids = _described(asked, split, "answered")
    if path.is_dir():
        made = open_vectors(path)
        same = all(made.facts.get(name) == value for name, value in json.loads(json.dumps(facts)).items())
        if same and made.facts["items"] == len(ids) and made.facts.get("stored", "fp32") == "fp32":
            return made
    return _encode(path, asked, crew, split, "answered", "fp32")


def _mine(
    work: Path, asked: Asked, crew: Crew, folders: tuple[Folder, Folder], of: tuple[str, int], settings: MineSettings,
    approximate: bool, judge: Judge | None,
) -> Mined:  # fmt: skip
    from flatcoat.models.checkpoint import fingerprint

    split, count = of
    documents, queries = folders
    source, above = judge or (None, 0.0)
    facts = {
        "documents": dict(documents.facts), "queries": dict(queries.facts), "settings": asdict(settings), "split": split,
        "content": dict(asked.collection.facts["content"]), "approximate": approximate, "above": above,
        "judge": fingerprint(source) if source else None, "device": crew.device, "judged": judged(asked.collection, split),
    }  # fmt: skip
    plan = plan_of(work / "shards", facts, count, QUERIES)
    runtime = asked.model.runtime
    job = {
        **sources(asked.table, asked.table.start, asked.name, asked.collection, "", runtime),
        "kind": asked.table.kind, "split": split, "settings": asdict(settings), "approximate": approximate,
        "judged": facts["judged"],
        "documents": str(documents.path.resolve()), "queries": str(queries.path.resolve()),
        "judge": str(Path(source).resolve()) if source and Path(source).is_dir() else source, "judge_above": above,
    }  # fmt: skip
    with parts_of(plan, crew, mining, job, track=asked.track, note=asked.note, label="mine") as parts:
        return joined(parts, settings.last - settings.first + 1)


def negative_lines(collection: Collection, rows: np.ndarray, mined: Mined) -> list[str]:
    """Mined negatives as JSON lines, a query each."""
    lines = []
    for row, found, scores in zip(rows.tolist(), mined.rows, mined.scores, strict=True):
        kept = found >= 0
        lines.append(negative_line(collection, row, found[kept], "scores", scores[kept]))
    return lines


def negative_line(collection: Collection, query: int, found: np.ndarray, name: str, values: np.ndarray) -> str:
    """A query's negatives as a JSON line; `values` are a number each, said by `name`."""
    record = {
        "query_id": collection.queries.ids[query],
        "negatives": [collection.documents.ids[int(row)] for row in found],
        name: [round(float(value), 6) for value in values],
    }
    return json.dumps(record, ensure_ascii=False) + "\n"
