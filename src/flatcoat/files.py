"""Files that are whole or absent: atomic writes, manifests with sizes and hashes, one writer a folder.

What is being made lies beside its place as `.NAME.partial`, locked by its writer (flock, which ends with the process, whatever
ended it). A partial without a lock is a dead writer's; the next one takes it over. No process number is ever asked.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.places import as_open, held, install_folder, made, remove, restore

MANIFEST = "manifest.json"
SEAL = "sha256"  # the key under which a JSON object of ours holds the digest of the rest of itself
SETTLED = 50_000_000  # nanoseconds: what changed later than this ago may change again within one tick of its clock
SIDE_BY_SIDE = 16_000_000  # bytes from which hashing in threads is worth their start
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED, DENIED = (errno.EROFS, errno.EIO), (errno.EACCES, errno.EPERM, errno.EISDIR)
SHORT = ("requested and", "os error 27", "os error 28", "No space left", "File too large", "write error in",
         "could not write")  # fmt: skip

T = TypeVar("T")
_sums: dict[tuple[int, ...], str] = {}  # sha256 of files that this process has read, by `identity`


def sha256_of(path: Path) -> str:
    """The hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(path: Path) -> tuple[int, ...]:
    """What changes where a file or folder is written to or replaced: device, inode, size, times of change."""
    now = path.stat()
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def sum_of(path: Path) -> str:
    """The hex sha256 of a file, read once a process for as long as it is the same file, not written to."""
    who = identity(path)
    known = _sums.get(who)
    if known is None:
        known = sha256_of(path)
        if time.time_ns() - who[4] > SETTLED and identity(path) == who:
            _sums[who] = known
    return known


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


def refused(path: Path, error: BaseException) -> FlatcoatError | None:
    """What a disk that takes no more is said to be; None where that is not what happened. Libraries each say it their way."""
    number = error.errno if isinstance(error, OSError) else None
    ours = isinstance(error, OSError) and str(path.parent) in str(error.filename)
    short = not isinstance(error, FlatcoatError) and any(words in str(error) for words in SHORT)
    if number in FULL or (number is None and short):
        free = next(shutil.disk_usage(place).free for place in path.parents if place.exists())
        reason = (
            f"{os.strerror(number or errno.ENOSPC).lower()} ({free / 1e6:.1f} MB are free); free some and run again"
        )
    elif number in REFUSED or (number in DENIED and ours):
        reason = f"{os.strerror(number or 0).lower()}; choose another place, or mend this one and run again"
    else:
        return None
    hidden = [
        place for place in (path, *path.parents) if place.name.startswith(".") and place.name.endswith(".partial")
    ]
    shown = hidden[-1].with_name(hidden[-1].name[1:-8]) if hidden else path
    return FlatcoatError(f"{shown}: {reason}; what was there is as it was")


