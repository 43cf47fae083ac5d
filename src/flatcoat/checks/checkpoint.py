"""What a dense checkpoint says of itself and nobody heeds: prompts under other names, a distance in place of a product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flatcoat.checks.base import Finding, ok
from flatcoat.files import read_json

PRODUCTS = ("cosine", "dot", None)


def _said(folder: Path) -> dict[str, Any]:
    file = folder / "config_sentence_transformers.json"
    return read_json(file) if file.is_file() else {}


def prompts(folder: Path, query: str, document: str) -> list[Finding]:
    """Whether the prompts that a checkpoint declares are the ones in use: `query` and `document` stand before the texts.

    E5 without its "query: " and "passage: " fell short in a benchmark's own evaluator (embeddings-benchmark/mteb#642).
    """
    declared = {name: text for name, text in (_said(folder).get("prompts") or {}).items() if text}
    unused = [f"{name} {text!r}" for name, text in declared.items() if text not in (query, document)]
    if declared and not query and not document:
        message = f"the checkpoint declares prompts, and none is used: {', '.join(unused[:4])}"
        return [Finding("warning", "prompts", message, "say the right one: model.query_prompt, model.document_prompt")]
    used = ", ".join(repr(text) for text in (query, document) if text) or "none"
    return [ok("prompts", f"in use: {used}; declared besides: {len(unused)}")]


def similarity(folder: Path, *, unit: bool) -> list[Finding]:
    """Whether the checkpoint compares vectors as Flatcoat does, by their dot product; `unit` where they are of unit length.

    An index of another metric than the model's gives other documents (deepset-ai/haystack#747).
    """
    said = _said(folder).get("similarity_fn_name")
    if said in PRODUCTS or (
        said == "euclidean" and unit
    ):  # of unit vectors the nearest is the one of the greatest product
        return [ok("similarity", f"{said or 'not said'}; dot products rank")]
    message = f"the checkpoint compares vectors by {said}, and dot products of vectors that are not of unit length rank otherwise"
    return [Finding("error", "similarity", message, "train it for dot products, or say model.normalise = true")]
