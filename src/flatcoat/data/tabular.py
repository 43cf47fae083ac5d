"""Parquet files and Hugging Face datasets: columns query, positive (or document), negative…, in any of their names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flatcoat.arrays import first_line
from flatcoat.columns import text_hash
from flatcoat.data.lines import as_text
from flatcoat.data.metadata import of_record
from flatcoat.data.problems import Problems
from flatcoat.data.store import StoreBuilder
from flatcoat.errors import FlatcoatError, need

QUERY = ("query", "anchor", "question", "sentence1")
POSITIVE = ("positive", "document", "answer", "passage", "pos", "sentence2")


def read_parquet(path: Path, builder: StoreBuilder, problems: Problems) -> list[Path]:
    """Feed a file of pairs or triples (split train), or of documents (columns id, text, title; any other is metadata).

    Raises FlatcoatError where the file is no Parquet file.
    """
    parquet: Any = need("pyarrow.parquet", "tables")
    arrow: Any = need("pyarrow", "tables")
    wrong = (arrow.ArrowException, OSError, ValueError, OverflowError)  # the last two: what Python cannot hold
    try:
        table = parquet.ParquetFile(path)
        rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
        add_rows(rows, list(table.schema_arrow.names), str(path), builder, problems)
    except wrong as error:
        raise FlatcoatError(f"{path}: not a Parquet file ({first_line(error)})") from error
    return [path]


def read_hf(name: str, builder: StoreBuilder, problems: Problems) -> list[Path]:
    """Feed `hf:ID` or `hf:ID/CONFIG` through the `datasets` library, split train."""
    datasets: Any = need("datasets", "hub")
    rows = datasets.load_dataset(name, split="train", streaming=True)
    add_rows(rows, list(rows.features or {}), f"hf:{name}", builder, problems)
    return []


def add_rows(
    rows: Iterable[dict[str, Any]], names: list[str], place: str, builder: StoreBuilder, problems: Problems
) -> None:
    """Tell the columns' roles by their names and feed the rows. Raises FlatcoatError where no role fits."""
    query, positive = (next((n for n in names if n in known), None) for known in (QUERY, POSITIVE))
    negatives = [n for n in names if n.startswith("negative") or n == "neg"]
    if query and positive:
        for number, row in enumerate(rows, start=1):
            _pair(row, query, positive, negatives, f"{place}: row {number}", builder)
        return
    id = next((n for n in names if n in ("id", "_id", "docid", "doc_id")), None)
    text = next((n for n in names if n in ("text", "contents", "document_text")), None)
    if not id or not text:
        raise FlatcoatError(
            f"{place}: columns {', '.join(names)}: want {'|'.join(QUERY)} and {'|'.join(POSITIVE)}, or id and text"
        )
    for number, row in enumerate(rows, start=1):
        where = f"{place}: row {number}"
        metadata = of_record(row, (id, text, "title"), where, problems)
        builder.add_document(as_text(row[id]), as_text(row.get("title")), as_text(row[text]), where, metadata)


def _pair(
    row: dict[str, Any], query: str, positive: str, negatives: list[str], place: str, builder: StoreBuilder
) -> None:
    query_text = as_text(row[query])
    query_id = f"q{text_hash(query_text):016x}"
    builder.ensure_query(query_id, query_text, place)
    for name in (positive, *negatives):
        values = row[name] if isinstance(row[name], list) else [row[name]]
        for value in filter(None, map(as_text, values)):
            doc_id = f"d{text_hash(value):016x}"
            builder.ensure_document(doc_id, "", value, place)
            if name == positive:
                builder.judge("train", query_id, doc_id, 1, place)
            else:
                builder.negative("train", query_id, doc_id, place)
