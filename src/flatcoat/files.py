"""Files that are whole or absent: atomic writes, manifests with sizes and hashes, one writer a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flatcoat.errors import FlatcoatError, Misuse

MANIFEST = "manifest.json"


def sha256_of(path: Path) -> str:
    """The hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The hex sha256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes the name `path`, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in their given order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises FlatcoatError naming the file where it is absent or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FlatcoatError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FlatcoatError(f"{path}: not valid JSON ({error})") from error


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; on success it replaces `path`, on failure it is removed."""
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                sync(file)
        install_folder(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def install_folder(partial: Path, path: Path) -> None:
    """Rename a finished folder to `path`, moving what was there aside until the rename has happened."""
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    if path.exists():
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill in between leaves it whole or gone, never half."""
    if path.exists():
        old = path.with_name(f".{path.name}.old-{os.getpid()}")
        path.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def write_manifest(folder: Path, kind: str, version: int, facts: Mapping[str, Any], skip: tuple[str, ...] = ()) -> None:
    """Describe a folder: its kind and format version, its facts, and the size and sha256 of every file in it."""
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST and file.name not in skip
    }
    write_json(folder / MANIFEST, {"format": kind, "version": version, **facts, "files": files})


def read_manifest(folder: Path, kind: str, version: int, *, verify: bool = False) -> dict[str, Any]:
    """Open what `write_manifest` described; sizes are always compared, hashes where `verify` is true.

    Raises:
        FlatcoatError: not such a folder, another version, or a file that is missing or altered.
    """
    if not (folder / MANIFEST).is_file():
        raise FlatcoatError(f"{folder}: not a {kind} folder (it has no {MANIFEST})")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise FlatcoatError(f"{folder}: holds {found!r}, not a {kind}")
    if manifest.get("version") != version:
        raise FlatcoatError(
            f"{folder}: {kind} format version {manifest.get('version')}; this Flatcoat reads version {version}"
        )
    for name, facts in manifest.get("files", {}).items():
        _compare(folder / name, facts, verify)
    return manifest


def _compare(file: Path, facts: Mapping[str, Any], verify: bool) -> None:
    if not file.is_file():
        raise FlatcoatError(f"{file}: missing, though the manifest beside it lists it; build the folder again")
    size = file.stat().st_size
    if size != facts["bytes"]:
        raise FlatcoatError(f"{file}: {size} bytes where the manifest says {facts['bytes']}; build the folder again")
    if verify and sha256_of(file) != facts["sha256"]:
        raise FlatcoatError(f"{file}: its sha256 is not the manifest's: the file was altered; build the folder again")


def folder_fingerprint(folder: Path, names: tuple[str, ...]) -> str:
    """One sha256 over the named files of a folder (those that exist), by name and content."""
    return digest({name: sha256_of(folder / name) for name in names if (folder / name).is_file()})


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for a folder's turn: of processes that would build it at once, the first builds and the rest find it."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free_to_write(out: Path, kind: str | None, *sources: str) -> None:
    """Refuse to replace what is not ours: `kind` is the manifest's format, None a model.

    Raises:
        Misuse: `out` is a source, a file, or a folder of something else.
    """
    if any(Path(source).exists() and Path(source).resolve() == out.resolve() for source in sources):
        raise Misuse(f"{out} is also what is read; choose another --out")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if kind is None:
        ours = (out / "modules.json").is_file() and (out / "flatcoat.json").is_file()
    else:
        ours = (out / MANIFEST).is_file() and read_json(out / MANIFEST).get("format") == kind
    if not ours:
        raise Misuse(f"{out} is there and not a {kind or 'Flatcoat model'}; choose another --out, or remove it")


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder's lock. Raises Misuse where another process holds it."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Misuse(f"{folder}: another process is writing here; wait for it or choose another folder") from error
        yield
