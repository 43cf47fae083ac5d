"""The verbs of engines: index into one, pull out of one, update what is there."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flatcoat.app.progress import say, tracker
from flatcoat.app.table import Table
from flatcoat.app.verbs_sparse import read_ids
from flatcoat.errors import FlatcoatError, Misuse, nearest
from flatcoat.index.remote.base import Payload, RemoteSettings
from flatcoat.index.remote.load import BATCH, Describe, Folder, ids_alone

KINDS = ("exact", "hnsw")
FORMATS = {"dense": "flatcoat-vectors", "sparse": "flatcoat-sparse", "late": "flatcoat-multi"}


class EngineTable(Table):
    """How an engine searches, and `batch`, the rows written at once. `shards` and `replicas` are of Qdrant and Milvus."""

    kind: Literal["exact", "hnsw"] = "exact"
    links: int = Field(default=16, ge=2, le=100)
    build: int = Field(default=200, ge=4, le=1000)
    ef: int = Field(default=100, ge=1, le=1000)
    shards: int | None = Field(default=None, ge=1)
    replicas: int | None = Field(default=None, ge=1)
    batch: int = Field(default=BATCH, ge=1)

    def settings(self) -> RemoteSettings:
        """As the index has them."""
        return RemoteSettings(self.kind, self.links, self.build, self.ef, self.shards, self.replicas)


def index(
    source: str, out: Path, engine: str, name: str | None, kind: str | None, also: Sequence[str], collection: str | None,
    replace: bool, copy: bool, changes: list[str] | None, quiet: bool,
) -> None:  # fmt: skip
    """`flatcoat index VECTORS --engine ENGINE:URL`: `also` are other vectors of the same documents, for the same collection."""
    from flatcoat.app.verbs import settings_table
    from flatcoat.files import free_to_write
    from flatcoat.index.remote.address import MEMORY, parse_address
    from flatcoat.index.remote.base import check_name
    from flatcoat.index.remote.load import load
    from flatcoat.index.remote.store import Place

    if copy:
        raise Misuse("--copy is of indexes in a folder; an engine keeps what it is given")
    if kind is not None and kind not in KINDS:
        raise Misuse(f"--kind {kind}: an engine has {' or '.join(KINDS)}{nearest(kind, list(KINDS))}")
    table = settings_table(EngineTable, [*(changes or []), *([f'kind="{kind}"'] if kind else [])])
    free_to_write(out, "flatcoat-index", source, *also)
    address = parse_address(engine)
    if address.url == MEMORY:
        raise Misuse(f"--engine {engine}: nothing would be left of it; want a URL or a path")
    place = Place(address, check_name(name or re.sub(r"\W", "_", out.name, flags=re.ASCII)))
    sources = named_sources([source, *also])
    started = time.perf_counter()
    describe, texts = _payloads(collection, sources, quiet)
    made = load(
        out, place, sources, table.settings(), describe=describe, texts=texts, replace=replace, batch=table.batch,
        track=tracker(quiet),
    )  # fmt: skip
    made.close()
    seconds = time.perf_counter() - started
    held = ", ".join(f"{name} ({field.kind}, {field.width})" for name, field in made.index.fields.items())
    say(f"{len(made.ids)} documents in {place}: {held}; {len(made.ids) / seconds:.0f} a second: {out}", quiet)


def named_sources(paths: Sequence[str]) -> dict[str, Folder]:
    """Folders of vectors by the names of their fields: dense, sparse, late; NAME=FOLDER says another.

    Raises:
        Misuse: two of one name.
    """
    from flatcoat.app.family import open_vectors
    from flatcoat.index.remote.store import kind_of

    found: dict[str, Folder] = {}
    for path in paths:
        said, equals, place = path.partition("=")
        opened = open_vectors(Path(place if equals else path))
        name = said if equals else kind_of(opened)
        if name in found:
            raise Misuse(f"{path}: a field {name} is there already; say NAME={place or path}")
        found[name] = opened
    return found


def _payloads(collection: str | None, sources: Mapping[str, Folder], quiet: bool) -> tuple[Describe, str | None]:
    """Titles, texts and metadata of a collection, by id, and their fingerprint."""
    if collection is None:
        return ids_alone, None
    from flatcoat.checks.base import enforce
    from flatcoat.checks.belongs import belongs
    from flatcoat.data.collection import open_collection

    documents = open_collection(collection).documents
    for source in sources.values():
        enforce(belongs(source.path, source.facts, corpus=documents.fingerprint), None, partial(say, quiet=quiet))
    metadata: Any = getattr(documents, "metadata", lambda row: {})

    def describe(ids: Sequence[str]) -> list[Payload]:
        rows = [documents.lookup.row(id) for id in ids]
        missing = next((id for id, row in zip(ids, rows, strict=True) if row is None), None)
        if missing is not None:
            raise FlatcoatError(f"document {missing!r} is not in {collection}; were the vectors made from it?")
        return [
            Payload(id, documents.titles[row], documents.bodies[row], metadata(row))
            for id, row in zip(ids, rows, strict=True)
            if row is not None
        ]

    return describe, documents.fingerprint


def pull(index: Path, out: Path, field: str | None, quiet: bool) -> None:
    """`flatcoat pull`: one field's vectors out of an engine."""
    from flatcoat.files import free_to_write
    from flatcoat.index.remote.load import pull as fetch
    from flatcoat.index.remote.store import open_remote

    with open_remote(index, field=field) as folder:
        free_to_write(out, FORMATS[folder.facts["holds"]], str(index))
        made = fetch(folder, out, track=tracker(quiet))
    say(f"{len(made)} {folder.facts['holds']} vectors: {out}", quiet)


def update(index: Path, add: Sequence[str], delete: Path | None, collection: str | None, quiet: bool) -> None:
    """`flatcoat update` of a collection in an engine: ids of `delete` go, then vectors of every field are added."""
    from flatcoat.index.remote.load import change

    gone = read_ids(delete) if delete is not None else []
    sources = named_sources(add)
    describe = _payloads(collection, sources, quiet)[0]
    made = change(index, add=sources, delete=gone, describe=describe, track=tracker(quiet))
    made.close()
    say(f"{len(made.ids) - len(made.deleted)} documents, {len(made.deleted)} deleted: {index}", quiet)


def refuse_without_engine(given: Mapping[str, Any]) -> None:
    """Raise Misuse where an option of engines is given without one."""
    for option, value in given.items():
        if value:
            raise Misuse(f"{option} is of engines; say --engine qdrant:URL, postgresql:URL or milvus:URL too")
