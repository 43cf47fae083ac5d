"""Encoding many texts into term weights: the dense encoder's windows and batches, of which only non-zeros are kept.

`encode_sparse_to` writes a folder a window at a time and goes on where it stopped: `OUT.partial/part-*.npz` are windows
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
from torch import Tensor

from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_file, only_writer, write_json
from flatcoat.models.base import Runtime
from flatcoat.models.encode import WINDOW, Tokens, each_batch, windows
from flatcoat.records import Track, silent
from flatcoat.representations import Sparse
from flatcoat.sparse_vectors import SparseFolder, write_sparse


@torch.inference_mode()
def encode_sparse_window(tower: Tokens, texts: Sequence[str], runtime: Runtime) -> Sparse:
    """Term weights of one window of texts."""
    rows = tower.tokenize(texts)
    terms: list[np.ndarray] = [np.zeros(0, np.int32)] * len(texts)
    weights: list[np.ndarray] = [np.zeros(0, np.float32)] * len(texts)

    def take(batch: list[int], found: Tensor) -> None:
        made = Sparse.of(found.float().cpu().numpy())
        for place, i in enumerate(batch):
            entries = slice(int(made.start[place]), int(made.start[place + 1]))
            terms[i], weights[i] = made.terms[entries], made.weights[entries]

    each_batch(tower, rows, runtime, take)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(t) for t in terms], dtype=np.int64)])
    empty = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    return Sparse(start, np.concatenate(empty[0] + terms), np.concatenate(empty[1] + weights), tower.dim)


def encode_sparse_windows(
    tower: Tokens,
    texts: Sequence[str],
    runtime: Runtime,
    *,
    first: int = 0,
    track: Track = silent,
    label: str = "encode",
) -> Iterator[tuple[int, Sparse]]:
    """(first row, term weights) of each window from row `first` on."""
    make = lambda some: encode_sparse_window(tower, some, runtime)  # noqa: E731
    return windows(tower, texts, make, first=first, size=WINDOW, track=track, label=label)


def encode_sparse(
    tower: Tokens, texts: Sequence[str], runtime: Runtime, *, track: Track = silent, label: str = "encode"
) -> Sparse:
    """Term weights of all texts, in memory."""
    parts = [part for _, part in encode_sparse_windows(tower, texts, runtime, track=track, label=label)]
    return Sparse.joined(parts, tower.dim)


def encode_sparse_to(
    path: Path,
    tower: Tokens,
    texts: Sequence[str],
    ids: Sequence[str],
    vocabulary: Sequence[str],
    facts: Mapping[str, Any],
    runtime: Runtime,
    *,
    track: Track = silent,
    label: str = "encode",
) -> SparseFolder:
    """Write the term weights of `texts` under `ids`; `facts` go into the manifest.

    Raises:
        FlatcoatError: a weight is not finite.
    """
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(partial):
        done = _begin(partial, facts)
        for start, block in encode_sparse_windows(tower, texts, runtime, first=done, track=track, label=label):
            if not np.isfinite(block.weights).all():
                row = start + int(np.searchsorted(block.start, np.flatnonzero(~np.isfinite(block.weights))[0], "right"))
                raise FlatcoatError(
                    f"a weight of {ids[row - 1]!r} is not finite; is the model damaged or trained to NaN?"
                )
            with atomic_file(_part(partial, start)) as file, file.open("wb") as stream:
                np.savez(stream, start=block.start, terms=block.terms, weights=block.weights)
        parts = [_read(_part(partial, start), tower.dim) for start in range(0, len(texts), WINDOW)]
        made = write_sparse(path, Sparse.joined(parts, tower.dim), ids, vocabulary, facts)
    shutil.rmtree(partial, ignore_errors=True)
    return made


def _part(partial: Path, start: int) -> Path:
    return partial / f"part-{start:012d}.npz"


def _read(path: Path, vocab_size: int) -> Sparse:
    with np.load(path, allow_pickle=False) as file:
        return Sparse(file["start"], file["terms"], file["weights"], vocab_size)


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
