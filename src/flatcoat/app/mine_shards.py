"""Mining by workers: a shard is a block of queries, searched in the corpus's vectors where they lie.

Each worker builds the index of its own over the memory-mapped vectors. A ranking is cut where one process would cut it, at a
depth that the query with most positives sets, so a shard's answers are that process's own.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app.family import open_vectors
from flatcoat.app.shards import Part, seen_collection, settle, write_part
from flatcoat.app.workers import Do
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError
from flatcoat.mining.mine import BLOCK, Mined, MineSettings, Refuse
from flatcoat.representations import MultiVector, Sparse

QUERIES = BLOCK  # of a shard; mining searches a block at once, and a block's answers must not depend on its shard


class Deeper:
    """An index asked for the `k` that the widest query would need."""

    def __init__(self, index: Any, more: int):
        self.index, self.more = index, more

    def __len__(self) -> int:
        return len(self.index)

    def search(self, queries: Any, k: int) -> Any:
        """The index's answers, `more` deeper where it has as many."""
        return self.index.search(queries, min(len(self.index), k + self.more))


def judged(collection: Collection, split: str) -> str:
    """Digest of a split's judgements by row: what mining holds for an answer, and for which queries."""
    return hashlib.sha256(np.ascontiguousarray(collection.judgements(split)).tobytes()).hexdigest()


def mining(job: Mapping[str, Any]) -> Do:
    """What a worker does of mining. Raises FlatcoatError where its collection, folder or versions are others."""
    from flatcoat.app.samplers import mining_index, positives_by_query
    from flatcoat.data.pairs import load_pairs
    from flatcoat.mining.mine import mine

    plan, collection = settle(job), seen_collection(job)
    if judged(collection, job["split"]) != job["judged"]:
        raise FlatcoatError(
            f"{socket.gethostname()}: split {job['split']!r} of {job['collection']} is not judged as the driver's is"
        )
    documents, queries = (_arrays(open_vectors(Path(job[name]))) for name in ("documents", "queries"))
    index = mining_index(job["kind"], job["approximate"])(documents)
    pairs = load_pairs(collection, job["split"])
    rows, positives = positives_by_query(pairs)
    widest = max(map(len, positives))
    settings = MineSettings(**job["settings"])
    refuse = _judge(job, collection, rows)

    def do(shard: int) -> None:
        span = plan.span(shard)
        own = positives[span]
        mined = mine(
            Deeper(index, widest - max(map(len, own))), queries[span], own, settings,
            vectors=documents, keys=pairs.keys, refuse=_from(refuse, span.start),
        )  # fmt: skip
        write_part(plan, shard, {"rows": mined.rows, "scores": mined.scores})

    return do


def _arrays(folder: Any) -> np.ndarray | Sparse | MultiVector:
    return folder.vectors


def _judge(job: Mapping[str, Any], collection: Any, rows: np.ndarray) -> Refuse | None:
    if job["judge"] is None:
        return None
    from flatcoat.app.denoise import refusing
    from flatcoat.models.base import Runtime

    return refusing(job["judge"], job["judge_above"], collection, rows, Runtime(job["device"], job["precision"]))


def _from(refuse: Refuse | None, first: int) -> Refuse | None:
    """The judge, of queries counted from `first`."""
    return None if refuse is None else lambda query, found: refuse(first + query, found)


def joined(parts: Iterable[Part], width: int) -> Mined:
    """Every query's negatives, from the parts in order; -1 and -inf past the last."""
    found = list(parts)
    rows: Sequence[np.ndarray] = [np.zeros((0, width), np.int64), *(part["rows"] for part in found)]
    scores = [np.zeros((0, width), np.float32), *(part["scores"] for part in found)]
    return Mined(np.concatenate(rows), np.concatenate(scores))
