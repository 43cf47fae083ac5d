"""Precisions side by side: what each encodes a second, and how far its vectors are from fp32's.

Rates are medians of short rounds in which precisions take turns (A B C A B C …) over the same texts, so that what else a
machine does meanwhile falls on all of them. Compilation and packing come before the first round.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from flatcoat.models.base import Precision
from flatcoat.models.fast.network import forget, numba_is_there
from flatcoat.records import Track, silent
from flatcoat.representations import Dense, MultiVector, Representation, Sparse

WARM, LEAST = 8, 32  # texts that warm up; the least that a round takes
ROUNDS, SECONDS = 5, 2.0  # rounds, and how long the slowest precision may take in one
BLOCK = 64  # texts whose term weights are laid out with their zeros at once
Made = TypeVar("Made")


def precisions_of(device: str) -> tuple[Precision, ...]:
    """What a device can run, fp32 first; bytes are for the CPU, where the compiled loops can be had."""
    low: tuple[Precision, ...] = ("int8",) if device.startswith("cpu") and numba_is_there() else ()
    return ("fp32", "bf16", *low)


@contextlib.contextmanager
def trying(model: Any) -> Generator[Callable[[Precision], None], None, None]:
    """Give a way to set a model's precision; after it the model is as it was, and holds nothing that was made ready for others."""
    before = model.runtime

    def at(precision: Precision) -> None:
        model.runtime = replace(before, precision=precision)

    try:
        yield at
    finally:
        model.runtime = before
        towers = [getattr(model, name, None) for name in ("query", "document", "tower")]
        for backbone in (getattr(tower, "backbone", None) for tower in towers):
            if backbone is not None:
                forget(backbone)


def alternate(
    work: Mapping[Precision, Callable[[int], Made]], count: int, *,
    track: Track = silent, clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[Precision, Made], dict[Precision, float]]:  # fmt: skip
    """What each precision makes of `count` texts, and how many a second; `work[precision](n)` makes the first n of them."""
    steps: list[tuple[str, Precision]] = [
        (kind, name) for kind in ("warm", "whole", *["round"] * ROUNDS) for name in work
    ]
    made: dict[Precision, Made] = {}
    spent: dict[Precision, list[float]] = {name: [] for name in work}
    part = count
    for kind, name in track(steps, len(steps), "measure precisions"):
        size = {"warm": min(WARM, count), "whole": count, "round": part}[kind]
        start = clock()
        found = work[name](size)
        seconds = max(clock() - start, 1e-9)
        if kind == "whole":
            made[name] = found
            part = min(part, max(min(LEAST, count), int(count * SECONDS / seconds)))
        elif kind == "round":
            spent[name].append(seconds)
    return made, {name: part / float(np.median(seconds)) for name, seconds in spent.items()}


def cosines(left: Representation, right: Representation) -> np.ndarray:
    """The cosine of each vector with its fellow, float64 [text], for several vectors a text [token]; 1 where both are zero.

    Raises:
        ValueError: they are of other kinds, or not as many.
    """
    if isinstance(left, Sparse) and isinstance(right, Sparse):
        blocks = [slice(start, start + BLOCK) for start in range(0, max(len(left), len(right)), BLOCK)]
        return np.concatenate([np.zeros(0), *(_cosines(left[some].array(), right[some].array()) for some in blocks)])
    if isinstance(left, Dense) and isinstance(right, Dense):
        return _cosines(left.vectors, right.vectors)
    if isinstance(left, MultiVector) and isinstance(right, MultiVector):
        return _cosines(left.vectors, right.vectors)
    raise ValueError(f"{type(left).__name__} and {type(right).__name__}: want two of a kind")


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if left.shape != right.shape:
        raise ValueError(f"{left.shape} and {right.shape}: want one fellow each")
    one, other = left.astype(np.float64), right.astype(np.float64)
    sizes = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    scale = sizes[0] * sizes[1]
    found = np.einsum("tv,tv->t", one, other) / np.where(scale > 0, scale, 1.0)
    return np.where(scale > 0, found, (sizes[0] == sizes[1]).astype(np.float64))


def finite(made: Representation) -> bool:
    """Whether every number of some representations is finite."""
    return bool(np.isfinite(made.weights if isinstance(made, Sparse) else made.vectors).all())


def zeroed(made: Any) -> Any:
    """Representations with zeros where a number is not finite: such a vector is like no other, and finds nothing."""
    name = "weights" if isinstance(made, Sparse) else "vectors"
    return replace(made, **{name: np.nan_to_num(getattr(made, name), nan=0.0, posinf=0.0, neginf=0.0)})
