"""What is silently wrong with a late-interaction model, or with vectors that one made: length, collapse, markers, expansion,
punctuation, texts that are cut off.

A marker that its tokenizer does not know is read as words ("[Q]" as three tokens), and nothing fails but the ranking.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.checks.collection import MOST_CUT, SAMPLE
from flatcoat.checks.sparse import PROBES
from flatcoat.data.store import Collection
from flatcoat.models.colbert import LateModel, LateTower
from flatcoat.models.colbert_layouts import Said
from flatcoat.models.hygiene import is_punctuation
from flatcoat.representations import MultiVector

TEXTS, TOKENS = 24, 128  # that are compared with one another: items, and vectors of each
NEAR = 0.98  # inner product from which on two unit vectors are as good as one
MOST_PUNCTUATION = 0.2
MARKS = ('It is: "so", (not)? No.',)


def unit_length(vectors: MultiVector, what: str) -> list[Finding]:
    """Whether token vectors have unit length, on the first ones of an even sample of items."""
    norms = np.linalg.norm(sample(vectors).vectors, axis=1)
    if len(norms) and not np.allclose(norms, 1, atol=1e-2):
        message = f"token vectors of {what} have lengths {norms.min():.3f} to {norms.max():.3f}, not 1"
        return [Finding("error", "normalisation", message, "long vectors win every maximum: encode them again")]
    return [ok("normalisation", f"token vectors of {what} have unit length")]


def alike(vectors: MultiVector, what: str) -> list[Finding]:
    """Whether texts have vectors, and vectors of their own.

    A text is as good as another where each vector of the one is nearly one of the other's.
    """
    if not len(vectors):
        return [Finding("warning", "collapse", f"no {what} to look at")]
    found, empty = [], float((np.diff(vectors.start) == 0).mean())
    if empty:
        found.append(Finding("error" if empty > 0.5 else "warning", "dead", f"{empty:.1%} of {what} have no vector",
                             "they are never found: are they empty, or made of skipped tokens alone?"))  # fmt: skip
    some = sample(vectors)
    items = [item for i in range(len(some)) if len(item := some.item(i))]
    pairs = [(a, b) for a in range(len(items)) for b in range(len(items)) if a != b]
    same = np.mean([(items[a] @ items[b].T).max(1).min() > NEAR for a, b in pairs]) if pairs else 0.0
    if same > 0.5:
        message = f"{same:.0%} of pairs of {what} have the same vectors up to {1 - NEAR:.2f}"
        return [*found, Finding("error", "collapse", message, "the model has collapsed: train again at a lower rate")]
    tokens = len(vectors.vectors) / len(vectors)
    return found or [ok("collapse", f"{what} differ; {tokens:.1f} vectors each in the mean")]


def even_rows(count: int) -> np.ndarray:
    """A few of `count` rows, evenly over all, rising."""
    return np.unique(np.linspace(0, max(0, count - 1), min(TEXTS, count)).astype(np.int64))


def sample(vectors: MultiVector) -> MultiVector:
    """The first vectors of a few items."""
    few = [vectors.item(row)[:TOKENS] for row in even_rows(len(vectors)).tolist()]
    return MultiVector.of(few, vectors.dim)


def markers(said: Said, model: LateModel) -> list[Finding]:
    """Whether what a checkpoint says stands before queries and documents is a token of its vocabulary, where it looks like one."""
    found = []
    for side, asked in (("query", said.query), ("document", said.document)):
        tower, prefix = getattr(model, side), asked.prefix.strip()
        if tower.settings.marker is None and re.fullmatch(r"[\[<].+[\]>]", prefix):
            pieces = " ".join(map(repr, tower.tokenizer.tokenize(prefix)))
            message = f"{side} marker {asked.prefix!r} is no token of the vocabulary, and is read as {pieces}"
            found.append(Finding("error", "marker", message, "the tokenizer is not the one it was trained with"))
    marks = [tower.settings.marker for tower in (model.query, model.document)]
    if not found and marks.count(None) == 1:
        which, other = ("queries", "documents") if marks[0] else ("documents", "queries")
        message = f"{which} have the marker {marks[0] or marks[1]!r}, {other} have none"
        found.append(Finding("warning", "marker", message, "was it lost? say query_marker or document_marker"))
    known = " and ".join(map(repr, filter(None, marks)))
    return found or [ok("marker", f"{known} are tokens of the vocabulary" if known else "none")]


def expansion(said: Said, model: LateModel) -> list[Finding]:
    """Whether queries are filled up to as many tokens as the checkpoint says, and these fit in."""
    asked, settings = said.query.expansion, model.query.settings
    if asked is not None and asked > settings.max_length:
        message = f"queries are to be filled up to {asked} tokens, but are cut at {settings.max_length}"
        return [Finding("warning", "expansion", message, "raise query_length to it")]
    if settings.expansion is None:
        return [ok("expansion", "queries are not filled up")]
    seen = "attended to" if settings.attend_expansion else "not attended to"
    return [ok("expansion", f"queries are filled up to {settings.expansion} of {settings.max_length} tokens, {seen}")]


def punctuation(tower: LateTower) -> list[Finding]:
    """How many of the documents' vectors stand for punctuation, which documents do without as a rule."""
    kept, total = _punctuation(tower, PROBES)
    share, words = (
        len(kept) / max(1, total),
        ", ".join(sorted({repr(w) for w in [*kept, *_punctuation(tower, MARKS)[0]]})),
    )
    if words and tower.settings.skip:
        message = f"documents skip punctuation, and yet {words} have vectors ({share:.0%} of all)"
        return [Finding("warning", "punctuation", message, "the list of skipped words is not this tokenizer's")]
    if share > MOST_PUNCTUATION:
        message = f"{share:.0%} of documents' vectors stand for punctuation ({words})"
        return [Finding("warning", "punctuation", message, "train with model.skip_punctuation = true")]
    return [ok("punctuation", f"{share:.0%} of documents' vectors stand for punctuation")]


