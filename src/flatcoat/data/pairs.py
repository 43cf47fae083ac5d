"""Training pairs of a split, and the batches of each epoch: reshuffled, no query twice in a batch.

Batches are a pure function of (pairs, batch size, seed, epoch), so a resumed run needs no state of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flatcoat.columns import text_hash
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError, Misuse


@dataclass(frozen=True)
class Pairs:
    """Positive pairs by row; `keys` are text hashes of all documents, `known` each query's positives' keys."""

    collection: Collection
    split: str
    queries: np.ndarray  # int64 [pair]
    documents: np.ndarray  # int64 [pair]
    query_keys: np.ndarray  # int64 [pair]; equal for equal query texts
    keys: np.ndarray  # int64 [document]
    known: dict[int, np.ndarray]  # query row -> keys of all its positives
    widest: int
    shown: Sequence[str] | None = (
        None  # a judgement's text that training sees in place of the document's; '' for the document's own
    )
    judged: np.ndarray | None = None  # int64 [pair]: which judgement of the split a pair is

    def __len__(self) -> int:
        return len(self.queries)

    def answers(self, at: np.ndarray) -> list[str]:
        """Texts of the documents of pairs, as training sees them."""
        own = list(self.collection.documents.texts(self.documents[at]))
        if self.shown is None or self.judged is None:
            return own
        return [self.shown[int(self.judged[pair])] or text for pair, text in zip(at.tolist(), own, strict=True)]

    def known_of(self, queries: np.ndarray) -> np.ndarray:
        """Keys of all positives of each query [query, widest], padded with -1."""
        out = np.full((len(queries), self.widest), -1, dtype=np.int64)
        for i, query in enumerate(queries.tolist()):
            own = self.known[query]
            out[i, : len(own)] = own
        return out


def load_pairs(collection: Collection, split: str = "train") -> Pairs:
    """The positive pairs of a split. Raises FlatcoatError where it has none.

    Queries of equal text share their positives: what answers one is no negative of the other.
    """
    judged = np.asarray(collection.judgements(split))
    positive = judged[judged[:, 2] > 0]
    if not len(positive):
        raise FlatcoatError(f"split {split!r} has no judgement above 0; training wants positive pairs")
    texts = collection.documents.texts()
    keys = np.fromiter((text_hash(text) for text in texts), dtype=np.int64, count=len(texts))
    queries, documents = positive[:, 0].copy(), positive[:, 1].copy()
    rows, inverse = np.unique(queries, return_inverse=True)
    query_keys = np.array([text_hash(collection.queries.text(int(row))) for row in rows], dtype=np.int64)
    known = _known(rows, query_keys, inverse, keys[documents])
    widest = max(len(own) for own in known.values())
    return Pairs(
        collection, split, queries, documents, query_keys[inverse], keys, known, widest,
        collection.shown(split), np.flatnonzero(judged[:, 2] > 0),
    )  # fmt: skip


def _known(
    rows: np.ndarray, query_keys: np.ndarray, inverse: np.ndarray, positives: np.ndarray
) -> dict[int, np.ndarray]:
    by_text: dict[int, list[int]] = {}
    for at, key in zip(inverse.tolist(), positives.tolist(), strict=True):
        by_text.setdefault(int(query_keys[at]), []).append(key)
    unique = {text: np.unique(np.array(own, dtype=np.int64)) for text, own in by_text.items()}
    return {int(row): unique[int(key)] for row, key in zip(rows, query_keys, strict=True)}


def epoch_batches(query_keys: np.ndarray, batch: int, seed: int, epoch: int) -> np.ndarray:
    """Positions of an epoch's batches, int64 [batches, batch]; the last short batch is left out.

    A pair whose query is already in the batch waits for the next one.

    Raises:
        Misuse: not one whole batch can be made.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(query_keys))
    if len(np.unique(query_keys)) == len(query_keys):
        whole = len(order) // batch
        batches = order[: whole * batch].reshape(whole, batch)
    else:
        batches = np.array(_without_repeats(order.tolist(), query_keys.tolist(), batch), dtype=np.int64)
    if not len(batches):
        distinct = len(np.unique(query_keys))
        raise Misuse(f"batch={batch} is more than the {distinct} distinct training queries; use batch <= {distinct}")
    return batches.reshape(-1, batch)


def _without_repeats(order: list[int], keys: list[int], batch: int) -> list[list[int]]:
    batches: list[list[int]] = []
    waiting: list[int] = []
    fresh = iter(order)
    while True:
        chosen, present, still = [], set(), []
        for position in _chain(waiting, fresh):
            if keys[position] in present:
                still.append(position)
                continue
            chosen.append(position)
            present.add(keys[position])
            if len(chosen) == batch:
                break
        waiting = still  # of fewer queries than a batch has, so that what waits is always looked at to its end
        if len(chosen) < batch:
            return batches
        batches.append(chosen)


def _chain(waiting: list[int], fresh: Iterator[int]) -> Iterator[int]:
    yield from waiting
    yield from fresh
