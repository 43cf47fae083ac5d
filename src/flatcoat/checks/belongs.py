"""Whether an index or a folder of vectors is of this model and this corpus, and not damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flatcoat.checks.base import Finding, Level


def belongs(path: Path, of: Mapping[str, Any], *, model: str | None = None, corpus: str | None = None) -> list[Finding]:
    """Compare the fingerprints an index was built under with those of the model and corpus at hand.

    An index that is not bound to its checkpoint is searched with another, and answers (primeqa/primeqa#384).
    """
    of_model = _compared(path, "model", of.get("model"), model)
    of_corpus = _compared(path, "corpus", of.get("corpus"), corpus)
    return [Finding(level, "index-model", *said) for level, *said in of_model] + [
        Finding(level, "index-corpus", *said) for level, *said in of_corpus
    ]


def _compared(path: Path, name: str, built: str | None, given: str | None) -> list[tuple[Level, str, str]]:
    if given is None:
        return []
    if built is None:
        return [("warning", f"{path} does not say which {name} it is of", "")]
    if built != given:
        message = f"{path} was built from another {name} ({built[:12]}… where this one is {given[:12]}…)"
        return [("error", message, "encode and index again")]
    return [("ok", f"{path} is of this {name}", "")]


def same_vocabulary(path: Path, built: Sequence[str], given: Sequence[str]) -> list[Finding]:
    """Whether term numbers mean the same on both sides."""
    if list(built) == list(given):
        return []
    message = f"{path} numbers its {len(built)} terms in another way than this model its {len(given)}"
    return [Finding("error", "vocabulary", message, "index vectors of this model; import others with --like")]


def precision(path: Path, of: Mapping[str, Any], used: str) -> list[Finding]:
    """Queries encoded at another precision than the documents: a small, but needless, difference."""
    made = of.get("precision")
    if made is not None and made != used:
        message = f"{path} holds {made} documents, queries are {used}"
        return [Finding("warning", "precision", message, f"search with --precision {made}")]
    return []
