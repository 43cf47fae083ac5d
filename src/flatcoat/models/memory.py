"""Batches that do not fit: what torch and numpy say where memory ends, and smaller batches in place of a stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flatcoat.errors import FlatcoatError

SAID = ("out of memory", "can't allocate memory", "not enough memory")  # torch's words, on GPUs and CPUs


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory ended."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in SAID)


def in_halves(batch: list[int], make: Callable[[list[int]], Any], take: Callable[[list[int], Any], None]) -> None:
    """Hand `take` what `make` makes of a batch; where memory ends, of its halves, and of theirs.

    A text's result is the same to about 1e-6 whatever shares its batch, not to the bit.

    Raises:
        FlatcoatError: not even one text fits.
    """
    try:
        made = make(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_full(error):
            raise
        if len(batch) == 1:
            raise FlatcoatError(
                "out of memory for a single text; lower runtime.batch_tokens, the model's length, or what else runs here"
            ) from error
    else:
        take(batch, made)
        return
    middle = len(batch) // 2  # outside of `except`, so that what the failed batch held is free
    for half in (batch[:middle], batch[middle:]):
        in_halves(half, make, take)
