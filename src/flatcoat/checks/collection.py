"""What is wrong with a collection: only judged documents, train and test that share texts, texts that are cut off.

Indexing only the judged documents of TREC-COVID once turned 31.9 into 58.6 nDCG@10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.columns import text_hash
from flatcoat.data.store import Collection

MOST_JUDGED = 0.9
MOST_CUT = 0.2
SAMPLE = 2000


def only_judged(collection: Collection, split: str) -> list[Finding]:
    """Whether nearly every document of the corpus is judged in the evaluated split."""
    judged = len(np.unique(collection.judgements(split)[:, 1]))
    size = len(collection.documents)
    share = judged / size
    if share > MOST_JUDGED and size > 50:
        message = (
            f"{judged} of {size} documents are judged in split {split!r}: a corpus of judged documents flatters all"
        )
        return [Finding("error", "only-judged", message, "evaluate on the whole corpus")]
    return [ok("only-judged", f"{judged} of {size} documents are judged in split {split!r}")]


def _texts(collection: Collection, rows: np.ndarray, queries: bool) -> set[int]:
    table = collection.queries if queries else collection.documents
    return {text_hash(" ".join(table.text(int(row)).lower().split())) for row in rows}


def leakage(collection: Collection, train: str, test: str) -> list[Finding]:
    """Queries, and query-document pairs, that stand in both train and test; case and white space folded."""
    sides = [np.asarray(collection.judgements(split)) for split in (train, test)]
    sides = [side[side[:, 2] > 0] for side in sides]
    found = []
    queries = [_texts(collection, np.unique(side[:, 0]), True) for side in sides]
    both = len(queries[0] & queries[1])
    if both:
        message = f"{both} of {len(queries[1])} queries of {test!r} are also queries of {train!r}"
        found.append(Finding("error", "leakage", message, "take them out of one split"))
    documents = [_texts(collection, np.unique(side[:, 1]), False) for side in sides]
    shared = len(documents[0] & documents[1])
    if shared and shared / max(1, len(documents[1])) > 0.5:
        message = f"{shared} of {len(documents[1])} relevant documents of {test!r} are positives of {train!r} too"
        found.append(
            Finding("warning", "shared-positives", message, "the test measures new questions, not new documents")
        )
    return found or [ok("leakage", f"{train!r} and {test!r} share no query")]


def truncated(count: Callable[[Sequence[str]], list[int]], collection: Collection, max_length: int) -> list[Finding]:
    """The share of documents that the model's length cuts off, on an even sample. `count` gives tokens a text."""
    size = len(collection.documents)
    rows = np.unique(np.linspace(0, size - 1, min(SAMPLE, size)).astype(np.int64))
    lengths = np.array(count(list(collection.documents.texts(rows))))
    share = float((lengths > max_length).mean())
    message = f"{share:.0%} of documents are longer than {max_length} tokens (median {int(np.median(lengths))})"
    if share > MOST_CUT:
        return [Finding("warning", "truncation", message, "raise document_length, or cut documents into passages")]
    return [ok("truncation", message)]
