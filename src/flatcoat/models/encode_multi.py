"""Encoding many texts into several vectors each: the dense encoder's windows and batches, of which only present tokens are
kept.

`encode_multi_to` writes a folder a window at a time and goes on where it stopped: `OUT.partial/part-*.npz` are windows
that are safely there, `done.json` the facts they were made under.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_file, only_writer, write_json
from flatcoat.models.base import Runtime
from flatcoat.models.encode import WINDOW, Tokens, each_batch, windows
from flatcoat.multi_vectors import TYPES, MultiFolder, Precision, write_multi_parts
from flatcoat.records import Track, silent
from flatcoat.representations import MultiVector


@torch.inference_mode()
def encode_multi_window(tower: Tokens, texts: Sequence[str], runtime: Runtime) -> MultiVector:
    """Token vectors of one window of texts, float32. The tower gives `tokens` and which of them are `present`."""
    rows = tower.tokenize(texts)
    items: list[np.ndarray] = [np.zeros((0, tower.dim), np.float32)] * len(texts)

    def take(batch: list[int], made: Any) -> None:
        sizes = made["present"].sum(1).tolist()
        vectors = made["tokens"][made["present"]].float().cpu().numpy()
        for i, item in zip(batch, np.split(vectors, np.cumsum(sizes)[:-1]), strict=True):
            items[i] = item

    each_batch(tower, rows, runtime, take)
    return MultiVector.of(items, tower.dim)


def encode_multi_windows(
    tower: Tokens,
    texts: Sequence[str],
    runtime: Runtime,
    *,
    first: int = 0,
    track: Track = silent,
    label: str = "encode",
) -> Iterator[tuple[int, MultiVector]]:
    """(first row, token vectors) of each window from row `first` on."""
    make = lambda some: encode_multi_window(tower, some, runtime)  # noqa: E731
    return windows(tower, texts, make, first=first, size=WINDOW, track=track, label=label)


def encode_multi(
    tower: Tokens, texts: Sequence[str], runtime: Runtime, *, track: Track = silent, label: str = "encode"
) -> MultiVector:
    """Token vectors of all texts, in memory, float32."""
    parts = [part for _, part in encode_multi_windows(tower, texts, runtime, track=track, label=label)]
    return MultiVector.joined(parts, tower.dim)


def encode_multi_to(
    path: Path,
    tower: Tokens,
    texts: Sequence[str],
    ids: Sequence[str],
    facts: Mapping[str, Any],
    runtime: Runtime,
    *,
    precision: Precision = "fp16",
    track: Track = silent,
    label: str = "encode",
) -> MultiFolder:
    """Write the token vectors of `texts` under `ids`; `facts` go into the manifest. Memory holds a window.

    Raises:
        FlatcoatError: a vector is not finite.
    """
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(partial):
        done = _begin(partial, {**facts, "items": len(texts), "dim": tower.dim, "stored": precision})
        for start, block in encode_multi_windows(tower, texts, runtime, first=done, track=track, label=label):
            _refuse_broken(block, ids, start)
            with atomic_file(_part(partial, start)) as file, file.open("wb") as stream:
                np.savez(stream, start=block.start, vectors=block.vectors.astype(TYPES[precision]))
        parts = (_read(_part(partial, start)) for start in range(0, len(texts), WINDOW))
        made = write_multi_parts(path, parts, ids, tower.dim, facts, precision)
    shutil.rmtree(partial, ignore_errors=True)
    return made


def _refuse_broken(block: MultiVector, ids: Sequence[str], start: int) -> None:
    broken = np.flatnonzero(~np.isfinite(block.vectors).all(1))
    if len(broken):
        row = start + int(np.searchsorted(block.start, broken[0], "right")) - 1
        raise FlatcoatError(f"a vector of {ids[row]!r} is not finite; is the model damaged or trained to NaN?")


def _part(partial: Path, start: int) -> Path:
    return partial / f"part-{start:012d}.npz"


def _read(path: Path) -> MultiVector:
    with np.load(path, allow_pickle=False) as file:
        return MultiVector(file["start"], file["vectors"])


def _begin(partial: Path, facts: Mapping[str, Any]) -> int:
    """Rows already done under the same facts; a clean folder where there are none."""
    note = partial / "done.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == json.loads(json.dumps(facts)):
        start = 0
        while _part(partial, start).is_file():
            start += WINDOW
        return start
    for stale in partial.iterdir():
        if stale.name != ".lock":
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    write_json(note, dict(facts))
    return 0
