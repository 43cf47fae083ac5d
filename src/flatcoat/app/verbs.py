"""The verbs that make things: run, train, encode, index."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TypeVar

from flatcoat.app.progress import say, tracker
from flatcoat.app.recipe import IndexTable, LexicalTable, Table, load_recipe
from flatcoat.errors import Misuse, nearest

T = TypeVar("T", bound=Table)


def run(
    recipe: Path,
    out: Path,
    resume: bool,
    changes: list[str] | None,
    allow: list[str] | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """`flatcoat run`."""
    from flatcoat.app.report import show
    from flatcoat.app.run import run_recipe

    loaded = load_recipe(recipe, changes)
    results = run_recipe(
        loaded, out, resume=resume, track=tracker(quiet), note=lambda text: say(text, quiet), allow=tuple(allow or ())
    )
    if as_json:
        sys.stdout.write(json.dumps(results, ensure_ascii=False) + "\n")
    else:
        show(results, str(out))


def train(recipe: Path, out: Path, changes: list[str] | None, allow: list[str] | None, quiet: bool) -> None:
    """`flatcoat train`."""
    from flatcoat.app import build
    from flatcoat.app.train import train_model
    from flatcoat.data.collection import open_collection
    from flatcoat.files import free_to_write, only_writer
    from flatcoat.index.bm25 import Bm25Index
    from flatcoat.training.processes import join_processes

    loaded = load_recipe(recipe, changes)
    free_to_write(out, None, loaded.model.start, loaded.collection.source)
    collection = open_collection(loaded.collection.source, strict=loaded.collection.strict)
    work = out.with_name(f"{out.name}.training")
    first = join_processes().rank == 0
    with only_writer(work) if first else contextlib.nullcontext():
        cost = train_model(
            loaded, collection, out, work,
            bm25=lambda: Bm25Index.build(collection.documents.texts(), build.lexical_settings(loaded.lexical)),
            track=tracker(quiet), note=lambda text: say(text, quiet), allow=tuple(allow or ()),
        )  # fmt: skip
    if not first:
        return
    say(
        f"{cost['steps']} steps in {cost['seconds']:.0f} s, last loss {cost['loss']:.4f}: {out}; log: {work}/log.jsonl",
        quiet,
    )


def encode(
    model: str, collection: str, out: Path, queries: str | None, pooling: str | None, query_length: int | None,
    document_length: int | None, precision: str, device: str, strict: bool, allow: list[str] | None, quiet: bool,
) -> None:  # fmt: skip
    """`flatcoat encode`."""
    from flatcoat.app.encode import encode_documents, encode_queries
    from flatcoat.checks.base import enforce
    from flatcoat.checks.towers import lengths
    from flatcoat.checks.towers import pooling as check_pooling
    from flatcoat.data.collection import open_collection
    from flatcoat.files import free_to_write
    from flatcoat.models.base import Runtime, best_device
    from flatcoat.models.checkpoint import Overrides, describe, load_dense
    from flatcoat.models.source import resolve

    if precision not in ("fp32", "bf16"):
        raise Misuse(f"--precision {precision}: want fp32 or bf16")
    free_to_write(out, "flatcoat-vectors", model, collection)
    opened = open_collection(collection, strict=strict)
    used = load_dense(model, Overrides(pooling, None, query_length, document_length))
    enforce(check_pooling(describe(resolve(model))[1].pooling, used.document.settings.pooling), allow or ())
    if query_length or document_length:
        enforce(lengths(load_dense(model, Overrides(pooling)), used), allow or ())
    used.runtime = Runtime(best_device(device), precision)
    used.to(used.runtime.device)
    if queries:
        made = encode_queries(out, used, model, opened, queries, track=tracker(quiet))
    else:
        made = encode_documents(out, used, model, opened, track=tracker(quiet))
    say(f"{len(made)} vectors of {made.vectors.shape[1]} dimensions: {out}", quiet)


def index(source: str, out: Path, kind: str, changes: list[str] | None, copy: bool, quiet: bool) -> None:
    """`flatcoat index`."""
    from flatcoat.app.build import lexical_settings, vector_settings
    from flatcoat.data.collection import open_collection
    from flatcoat.files import free_to_write
    from flatcoat.index.store import VECTOR_KINDS, write_bm25, write_vector_index
    from flatcoat.vectors import VectorFolder

    free_to_write(out, "flatcoat-index", source)
    if kind == "bm25":
        collection = open_collection(source)
        settings = lexical_settings(_table(LexicalTable, changes))
        facts = {"corpus": collection.documents.fingerprint}
        made = write_bm25(out, collection.documents.texts(), list(collection.documents.ids), facts, settings)
    elif kind in VECTOR_KINDS:
        vectors = VectorFolder.open(Path(source))
        table = _table(IndexTable, [*(changes or []), f'kind="{kind}"']) if kind != "exact" else None
        if kind == "exact" and changes:
            raise Misuse("--set: exact search has no settings")
        made = write_vector_index(out, vectors, vector_settings(table) if table else None, copy=copy)
    else:
        raise Misuse(f"--kind {kind}: want {', '.join(VECTOR_KINDS)} or bm25{nearest(kind, [*VECTOR_KINDS, 'bm25'])}")
    say(f"{kind} index of {made.facts['items']} documents, {made.bytes / 1e6:.1f} MB with its vectors: {out}", quiet)


def _table(kind: type[T], changes: list[str] | None) -> T:
    """A table of settings from --set KEY=VALUE."""
    import tomllib

    from pydantic import ValidationError

    values = {}
    for change in changes or []:
        key, equals, text = change.partition("=")
        if not equals or key not in kind.model_fields:
            raise Misuse(f"--set {change}: no such setting{nearest(key, list(kind.model_fields))}")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise Misuse(f"--set {first['loc'][0]}: {first['msg']}, not {first['input']!r}") from error
