"""The verbs that search: search, fuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from flatcoat.app.progress import tracker
from flatcoat.checks.base import enforce
from flatcoat.checks.belongs import belongs, same_vocabulary
from flatcoat.checks.belongs import precision as check_precision
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.data.trec import format_run, read_run, write_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import read_json
from flatcoat.index.store import SPARSE_KINDS, IndexFolder, open_index
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
        model, index, collection = _of_run(Path(model), name)
    if collection is None:
        raise Misuse("search wants MODEL INDEX COLLECTION, or the folder of a run")
    folder, opened = open_index(index), open_collection(collection)
    enforce(belongs(index, folder.facts["of"], corpus=opened.documents.fingerprint), allow or ())
    encode = None
    if folder.kind == "bm25":
        if model != "bm25":
            raise Misuse(f"{index} is a BM25 index: say bm25 in place of {model}")
    else:
        encode = _encoder(model, folder, precision, device, allow)
    if query is not None:
        _answer(folder, opened, encode, query, k or 10, as_json)
        return
    rows = opened.query_rows(str(split))
    texts, ids = opened.queries.texts(rows), [opened.queries.ids[int(row)] for row in rows]
    top = search_texts(encode, folder.index, texts, k or 1000, track=tracker(quiet))
    _give(named(top, ids, folder.ids, skip_self=skip_self), out, f"flatcoat-{folder.kind}")


def _of_run(folder: Path, name: str | None) -> tuple[str, Path, str]:
    """Model, index and collection of a run's folder."""
    if not (folder / "recipe.toml").is_file():
        raise Misuse(f"{folder}: not the folder of a run; search wants MODEL INDEX COLLECTION")
    from flatcoat.app.recipe import load_recipe

    recipe = load_recipe(folder / "recipe.toml")
    if recipe.model.kind == "cross" and name != "bm25":
        raise Misuse(
            f"{folder}: the run of a cross-encoder, which re-ranks and has no vectors; say --name bm25, "
            "or flatcoat rerank a run of another system with its model"
        )
    wanted = name or (recipe.indexes[0].label if recipe.indexes else "exact")
    index = folder / "index" / wanted
    if not index.is_dir():
        have = ", ".join(sorted(p.name for p in (folder / "index").glob("*"))) or "none"
        raise Misuse(f"{folder}: no index {wanted!r}; it has {have}")
    if wanted == "bm25":
        return "bm25", index, str(folder / "store")
    from flatcoat.app.cascade import beside

    other = beside(folder / "model", wanted)  # what learnt beside the model has an index of its own
    if other.is_dir() and wanted not in [table.label for table in recipe.indexes]:
        return str(other), index, str(folder / "store")
    begun = folder / "start"  # a start that the run had to make: new weights for a lookup
    start = str(begun) if begun.is_dir() else recipe.model.start
    return str(folder / "model") if recipe.training.steps else start, index, str(folder / "store")


def _encoder(model: str, folder: IndexFolder, precision: str | None, device: str, allow: list[str] | None) -> Any:
    """The query side of a model, as the documents of an index were encoded."""
    from flatcoat.models.base import Runtime, best_device
    from flatcoat.models.checkpoint import fingerprint

    of, holds = folder.facts["of"], _holds(folder)
    given = fingerprint(model)
    if of.get("model") != given:  # a recipe may make another kind of a checkpoint than it says itself
        _same_kind(model, folder, holds)
    enforce(belongs(folder.path, of, model=given), allow or ())
    load: Any = {"sparse": _sparse, "late": _late, "dense": _dense}[holds]
    loaded = load(model, folder, allow)
    used = precision or of.get("precision", "fp32")
    if used not in ("fp32", "bf16"):
        raise Misuse(f"--precision {used}: want fp32 or bf16")
    enforce(check_precision(folder.path, of, used))
    loaded.runtime = Runtime(best_device(device), used)
    loaded.to(loaded.runtime.device)
    return loaded.encode_queries


