"""The verb that explains: why a text has the terms it has, and why two texts match."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from flatcoat.errors import Misuse


def explain(model: str, query: str, document: str | None, k: int, as_json: bool) -> None:
    """`flatcoat explain`."""
    from flatcoat.models.source import resolve
    from flatcoat.models.splade_checkpoint import is_sparse, load_splade
    from flatcoat.search.explain import shared_terms, terms_of

    if k < 1:
        raise Misuse(f"-k {k}: want at least 1")
    if not is_sparse(resolve(model)):
        raise Misuse(f"{model}: a dense model has no terms to show; explain wants a sparse one")
    loaded = load_splade(model)
    said: dict[str, object] = {}
    for side, text, tower in (("query", query, loaded.query), ("document", document, loaded.document)):
        if text is not None:
            terms, count = terms_of(loaded, tower, text, k)
            said[side] = {"text": text, "count": count, "terms": [asdict(term) for term in terms]}
            if not as_json:
                _show(side, text, terms, count)
    if document is not None:
        shared, score = shared_terms(loaded, query, document)
        said["shared"] = {"score": score, "terms": [asdict(term) for term in shared[:k]]}
        if not as_json:
            sys.stdout.write(f"shared: score {score:.3f} over {len(shared)} terms\n")
            for s in shared[:k]:
                sys.stdout.write(f"  {s.term:<18} {s.query:.2f} × {s.document:.2f} = {s.product:6.3f}  {s.share:4.0%}\n")
    if as_json:
        sys.stdout.write(json.dumps(said, ensure_ascii=False) + "\n")


def _show(side: str, text: str, terms: list, count: int) -> None:
    sys.stdout.write(f"{side}: {text[:100]}\n{count} terms; the heaviest, and the token behind each:\n")
    for term in terms:
        bar = "█" * max(1, round(8 * term.weight))
        sys.stdout.write(f"  {term.term:<18} {term.weight:5.2f}  {term.token:<14} {bar}\n")
