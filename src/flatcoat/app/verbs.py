"""The verbs that make things: run, train, encode, index."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flatcoat.app.progress import say, tracker
from flatcoat.app.recipe import load_recipe
from flatcoat.app.tables import IndexTable, LexicalTable, Table
from flatcoat.errors import Misuse, nearest
from flatcoat.multi_vectors import MultiFolder
from flatcoat.sparse_vectors import SparseFolder

if TYPE_CHECKING:
    from flatcoat.app.family import Folder

T = TypeVar("T", bound=Table)


def run(
    recipe: str,
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
    from flatcoat.app.verbs_own import own_recipe, run_own
    from flatcoat.data.collection import is_own

    own = is_own(str(recipe))
    loaded = own_recipe(str(recipe), changes) if own else load_recipe(Path(recipe), changes)
    results = (run_own if own else run_recipe)(
        loaded, out, resume=resume, track=tracker(quiet), note=lambda text: say(text, quiet), allow=tuple(allow or ())
    )
    if as_json:
        sys.stdout.write(json.dumps(results, ensure_ascii=False) + "\n")
    else:
        show(results, str(out / "whole") if own and (out / "whole").is_dir() else str(out))


def train(recipe: Path, out: Path, changes: list[str] | None, allow: list[str] | None, quiet: bool) -> None:
    """`flatcoat train`."""
    from flatcoat.app import build
    from flatcoat.app.before import run_before
    from flatcoat.app.ready_run import check_settings, make_ready
    from flatcoat.app.stages import Stages
    from flatcoat.app.train import train_model
    from flatcoat.data.collection import open_collection
    from flatcoat.files import free_to_write, only_writer
    from flatcoat.index.bm25 import Bm25Index
    from flatcoat.training.processes import join_processes

    loaded, accepted, note = load_recipe(recipe, changes), tuple(allow or ()), partial(say, quiet=quiet)
    group = join_processes()
    first = group.rank == 0
    free_to_write(out, None, loaded.model.start, loaded.collection.source)
    if first:
        check_settings(loaded, accepted, note)
    collection = open_collection(loaded.collection.source, strict=loaded.collection.strict)
    work = out.with_name(f"{out.name}.training")
    if group.world > 1:
        say(f"process {group.rank} of {group.world}", quiet)
    how: dict[str, Any] = {
        "bm25": lambda: Bm25Index.build(collection.documents.texts(), build.lexical_settings(loaded.lexical)),
        "track": tracker(quiet), "note": note, "allow": accepted,
    }  # fmt: skip
    with only_writer(work) if first else contextlib.nullcontext():
        if first:
            make_ready(loaded, collection, accepted, note)
        stages = Stages(work, how["note"])
        stage = lambda *asked: stages.do(*asked, together=group)  # noqa: E731
        going, earlier, _ = run_before(loaded, collection, work / "stages", stage, loaded.model.start, **how)
        cost = train_model(going, collection, out, work, earlier=earlier, **how)
    if not first:
        return
    say(
        f"{cost['steps']} steps in {cost['seconds']:.0f} s, last loss {cost['loss']:.4f}: {out}; log: {work}/log.jsonl",
        quiet,
    )


def encode(
    model: str, collection: str, out: Path, queries: str | None, pooling: str | None, query_length: int | None,
    document_length: int | None, precision: str, device: str, strict: bool, allow: list[str] | None, quiet: bool,
    workers: str | None = None,
) -> None:  # fmt: skip
    """`flatcoat encode`."""
    from flatcoat.app import build, verbs_speed
    from flatcoat.app.family import as_trained
    from flatcoat.app.ready import before_encoding
    from flatcoat.app.tables import ModelTable, RuntimeTable
    from flatcoat.app.verbs_shards import Asked, encode_asked
    from flatcoat.checks.base import enforce
    from flatcoat.data.collection import open_collection
    from flatcoat.files import free_to_write
    from flatcoat.models.load import kind_of
    from flatcoat.models.source import resolve

    runtime = verbs_speed.first_runtime(device, precision, workers=workers)
    folder = resolve(model)
    kind = kind_of(folder)
    if kind == "cross":
        raise Misuse(f"{model}: a cross-encoder has no vectors; flatcoat rerank reads a run's documents again with it")
    # a plain masked-language model may be either: whoever says how to pool it means dense
    if kind == "sparse" and pooling and not (folder / "modules.json").is_file():
        kind = "dense"
    if kind != "dense" and pooling:
        raise Misuse(f"--pooling {pooling}: {model} is a {kind} model; it is read as its checkpoint says")
    formats = {"sparse": "flatcoat-sparse", "late": "flatcoat-multi", "dense": "flatcoat-vectors"}
    free_to_write(out, formats[kind], model, collection)
    opened = open_collection(collection, strict=strict)
    said = {"pooling": pooling, "query_length": query_length, "document_length": document_length}
    table = build.from_options(ModelTable, {"kind": kind, "start": model, **said})
    used = build.model(table, RuntimeTable())
    note = partial(say, quiet=quiet)
    enforce(as_trained(table, used), allow or (), note)
    used.runtime = runtime
    used.to(runtime.device)
    enforce(before_encoding(kind, model, used, opened, queries), allow or (), note)
    if precision == verbs_speed.AUTO:
        chosen = verbs_speed.choose_to_encode(used, model, opened, out, queries, quiet)
        used.runtime = replace(runtime, precision=chosen)
    asked = Asked(used, table, collection, opened, device, tracker(quiet), note)
    made = encode_asked(out, asked, queries, workers)
    verbs_speed.chosen_for(out).unlink(missing_ok=True)
    _tell(made, out, quiet)


def _tell(made: Folder, out: Path, quiet: bool) -> None:
    """What was encoded, on one line."""
    if isinstance(made, MultiFolder):
        tokens = len(made.vectors.vectors) / max(1, len(made))
        say(f"{len(made)} texts of {tokens:.1f} token vectors in the mean, {made.vectors.dim} dimensions: {out}", quiet)
    elif isinstance(made, SparseFolder):
        terms = len(made.vectors.terms) / max(1, len(made))
        say(f"{len(made)} sparse vectors of {terms:.1f} terms in the mean: {out}", quiet)
    else:
        say(f"{len(made)} vectors of {made.dense().vectors.shape[1]} dimensions: {out}", quiet)


def index(
    source: str, out: Path, kind: str, changes: list[str] | None, copy: bool, quiet: bool, allow: list[str] | None = None
) -> None:  # fmt: skip
    """`flatcoat index`."""
    from flatcoat.app.build import lexical_settings
    from flatcoat.app.family import open_vectors, write_index
    from flatcoat.app.inspect_folders import before_indexing
    from flatcoat.app.ready import of_texts
    from flatcoat.checks.base import enforce
    from flatcoat.data.collection import open_collection
    from flatcoat.files import free_to_write
    from flatcoat.index.store import MULTI_KINDS, SPARSE_KINDS, VECTOR_KINDS, write_bm25

    free_to_write(out, "flatcoat-index", source)
    if kind == "bm25":
        collection = open_collection(source)
        enforce(of_texts(collection), allow or (), partial(say, quiet=quiet))
        settings = lexical_settings(settings_table(LexicalTable, changes))
        facts = {"corpus": collection.documents.fingerprint}
        made = write_bm25(out, collection.documents.texts(), list(collection.documents.ids), facts, settings)
    elif kind in (*VECTOR_KINDS, *SPARSE_KINDS, *MULTI_KINDS):
        table = settings_table(IndexTable, [*(changes or []), f'kind="{kind}"']) if kind != "exact" else None
        if kind == "exact" and changes:
            raise Misuse("--set: exact search has no settings")
        vectors = open_vectors(Path(source))
        enforce(before_indexing(vectors), allow or (), partial(say, quiet=quiet))
        made = write_index(out, vectors, table, copy=copy)
    else:
        known = [*VECTOR_KINDS, *SPARSE_KINDS, *MULTI_KINDS, "bm25"]
        raise Misuse(f"--kind {kind}: want one of {', '.join(known)}{nearest(kind, known)}")
    say(f"{kind} index of {made.facts['items']} documents, {made.bytes / 1e6:.1f} MB with its vectors: {out}", quiet)


def settings_table(kind: type[T], changes: list[str] | None) -> T:
    """A table of settings from --set KEY=VALUE."""
    import tomllib

    from flatcoat.app.build import from_options

    values = {}
    for change in changes or []:
        key, equals, text = change.partition("=")
        if not equals or key not in kind.model_fields:
            raise Misuse(f"--set {change}: no such setting{nearest(key, list(kind.model_fields))}")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return from_options(kind, values, "--set ")
