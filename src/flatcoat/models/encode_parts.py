"""Folders that are encoded a window at a time, and gone on with where that stopped: `OUT.partial/part-*.npz` are windows
that are safely there, `done.json` the facts they were made under.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flatcoat.files import atomic_file, noted, only_writer, sealed, write_json
from flatcoat.vectors import read_arrays


class Kept(NamedTuple):
    """The windows of a folder that are there already: as many as make `done` rows."""

    folder: Path
    window: int
    done: int

    def keep(self, start: int, arrays: Mapping[str, Any]) -> None:
        """Write the arrays of the window whose first row is `start`."""
        with atomic_file(_part(self.folder, start)) as file, file.open("wb") as stream:
            np.savez(stream, **arrays)

    def read(self, rows: int) -> Iterator[Mapping[str, np.ndarray]]:
        """The arrays of each window of a folder of so many rows. Raises FlatcoatError where one is damaged."""
        return (read_arrays(_part(self.folder, start)) for start in range(0, rows, self.window))


@contextlib.contextmanager
def kept_windows(path: Path, facts: Mapping[str, Any], window: int) -> Generator[Kept, None, None]:
    """Where windows are kept until the folder `path` is made of them, which removes them.

    Raises:
        Misuse: another process is making the same folder.
    """
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(partial):
        yield Kept(partial, window, _begin(partial, facts, window))
    shutil.rmtree(partial, ignore_errors=True)


def clear(partial: Path) -> None:
    """Empty a folder that its one writer holds."""
    for stale in partial.iterdir():
        if stale.name != ".lock":
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()


def _part(partial: Path, start: int) -> Path:
    return partial / f"part-{start:012d}.npz"


def _begin(partial: Path, facts: Mapping[str, Any], window: int) -> int:
    """Rows already done under the same facts; a clean folder where there are none."""
    note = partial / "done.json"
    if noted(note) == json.loads(json.dumps(facts)):
        start = 0
        while _part(partial, start).is_file():
            start += window
        return start
    clear(partial)
    write_json(note, sealed(facts))
    return 0
