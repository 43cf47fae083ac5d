"""The part of a model card that says how to use the model; tests run its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatcoat.app.model_card import Story

FLATCOAT = {
    "dense": "scores = queries.vectors @ documents.vectors.T",
    "sparse": "scores = queries.array() @ documents.array().T",
}
ENCODED = """from flatcoat.models.load import load_model

model = load_model("{repo}")
queries = model.encode_queries(["where do otters live"])
documents = model.encode_documents(["An otter makes its home in the river."])
"""
PAIRS = """from flatcoat.models.load import load_model

model = load_model("{repo}")
scores = model.score(["where do otters live"], ["An otter makes its home in the river."])
"""
OTHERS = {  # alike, for each stands in a card as somebody copies it
    "dense": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{repo}")
queries = model.encode_query(["where do otters live"])
documents = model.encode_document(["An otter makes its home in the river."])
scores = model.similarity(queries, documents)
""",
    "sparse": """from sentence_transformers import SparseEncoder

model = SparseEncoder("{repo}")
queries = model.encode_query(["where do otters live"])
documents = model.encode_document(["An otter makes its home in the river."])
scores = model.similarity(queries, documents)
""",
    "late": """from sentence_transformers import MultiVectorEncoder

model = MultiVectorEncoder("{repo}")
queries = model.encode_query(["where do otters live"])
documents = model.encode_document(["An otter makes its home in the river."])
scores = model.similarity(queries, documents)
""",
    "cross": """from sentence_transformers import CrossEncoder

model = CrossEncoder("{repo}")
scores = model.predict([("where do otters live", "An otter makes its home in the river.")])
""",
}
VERSIONS = {"dense": "5", "sparse": "5", "late": "6, or PyLate", "cross": "5"}


def use_section(story: Story, repo: str) -> str:
    """How to use a model, by Flatcoat and, where its folder is laid out so, by sentence-transformers."""
    own = PAIRS if story.kind in ("late", "cross") else ENCODED + FLATCOAT[story.kind] + "\n"
    parts = ["## Use\n", "With Flatcoat:\n", _block(own, repo)]
    if story.fits:
        parts += [f"With sentence-transformers {VERSIONS[story.kind]}:\n", _block(OTHERS[story.kind], repo)]
        parts += [f"{line}\n" for line in differences(story)]
    return "\n".join(parts)


def differences(story: Story) -> list[str]:
    """What sentence-transformers does otherwise, because its layout cannot say it."""
    if story.kind == "cross":
        length = story.model.tower.settings.query_length
        return (
            []
            if length is None
            else [f"Flatcoat cuts queries to {length} tokens; sentence-transformers cuts the longer text."]
        )
    if story.kind == "late":
        return []
    query, document = story.model.query.settings, story.model.document.settings
    lines = []
    if story.model.shared and query.max_length != document.max_length:
        lines.append(
            f"Flatcoat cuts queries to {query.max_length} tokens, sentence-transformers to {document.max_length}."
        )
    kept = getattr(query, "top_terms", None), getattr(document, "top_terms", None)
    if any(kept):
        lines.append(f"Flatcoat keeps {_most(kept[0])} of a query and {_most(kept[1])} of a document; "
                     "sentence-transformers keeps all, unless max_active_dims is said.")  # fmt: skip
    return lines


def _most(count: int | None) -> str:
    return "every term" if count is None else f"the {count} heaviest terms"


def _block(code: str, repo: str) -> str:
    return f"```python\n{code.format(repo=repo).rstrip()}\n```\n"