def _holds(folder: IndexFolder) -> str:
    """The kind of model that an index holds vectors of."""
    if folder.kind in SPARSE_KINDS:
        return "sparse"
    return "late" if "tokens" in folder.facts else "dense"


def _same_kind(model: str, folder: IndexFolder, holds: str) -> None:
    """Refuse a model that gives other things than an index holds."""
    from flatcoat.models.load import kind_of
    from flatcoat.models.source import resolve

    place = resolve(model)
    kind = kind_of(place)
    if kind == "cross":
        raise Misuse(
            f"{model}: a cross-encoder has no vectors to search with; search {folder.path} with the model that encoded it, "
            "then flatcoat rerank the run"
        )
    plain = kind == "sparse" and not (place / "modules.json").is_file()  # a masked-language model may be read as dense
    if kind != holds and not (plain and holds == "dense"):
        vectors = {"sparse": "sparse vectors", "late": "several vectors a text", "dense": "one dense vector a text"}
        raise Misuse(
            f"{model} is a {kind} model, {folder.path} ({folder.kind}) holds {vectors[holds]}; want a {holds} model"
        )


def _sparse(model: str, folder: IndexFolder, allow: list[str] | None) -> Any:
    from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade

    of = folder.facts["of"]
    asked = of.get("query_tower", {})  # the query side as it was when the documents were encoded, and measured
    loaded = load_splade(model, SparseOverrides(
        query_length=asked.get("max_length"), query_prompt=asked.get("prompt"), query_terms=asked.get("top_terms"),
        aggregate=asked.get("aggregate"), queries=of.get("queries"),
    ))  # fmt: skip
    if getattr(loaded.query, "fresh", False):
        raise FlatcoatError(f"{model} has no weights for a lookup of queries; search with the model that was trained")
    enforce(same_vocabulary(folder.path, read_json(folder.path / "vocabulary.json"), loaded.vocabulary), allow or ())
    return loaded


def _late(model: str, folder: IndexFolder, allow: list[str] | None) -> Any:
    from flatcoat.models.colbert import LateModel, LateSettings, LateTower
    from flatcoat.models.colbert_checkpoint import LateOverrides, is_late, load_late
    from flatcoat.models.source import resolve

    of = folder.facts["of"]
    asked, answered = of.get("query_tower"), of.get("tower", {})
    new = None if is_late(resolve(model)) else folder.facts["dim"]
    if not asked:
        loaded = load_late(model, LateOverrides(new))
    else:
        marks = asked["marker"] or "", answered.get("marker") or ""
        overrides = LateOverrides(new, asked["max_length"], query_marker=marks[0], document_marker=marks[1])
        loaded = load_late(model, overrides)
        own, settings = loaded.query, LateSettings(**{**asked, "skip": tuple(asked["skip"])})
        queries = LateTower(own.backbone, own.projection, own.tokenizer, settings)
        loaded = LateModel(queries, loaded.document)
    if loaded.dim != folder.facts["dim"]:
        raise FlatcoatError(
            f"{model} gives vectors of {loaded.dim} dimensions, {folder.path} holds {folder.facts['dim']}"
        )
    return loaded


def _dense(model: str, folder: IndexFolder, allow: list[str] | None) -> Any:
    from flatcoat.checks.towers import pooling
    from flatcoat.models.checkpoint import Overrides, load_dense

    of = folder.facts["of"]
    tower, asked = of.get("tower", {}), of.get("query_tower", {})
    enforce(pooling(of.get("declared_pooling"), tower.get("pooling", of.get("declared_pooling"))), allow or ())
    return load_dense(
        model,
        Overrides(
            tower.get("pooling"), tower.get("normalise"),
            query_length=asked.get("max_length"), query_prompt=asked.get("prompt"), document_prompt=tower.get("prompt"),
        ),
    )  # fmt: skip


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
