"""Encoding into a vector folder, a window (shard) at a time, resumed where it stopped.

`OUT.partial/vectors.npy` is laid out at its full size first; `done.json` holds a CRC-32 of each window that is safely in it and
the facts they were made under. A partial folder of other facts is begun anew, and a window that is not as it was is made again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.files import install_folder, noted, only_writer, sealed, telling, write_json, write_manifest
from flatcoat.models import encode as encoding
from flatcoat.models.base import Runtime
from flatcoat.models.encode import Tokens, encode_windows
from flatcoat.models.encode_parts import clear
from flatcoat.records import Track, silent
from flatcoat.vectors import KIND, VERSION, VectorFolder, write_ids


def encode_to(
    path: Path,
    tower: Tokens,
    texts: Sequence[str],
    ids: Sequence[str],
    facts: Mapping[str, Any],
    runtime: Runtime,
    *,
    track: Track = silent,
    label: str = "encode",
) -> VectorFolder:
    """Write the vectors of `texts` under `ids`; `facts` go into the manifest.

    Raises:
        FlatcoatError: a vector is not finite.
    """
    partial = path.with_name(f"{path.name}.partial")
    full = {**facts, "items": len(texts), "dim": tower.dim}
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(partial):
        sums = _begin(partial, full)
        vectors = np.load(partial / "vectors.npy", mmap_mode="r+")
        done = len(sums) * encoding.WINDOW
        for start, block in encode_windows(tower, texts, runtime, first=done, track=track, label=label):
            _refuse_broken(block, ids, start)
            vectors[start : start + len(block)] = block
            vectors.flush()
            sums.append(zlib.crc32(np.ascontiguousarray(block).data))
            write_json(partial / "done.json", sealed({"sums": sums, "facts": full}))
        del vectors
        write_ids(partial, list(ids))
        write_manifest(partial, KIND, VERSION, full, skip=("done.json", ".lock"))
        (partial / "done.json").unlink()
        install_folder(partial, path)
    (path / ".lock").unlink(missing_ok=True)
    return VectorFolder.open(path)


def _refuse_broken(block: np.ndarray, ids: Sequence[str], start: int) -> None:
    broken = ~np.isfinite(block).all(1)
    if broken.any():
        row = start + int(np.flatnonzero(broken)[0])
        raise FlatcoatError(f"the vector of {ids[row]!r} is not finite; is the model damaged or trained to NaN?")


def _begin(partial: Path, facts: Mapping[str, Any]) -> list[int]:
    """CRC-32 of each window that was done under the same facts, up to the first that is not as it was; a new file where there is none."""
    state = noted(partial / "done.json")
    if state is not None and state["facts"] == json.loads(json.dumps(facts)):
        with contextlib.suppress(OSError, ValueError):
            return _whole(np.load(partial / "vectors.npy", mmap_mode="r", allow_pickle=False), state["sums"], facts)
    clear(partial)
    shape = (int(facts["items"]), int(facts["dim"]))
    with (
        telling(partial.with_name(partial.name.removesuffix(".partial"))),
        (partial / "vectors.npy").open("wb") as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.flush()
        # a mapped write to a full disk kills the process, so the disk is asked for all of it first
        os.posix_fallocate(file.fileno(), 0, file.tell() + shape[0] * shape[1] * 4)
    write_json(partial / "done.json", sealed({"sums": [], "facts": facts}))
    return []


def _whole(vectors: np.ndarray, sums: Sequence[int], facts: Mapping[str, Any]) -> list[int]:
    if vectors.shape != (facts["items"], facts["dim"]) or vectors.dtype != np.float32:
        raise ValueError("of another shape")
    found = (
        zlib.crc32(np.ascontiguousarray(vectors[i * encoding.WINDOW : (i + 1) * encoding.WINDOW]).data)
        for i in range(len(sums))
    )
    return [wanted for wanted, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(sums, found, strict=True))]
