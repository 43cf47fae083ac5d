"""Which documents may be answers: a condition on metadata (`index/filters.py`) as a function, and masks of the filters used last."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from flatcoat.index.filters import matches, parse

Predicate = Callable[[Mapping[str, Any]], bool]
KEPT = 8  # masks of the filters used last


def compile_filter(given: Mapping[str, Any]) -> Predicate:
    """A filter as a function of metadata. Raises Misuse where it is none, saying which part."""
    return partial(matches, parse(given))


class Masks:
    """Which rows pass, of the filters used last; a row's metadata is read once a filter.

    `metadata` gives a row's; it may be asked from the thread that searches.
    """

    def __init__(self, metadata: Callable[[int], Mapping[str, Any]], keep: int = KEPT):
        self.metadata, self.keep = metadata, keep
        self._held: dict[str, tuple[Predicate, np.ndarray]] = {}

    def of(self, given: Mapping[str, Any], rows: int) -> np.ndarray:
        """Whether each of the first `rows` rows passes: bool [row]. Raises Misuse where the filter is none."""
        key = json.dumps(given, sort_keys=True, default=str)
        held = self._held.pop(key, None)
        test, mask = held if held is not None else (compile_filter(given), np.zeros(0, bool))
        if len(mask) < rows:
            more = (test(self.metadata(row)) for row in range(len(mask), rows))
            mask = np.concatenate([mask, np.fromiter(more, bool, rows - len(mask))])
        self._held = {**dict(list(self._held.items())[1 - self.keep :]), key: (test, mask)}
        return mask if len(mask) == rows else mask[:rows]
