"""A folder that stands for a collection of an engine: where it is and what it holds, the ids by row, and nothing secret.

Its manifest is that of an index; `kind` is the engine's name, `fields` says which vectors the collection holds under which names, and
`deleted.npy` which rows are gone. The vectors are the engine's.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flatcoat.arrays import read_array, taking_apart
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_folder, lines_of, read_json, read_manifest, write_manifest
from flatcoat.index.remote.address import Address, parse_address
from flatcoat.index.remote.base import Engine, Field, RemoteSettings
from flatcoat.index.remote.connect import connect
from flatcoat.index.remote.index import RemoteIndex
from flatcoat.index.store import KIND, VERSION, IndexFolder
from flatcoat.multi_vectors import MultiFolder
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.vectors import VectorFolder, write_ids

SCHEMA = 1  # of what lies in the engine

Folder = VectorFolder | SparseFolder | MultiFolder


@dataclass(frozen=True)
class Place:
    """A collection: the engine's address, and the name there."""

    address: Address
    name: str

    def __str__(self) -> str:
        return f"{self.address}, collection {self.name}"


class RemoteFolder(IndexFolder):
    """An opened collection: `index` searches, `ids` names rows (deleted ones too), `facts` is the manifest."""

    index: RemoteIndex

    def __init__(self, path: Path, facts: Mapping[str, Any], index: RemoteIndex, ids: Sequence[str], place: Place):
        super().__init__(path, facts, index, ids)
        self.place = place

    @property
    def engine(self) -> Engine:
        """The connection."""
        return self.index.engine

    @property
    def deleted(self) -> np.ndarray:
        """Numbers of the rows that are gone, rising."""
        file = self.path / "deleted.npy"
        return read_array(file, mapped=False) if file.is_file() else np.zeros(0, np.int64)

    def close(self) -> None:
        """End the connection."""
        self.engine.close()

    def __enter__(self) -> RemoteFolder:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def kind_of(source: Folder) -> str:
    """dense, sparse or late; also the name of the field, where it is given no other."""
    if isinstance(source, VectorFolder):
        return "dense"
    return "sparse" if isinstance(source, SparseFolder) else "late"


def field_of(source: Folder) -> Field:
    """The field that holds a folder's vectors."""
    if isinstance(source, VectorFolder):
        return Field("dense", int(source.vectors.shape[1]))
    return (
        Field("sparse", source.vectors.vocab_size)
        if isinstance(source, SparseFolder)
        else Field("late", source.vectors.dim)
    )


