"""What one request may ask for at most, and the checks that a body's schema cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flatcoat.errors import Misuse

DEEPEST = 8  # values within values, in metadata
DEEPEST_FILTER = 34  # the same in a filter: 16 conditions within conditions
MOST_NODES = 256  # values in a filter
MOST_PAIRS = 4096  # that one request has re-ranked
MOST_HITS = 20_000  # that one request is given


@dataclass(frozen=True)
class Limits:
    """`max_body` and `max_metadata` in bytes, `max_query` in characters; `max_concurrent` requests at once, others are told to wait;
    `body_seconds` until a body that does not come, or an answer that nobody reads, is given up; `max_answer` bytes of one answer.
    """

    max_k: int = 1000
    max_body: int = 2_000_000
    max_query: int = 4000
    max_concurrent: int = 256
    max_metadata: int = 16_384
    body_seconds: float = 30.0
    max_answer: int = 32_000_000

    def ranking(self, queries: int, k: int, offset: int, rerank: int | None) -> None:
        """Refuse a ranking that is too long. Raises Misuse."""
        if offset + k > self.max_k:
            raise Misuse(
                f"k={k} from offset {offset} asks for rank {offset + k}; this server gives at most {self.max_k}"
            )
        if queries * k > MOST_HITS:
            raise Misuse(f"{queries} queries of k={k} ask for {queries * k} hits; one request gets at most {MOST_HITS}")
        if rerank is not None and queries * rerank > MOST_PAIRS:
            raise Misuse(f"{queries} queries of rerank={rerank} are {queries * rerank} pairs; use at most {MOST_PAIRS}")

    def answer(self, size: int) -> None:
        """Refuse an answer that is too long. Raises Misuse."""
        if size > self.max_answer:
            raise Misuse(
                f"an answer of {size} bytes; this server gives at most {self.max_answer}: ask for less at once, "
                "or leave the texts out (text: false)"
            )

    def query(self, text: str) -> None:
        """Refuse a question that is empty or too long. Raises Misuse."""
        if not text.strip():
            raise Misuse("query is empty; ask something")
        if len(text) > self.max_query:
            raise Misuse(f"a query of {len(text)} characters; this server takes at most {self.max_query}")

    def metadata(self, value: Mapping[str, Any], where: str) -> None:
        """Refuse metadata that is too large, too deep, or holds what JSON cannot. Raises Misuse."""
        from pydantic_core import to_json

        shape(value, where, DEEPEST)
        size = len(to_json(value))
        if size > self.max_metadata:
            raise Misuse(f"{where} has {size} bytes; use at most {self.max_metadata}")

    def filter(self, value: Mapping[str, Any] | None) -> None:
        """Refuse a filter that is too deep or too large. Raises Misuse."""
        if value is not None and shape(value, "filter", DEEPEST_FILTER) > MOST_NODES:
            raise Misuse(f"filter has more than {MOST_NODES} values; ask for less at once")


def shape(value: Any, where: str, deepest: int, depth: int = 1) -> int:
    """How many values a JSON value is made of.

    Raises:
        Misuse: more than `deepest` levels, a number that is not finite, or an integer past 64 bits.
    """
    if depth > deepest:
        raise Misuse(f"{where} is more than {deepest} levels deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise Misuse(f"{where} holds a number that is not finite")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Misuse(f"{where} holds an integer of more than 64 bits; give it as text")
    inside: Sequence[Any] = ()
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, list):
        inside = value
    return 1 + sum(shape(item, where, deepest, depth + 1) for item in inside)
