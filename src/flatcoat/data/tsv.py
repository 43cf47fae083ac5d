"""MS MARCO's tables: `collection.tsv`, `queries*.tsv`, `qrels*.tsv`, and triples by id or by text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flatcoat.columns import text_hash
from flatcoat.data.beir import read_qrels_tsv
from flatcoat.data.lines import find, text_lines
from flatcoat.data.problems import Problems
from flatcoat.data.store import StoreBuilder


def is_tsv(folder: Path) -> bool:
    """Whether a folder holds tables that `read_tsv` knows."""
    return find(folder, "collection.tsv") is not None or any(folder.glob("triples*.tsv*"))


def read_tsv(folder: Path, builder: StoreBuilder, problems: Problems) -> list[Path]:
    """Feed a folder of tables to a builder; give the files read.

    `queries.SPLIT.tsv` and `qrels.SPLIT.tsv` name their split (`queries.tsv`, `qrels.tsv`: test); triples are of the
    split train.
    """
    used: list[Path] = []
    collection = find(folder, "collection.tsv")
    if collection:
        used.append(collection)
        for place, parts in _rows(collection, (2, 3), problems):
            title = parts[1] if len(parts) == 3 else ""
            builder.add_document(parts[0], title, parts[-1], place)
    for path in sorted(folder.glob("queries*.tsv*")):
        used.append(path)
        for place, parts in _rows(path, (2,), problems):
            builder.ensure_query(parts[0], parts[1], place)
    for path in sorted(folder.glob("qrels*.tsv*")):
        used.append(path)
        read_qrels_tsv(path, _split(path), builder, problems)
    for path in sorted([*folder.glob("qidpidtriples*.tsv*"), *folder.glob("triples*.tsv*")]):
        used.append(path)
        read_triples(path, builder, problems)
    return used


def _split(path: Path) -> str:
    parts = path.name.removesuffix(".gz").removesuffix(".tsv").split(".", 1)
    return parts[1] if len(parts) == 2 else "test"


def _rows(path: Path, widths: tuple[int, ...], problems: Problems) -> Iterator[tuple[str, list[str]]]:
    for place, line in text_lines(path, problems):
        parts = line.split("\t")
        if len(parts) in widths:
            yield place, parts
        elif line.strip():
            want = " or ".join(map(str, widths))
            problems.add("bad line", place, f"{len(parts)} columns where {want}, split by tabs, are right")


def read_triples(path: Path, builder: StoreBuilder, problems: Problems) -> None:
    """Query, positive and negative a line: ids where every field is a known id, texts otherwise."""
    for place, (query, positive, negative) in _rows(path, (3,), problems):
        known = builder.queries.row(query) is not None and builder.documents.row(positive) is not None
        if not known:
            if " " not in query.strip() and " " not in positive.strip():
                problems.add("triple with unknown ids", place, f"{query!r} {positive!r}: not ids of this collection")
                continue
            query, positive, negative = _by_text(builder, place, query, positive, negative)
        builder.judge("train", query, positive, 1, place)
        builder.negative("train", query, negative, place)


def _by_text(builder: StoreBuilder, place: str, query: str, positive: str, negative: str) -> tuple[str, str, str]:
    query_id = f"q{text_hash(query):016x}"
    builder.ensure_query(query_id, query, place)
    ids = []
    for text in (positive, negative):
        ids.append(f"d{text_hash(text):016x}")
        builder.ensure_document(ids[-1], "", text, place)
    return query_id, ids[0], ids[1]
