"""`ir_datasets:ID` where that library is installed (MacAvaney et al. 2021, arXiv 2103.02280)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flatcoat.data.problems import Problems
from flatcoat.data.store import StoreBuilder
from flatcoat.errors import FlatcoatError, need


def read_ir_datasets(id: str, builder: StoreBuilder, problems: Problems) -> list[Path]:
    """Feed a data set's documents, queries and judgements; the split is the last part of its id that names one.

    Raises FlatcoatError on an id that is not known.
    """
    library: Any = need("ir_datasets", "hub")
    try:
        dataset = library.load(id)
    except KeyError as error:
        raise FlatcoatError(f"ir_datasets:{id}: ir_datasets knows no such id") from error
    split = next((p for p in reversed(id.split("/")) if p in ("train", "dev", "test", "validation")), "test")
    for number, doc in enumerate(dataset.docs_iter(), start=1):
        title = getattr(doc, "title", "") or ""
        text = getattr(doc, "text", None) or doc.default_text()
        builder.add_document(doc.doc_id, title, text, f"ir_datasets:{id}: document {number}")
    for number, query in enumerate(dataset.queries_iter(), start=1):
        text = getattr(query, "text", None) or query.default_text()
        builder.add_query(query.query_id, text, f"ir_datasets:{id}: query {number}")
    for number, qrel in enumerate(dataset.qrels_iter() if dataset.has_qrels() else (), start=1):
        builder.judge(split, qrel.query_id, qrel.doc_id, qrel.relevance, f"ir_datasets:{id}: qrel {number}")
    return []
