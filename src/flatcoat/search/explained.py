"""Why a leg gives a document its score, as plain values: what its kind can say."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import numpy as np

from flatcoat.errors import Misuse
from flatcoat.search.legs import Leg, View
from flatcoat.search.lexical import LexicalView

TERMS, PASSAGES, SENTENCES = 20, 5, 256  # said at most; sentences read


def explain(leg: Leg, view: View, query: str, text: str) -> dict[str, Any]:
    """`kind`, `score`, and by kind `terms`, `expansion`, `alignment` or `passages`.

    Raises:
        Misuse: the document has no token that the model gives a vector.
    """
    said = {"lexical": _lexical, "sparse": _sparse, "late": _late, "dense": _dense}[leg.kind](leg, view, query, text)
    return {"kind": leg.kind, **said}


def _lexical(leg: Leg, view: View, query: str, text: str) -> dict[str, Any]:
    assert isinstance(view, LexicalView)
    found = view.contributions(query, text)
    score = sum(each.product for each in found)
    shares = [each.product / score if score else 0.0 for each in found]  # no document may have any of the terms
    return {
        "score": score,
        "terms": [{**asdict(each), "share": share} for each, share in zip(found, shares, strict=True)],
    }


def _sparse(leg: Leg, view: View, query: str, text: str) -> dict[str, Any]:
    from flatcoat.search.explain import shared_terms, terms_of

    assert leg.encoding is not None
    model = leg.encoding.model
    shared, score = shared_terms(model, query, text)
    heaviest, _ = terms_of(model, model.query, query, TERMS)
    expansion = [{"term": each.term, "weight": each.weight, "token": each.token} for each in heaviest]
    return {"score": score, "terms": [asdict(each) for each in shared], "expansion": expansion}


def _late(leg: Leg, view: View, query: str, text: str) -> dict[str, Any]:
    from flatcoat.search.align import token_vectors

    assert leg.encoding is not None
    model = leg.encoding.model
    names, asked = token_vectors(model.query, query, model.runtime)
    words, held = token_vectors(model.document, text, model.runtime)
    if not len(held):
        raise Misuse("every token of the document is one that the model skips: there is nothing to match")
    products = asked @ held.T
    said = {"query_tokens": names, "document_tokens": words, "similarities": products.astype(float).tolist()}
    return {"score": float(products.max(1).sum(dtype=np.float64)), "alignment": said}


def _dense(leg: Leg, view: View, query: str, text: str) -> dict[str, Any]:
    assert leg.encoding is not None
    parts = sentences(text)[:SENTENCES]
    asked, held = leg.encoding.queries([query]).vectors[0], leg.encoding.documents([text, *parts]).vectors
    scores = held @ asked
    best = np.argsort(-scores[1:], kind="stable")[:PASSAGES].tolist()
    return {"score": float(scores[0]), "passages": [{"text": parts[i], "score": float(scores[1 + i])} for i in best]}


def sentences(text: str) -> list[str]:
    """A text's sentences: what ends with a full stop, question or exclamation mark before white space, or with a line."""
    parts = re.split(r"(?<=[.!?。！？])\s+|\n+", text)
    return [part.strip() for part in parts if part.strip()]