def write_remote(
    path: Path, place: Place, sources: Mapping[str, Folder], settings: RemoteSettings, ids: Sequence[str],
    deleted: np.ndarray, before: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write the folder of a collection that is loaded. `before` is the manifest it had, where rows were added or deleted."""
    fields = {name: _said(source) for name, source in sources.items()} if before is None else before["fields"]
    first = next(iter(fields))
    facts = {
        "kind": place.address.engine, "engine": place.address.engine, "url": place.address.url, "name": place.name,
        "schema": SCHEMA, "settings": asdict(settings), "field": first, "fields": fields, "items": len(ids),
        "deleted": len(deleted),
    }  # fmt: skip
    with atomic_folder(path) as folder:
        write_ids(folder, list(ids))
        if len(deleted):
            np.save(folder / "deleted.npy", deleted)
        for name, source in sources.items():
            if isinstance(source, SparseFolder):
                shutil.copyfile(source.path / "vocabulary.json", folder / _vocabulary(name))
        if before is not None:
            for file in path.glob("*vocabulary.json"):
                shutil.copyfile(file, folder / file.name)
        write_manifest(folder, KIND, VERSION, facts)


def _vocabulary(field: str) -> str:
    return "vocabulary.json" if field == "sparse" else f"{field}.vocabulary.json"


def _said(source: Folder) -> dict[str, Any]:
    field = field_of(source)
    of = {key: value for key, value in source.facts.items() if key not in ("files", "format", "version")}
    return {"kind": field.kind, "width": field.width, "of": of}


def is_remote(path: Path) -> bool:
    """Whether a folder stands for a collection of an engine."""
    file = path / "manifest.json"
    return file.is_file() and "engine" in read_json(file)


def open_remote(
    path: Path, *, field: str | None = None, secret: str | None = None, verify: bool = False
) -> RemoteFolder:
    """Connect to the collection of a folder, and see that it is what the folder says; `verify` counts its rows too.

    Raises:
        FlatcoatError: not such a folder, no connection, or the collection is gone, another one, or of another count.
        Misuse: it has no such field.
    """
    facts, fields, chosen, place, ids, settings = said_of(path, field, secret)
    engine = connect(place.address, place.name)
    try:
        check_fields(engine, place, fields)
        if verify:
            check_count(engine, place, facts["items"] - facts["deleted"])
    except FlatcoatError:
        engine.close()
        raise
    index = RemoteIndex(engine, chosen, fields, facts["items"], settings, path)
    return RemoteFolder(path, _as_index(facts, chosen), index, ids, place)


class Said(NamedTuple):
    """What a folder says: its manifest; the fields, and the one asked for; where; the ids; the settings."""

    facts: dict[str, Any]
    fields: dict[str, Field]
    chosen: str
    place: Place
    ids: list[str]
    settings: RemoteSettings


def said_of(path: Path, field: str | None = None, secret: str | None = None) -> Said:
    """Read the folder of a collection, without a connection.

    Raises:
        FlatcoatError: not such a folder, or not formed as one.
        Misuse: it has no such field.
    """
    facts = read_manifest(path, KIND, VERSION)
    if "engine" not in facts:
        raise FlatcoatError(f"{path}: an index of kind {facts.get('kind')}, not one of an engine")
    if facts.get("schema") != SCHEMA:
        raise FlatcoatError(f"{path}: schema {facts.get('schema')}; this Flatcoat reads schema {SCHEMA}; load it again")
    with taking_apart(path):
        fields = {name: Field(said["kind"], said["width"]) for name, said in facts["fields"].items()}
        chosen = field or facts["field"]
        if chosen not in fields:
            raise Misuse(f"{path}: no field {chosen!r}; it has {', '.join(fields)}")
        try:
            address = parse_address(f"{facts['engine']}:{facts['url']}", secret)
        except Misuse as error:
            raise FlatcoatError(f"{path}: {error}") from error
        counts = {name: int(facts[name]) for name in ("items", "deleted")}
        place, settings = Place(address, str(facts["name"])), RemoteSettings(**facts["settings"])
        return Said({**facts, **counts}, fields, chosen, place, lines_of(path, "ids.txt", facts), settings)


def _as_index(facts: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    """A manifest as those of other indexes are, for one field."""
    said = facts["fields"][chosen]
    own = {"holds": said["kind"], "of": said["of"], "field": chosen}
    if said["kind"] == "late":
        return {**facts, **own, "dim": said["width"], "tokens": said["of"]["tokens"]}
    return {**facts, **own, "vocab_size" if said["kind"] == "sparse" else "dim": said["width"]}


def check_fields(engine: Engine, place: Place, fields: Mapping[str, Field]) -> None:
    """Raise FlatcoatError where the collection is gone, or holds other vectors."""
    found = engine.describe()
    if found is None:
        raise FlatcoatError(f"{place}: not there; was it removed? Load it again")
    for name, field in fields.items():
        there = found.get(name)
        if there is None or there.kind != field.kind:
            raise FlatcoatError(f"{place}: has no {field.kind} vectors called {name}; was it made by another tool?")
        if there.width is not None and there.width != field.width:
            raise FlatcoatError(
                f"{place}: {name} holds vectors of {there.width}, where {field.width} are wanted: another model?"
            )


def check_count(engine: Engine, place: Place, wanted: int) -> None:
    """Raise FlatcoatError where rows are missing, or are too many."""
    found = engine.count()
    if found != wanted:
        raise FlatcoatError(f"{place}: holds {found} rows where {wanted} are right; load it again with --replace")
