"""The verb that explains: the terms a text has, which of them two texts share, and which of their tokens meet."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from flatcoat.errors import Misuse


def explain(model: str, query: str, document: str | None, k: int, as_json: bool) -> None:
    """`flatcoat explain`."""
    if k < 1:
        raise Misuse(f"-k {k}: want at least 1")
    kind, load = _model(model)
    if kind == "dense":
        raise Misuse(
            f"{model}: a dense model has no terms to show, one vector says all; "
            "explain wants a sparse or late-interaction model, or a cross-encoder"
        )
    if kind == "sparse":
        said, show = _terms(load(), query, document, k), _show_terms
    elif document is None:
        what = {"late": "a late-interaction model matches", "cross": "a cross-encoder reads"}[kind]
        raise Misuse(f"{model}: {what} two texts; give a document behind the query")
    elif kind == "late":
        said, show = _matches(load(), query, document), _show_matches
    else:
        said, show = _attention(load(), query, document, k), _show_attention
    sys.stdout.write(json.dumps(said, ensure_ascii=False) + "\n" if as_json else "\n".join(show(said)) + "\n")


def _model(source: str) -> tuple[str, Any]:
    """The kind of a model, or of a run's, and what loads it."""
    from flatcoat.models.load import kind_of, load_model
    from flatcoat.models.source import resolve

    folder = Path(source)
    if (folder / "recipe.toml").is_file() and not (
        folder / "model"
    ).is_dir():  # nothing was trained: the start, as read
        from flatcoat.app import build
        from flatcoat.app.recipe import load_recipe

        recipe, begun = load_recipe(folder / "recipe.toml"), folder / "start"
        table = recipe.model.model_copy(update={"start": str(begun)}) if begun.is_dir() else recipe.model
        return table.kind, lambda: build.model(table, recipe.runtime)
    place = str(folder / "model") if (folder / "recipe.toml").is_file() else source
    return kind_of(resolve(place)), lambda: load_model(place)


def _terms(loaded: Any, query: str, document: str | None, k: int) -> dict[str, Any]:
    from flatcoat.search.explain import shared_terms, terms_of

    said: dict[str, Any] = {}
    for side, text, tower in (("query", query, loaded.query), ("document", document, loaded.document)):
        if text is not None:
            terms, count = terms_of(loaded, tower, text, k)
            said[side] = {"text": text, "count": count, "terms": [asdict(term) for term in terms]}
    if document is not None:
        shared, score = shared_terms(loaded, query, document)
        said["shared"] = {"score": score, "count": len(shared), "terms": [asdict(term) for term in shared[:k]]}
    return said


def _matches(loaded: Any, query: str, document: str) -> dict[str, Any]:
    from flatcoat.search.align import align

    found = align(loaded, query, document)
    score = sum(one.similarity for one in found)
    return {"query": query, "document": document, "score": score, "tokens": [asdict(one) for one in found]}


def _attention(loaded: Any, query: str, document: str, k: int) -> dict[str, Any]:
    from flatcoat.search.align import attended

    score = float(loaded.score([query], [document])[0])
    tokens = [asdict(one) for one in attended(loaded, query, document, k)]
    return {"query": query, "document": document, "score": score, "attention": tokens}


def _show_terms(said: dict[str, Any]) -> list[str]:
    lines = []
    for side in ("query", "document"):
        if side in said:
            one = said[side]
            lines += [f"{side}: {one['text'][:100]}", f"{one['count']} terms; the heaviest, and the token behind each:"]
            for term in one["terms"]:
                bar = "█" * max(1, round(8 * term["weight"]))
                lines.append(f"  {term['term']:<18} {term['weight']:5.2f}  {term['token']:<14} {bar}")
    if "shared" in said:
        lines.append(f"shared: score {said['shared']['score']:.3f} over {said['shared']['count']} terms")
        for s in said["shared"]["terms"]:
            sum_ = f"{s['query']:.2f} × {s['document']:.2f} = {s['product']:6.3f}"
            lines.append(f"  {s['term']:<18} {sum_}  {s['share']:4.0%}")
    return lines


def _show_matches(said: dict[str, Any]) -> list[str]:
    """A line a query token; a run of equal tokens that match the same one, as expansion often gives, is one line."""
    lines = [
        f"score {said['score']:.3f}, the sum over the query's tokens of the best match in the document (its place, similarity, share):"
    ]
    for (token, best, place), run in groupby(said["tokens"], key=lambda t: (t["token"], t["best"], t["place"])):
        several = list(run)
        similarity, share = (sum(one[key] for one in several) for key in ("similarity", "share"))
        name = token if len(several) == 1 else f"{token} × {len(several)}"
        bar = "█" * max(0, round(16 * similarity / len(several)))
        lines.append(f"  {name:<18} {best:<16} {place:>4}  {similarity:6.3f}  {share:4.0%}  {bar}")
    return lines


def _show_attention(said: dict[str, Any]) -> list[str]:
    lines = [
        f"score {said['score']:.3f} (the logit)",
        "what the query's tokens attend to most in the last layer (place, attention); this is not what the score is made of:",
    ]
    return lines + [f"  {one['token']:<18} {one['place']:>4}  {one['attention']:.4f}" for one in said["attention"]]
