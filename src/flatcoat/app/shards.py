"""Shards: rows cut into runs of one size, each made by a worker into a part file of its own, and read back in order.

A part's name holds a key of everything that goes into it and its first row. Parts are written whole or not at all, so a
command that was killed goes on from those that are there, and those of another key are thrown away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flatcoat.app.workers import Crew, Make, work_through
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError
from flatcoat.files import MANIFEST, digest, only_writer, read_json, telling, write_json
from flatcoat.records import Track, silent
from flatcoat.vectors import read_arrays

if TYPE_CHECKING:
    from flatcoat.app.tables import ModelTable

VERSIONS = ("flatcoat", "torch", "transformers", "tokenizers", "numpy", "faiss-cpu")
JOB = "job.json"

Part = Mapping[str, np.ndarray]


class Plan(NamedTuple):
    """Which rows make which part. It knows nothing of workers, so that their number changes nothing."""

    folder: str
    key: str
    items: int
    rows: int  # of a shard

    @property
    def shards(self) -> range:
        """Every shard's number."""
        return range(-(-self.items // self.rows))

    def span(self, shard: int) -> slice:
        """A shard's rows."""
        return slice(shard * self.rows, min((shard + 1) * self.rows, self.items))

    def name(self, shard: int) -> str:
        """A shard as messages have it."""
        span = self.span(shard)
        return f"shard {shard} (rows {span.start} to {span.stop - 1})"

    def part(self, shard: int) -> Path:
        """A shard's file."""
        return Path(self.folder) / f"part-{self.key[:16]}-{shard * self.rows:012d}.npz"


def plan_of(folder: Path, facts: Mapping[str, Any], items: int, rows: int) -> Plan:
    """A plan keyed by all of `facts` (JSON values), the rows and the versions of what computes."""
    keyed = {"facts": dict(facts), "items": items, "rows": rows, "versions": versions()}
    return Plan(str(folder.resolve()), digest(keyed), items, rows)


def versions() -> dict[str, str]:
    """Versions of the libraries whose arithmetic is in a part; of one that is not installed, "none"."""
    return {name: _version(name) for name in VERSIONS}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@contextlib.contextmanager
def parts_of(
    plan: Plan, crew: Crew, make: Make, job: Mapping[str, Any], *,
    track: Track = silent, note: Callable[[str], None] = lambda _: None, label: str = "encode",
) -> Generator[Iterator[Part], None, None]:  # fmt: skip
    """Have every part made that is not there yet, and give all in order; they are removed when the caller is done with them.

    Raises:
        Misuse: another process is at work in the plan's folder.
        FlatcoatError: a shard cannot be made; those that were made stay.
    """
    folder = Path(plan.folder)
    with only_writer(folder):
        there = _kept(plan)
        todo = [shard for shard in plan.shards if plan.part(shard).name not in there]
        if len(todo) < len(plan.shards):
            note(f"{len(plan.shards) - len(todo)} of {len(plan.shards)} shards are there already")
        whole = {**job, "plan": plan._asdict(), "versions": versions(), "threads": crew.threads, "device": crew.device}
        write_json(folder / JOB, {"key": plan.key})
        crew.start(make, whole)
        work = work_through(crew, todo, name=plan.name, note=note)
        for _ in track(work, len(todo), f"{label}, shards"):
            continue
        yield (read_part(plan, shard) for shard in plan.shards)
    shutil.rmtree(folder, ignore_errors=True)


def _kept(plan: Plan) -> set[str]:
    """Parts of this key; what else lies in the folder is removed."""
    own = {plan.part(shard).name for shard in plan.shards}
    there = {path.name for path in Path(plan.folder).iterdir()}
    for name in there - own - {".lock"}:
        (Path(plan.folder) / name).unlink(missing_ok=True)
    return there & own


def write_part(plan: Plan, shard: int, part: Part) -> None:
    """Write a part, atomically; two workers that write the same one, on whatever machines, do each other no harm."""
    path = plan.part(shard)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with telling(path):
            with partial.open("wb") as stream:
                np.savez(stream, **dict(part))  # pyright: ignore[reportArgumentType]
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_part(plan: Plan, shard: int) -> Part:
    """A part's arrays. Raises FlatcoatError where it is missing or damaged; a damaged one is removed, so that it is made again."""
    path = plan.part(shard)
    try:
        return read_arrays(path)
    except FileNotFoundError as error:
        raise FlatcoatError(
            f"{path}: made, but not to be seen from here; want a folder that every machine shares"
        ) from error


def settle(job: Mapping[str, Any]) -> Plan:
    """Begin as a worker: see the shared folder, have the driver's versions, take one's share of the threads.

    Raises:
        FlatcoatError: this machine does not see the folder, or has other versions of what computes.
    """
    import torch
    from threadpoolctl import threadpool_limits

    plan, here = Plan(**job["plan"]), socket.gethostname()
    note = Path(plan.folder) / JOB
    if not note.is_file() or read_json(note).get("key") != plan.key:
        raise FlatcoatError(
            f"{here} does not see {plan.folder}; --out wants a folder that every machine has under the same path"
        )
    own = versions()
    for name, wanted in job["versions"].items():
        if own[name] != wanted:
            raise FlatcoatError(
                f"{here} has {name} {own[name]} where the driver has {wanted}; install the same version"
            )
    torch.set_num_threads(job["threads"])
    threadpool_limits(limits=job["threads"])
    return plan


def sources(
    table: ModelTable, source: str, collection: str, opened: Collection, fingerprint: str, runtime: Any
) -> dict[str, Any]:
    """What a worker wants to load a model and open a collection, for its job."""
    start = Path(source)
    return {
        "model": {**table.model_dump(), "start": str(start.resolve()) if start.is_dir() else source},
        "fingerprint": fingerprint,
        "precision": runtime.precision,
        "batch_tokens": runtime.batch_tokens,
        "store": str(opened.path.resolve()),
        "collection": str(Path(collection).resolve()) if Path(collection).exists() else collection,
        "content": dict(opened.facts["content"]),
    }


def seen_collection(job: Mapping[str, Any]) -> Collection:
    """The driver's collection: its store where this machine sees it, else opened by name. Raises FlatcoatError where it differs."""
    from flatcoat.data.collection import open_collection

    store = Path(job["store"])
    opened = Collection.open(store) if (store / MANIFEST).is_file() else open_collection(job["collection"])
    if dict(opened.facts["content"]) != job["content"]:
        raise FlatcoatError(f"{socket.gethostname()}: {job['collection']} is not what the driver has under that name")
    return opened


def seen_model(job: Mapping[str, Any]) -> Any:
    """The driver's model, where this worker works. Raises FlatcoatError where it differs."""
    from flatcoat.app import build
    from flatcoat.app.tables import ModelTable, RuntimeTable
    from flatcoat.models.base import Runtime
    from flatcoat.models.checkpoint import fingerprint

    table = ModelTable(**job["model"])
    if fingerprint(table.start) != job["fingerprint"]:
        raise FlatcoatError(
            f"{socket.gethostname()}: {table.start} is not the model that the driver has under that name"
        )
    model = build.model(table, RuntimeTable(device="cpu"))
    model.runtime = Runtime(job["device"], job["precision"], job["batch_tokens"])
    return model.to(model.runtime.device)
