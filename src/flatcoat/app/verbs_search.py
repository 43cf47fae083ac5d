"""The verbs that search: search, fuse."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from flatcoat.app.opening import model_of, of_run
from flatcoat.app.progress import say, tracker
from flatcoat.checks.base import enforce
from flatcoat.checks.belongs import belongs
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.data.trec import format_run, read_run, write_run
from flatcoat.errors import Misuse
from flatcoat.index.store import IndexFolder, open_index
from flatcoat.records import Run
from flatcoat.search.engine import named, search_texts


def search(
    model: str, index: Path | None, collection: str | None, query: str | None, split: str | None, k: int | None, out: str,
    name: str | None, precision: str | None, device: str, skip_self: bool, allow: list[str] | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """`flatcoat search`."""
    if (query is None) == (split is None):
        raise Misuse("say either --query TEXT or --split NAME")
    if index is None:
        model, index, collection = of_run(Path(model), name)
    if collection is None:
        raise Misuse("search wants MODEL INDEX COLLECTION, or the folder of a run")
    folder, opened, note = open_index(index), open_collection(collection), partial(say, quiet=quiet)
    enforce(belongs(index, folder.facts["of"], corpus=opened.documents.fingerprint), allow or (), note)
    encode = None
    if folder.kind == "bm25":
        if model != "bm25":
            raise Misuse(f"{index} is a BM25 index: say bm25 in place of {model}")
    else:
        encode = model_of(model, folder, precision, device, allow or (), note).encode_queries
    if query is not None:
        _answer(folder, opened, encode, query, k or 10, as_json)
        return
    rows = opened.query_rows(str(split))
    texts, ids = opened.queries.texts(rows), [opened.queries.ids[int(row)] for row in rows]
    top = search_texts(encode, folder.index, texts, k or 1000, track=tracker(quiet))
    _give(named(top, ids, folder.ids, skip_self=skip_self), out, f"flatcoat-{folder.kind}")


def _answer(folder: IndexFolder, collection: Collection, encode: Any, query: str, k: int, as_json: bool) -> None:
    """One question's documents, to look at."""
    if not query.strip():
        raise Misuse("--query is empty; ask something")
    top = search_texts(encode, folder.index, [query], min(k, len(folder.index)))
    hits = []
    for row, score in zip(top.rows[0].tolist(), top.scores[0].tolist(), strict=True):
        if row >= 0:
            place = collection.documents.lookup.row(str(folder.ids[row]))  # an updated index has rows of its own
            text = "" if place is None else collection.documents.text(place)
            hits.append({"id": folder.ids[row], "score": score, "text": text})
    if as_json:
        sys.stdout.write(json.dumps({"query": query, "hits": hits}, ensure_ascii=False) + "\n")
        return
    for rank, hit in enumerate(hits, start=1):
        lines = [line for line in hit["text"].splitlines() if line.strip()][:4]
        body = "\n".join(f"      {line[:110]}" for line in lines)
        sys.stdout.write(f"{rank:>3}. {hit['score']:.4f}  {hit['id']}\n{body}\n")
    if not hits:
        sys.stdout.write("nothing found\n")


def _give(run: Run, out: str, tag: str) -> None:
    if out == "-":
        sys.stdout.write(format_run(run, tag))
    else:
        write_run(Path(out), run, tag)


def fuse(runs: list[Path], out: str, by: str, weights: str | None) -> None:
    """`flatcoat fuse`."""
    from flatcoat.search.fuse import normalised_score, reciprocal_rank

    ways = {"rank": reciprocal_rank, "score": normalised_score}
    if by not in ways:
        raise Misuse(f"--by {by}: want rank or score")
    try:
        numbers = [float(part) for part in weights.split(",")] if weights else None
    except ValueError as error:
        raise Misuse(f"--weights {weights}: want numbers split by commas") from error
    _give(ways[by]([read_run(path) for path in runs], numbers), out, f"flatcoat-fuse-{by}")
