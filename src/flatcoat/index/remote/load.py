"""Moving vectors into an engine, changing what is there, and moving them back.

Rows are written in batches, a row under its own number, so that doing a batch twice does no harm. A file beside the result says how far a
load has come; it is of the same vectors and settings, or it is refused. What is there at the end is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import digest, only_writer, read_json, remove_folder, write_json
from flatcoat.index.remote.base import (
    NAMES,
    OWN,
    Batch,
    Engine,
    Payload,
    RemoteSettings,
)
from flatcoat.index.remote.connect import connect
from flatcoat.index.remote.store import (
    Folder,
    Place,
    RemoteFolder,
    check_count,
    check_fields,
    field_of,
    open_remote,
    write_remote,
)
from flatcoat.multi_vectors import MultiFolder, write_multi_parts
from flatcoat.records import Track, silent
from flatcoat.representations import Dense, MultiVector, Representation, Sparse
from flatcoat.sparse_vectors import write_sparse
from flatcoat.vectors import VectorFolder, write_vectors

BATCH = 500  # rows written at once
TOKENS = 20_000  # token vectors written at once

#: Ids to payloads, in the same order.
Describe = Callable[[Sequence[str]], Sequence[Payload]]


def ids_alone(ids: Sequence[str]) -> list[Payload]:
    """Payloads without texts."""
    return [Payload(id) for id in ids]


def load(
    path: Path, place: Place, sources: Mapping[str, Folder], settings: RemoteSettings | None = None, *,
    describe: Describe = ids_alone, texts: str | None = None, replace: bool = False, batch: int = BATCH, track: Track = silent,
) -> RemoteFolder:  # fmt: skip
    """Load folders of vectors of the same documents, by field name, into a collection; a load that was killed goes on.

    `texts` is the fingerprint of what `describe` reads: a load that was killed does not go on with other texts or metadata.

    Raises:
        Misuse: fields that cannot be together, a collection that is there already (unless `replace`), or half a load of others.
        FlatcoatError: the engine does not answer, or in the end does not hold what it was given.
    """
    settings = settings or RemoteSettings()
    ids = _same_ids(sources)
    work = path.with_name(f".{path.name}.loading")
    with only_writer(work):
        engine = connect(place.address, place.name)
        try:
            _check_held(engine, place, sources, settings)
            _load(engine, work, place, sources, settings, ids, (describe, texts), replace, batch, track)
            write_remote(path, place, sources, settings, ids, np.zeros(0, np.int64))
        finally:
            engine.close()
    remove_folder(work)
    return open_remote(path, secret=place.address.secret)


def _load(
    engine: Engine, work: Path, place: Place, sources: Mapping[str, Folder], settings: RemoteSettings, ids: Sequence[str],
    payloads: tuple[Describe, str | None], replace: bool, batch: int, track: Track,
) -> None:  # fmt: skip
    marker, (describe, texts) = work / "progress.json", payloads
    what = digest({
        "of": {name: source.facts["files"] for name, source in sources.items()}, "settings": asdict(settings),
        "url": place.address.url, "name": place.name, "texts": texts,
    })  # fmt: skip
    done = _begun(engine, marker, what, place, replace)
    fields = {name: field_of(source) for name, source in sources.items()}
    if done is None:
        engine.drop()
        write_json(marker, {"what": what, "rows": 0})
        engine.create(fields, settings)
        done = 0
    elif engine.describe() is None:  # killed between the two
        engine.create(fields, settings)
    check_fields(engine, place, fields)
    _write(
        engine, sources, ids, describe, 0, done, batch, track, lambda n: write_json(marker, {"what": what, "rows": n})
    )
    engine.finish(fields, settings)
    check_count(engine, place, len(ids))


def _begun(engine: Engine, marker: Path, what: str, place: Place, replace: bool) -> int | None:
    """How many rows an earlier load has written; None where there is to be a new one."""
    said = read_json(marker) if marker.is_file() else None
    if said is not None and said["what"] == what and not replace:
        return int(said["rows"])
    if replace or engine.describe() is None:
        return None
    if said is not None:
        raise Misuse(
            f"{place}: half a load of other vectors, texts or settings; give --replace to begin anew, or another --name"
        )
    raise Misuse(f"{place}: is there already; choose another --name, or give --replace to load it anew")


def _write(
    engine: Engine, sources: Mapping[str, Folder], ids: Sequence[str], describe: Describe, shift: int, done: int, batch: int,
    track: Track, mark: Callable[[int], None],
) -> None:  # fmt: skip
    spans = list(_spans(sources, done, len(ids), batch))
    for first, last in track(spans, len(spans), "load"):
        vectors = {name: _part(source, first, last) for name, source in sources.items()}
        engine.upsert(Batch(shift + first, vectors, describe(ids[first:last])))
        mark(last)


def _spans(sources: Mapping[str, Folder], first: int, rows: int, batch: int) -> Iterator[tuple[int, int]]:
    """Runs of rows, shorter where an item has many vectors."""
    starts = [source.vectors.start for source in sources.values() if isinstance(source, MultiFolder)]
    while first < rows:
        last = min(rows, first + batch)
        for start in starts:
            last = min(last, max(first + 1, int(np.searchsorted(start, start[first] + TOKENS, side="right")) - 1))
        yield first, last
        first = last


def _part(source: Folder, first: int, last: int) -> Representation:
    if isinstance(source, VectorFolder):
        return Dense(np.ascontiguousarray(source.vectors[first:last]))
    return source.vectors[first:last]


def _same_ids(sources: Mapping[str, Folder]) -> list[str]:
    if not sources:
        raise Misuse("nothing to load: give at least one folder of vectors")
    for name in sources:
        if not NAMES.fullmatch(name) or name in OWN:
            raise Misuse(f"field {name!r}: want letters, digits and _, and none of {', '.join(OWN)}")
    (first, base), *others = sources.items()
    for name, source in others:
        if list(source.ids) != list(base.ids):
            raise Misuse(f"{source.path} ({name}) and {base.path} ({first}) are not of the same documents, row by row")
    ids = list(base.ids)
    if not ids:
        raise Misuse(f"{base.path}: holds no vectors; there is nothing to load")
    if len(set(ids)) != len(ids):
        raise FlatcoatError(f"{base.path}: an id is there twice; ids are unique")
    return ids


def _check_held(engine: Engine, place: Place, sources: Mapping[str, Folder], settings: RemoteSettings) -> None:
    kinds = {field_of(source).kind for source in sources.values()}
    for kind in kinds - set(engine.holds):
        raise Misuse(f"{place.address.engine} does not hold {kind} vectors here; it holds {' and '.join(engine.holds)}")
    if settings.kind == "hnsw" and "dense" not in kinds:
        raise Misuse(
            "kind hnsw is a graph over dense vectors; sparse and token vectors are searched exactly, say --kind exact"
        )


def change(
    path: Path, *, add: Mapping[str, Folder] | None = None, delete: Sequence[str] = (), describe: Describe = ids_alone,
    secret: str | None = None, batch: int = BATCH, track: Track = silent,
) -> RemoteFolder:  # fmt: skip
    """Delete documents of a collection by id, then add others; killed in between, the same call goes on.

    Raises:
        Misuse: nothing to do, or other fields than the collection has.
        FlatcoatError: an id to delete that is not there, or one to add that is.
    """
    if not add and not delete:
        raise Misuse("nothing to do: give --add or --delete")
    with only_writer(path.with_name(f".{path.name}.loading")):
        folder = open_remote(path, secret=secret)
        try:
            _change(folder, add or {}, delete, describe, batch, track)
        finally:
            folder.close()
    remove_folder(path.with_name(f".{path.name}.loading"))
    return open_remote(path, secret=secret)


def _change(
    folder: RemoteFolder, add: Mapping[str, Folder], delete: Sequence[str], describe: Describe, batch: int, track: Track
) -> None:
    gone, living = set(folder.deleted.tolist()), {}
    living = {id: row for row, id in enumerate(folder.ids) if row not in gone}
    missing = next((id for id in delete if id not in living), None)
    if missing is not None:
        raise FlatcoatError(f"{folder.path}: no document {missing!r} to delete")
    rows = sorted({living.pop(id) for id in set(delete)})
    ids = _same_ids(add) if add else []
    double = next((id for id in ids if id in living), None)
    if double is not None:
        raise FlatcoatError(f"{folder.path}: document {double!r} is there already; delete it first")
    _check_added(folder, add)
    first = len(folder.ids)
    if rows:
        folder.engine.delete(rows)
    _write(folder.engine, add, ids, describe, first, 0, batch, track, lambda _: None)
    folder.engine.finish(folder.index.fields, folder.index.settings)
    deleted = np.array(sorted(gone | set(rows)), np.int64)
    check_count(folder.engine, folder.place, first + len(ids) - len(deleted))
    write_remote(folder.path, folder.place, {}, folder.index.settings, [*folder.ids, *ids], deleted, folder.facts)


def _check_added(folder: RemoteFolder, add: Mapping[str, Folder]) -> None:
    if add and set(add) != set(folder.index.fields):
        raise Misuse(
            f"{folder.path} has fields {', '.join(folder.index.fields)}; give vectors of each, not of {', '.join(add)}"
        )
    for name, source in add.items():
        if field_of(source) != folder.index.fields[name]:
            raise FlatcoatError(
                f"{source.path}: {field_of(source)} where {name} of {folder.path} is {folder.index.fields[name]}"
            )
        built, given = folder.facts["fields"][name]["of"].get("model"), source.facts.get("model")
        if built != given:
            raise FlatcoatError(
                f"{source.path}: of another model than {name} of {folder.path}; encode with the same one"
            )


def pull(folder: RemoteFolder, path: Path, *, batch: int = BATCH, track: Track = silent) -> Folder:
    """One field's vectors back out of an engine, as a folder of vectors; deleted rows are left out.

    Raises:
        FlatcoatError: rows are missing, or are of other documents than the folder says.
    """
    field = folder.index.fields[folder.index.field]
    facts = {
        k: v
        for k, v in folder.facts["of"].items()
        if k not in ("items", "dim", "entries", "tokens", "vocab_size", "stored")
    }
    living = np.setdiff1d(np.arange(len(folder.ids)), folder.deleted)
    ids = [str(folder.ids[row]) for row in living.tolist()]
    parts = _pages(folder, set(living.tolist()), batch, track)
    if field.kind == "late":
        precision = folder.facts["of"].get("stored", "fp32")
        return write_multi_parts(path, _multi(parts), ids, int(field.width or 0), facts, precision)
    if field.kind == "sparse":
        whole = Sparse.joined([part for part in parts if isinstance(part, Sparse)], int(field.width or 0))
        name = "vocabulary.json" if folder.index.field == "sparse" else f"{folder.index.field}.vocabulary.json"
        return write_sparse(path, whole, ids, read_json(folder.path / name), facts)
    dense = [part.vectors for part in parts if isinstance(part, Dense)]
    return write_vectors(path, np.concatenate([np.zeros((0, int(field.width or 0)), np.float32), *dense]), ids, facts)


def _multi(parts: Iterator[Representation]) -> Iterator[MultiVector]:
    return (part for part in parts if isinstance(part, MultiVector))


def _pages(folder: RemoteFolder, living: set[int], batch: int, track: Track) -> Iterator[Any]:
    starts = range(0, len(folder.ids), batch)
    for first in track(starts, len(starts), "pull"):
        rows = range(first, min(first + batch, len(folder.ids)))
        page = folder.engine.read(folder.index.field, folder.index.fields[folder.index.field], rows)
        wanted = [row for row in rows if row in living]
        if page.rows != wanted:
            lost = sorted(set(wanted) ^ set(page.rows))[0]
            raise FlatcoatError(
                f"{folder.place}: row {lost} is not as {folder.path} says; was it changed by another tool?"
            )
        strange = next((row for row, id in zip(page.rows, page.ids, strict=True) if folder.ids[row] != id), None)
        if strange is not None:
            raise FlatcoatError(f"{folder.place}: row {strange} is of another document than {folder.path} says")
        yield page.vectors