def _punctuation(tower: LateTower, texts: Sequence[str]) -> tuple[list[str], int]:
    """The punctuation of texts that has vectors, and how many vectors there are."""
    skipped, framing = set(tower.skip_ids.tolist()), {*tower.tokenizer.all_special_ids, tower.marker_id}
    present = [token for row in tower.tokenize(texts) for token in row if token not in skipped]
    names = tower.tokenizer.convert_ids_to_tokens([token for token in present if token not in framing])
    return [name for name in names if is_punctuation(name)], len(present)


def cut_queries(tower: LateTower, collection: Collection) -> list[Finding]:
    """The share of queries that the model's query length cuts off, on an even sample."""
    size = len(collection.queries)
    if not size:
        return []
    rows = np.unique(np.linspace(0, size - 1, min(SAMPLE, size)).astype(np.int64))
    longest = tower.settings.max_length
    share = float((np.array(tower.lengths(list(collection.queries.texts(rows)))) > longest).mean())
    message = f"{share:.0%} of queries are longer than {longest} tokens"
    if share > MOST_CUT:
        return [Finding("warning", "query-truncation", message, "raise query_length")]
    return [ok("query-truncation", message)]


def late_model(said: Said | None, model: LateModel) -> list[Finding]:
    """The checks of a model by itself, on a few texts of ordinary English. `said` is what its folder says, where that is one's."""
    found: list[Finding] = []
    if said is not None:
        found += markers(said, model) + expansion(said, model)
    found += punctuation(model.document)
    made: Any = {"queries": model.encode_queries(PROBES), "documents": model.encode_documents(PROBES)}
    for side, vectors in made.items():
        found += unit_length(vectors, f"probing {side}") + alike(vectors, f"probing {side}")
    return found
