"""The BEIR folder: `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv` (Thakur et al. 2021, arXiv 2104.08663)."""

from __future__ import annotations

from pathlib import Path

from flatcoat.data.lines import as_text, field, find, json_lines, text_lines, whole_number
from flatcoat.data.metadata import of_record
from flatcoat.data.problems import Problems
from flatcoat.data.store import StoreBuilder

FIELDS = ("_id", "id", "title", "text", "contents")


def is_beir(folder: Path) -> bool:
    """Whether a folder looks like one."""
    return find(folder, "corpus.jsonl") is not None


def read_beir(folder: Path, builder: StoreBuilder, problems: Problems) -> list[Path]:
    """Feed a BEIR folder to a builder; give the files read. What else a document's line says is its metadata."""
    corpus, queries = find(folder, "corpus.jsonl"), find(folder, "queries.jsonl")
    used = [path for path in (corpus, queries) if path]
    for place, record in json_lines(corpus, problems) if corpus else ():
        id, text = field(record, ("_id", "id"), place, problems), field(record, ("text", "contents"), place, problems)
        if id is not None and text is not None:
            metadata = of_record(record, FIELDS, place, problems)
            builder.add_document(id, as_text(record.get("title")), text, place, metadata)
    for place, record in json_lines(queries, problems) if queries else ():
        id, text = field(record, ("_id", "id"), place, problems), field(record, ("text",), place, problems)
        if id is not None and text is not None:
            builder.add_query(id, text, place)
    for path in sorted((folder / "qrels").glob("*.tsv")):
        read_qrels_tsv(path, path.stem, builder, problems)
        used.append(path)
    return used


def read_qrels_tsv(path: Path, split: str, builder: StoreBuilder, problems: Problems) -> None:
    """`query-id TAB corpus-id TAB score` with a header, or TREC's four columns."""
    for place, line in text_lines(path, problems):
        if not line.strip():
            continue
        parts = line.split("\t") if "\t" in line else line.split()
        if place.endswith(":1") and whole_number(parts[-1]) is None:
            continue  # the header
        if len(parts) == 4:
            parts = [parts[0], parts[2], parts[3]]
        grade = whole_number(parts[-1])
        if len(parts) != 3 or grade is None:
            problems.add("bad line", place, f"{line[:300]!r}: want query-id TAB corpus-id TAB whole number")
            continue
        builder.judge(split, parts[0], parts[1], grade, place)
