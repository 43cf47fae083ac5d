"""The verb that explains: why a text has the terms it has, and why two texts match."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flatcoat.errors import Misuse


def explain(model: str, query: str, document: str | None, k: int, as_json: bool) -> None:
    """`flatcoat explain`."""
    from flatcoat.models.source import resolve
    from flatcoat.models.splade_checkpoint import is_sparse, load_splade
    from flatcoat.search.explain import shared_terms, terms_of

    if k < 1:
        raise Misuse(f"-k {k}: want at least 1")
    if (Path(model) / "recipe.toml").is_file():  # the folder of a run
        model = str(Path(model) / "model")
    if not is_sparse(resolve(model)):
        raise Misuse(f"{model}: a dense model has no terms to show; explain wants a sparse one")
    loaded = load_splade(model)
    said: dict[str, Any] = {}
    for side, text, tower in (("query", query, loaded.query), ("document", document, loaded.document)):
        if text is not None:
            terms, count = terms_of(loaded, tower, text, k)
            said[side] = {"text": text, "count": count, "terms": [asdict(term) for term in terms]}
    if document is not None:
        shared, score = shared_terms(loaded, query, document)
        said["shared"] = {"score": score, "count": len(shared), "terms": [asdict(term) for term in shared[:k]]}
    if as_json:
        sys.stdout.write(json.dumps(said, ensure_ascii=False) + "\n")
    else:
        _show(said)


def _show(said: dict[str, Any]) -> None:
    for side in ("query", "document"):
        if side in said:
            one = said[side]
            lines = [f"{side}: {one['text'][:100]}", f"{one['count']} terms; the heaviest, and the token behind each:"]
            for term in one["terms"]:
                bar = "█" * max(1, round(8 * term["weight"]))
                lines.append(f"  {term['term']:<18} {term['weight']:5.2f}  {term['token']:<14} {bar}")
            sys.stdout.write("\n".join(lines) + "\n")
    if "shared" in said:
        lines = [f"shared: score {said['shared']['score']:.3f} over {said['shared']['count']} terms"]
        for s in said["shared"]["terms"]:
            sum_ = f"{s['query']:.2f} × {s['document']:.2f} = {s['product']:6.3f}"
            lines.append(f"  {s['term']:<18} {sum_}  {s['share']:4.0%}")
        sys.stdout.write("\n".join(lines) + "\n")
