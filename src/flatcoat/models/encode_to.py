"""Encoding into a vector folder, a window (shard) at a time, resumed where it stopped.

`OUT.partial/vectors.npy` is laid out at its full size first; `done.json` counts the rows that are safely in it and
holds the facts they were made under. A partial folder of other facts is begun anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.files import install_folder, only_writer, write_json, write_manifest
from flatcoat.models.base import Runtime
from flatcoat.models.encode import Tokens, encode_windows
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
        done = _begin(partial, full)
        vectors = np.load(partial / "vectors.npy", mmap_mode="r+")
        for start, block in encode_windows(tower, texts, runtime, first=done, track=track, label=label):
            _refuse_broken(block, ids, start)
            vectors[start : start + len(block)] = block
            vectors.flush()
            write_json(partial / "done.json", {"rows": start + len(block), "facts": full})
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


def _begin(partial: Path, facts: Mapping[str, Any]) -> int:
    """Rows already done under the same facts; a new file where there are none."""
    note = partial / "done.json"
    if note.is_file():
        state = json.loads(note.read_text(encoding="utf-8"))
        if state.get("facts") == json.loads(json.dumps(facts)) and (partial / "vectors.npy").is_file():
            return int(state["rows"])
    for stale in partial.iterdir():
        if stale.name != ".lock":
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    shape = (int(facts["items"]), int(facts["dim"]))
    _require_space(partial, shape[0] * shape[1] * 4)
    array = np.lib.format.open_memmap(partial / "vectors.npy", mode="w+", dtype=np.float32, shape=shape)
    array.flush()
    write_json(note, {"rows": 0, "facts": facts})
    return 0


def _require_space(folder: Path, wanted: int) -> None:
    """A memory-mapped write to a full disk kills the process, so ask first."""
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if free < wanted:
        raise FlatcoatError(
            f"{folder}: {wanted / 1e6:.0f} MB of vectors do not fit in the {free / 1e6:.0f} MB left on disk"
        )
