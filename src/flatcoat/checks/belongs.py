"""Whether an index or a folder of vectors is of this model and this corpus, and not damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flatcoat.checks.base import Finding, ok


def belongs(path: Path, of: Mapping[str, Any], *, model: str | None = None, corpus: str | None = None) -> list[Finding]:
    """Compare the fingerprints an index was built under with those of the model and corpus at hand."""
    found = []
    for name, given in (("model", model), ("corpus", corpus)):
        built = of.get(name)
        if given is None:
            continue
        if built is None:
            found.append(Finding("warning", f"index-{name}", f"{path} does not say which {name} it is of"))
        elif built != given:
            message = f"{path} was built from another {name} ({built[:12]}… where this one is {given[:12]}…)"
            found.append(Finding("error", f"index-{name}", message, "encode and index again"))
        else:
            found.append(ok(f"index-{name}", f"{path} is of this {name}"))
    return found


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
