"""One attempt at reading damaged files, and the law that it keeps: a result, or a FlatcoatError of one line that names the file; nothing
else is raised, nothing hangs, and no memory is taken that the bytes do not account for.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from flatcoat.errors import FlatcoatError
from flatcoat.files import MANIFEST, sha256_of

SECONDS, MEMORY = 20, 2 << 30  # of one call
Files = dict[str, bytes]


class Reader(NamedTuple):
    """`make` gives a valid folder's files; of them `broken` are mutated; `call` reads the folder, named by `said` in errors."""

    name: str
    make: Callable[[], Files]
    broken: tuple[str, ...]
    call: Callable[[Path], object]
    words: tuple[bytes, ...] = ()
    slow: bool = False  # needs torch and transformers
    resealed: bool = True  # digests are made to agree with what is damaged, so that what is behind them is reached


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """No more than SECONDS and MEMORY: past them an exception that is no FlatcoatError."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    was = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, was[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, was)


def reseal(folder: Path, name: str) -> None:
    """Make digests agree with the files as they are now."""
    if (folder / MANIFEST).is_file() and name != MANIFEST:
        said = json.loads((folder / MANIFEST).read_bytes())
        for listed in said.get("files", {}):
            if (folder / listed).is_file():
                said["files"][listed] = {
                    "bytes": (folder / listed).stat().st_size,
                    "sha256": sha256_of(folder / listed),
                }
        said.pop("sha256", None)
        (folder / MANIFEST).write_text(json.dumps(said))


def unsealed(files: Files) -> Files:
    """A model's files without the digests in `flatcoat.json`."""
    if "flatcoat.json" not in files:
        return files
    said = json.loads(files["flatcoat.json"])
    return {
        **files,
        "flatcoat.json": json.dumps({k: v for k, v in said.items() if k not in ("files", "sha256")}).encode(),
    }


def attempt(reader: Reader, files: Files, name: str, data: bytes) -> str | None:
    """Read `files` with `name` replaced by `data`; give the error's line, None where there was none.

    Raises whatever breaks the law.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder = Path(place) / "given"
        for path, content in {**files, name: data}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        if reader.resealed:
            reseal(folder, name)
        try:
            with (
                bounded(),
                mock.patch("flatcoat.files.sync", lambda _: None),
            ):  # nothing here has to outlive a loss of power
                reader.call(folder)
        except FlatcoatError as error:
            line = str(error)
            assert line.strip() and "\n" not in line and "\r" not in line, f"not one line: {line!r}"
            assert str(folder) in line, f"names no file: {line!r}"
            return line
        return None
