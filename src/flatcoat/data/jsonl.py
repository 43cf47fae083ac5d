"""Training files of other tools, one query a line: Tevatron (v1, v2), FlagEmbedding, DPR.

The layout is told by the fields of the first line. Documents given as text get the id of their text's hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flatcoat.columns import text_hash
from flatcoat.data.lines import as_text, json_lines
from flatcoat.data.metadata import of_record
from flatcoat.data.problems import Problems
from flatcoat.data.store import StoreBuilder
from flatcoat.errors import FlatcoatError
from flatcoat.records import full_text

CORPUS_FIELDS = ("docid", "_id", "title", "text", "document_text")


class Passage(NamedTuple):
    """A document as such files give it; `text` None means the id alone. Of its metadata only an object of that name is read:
    further fields of a query's passages (scores, ranks) are of the pair.
    """

    id: str | None
    title: str
    text: str | None
    metadata: dict[str, Any] | None = None


class Group(NamedTuple):
    """One line: a query with its positives and negatives."""

    query_id: str | None
    query: str
    positives: list[Passage]
    negatives: list[Passage]


def _listed(value: Any) -> list[Any]:
    """A field's list; a text would be taken for the list of its letters."""
    if value is not None and not isinstance(value, list):
        raise TypeError(f"a {type(value).__name__} where a list is right")
    return value or []


def _given(passages: Any) -> list[Passage]:
    result = []
    for p in _listed(passages):
        if not isinstance(p, dict):
            raise TypeError(f"a {type(p).__name__} where an object with 'text' is right")
        id = p.get("docid", p.get("passage_id", p.get("id")))
        own = p["metadata"] if isinstance(p.get("metadata"), dict) else None
        result.append(
            Passage(None if id is None else as_text(id), as_text(p.get("title")), as_text(p.get("text")), own)
        )
    return result


def _tevatron(r: dict[str, Any]) -> Group:
    return Group(as_text(r["query_id"]), as_text(r["query"]), _given(r["positive_passages"]),
                 _given(r.get("negative_passages")))  # fmt: skip


def _tevatron2(r: dict[str, Any]) -> Group:
    sides = ([Passage(as_text(i), "", None) for i in _listed(r.get(k))]
             for k in ("positive_document_ids", "negative_document_ids"))  # fmt: skip
    return Group(as_text(r["query_id"]), as_text(r["query_text"]), *sides)


def _flag(r: dict[str, Any]) -> Group:
    sides = ([Passage(None, "", as_text(t)) for t in _listed(r.get(k))] for k in ("pos", "neg"))
    return Group(None, as_text(r["query"]), *sides)


def _dpr(r: dict[str, Any]) -> Group:
    negatives = _given(r.get("hard_negative_ctxs")) + _given(r.get("negative_ctxs"))
    return Group(None, as_text(r["question"]), _given(r["positive_ctxs"]), negatives)


LAYOUTS = {
    "tevatron": (("query_id", "query", "positive_passages"), _tevatron),
    "tevatron-v2": (("query_id", "query_text", "positive_document_ids"), _tevatron2),
    "flagembedding": (("query", "pos"), _flag),
    "dpr": (("question", "positive_ctxs"), _dpr),
}


def layout_of(record: dict[str, Any]) -> str | None:
    """The layout whose fields a record has."""
    return next((name for name, (keys, _) in LAYOUTS.items() if all(k in record for k in keys)), None)


def read_jsonl(path: Path, builder: StoreBuilder, problems: Problems) -> list[Path]:
    """Feed a training file (or DPR's JSON array) to a builder as the split train; give the files read.

    A `corpus.jsonl` beside Tevatron's v2 file is read first.

    Raises FlatcoatError on a record of no known layout.
    """
    used = [path]
    beside = path.with_name("corpus.jsonl")
    if beside.is_file() and beside != path:
        used.append(beside)
        for place, record in json_lines(beside, problems):
            id, text = record.get("docid", record.get("_id")), record.get("document_text", record.get("text"))
            if id is None or text is None:
                problems.add("missing field", place, "no docid and document_text")
                continue
            metadata = of_record(record, CORPUS_FIELDS, place, problems)
            builder.add_document(as_text(id), as_text(record.get("title")), as_text(text), place, metadata)
    parse = None
    for place, record in _records(path, problems):
        if parse is None:
            layout = layout_of(record)
            if layout is None:
                known = "; ".join(f"{name}: {', '.join(keys)}" for name, (keys, _) in LAYOUTS.items())
                raise FlatcoatError(f"{place}: fields {', '.join(record)} are of no layout known ({known})")
            parse = LAYOUTS[layout][1]
        try:
            group = parse(record)
        except (KeyError, TypeError) as error:
            problems.add("bad line", place, f"{error}: not like the file's first line")
            continue
        _add(group, builder, place)
    return used


def _records(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix != ".json":
        yield from json_lines(path, problems)
        return
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FlatcoatError(f"{path}: not valid JSON ({error})") from error
    for number, record in enumerate(records if isinstance(records, list) else [records], start=1):
        place = f"{path}: record {number}"
        if isinstance(record, dict):
            yield place, record
        else:
            problems.add("bad line", place, f"a JSON {type(record).__name__} where an object is right")


def _add(group: Group, builder: StoreBuilder, place: str) -> None:
    query_id = group.query_id or f"q{text_hash(group.query):016x}"
    builder.ensure_query(query_id, group.query, place)
    for passages, note in (
        (group.positives, lambda d: builder.judge("train", query_id, d, 1, place)),
        (group.negatives, lambda d: builder.negative("train", query_id, d, place)),
    ):
        for p in passages:
            doc_id = p.id or f"d{text_hash(full_text(p.title, p.text or '')):016x}"
            if p.text is not None:
                builder.ensure_document(doc_id, p.title, p.text, place, p.metadata)
            note(doc_id)