@contextlib.contextmanager
def telling(path: Path) -> Generator[None, None, None]:
    """Say what a disk refuses in one line. Raises FlatcoatError in place of the errors that `refused` knows."""
    try:
        yield
    except Exception as error:
        told = refused(path, error)
        if told is None:
            raise
        raise told from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[Path, None, None]:
    """Give a temporary path beside `path`; on success it takes the name `path`, on failure it is removed.

    Raises:
        FlatcoatError: the disk is full, or takes nothing.
    """
    partial = path.with_name(f".{path.name}.partial")
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = held(partial, lambda: os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), wait=True)
    try:
        os.ftruncate(lock, 0)  # what a dead writer left
        with telling(path):
            yield partial
            sync(partial)
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


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
    except OSError as error:
        raise FlatcoatError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError
        raise FlatcoatError(f"{path}: not valid JSON ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises FlatcoatError naming the file where it is absent, malformed, or no object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise FlatcoatError(f"{path}: a JSON {type(found).__name__} where an object is right")
    return cast("dict[str, Any]", found)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Generator[Path, None, None]:
    """Give an empty folder beside `path`; on success it replaces `path`, on failure it is removed.

    Raises:
        Misuse: another process is making the same folder.
        FlatcoatError: the disk is full, or takes nothing.
    """
    path = Path(path).resolve()
    partial = path.with_name(f".{path.name}.partial")
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        restore(path)
        lock = held(partial, lambda: made(partial), wait=False)
    try:
        with telling(path):
            for stale in partial.iterdir():
                remove(stale)
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    sync(file)
            as_open(partial)
            install_folder(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill in between leaves it whole or gone, never half; what such a kill left goes too."""
    for half in path.parent.glob(".*.gone-*"):
        shutil.rmtree(half, ignore_errors=True)
    if path.exists():
        gone = path.with_name(f".{path.name}.gone-{uuid.uuid4().hex}")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def steady(folder: Path, read: Callable[[], T]) -> T:
    """Read a folder that another process may replace meanwhile: all of the old one or all of the new one.

    Raises:
        FlatcoatError: what `read` raises of a folder that stayed, or one that never does.
    """
    for _ in range(10):
        before = _of_folder(folder)
        try:
            made = read()
        except (FlatcoatError, OSError, ValueError):
            if _of_folder(folder) == before:
                raise
            continue
        if _of_folder(folder) == before:
            return made
    raise FlatcoatError(f"{folder}: is replaced again and again while it is read; wait for its writer")


def _of_folder(folder: Path) -> tuple[int, ...] | None:
    try:
        return identity(folder)
    except FileNotFoundError:
        return None


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the digest of itself, which `unsealed` compares."""
    plain = json.loads(json.dumps({key: item for key, item in value.items() if key != SEAL}))
    return {**plain, SEAL: digest(plain)}


def unsealed(path: Path, value: Mapping[str, Any], cure: str) -> dict[str, Any]:
    """What `sealed` was given; as it is where there is no digest. Raises FlatcoatError where it is another's."""
    plain = {key: item for key, item in value.items() if key != SEAL}
    if value.get(SEAL, None) not in (None, digest(plain)):
        raise FlatcoatError(f"{path}: altered since it was written (its {SEAL} is another); {cure}")
    return plain


def noted(path: Path) -> dict[str, Any] | None:
    """A sealed note of work that was begun; None where there is none, or a damaged one: the work is then begun anew."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return unsealed(path, value, "") if SEAL in value else None
    except (OSError, ValueError, TypeError, FlatcoatError):
        return None


def write_manifest(folder: Path, kind: str, version: int, facts: Mapping[str, Any], skip: tuple[str, ...] = ()) -> None:
    """Describe a folder: kind, version, facts, every file's size and sha256, and its own. Raises OSError where an array was cut off."""
    for half in sorted(folder.rglob(".*.partial"), reverse=True):  # a killed writer's, in work that was taken up again
        remove(half)
    every = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.name != MANIFEST and f.name not in skip]
    for file in every:
        if file.suffix == ".npy" and _cut_off(file):  # numpy's writes pass over what a full disk says at the very end
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
    files = {str(f.relative_to(folder)): {"bytes": f.stat().st_size, "sha256": sum_of(f)} for f in every}
    write_json(folder / MANIFEST, sealed({"format": kind, "version": version, "sealed": True, **facts, "files": files}))


def _cut_off(file: Path) -> bool:
    """Whether an array's file is shorter than its head says."""
    from numpy.lib import format as npy

    with file.open("rb") as stream:
        try:
            read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
            shape, _, kind = read(stream)
        except ValueError:
            return True
        return file.stat().st_size < stream.tell() + kind.itemsize * math.prod(shape)


def read_manifest(folder: Path, kind: str, version: int, *, verify: bool = True) -> dict[str, Any]:
    """Open what `write_manifest` described: its own digest and every size are compared, and hashes unless `verify` is false.

    Raises:
        FlatcoatError: not such a folder, another version, or a file that is missing or altered.
    """
    restore(folder)
    if not (folder / MANIFEST).is_file():
        raise FlatcoatError(f"{folder}: not a {kind} folder (it has no {MANIFEST})")
    cure = f"remove {folder} and make it again"
    manifest = _manifest(folder / MANIFEST, cure)
    if manifest.get("format") != kind:
        raise FlatcoatError(f"{folder}: holds {manifest.get('format')!r}, not a {kind}")
    if manifest.get("version") != version:
        raise FlatcoatError(
            f"{folder}: {kind} format version {manifest.get('version')}; this Flatcoat reads version {version}"
        )
    files: dict[str, dict[str, Any]] = manifest.setdefault("files", {})
    each: Any = files.values() if isinstance(cast(Any, files), dict) else [None]
    if not all(isinstance(facts, dict) and {"bytes", SEAL} <= set(cast(Any, facts)) for facts in each):
        raise FlatcoatError(f"{folder / MANIFEST}: its files want bytes and sha256; {cure}")
    for name, facts in files.items():
        _same_size(folder / name, facts["bytes"], cure)
    if verify:
        same_sums(folder, {name: facts[SEAL] for name, facts in files.items()}, cure)
    return manifest


def _manifest(path: Path, cure: str) -> dict[str, Any]:
    told = read_object(path)
    plain = unsealed(path, told, cure)
    if plain.pop("sealed", False) and SEAL not in told:
        raise FlatcoatError(f"{path}: altered since it was written (its {SEAL} is gone); {cure}")
    return plain


def _same_size(file: Path, wanted: int, cure: str) -> None:
    if not file.is_file():
        raise FlatcoatError(f"{file}: missing, though the manifest beside it lists it; {cure}")
    size = file.stat().st_size
    if size != wanted:
        raise FlatcoatError(f"{file}: {size} bytes where the manifest says {wanted}; {cure}")


def same_sums(folder: Path, wanted: Mapping[str, str], cure: str) -> None:
    """Compare the sha256 of files by name. Raises FlatcoatError naming the first that is missing or altered."""
    from concurrent.futures import ThreadPoolExecutor

    for name in wanted:
        if not (folder / name).is_file():
            raise FlatcoatError(f"{folder / name}: missing; {cure}")
    names = sorted(wanted, key=lambda name: -(folder / name).stat().st_size)
    new = [folder / name for name in names if identity(folder / name) not in _sums]
    if len(new) > 1 and sum(file.stat().st_size for file in new) > SIDE_BY_SIDE:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            found = dict(zip(names, pool.map(sum_of, [folder / name for name in names]), strict=True))
    else:
        found = {name: sum_of(folder / name) for name in names}
    for name in wanted:
        if found[name] != wanted[name]:
            raise FlatcoatError(f"{folder / name}: altered since it was written (its sha256 is another); {cure}")


def lines_of(folder: Path, name: str, facts: Mapping[str, Any]) -> list[str]:
    """The lines of a file that the manifest `facts` lists. Raises FlatcoatError where they are another folder's by now."""
    if name not in facts["files"]:
        raise FlatcoatError(f"{folder / MANIFEST}: does not list {name}; remove {folder} and make it again")
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != facts["files"][name][SEAL]:
        raise FlatcoatError(f"{folder / name}: not what the manifest said when it was opened; run again")
    try:
        return data.decode("utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise FlatcoatError(f"{folder / name}: not UTF-8 ({error.reason} at byte {error.start})") from error


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Generator[None, None, None]:
    """Wait for a folder's turn: of processes that would build it at once, the first builds and the rest find it."""
    import fcntl

    lock = folder.with_name(f".{folder.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(lock.open("w")), fcntl.LOCK_EX)
        except OSError:
            if not folder.is_dir():  # what is there may be read from where nobody can write
                raise
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
def only_writer(folder: Path) -> Generator[None, None, None]:
    """Hold a folder's lock. Raises Misuse where another process holds it."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Misuse(f"{folder}: another process is writing here; wait for it or choose another folder") from error
        yield
