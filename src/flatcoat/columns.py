"""Many strings in two memory-mapped arrays, so that a corpus larger than memory can be read by row.

`NAME.bin` holds the UTF-8 bytes end to end, `NAME.offsets.npy` the n+1 positions (uint64). `Lookup` finds a string's
row through sorted 64-bit hashes, also memory-mapped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from flatcoat.arrays import read_array, taking_apart
from flatcoat.errors import FlatcoatError


def text_hash(text: str) -> int:
    """A stable 63-bit hash of a string (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") >> 1


class ColumnWriter:
    """Appends strings; `close` writes the offsets."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self._file = (folder / f"{name}.bin").open("w+b")
        self._offsets = [0]

    def append(self, text: str) -> None:
        """Add one string. Raises UnicodeEncodeError on a lone surrogate."""
        data = text.encode("utf-8")
        self._file.write(data)
        self._offsets.append(self._offsets[-1] + len(data))

    def read(self, row: int) -> str:
        """A string written before."""
        self._file.seek(self._offsets[row])
        data = self._file.read(self._offsets[row + 1] - self._offsets[row])
        self._file.seek(0, 2)
        return data.decode("utf-8")

    def close(self) -> None:
        """Finish both files."""
        self._file.close()
        np.save(self.folder / f"{self.name}.offsets.npy", np.array(self._offsets, dtype=np.uint64))


class Column(Sequence[str]):
    """A memory-mapped sequence of strings."""

    def __init__(self, folder: Path, name: str):
        self.offsets = read_array(folder / f"{name}.offsets.npy")
        path = folder / f"{name}.bin"
        with taking_apart(path):
            self.data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        if self.offsets.ndim != 1 or not len(self.offsets) or int(self.offsets[-1]) != len(self.data):
            raise FlatcoatError(f"{path}: {len(self.data)} bytes do not fit its offsets; make the folder again")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._at(index % len(self))

    def _at(self, row: int) -> str:
        return bytes(self.data[int(self.offsets[row]) : int(self.offsets[row + 1])]).decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        for row in range(len(self)):
            yield self._at(row)


class Lookup:
    """The row of a string in a column: binary search over hashes, then comparison, so a collision does no harm."""

    def __init__(self, folder: Path, name: str, column: Column):
        self.hashes = read_array(folder / f"{name}.hashes.npy")
        self.rows = read_array(folder / f"{name}.rows.npy")
        self.column = column

    @staticmethod
    def write(folder: Path, name: str, hashes: Iterable[int]) -> None:
        """Write the sorted hashes of a column's strings and their rows."""
        array = np.fromiter(hashes, dtype=np.int64)
        order = np.argsort(array, kind="stable")
        np.save(folder / f"{name}.hashes.npy", array[order])
        np.save(folder / f"{name}.rows.npy", order.astype(np.int64))

    def row(self, text: str) -> int | None:
        """The row of `text`, or None."""
        wanted = text_hash(text)
        at = int(np.searchsorted(self.hashes, wanted))
        while at < len(self.hashes) and self.hashes[at] == wanted:
            if self.column[int(self.rows[at])] == text:
                return int(self.rows[at])
            at += 1
        return None
