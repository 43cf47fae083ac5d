"""Opening a collection by its name: a folder or file in a known layout, a folder of documents, `files:FOLDER`, `python:`,
`ir_datasets:ID`, `hf:ID`.

The store is built once, in `~/.cache/flatcoat` unless a folder is named, and built again when the source's files
have changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flatcoat.data.beir import is_beir, read_beir
from flatcoat.data.documents import files_listing, folder_name, is_documents, read_files
from flatcoat.data.ir_datasets import read_ir_datasets
from flatcoat.data.jsonl import read_jsonl
from flatcoat.data.problems import Problems
from flatcoat.data.python_code import python_listing, python_root, read_python
from flatcoat.data.store import KIND, Collection, StoreBuilder
from flatcoat.data.tabular import read_hf, read_parquet
from flatcoat.data.tsv import is_tsv, read_tsv
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import MANIFEST, atomic_folder, digest, one_at_a_time, read_json, sum_of

Reader = Callable[[StoreBuilder, Problems], list[Path]]
DATA = re.compile(r"\.(jsonl?|tsv|parquet)(\.gz)?$")
SCHEMES = {"files": read_files, "python": read_python, "ir_datasets": read_ir_datasets, "hf": read_hf}


def reader_of(spec: str) -> Reader:
    """The reader of a collection's name. Raises Misuse where no layout fits."""
    scheme, _, rest = spec.partition(":")
    if scheme in SCHEMES:
        return partial(SCHEMES[scheme], rest)
    path = Path(spec)
    if not path.exists():
        raise Misuse(f"{spec}: no such folder or file, and not files:FOLDER, python:, ir_datasets:ID or hf:ID")
    if path.is_dir():
        return _folder_reader(spec, path)
    if path.suffix == ".parquet":
        return partial(read_parquet, path)
    if path.suffix in (".jsonl", ".json") or path.name.endswith(".jsonl.gz"):
        return partial(read_jsonl, path)
    raise Misuse(f"{spec}: a file of no known layout; want .jsonl, .json or .parquet, or a folder")


def _folder_reader(spec: str, path: Path) -> Reader:
    if is_beir(path):
        return partial(read_beir, path)
    if is_tsv(path):
        return partial(read_tsv, path)
    if is_documents(path):
        return partial(read_files, spec)
    raise Misuse(
        f"{spec}: neither corpus.jsonl (BEIR) nor collection.tsv nor triples*.tsv is in this folder, nor documents "
        "(.txt, .md, .rst, .html, .pdf, .csv, .tsv, .parquet)"
    )


def is_own(spec: str) -> bool:
    """Whether a name is of a folder of documents: `files:FOLDER`, or a folder of no other layout that holds some."""
    if spec.startswith("files:"):
        return True
    path = Path(spec)
    return path.is_dir() and not is_beir(path) and not is_tsv(path) and is_documents(path)


def open_collection(spec: str, store: Path | None = None, *, strict: bool = False) -> Collection:
    """Open a collection, building its store where there is none or its source has changed.

    Raises:
        Misuse: nothing of that name, or of no known layout.
        FlatcoatError: the source has no documents; or, where `strict`, any problem at all.
    """
    path = Path(spec)
    if (path / MANIFEST).is_file() and read_json(path / MANIFEST).get("format") == KIND:
        return Collection.open(path)
    folder = store or default_store(spec)
    with one_at_a_time(folder):
        return _opened(spec, folder, store, strict)


def _opened(spec: str, folder: Path, store: Path | None, strict: bool) -> Collection:
    collection = _kept(folder, store)
    if collection is not None:
        was = collection.facts["source"]["spec"]
        if store and source_name(was) != source_name(spec):
            raise FlatcoatError(f"{folder} was built from {was}, not from {spec}; remove {folder} to build it anew")
        changed = changed_files(collection)
        if not changed and not (strict and collection.facts["problems"]):
            return collection
        if store and changed:
            raise FlatcoatError(
                f"{changed[0]} changed after {folder} was built from it; remove {folder} to build it anew"
            )
    return build_store(spec, folder, strict=strict)


def _kept(folder: Path, store: Path | None) -> Collection | None:
    """The store that is there; None where there is none, or a damaged one in the cache, which is made again."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return Collection.open(folder)
    except FlatcoatError:
        if store is not None:
            raise
        return None


def build_store(spec: str, folder: Path, *, strict: bool = False) -> Collection:
    """Read a collection into a store folder, atomically, and report its problems."""
    read = reader_of(spec)
    problems = Problems(strict)
    with atomic_folder(folder) as partial_folder:
        builder = StoreBuilder(partial_folder, problems)
        used = read(builder, problems)
        name = source_name(spec)
        builder.close({"spec": name, "files": [_state(path) for path in used], "listing": _listing(name)})
    collection = Collection.open(folder)
    collection.report()
    return collection


def default_store(spec: str) -> Path:
    """Where a collection's store is kept when no folder is named."""
    return Path.home() / ".cache" / "flatcoat" / "stores" / digest(source_name(spec))[:20]


def source_name(spec: str) -> str:
    """A collection's name, the same from every working directory."""
    scheme, _, rest = spec.partition(":")
    if scheme == "python":
        return f"python:{python_root(rest).resolve()}"
    if scheme == "files":
        return folder_name(rest)
    return spec if scheme in SCHEMES else str(Path(spec).resolve())


def _listing(spec: str) -> str | None:
    """A digest of which files a source has; for Python code and documents, of their sizes and times too."""
    scheme, _, rest = spec.partition(":")
    if scheme == "python":
        return python_listing(python_root(rest))
    if scheme == "files":
        return files_listing(rest)
    if scheme in SCHEMES:
        return None
    path = Path(spec)
    if path.is_file():
        return digest(path.with_name("corpus.jsonl").is_file())
    if not is_beir(path) and not is_tsv(path):
        return files_listing(spec)
    names = [p.relative_to(path) for folder in (path, path / "qrels") if folder.is_dir() for p in folder.iterdir()]
    return digest(sorted(str(name) for name in names if DATA.search(name.name)))


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    times = {"mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    return {"path": str(path.resolve()), "bytes": stat.st_size, **times, "sha256": sum_of(path)}


def _as_it_was(file: dict[str, Any]) -> bool:
    """Whether a source's size and time are what they were; where only its inode was touched since, whether its content is."""
    path = Path(file["path"])
    if not path.is_file():
        return False
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) != (file["bytes"], file["mtime_ns"]):
        return False
    return stat.st_ctime_ns == file.get("ctime_ns", stat.st_ctime_ns) or sum_of(path) == file["sha256"]


def changed_files(collection: Collection) -> list[str]:
    """The source files that are not what they were when the store was built: by size and times, and by content where those are
    set back.
    """
    changed = [file["path"] for file in collection.facts["source"]["files"] if not _as_it_was(file)]
    spec = collection.facts["source"]["spec"]
    if not changed and _listing(spec) != collection.facts["source"].get("listing"):
        changed.append(f"the listing of {spec}")
    return changed
