"""Encoding many texts: bucketed by length, in the order given, with bounded memory.

Texts are taken a window at a time, tokenised together, sorted by length and cut into batches of at most
`batch_tokens` tokens, each padded only to its own longest row; vectors go back to their texts' places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from flatcoat.models.base import Runtime
from flatcoat.models.fast.network import quickly
from flatcoat.models.fast.threads import alone
from flatcoat.models.memory import in_halves
from flatcoat.records import Track, silent

WINDOW = 4096
SHARE = 256  # tokens that are worth a batch of their own


@runtime_checkable
class Reads(Protocol):
    """A tower, as far as a batch of tokens needs it."""

    @property
    def pad_id(self) -> int:
        """The token id that padding is made of."""
        ...

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Any:
        """What is made of padded tokens."""
        ...


@runtime_checkable
class Tokens(Reads, Protocol):
    """A tower, as far as encoding needs it."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        ...

    def train(self, mode: bool = True) -> object:
        """Enter or leave training mode."""
        ...


def pad(rows: list[list[int]], pad_id: int, device: str) -> tuple[Tensor, Tensor | None]:
    """Token ids padded to the longest row, and the mask; None where nothing is padded."""
    lengths = [len(row) for row in rows]
    width = max(lengths)
    if min(lengths) == width:
        return torch.tensor(rows, device=device), None
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, longest first, each of at most `batch_tokens` padded tokens."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def each_batch(tower: Reads, rows: list[list[int]], runtime: Runtime, take: Callable[[list[int], Any], None]) -> None:
    """Hand `take` the positions of each batch of token rows and what the tower makes of them, without gradient.

    On a CPU batches go side by side, one a thread of torch's, each on one core: no core waits for another within a
    batch. Which texts share a batch does not depend on how many threads there are. A batch that does not fit into memory is halved.
    """

    def make(batch: list[int]) -> Any:
        ids, mask = pad([rows[i] for i in batch], tower.pad_id, runtime.device)
        with runtime.autocast():
            return tower(ids, mask)

    def work(batch: list[int]) -> None:
        with torch.inference_mode():
            in_halves(batch, make, take)

    lengths, threads = [len(row) for row in rows], torch.get_num_threads()
    limit = min(runtime.tokens, max(SHARE, sum(lengths) // 8)) if runtime.on_cpu else runtime.tokens
    batches = list(batches_by_length(lengths, limit))
    with quickly(getattr(tower, "backbone", None), runtime, whole=not getattr(tower, "sees_less", False)):
        if not runtime.on_cpu or min(threads, len(batches)) < 2:
            for batch in batches:
                work(batch)
            return
        with ThreadPoolExecutor(threads, initializer=alone) as pool:
            try:
                for _ in pool.map(work, batches):
                    pass
            finally:
                pool.shutdown(cancel_futures=True)


def encode_window(tower: Tokens, texts: Sequence[str], runtime: Runtime) -> np.ndarray:
    """Vectors [text, dim] of one window of texts, float32."""
    out = np.empty((len(texts), tower.dim), dtype=np.float32)

    def take(batch: list[int], vectors: Tensor) -> None:
        out[batch] = vectors.float().cpu().numpy()

    each_batch(tower, tower.tokenize(texts), runtime, take)
    return out


Made = TypeVar("Made")


def windows(
    tower: Tokens,
    texts: Sequence[str],
    make: Callable[[Sequence[str]], Made],
    *,
    first: int = 0,
    size: int = WINDOW,
    track: Track = silent,
    label: str = "encode",
) -> Iterator[tuple[int, Made]]:
    """(first row, what `make` makes) of each window of texts from row `first` on. The tower is in evaluation mode meanwhile."""
    training = getattr(tower, "training", False)
    tower.train(False)
    try:
        for start in _by_text(range(first, len(texts), size), len(texts), track, label):
            yield start, make(texts[start : start + size])
    finally:
        tower.train(training)


def encode_windows(
    tower: Tokens,
    texts: Sequence[str],
    runtime: Runtime,
    *,
    first: int = 0,
    track: Track = silent,
    label: str = "encode",
) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, vectors) of each window from row `first` on."""
    make = lambda some: encode_window(tower, some, runtime)  # noqa: E731
    return windows(tower, texts, make, first=first, size=WINDOW, track=track, label=label)


def _by_text(starts: range, total: int, track: Track, label: str) -> Iterator[int]:
    """Window starts, while `track` counts texts."""
    if track is silent:
        yield from starts
        return
    ticks = iter(track(range(total), total, label))
    done = 0
    for start in starts:
        yield start
        for _ in range(min(start + WINDOW, total) - done):
            next(ticks, None)
        done = min(start + WINDOW, total)
    for _ in ticks:
        pass


def encode_all(
    tower: Tokens, texts: Sequence[str], runtime: Runtime, *, track: Track = silent, label: str = "encode"
) -> np.ndarray:
    """Vectors [text, dim] of all texts, in memory."""
    out = np.empty((len(texts), tower.dim), dtype=np.float32)
    for start, vectors in encode_windows(tower, texts, runtime, track=track, label=label):
        out[start : start + len(vectors)] = vectors
    return out
