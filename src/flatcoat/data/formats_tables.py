"""CSV and Parquet files as documents, a row each; the column of the text is told by its name, or said."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flatcoat.data.formats import Section, Source, decode, paragraphs
from flatcoat.data.lines import as_text
from flatcoat.data.metadata import of_record
from flatcoat.data.problems import Problems
from flatcoat.errors import need

KNOWN = {
    "text": ("text", "contents", "content", "body", "document", "document_text", "passage", "abstract", "description", "answer"),
    "title": ("title", "name", "heading", "subject", "headline", "question"),
    "id": ("id", "_id", "docid", "doc_id", "document_id", "key"),
}  # fmt: skip
TABLES = frozenset({".csv", ".parquet"})


class Columns(NamedTuple):
    """Which column is what, where it is said; None leaves it to the names."""

    text: str | None = None
    title: str | None = None
    id: str | None = None


def read_table(path: Path, name: str, id: str, columns: Columns, problems: Problems) -> Iterator[Source]:
    """The rows of a table as documents; a row without text, and a table without a column of it, is reported."""
    rows = _csv(path, name, problems) if path.suffix.lower() == ".csv" else _parquet(path, name, problems)
    used: dict[str, str | None] | None = None
    number, before = 0, problems.counts.total()
    for number, row in enumerate(rows, start=1):
        used = used or _roles(list(row), columns)
        text = used["text"]
        if text is None:
            want = columns.text or "|".join(KNOWN["text"])
            problems.add("no text column", name, f"columns {', '.join(row)}: want {want}, or say ?text=COLUMN")
            return
        source = _source(row, used, text, number, name, id, problems)
        if source is not None:
            yield source
    if not number and problems.counts.total() == before:
        problems.add("empty file", name, "has no rows")


def _roles(names: list[str], columns: Columns) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for role, said in columns._asdict().items():
        lower = {name.strip().lower(): name for name in reversed(names)}
        known = (said,) if said else KNOWN[role]
        found[role] = next((lower[name.lower()] for name in known if name.lower() in lower), None)
    return found


def _source(
    row: dict[str, Any], used: dict[str, str | None], text: str, number: int, name: str, id: str, problems: Problems
) -> Source | None:
    place = f"{name}: row {number}"
    body = paragraphs(as_text(row[text]).replace("\r\n", "\n"))
    if not body:
        problems.add("empty row", place, f"column {text!r} is empty")
        return None
    title, key = (as_text(row[column]) if (column := used[role]) else "" for role in ("title", "id"))
    own = key.strip() or str(number)
    metadata = of_record(row, [column for column in used.values() if column], place, problems)
    return Source(f"{id}:{own}", name, " ".join(title.split()), (Section((), body),), metadata)


def _csv(path: Path, name: str, problems: Problems) -> Iterator[dict[str, Any]]:
    """Rows by the names of the first line; the delimiter is told by it too."""
    try:
        text = decode(path.read_bytes(), name, problems)
    except OSError as error:
        problems.add("unreadable file", name, f"cannot be read ({error.strerror})")
        return
    if not text or not text.strip():
        return
    head = text[: text.find("\n")] if "\n" in text else text
    delimiter = max(",;\t|", key=head.count)
    was = csv.field_size_limit(sys.maxsize)
    try:
        rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter))
    except csv.Error as error:
        problems.add("damaged file", name, f"is no CSV ({error})")
        return
    finally:
        csv.field_size_limit(was)
    names = [name.strip() or f"column {at}" for at, name in enumerate(rows[0], start=1)]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) == len(names):
            yield dict(zip(names, (value or None for value in row), strict=True))
        elif row:
            problems.add("bad line", f"{name}: record {number}", f"{len(row)} fields where {len(names)} are right")


def _parquet(path: Path, name: str, problems: Problems) -> Iterator[dict[str, Any]]:
    parquet: Any = need("pyarrow.parquet", "tables")
    arrow: Any = need("pyarrow", "tables")
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (arrow.ArrowException, OSError) as error:
        problems.add("damaged file", name, f"is no readable Parquet file ({str(error).splitlines()[0]})")
