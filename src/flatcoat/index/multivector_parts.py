"""The arrays of a multi-vector index, in memory or memory-mapped.

Files: `start` (int64 [item + 1]), `cells` (uint16 [token]), `codes` (uint8 [token, bytes]), `gains` (float16's bits [token]),
`offsets` (int64 [cell + 1]) and `postings` (int32: the documents of each cell), `centroids` (float32 [cell, dim]),
`spread` (float32 [dim]), `levels` (float32 [2 ** bits]); where vectors are kept as bytes also `bytes` (uint8 [token, dim],
128 higher) and `steps` (float32 [token]).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from flatcoat.arrays import read_array
from flatcoat.errors import FlatcoatError
from flatcoat.index.multivector_build import Codec, Coded, blocks, encode, invert, to_rows
from flatcoat.representations import MultiVector

NAMES = {"start": np.int64, "cells": np.uint16, "codes": np.uint8, "gains": np.uint16, "offsets": np.int64,
         "postings": np.int32, "centroids": np.float32, "spread": np.float32, "levels": np.float32}  # fmt: skip
BYTES = {"bytes": np.uint8, "steps": np.float32}


@dataclass(frozen=True)
class Parts:
    """Documents as codes, and which documents have a token in a cell."""

    start: np.ndarray
    coded: Coded
    codec: Codec
    offsets: np.ndarray
    postings: np.ndarray
    bytes: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, vectors: MultiVector, codec: Codec, keep_bytes: bool, threads: int) -> Parts:
        """Encode vectors. Raises FlatcoatError at a value that is not finite."""
        coded, start = encode(vectors, codec, threads), np.asarray(vectors.start)
        kept = None
        if keep_bytes:
            padded = -(-vectors.dim // 4) * 4
            kept = np.empty((len(vectors.vectors), padded), np.uint8), np.empty(len(vectors.vectors), np.float32)
            for low, block in blocks(vectors):
                kept[0][low : low + len(block)], kept[1][low : low + len(block)] = to_rows(block, padded)
        return cls(start, coded, codec, *invert(start, coded.cells, len(codec.centroids)), kept)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """What codes stand for, as the kernels take it."""
        return self.codec.bytes()

    def joined(self, more: Parts) -> Parts:
        """These documents and then others, under one codec."""
        start = np.concatenate([self.start, self.start[-1] + more.start[1:]])
        both = [np.concatenate([getattr(p.coded, name) for p in (self, more)]) for name in ("cells", "codes", "gains")]
        kept = None
        if self.bytes is not None and more.bytes is not None:
            kept = np.concatenate([self.bytes[0], more.bytes[0]]), np.concatenate([self.bytes[1], more.bytes[1]])
        return Parts(start, Coded(*both), self.codec, *invert(start, both[0], len(self.codec.centroids)), kept)

    def only(self, items: np.ndarray, tokens: np.ndarray) -> Parts:
        """Some documents (a flag each) with their tokens (a flag each)."""
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.diff(self.start)[items])])
        coded = Coded(self.coded.cells[tokens], self.coded.codes[tokens], self.coded.gains[tokens])
        kept = None if self.bytes is None else (self.bytes[0][tokens], self.bytes[1][tokens])
        return Parts(start, coded, self.codec, *invert(start, coded.cells, len(self.codec.centroids)), kept)

    def save(self, folder: Path) -> None:
        """Write one file an array into a folder that exists."""
        for name in NAMES:
            owner = next(o for o in (self.codec, self.coded, self) if hasattr(o, name))
            np.save(folder / f"{name}.npy", getattr(owner, name))
        for name, array in zip(BYTES, self.bytes or (), strict=False):
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> Parts:
        """Open memory-mapped. Raises FlatcoatError where a file is absent or the files do not fit one another."""
        names = NAMES | (BYTES if (folder / "bytes.npy").is_file() else {})
        try:
            a = {n: read_array(folder / f"{n}.npy") for n in names}
        except FlatcoatError as error:
            raise FlatcoatError(f"{error}; build the index again") from error
        codec = Codec(*(np.array(a[n]) for n in ("centroids", "spread", "levels")))
        coded = Coded(np.asarray(a["cells"]), np.asarray(a["codes"]), np.asarray(a["gains"]))
        if any(a[n].dtype != kind for n, kind in names.items()) or not _fit(a, codec):
            raise FlatcoatError(f"{folder}: its files do not fit one another; build the index again")
        kept = (np.asarray(a["bytes"]), np.asarray(a["steps"])) if "bytes" in a else None
        return cls(np.array(a["start"]), coded, codec, np.array(a["offsets"]), np.asarray(a["postings"]), kept)


def _fit(a: dict[str, np.ndarray], codec: Codec) -> bool:
    if any(a[n].ndim != (2 if n in ("codes", "centroids", "bytes") else 1) for n in a) or not len(a["start"]):
        return False
    tokens, (cells, dim) = int(a["start"][-1]), codec.centroids.shape
    lengths = [len(a[n]) for n in ("cells", "codes", "gains", "bytes", "steps") if n in a]
    return (
        all(n == tokens for n in lengths)
        and len(codec.levels) in (2, 4, 16, 256)
        and a["codes"].shape[1] == codec.padded * codec.bits // 8
        and len(codec.spread) == dim
        and len(a["offsets"]) == cells + 1
        and int(a["offsets"][-1]) == len(a["postings"])
    )
