"""CSV, TSV and Parquet files as documents, a row each; the column of the text is told by its name, or said.

A CSV file is held in memory as a whole, a Parquet file by parts.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flatcoat.data.formats import Section, Source, decode, document_id, paragraphs
from flatcoat.data.lines import as_text
from flatcoat.data.metadata import of_record
from flatcoat.data.problems import Problems
from flatcoat.errors import need

KNOWN = {
    "text": ("text", "contents", "content", "body", "document", "document_text", "passage", "abstract", "description", "answer"),
    "title": ("title", "name", "heading", "subject", "headline", "question"),
    "id": ("id", "_id", "docid", "doc_id", "document_id", "key"),
}  # fmt: skip
TABLES = frozenset({".csv", ".tsv", ".parquet"})
END = "end of the file"  # a record of its own behind the last, unless a quote is open


class Columns(NamedTuple):
    """Which column is what, where it is said; None leaves it to the names."""

    text: str | None = None
    title: str | None = None
    id: str | None = None


def read_table(path: Path, name: str, id: str, columns: Columns, problems: Problems) -> Iterator[Source]:
    """The rows of a table as documents; a row without text, and a table without a column of it, is reported."""
    rows = _parquet(path, name, problems) if path.suffix.lower() == ".parquet" else _csv(path, name, problems)
    used: dict[str, str | None] | None = None
    number, before = 0, problems.counts.total()
    for number, row in enumerate(rows, start=1):
        used = used or _roles(list(row), columns, name, problems)
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


def _roles(names: list[str], columns: Columns, place: str, problems: Problems) -> dict[str, str | None]:
    """The column of each role: what is said, else the first known name that no other role has; a wrong name is reported."""
    lower = {name.strip().lower(): name for name in reversed(names)}
    said = {role: lower.get(name.strip().lower()) for role, name in columns._asdict().items() if name}
    for role in ("title", "id"):
        if role in said and said[role] is None:
            wrong = f"{role}={getattr(columns, role)}: the columns are {', '.join(names)}"
            problems.add("no such column", place, wrong)
    free = {name: column for name, column in lower.items() if column not in said.values()}
    return {
        role: said[role] if role in said else next((free[name] for name in known if name in free), None)
        for role, known in KNOWN.items()
    }


def _source(
    row: dict[str, Any], used: dict[str, str | None], text: str, number: int, name: str, id: str, problems: Problems
) -> Source | None:
    place = f"{name}: row {number}"
    body = paragraphs(as_text(row[text]).replace("\r\n", "\n"))
    if not body:
        problems.add("empty row", place, f"column {text!r} is empty")
        return None
    title, key = (as_text(row[column]) if (column := used[role]) else "" for role in ("title", "id"))
    own = document_id(key.strip()) or str(number)
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
    rows = _records(re.sub(r"\A(?:[^\S\n]*\n)+", "", text), name, problems)
    if not rows:
        return
    names = [name.strip() or f"column {at}" for at, name in enumerate(rows[0], start=1)]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) == len(names):
            yield dict(zip(names, (value or None for value in row), strict=True))
        elif row:
            problems.add("bad line", f"{name}: record {number}", f"{len(row)} fields where {len(names)} are right")


def _records(text: str, name: str, problems: Problems) -> list[list[str]]:
    """The records of a CSV text; a quote that is never closed makes one field of all that is behind it, and is reported."""
    delimiter = max(",;\t|", key=text.partition("\n")[0].count)
    was = csv.field_size_limit(sys.maxsize)
    try:
        rows = list(csv.reader(io.StringIO(f"{text}\n{END}", newline=""), delimiter=delimiter))
    except csv.Error as error:
        problems.add("damaged file", name, f"is no CSV ({error})")
        return []
    finally:
        csv.field_size_limit(was)
    if rows[-1] == [END]:
        return rows[:-1]
    problems.add("open quote", f"{name}: record {len(rows)}", "a quote is never closed: all behind it is one field")
    rows[-1][-1] = rows[-1][-1].removesuffix(f"\n{END}")
    return rows


def _parquet(path: Path, name: str, problems: Problems) -> Iterator[dict[str, Any]]:
    parquet: Any = need("pyarrow.parquet", "tables")
    arrow: Any = need("pyarrow", "tables")
    try:
        at = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            try:
                rows = batch.to_pylist()
            except (ValueError, OverflowError):
                rows = _by_cell(batch, name, at, problems)
            yield from rows
            at += batch.num_rows
    except (arrow.ArrowException, OSError) as error:
        problems.add("damaged file", name, f"is no readable Parquet file ({str(error).splitlines()[0]})")


def _by_cell(batch: Any, name: str, before: int, problems: Problems) -> Iterator[dict[str, Any]]:
    """Rows of a part that Python cannot hold as a whole (bytes that are no UTF-8, a date past 9999): such values are left out."""
    for number in range(batch.num_rows):
        row: dict[str, Any] = {}
        for column, values in zip(batch.schema.names, batch.columns, strict=True):
            try:
                row[column] = values[number].as_py()
            except (ValueError, OverflowError) as error:
                row[column] = None
                place = f"{name}: row {before + number + 1}"
                problems.add("bad value", place, f"column {column!r} cannot be read ({type(error).__name__})")
        yield row
