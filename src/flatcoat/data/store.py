"""The collection store: documents, queries, judgements and given negatives, memory-mapped and built once.

Every reader of a foreign layout feeds a `StoreBuilder`; everything else reads a `Collection`. Only ids are held in
memory while building. Layout: `documents/` and `queries/` (columns `ids`, `titles`, `texts` and a lookup; `documents/` has a
column `metadata`, a JSON object or nothing a row, where any document carries some),
`judgements/SPLIT.npy` (int64 [n, 3]: query row, document row, grade), `judgements/SPLIT.unknown.json` (judgements of
documents that the corpus lacks: they still count against recall, as trec_eval has it), `judgements/SPLIT.shown` (a column, where
training is to see other text than the document's: a text or nothing a judgement), `negatives/SPLIT.npy` (int64 [n, 2]).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from flatcoat.arrays import read_array, taking_apart
from flatcoat.columns import Column, ColumnWriter, Lookup, text_hash
from flatcoat.data.metadata import as_json
from flatcoat.data.problems import Problems
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import read_manifest, same_sums, write_manifest
from flatcoat.records import full_text

KIND, VERSION = "flatcoat-collection", 1

T = TypeVar("T")


class TableBuilder:
    """Writes one table of texts; refuses what could not be found again."""

    def __init__(self, folder: Path, noun: str, problems: Problems):
        folder.mkdir(parents=True)
        self.folder, self.noun, self.problems = folder, noun, problems
        self.columns = {name: ColumnWriter(folder, name) for name in ("ids", "titles", "texts")}
        self.hashes = array("q")
        self.row_of_hash: dict[int, int] = {}
        self.content = hashlib.sha256()
        self.metadata: ColumnWriter | None = None  # from the first row that has some
        self.fields: set[str] = set()

    def add(self, id: str, title: str, text: str, where: str, metadata: Mapping[str, Any] | None = None) -> int | None:
        """Append a text and give its row; None where it is a duplicate or has no usable id or text."""
        if not id or any(ord(c) < 32 for c in id):
            self.problems.add(f"bad {self.noun} id", where, f"id {id!r} is empty or has control characters")
            return None
        if not full_text(title, text).strip():
            self.problems.add(f"empty {self.noun}", where, f"{self.noun} {id!r} has no text")
            if self.noun == "query":
                return None
        hashed = text_hash(id)
        known = self.row_of_hash.get(hashed)
        if known is not None and self.columns["ids"].read(known) == id:
            self.problems.add(
                f"duplicate {self.noun} id", where, f"{self.noun} id {id!r} came before; the first is kept"
            )
            return None
        row = len(self.hashes)
        record = (id, title, text)
        self.content.update(json.dumps(record).encode())
        for column, value in zip(self.columns.values(), record, strict=True):
            column.append(value)
        self._carry(row, metadata, where)
        self.hashes.append(hashed)
        self.row_of_hash.setdefault(hashed, row)
        return row

    def _carry(self, row: int, metadata: Mapping[str, Any] | None, where: str) -> None:
        try:
            said = _clean(as_json(metadata))
        except RecursionError:
            self.problems.add("bad metadata", where, "nested too deep; left out")
            said = ""
        if said:
            self.content.update(said.encode())
            self.fields.update(json.loads(said))
            if self.metadata is None:
                self.metadata = ColumnWriter(self.folder, "metadata")
                for _ in range(row):
                    self.metadata.append("")
        if self.metadata is not None:
            self.metadata.append(said)

    def row(self, id: str) -> int | None:
        """The row of an id added before."""
        row = self.row_of_hash.get(text_hash(id))
        return row if row is not None and self.columns["ids"].read(row) == id else None

    def close(self) -> str:
        """Finish the files; give the content's sha256."""
        for column in (*self.columns.values(), *([self.metadata] if self.metadata else [])):
            column.close()
        Lookup.write(self.folder, "lookup", self.hashes)
        return self.content.hexdigest()


class StoreBuilder:
    """What a reader feeds. `where` is always `FILE:LINE`."""

    def __init__(self, folder: Path, problems: Problems):
        self.folder, self.problems = folder, problems
        self.documents = TableBuilder(folder / "documents", "document", problems)
        self.queries = TableBuilder(folder / "queries", "query", problems)
        self.judgements: dict[str, array[int]] = {}
        self.unknown: dict[str, list[tuple[int, str, int]]] = {}
        self.shown: dict[str, dict[int, str]] = {}  # by split and number of the judgement
        self.negatives: dict[str, array[int]] = {}
        self.made: dict[str, Any] = {}  # how queries were made, where nobody wrote them

    def add_document(
        self, id: str, title: str, text: str, where: str, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Append a document, and what it carries beside its text."""
        self.documents.add(_clean(id), _clean(title), _clean(text), where, metadata)

    def add_query(self, id: str, text: str, where: str) -> None:
        """Append a query."""
        self.queries.add(_clean(id), "", _clean(text), where)

    def ensure_document(
        self, id: str, title: str, text: str, where: str, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Append a document unless its id is already there (layouts that repeat documents in each line)."""
        if self.documents.row(id) is None:
            self.add_document(id, title, text, where, metadata)

    def ensure_query(self, id: str, text: str, where: str) -> None:
        """Append a query unless its id is already there."""
        if self.queries.row(id) is None:
            self.add_query(id, text, where)

    def judge(self, split: str, query_id: str, doc_id: str, grade: int, where: str, shown: str | None = None) -> None:
        """Note a judgement; unknown ids are reported, those of documents still counted.

        `shown` is what training is to see in place of the document's text.
        """
        query = self.queries.row(query_id)
        if query is None:
            self.problems.add("judgement of an unknown query", where, f"query {query_id!r} is not among the queries")
            return
        document = self.documents.row(doc_id)
        if document is None:
            self.problems.add("judgement of an unknown document", where, f"document {doc_id!r} is not in the corpus")
            self.unknown.setdefault(split, []).append((query, doc_id, grade))
            return
        judged = self.judgements.setdefault(split, array("q"))
        if shown is not None:
            self.shown.setdefault(split, {})[len(judged) // 3] = _clean(shown)
        judged.extend((query, document, grade))

    def negative(self, split: str, query_id: str, doc_id: str, where: str) -> None:
        """Note a given negative."""
        query, document = self.queries.row(query_id), self.documents.row(doc_id)
        if query is None or document is None:
            missing = f"query {query_id!r}" if query is None else f"document {doc_id!r}"
            self.problems.add("negative with an unknown id", where, f"{missing} is not known")
            return
        self.negatives.setdefault(split, array("q")).extend((query, document))

    def close(self, source: dict[str, Any]) -> None:
        """Write what remains, and the manifest. Raises FlatcoatError where there are no documents."""
        if not len(self.documents.hashes):
            wrong = "".join(f"; {line}" for line in self.problems.lines())
            raise FlatcoatError(
                f"{source.get('spec')}: no documents were found; a collection needs at least one{wrong}"
            )
        for split in (*self.judgements, *self.unknown, *self.negatives):
            _check_split(split)
        content = {"documents": self.documents.close(), "queries": self.queries.close()}
        for kind, table, width in (("judgements", self.judgements, 3), ("negatives", self.negatives, 2)):
            (self.folder / kind).mkdir(exist_ok=True)
            for split, flat in table.items():
                np.save(self.folder / kind / f"{split}.npy", np.array(flat, dtype=np.int64).reshape(-1, width))
        for split, texts in self.shown.items():
            column = ColumnWriter(self.folder / "judgements", f"{split}.shown")
            for number in range(len(self.judgements[split]) // 3):
                column.append(texts.get(number, ""))
            column.close()
        for split, rows in self.unknown.items():
            text = json.dumps(rows, ensure_ascii=False)
            (self.folder / "judgements" / f"{split}.unknown.json").write_text(text, encoding="utf-8")
        facts = {
            "source": source,
            "documents": len(self.documents.hashes),
            "queries": len(self.queries.hashes),
            "splits": sorted(set(self.judgements) | set(self.unknown)),
            "content": content,
            "problems": self.problems.summary(),
            **({"fields": sorted(self.documents.fields)} if self.documents.fields else {}),
            **({"made": self.made} if self.made else {}),
        }
        write_manifest(self.folder, KIND, VERSION, facts)


def _clean(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8: they become U+FFFD."""
    return text.encode("utf-8", "replace").decode("utf-8") if any("\ud800" <= c <= "\udfff" for c in text) else text


def _check_split(split: str) -> None:
    if not re.fullmatch(r"[\w.\-]+", split) or split.startswith("."):
        raise FlatcoatError(f"split name {split!r} is not usable as a file name")


class TextTable:
    """Texts of a store, by row or id."""

    def __init__(self, folder: Path, content: str, fields: Sequence[str] = ()):
        self.ids, self.titles, self.bodies = (Column(folder, name) for name in ("ids", "titles", "texts"))
        self._metadata = Column(folder, "metadata") if fields else None
        self._fields = list(fields)
        self.lookup = Lookup(folder, "lookup", self.ids)
        self.fingerprint = content

    def __len__(self) -> int:
        return len(self.ids)

    def text(self, row: int) -> str:
        """Title and text of a row, joined by `full_text`."""
        return full_text(self.titles[row], self.bodies[row])

    @property
    def has_metadata(self) -> bool:
        """Whether any row carries metadata."""
        return self._metadata is not None

    def fields(self) -> list[str]:
        """The names of metadata's fields over all rows, sorted."""
        return list(self._fields)

    def metadata(self, row: int) -> dict[str, Any]:
        """What a row carries beside its text; {} where that is nothing."""
        said = self._metadata[row] if self._metadata is not None else ""
        return json.loads(said) if said else {}

    def texts(self, rows: Sequence[int] | np.ndarray | None = None) -> Sequence[str]:
        """The joined texts of `rows`, in that order; of all rows as a lazy sequence where `rows` is None."""
        return _Texts(self) if rows is None else [self.text(int(row)) for row in rows]


class _Texts(Sequence[str]):
    def __init__(self, table: TextTable):
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.table.text(row) for row in range(*index.indices(len(self)))]
        return self.table.text(index)


@dataclass(frozen=True)
class Collection:
    """An opened store."""

    path: Path
    facts: dict[str, Any]
    verify: bool = True

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Collection:
        """Open a store folder. Raises FlatcoatError where it is not one, or is damaged."""
        facts = read_manifest(path, KIND, VERSION, verify=verify)
        with taking_apart(path):
            _ = facts["source"]["spec"], facts["problems"].items(), list(facts["splits"])
            _ = facts["content"]["documents"], facts["content"]["queries"]
        return cls(path, facts, verify)

    @cached_property
    def documents(self) -> TextTable:
        """The corpus."""
        made = TextTable(self.path / "documents", self.facts["content"]["documents"], self.facts.get("fields", ()))
        return self._still("documents/", made)

    @cached_property
    def queries(self) -> TextTable:
        """The queries of every split."""
        return self._still("queries/", TextTable(self.path / "queries", self.facts["content"]["queries"]))

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have judgements."""
        return self.facts["splits"]

    def judgements(self, split: str) -> np.ndarray:
        """Judgements of documents in the corpus, int64 [n, 3]: query row, document row, grade. Raises Misuse on a split that it has not."""
        if split not in self.splits:
            have = ", ".join(self.splits) or "none"
            raise Misuse(f"{self.facts['source'].get('spec')}: no split {split!r}; it has {have}")
        return self._array(f"judgements/{split}.npy", 3)

    def shown(self, split: str) -> Sequence[str] | None:
        """What training sees of each judgement's document in place of its text, '' where that is the text itself; None where
        that is so for all.
        """
        folder = self.path / "judgements"
        return Column(folder, f"{split}.shown") if (folder / f"{split}.shown.bin").is_file() else None

    def negatives(self, split: str) -> np.ndarray:
        """Given negatives, int64 [n, 2]: query row, document row."""
        return self._array(f"negatives/{split}.npy", 2)

    def _array(self, name: str, width: int) -> np.ndarray:
        if name not in self.facts["files"]:
            return np.zeros((0, width), np.int64)
        found = read_array(self.path / name)
        if found.ndim != 2 or found.shape[1] != width or found.dtype != np.int64:
            raise FlatcoatError(f"{self.path / name}: {found.dtype}{list(found.shape)}; want int64 [n, {width}]")
        return self._still(name, found)

    def _still(self, begins: str, made: T) -> T:
        """What was opened just now, if its files are those that the manifest lists; another process may have replaced them."""
        if self.verify:
            listed = {name: said["sha256"] for name, said in self.facts["files"].items() if name.startswith(begins)}
            same_sums(self.path, listed, "the collection was read anew meanwhile; run again")
        return made

    def query_rows(self, split: str) -> np.ndarray:
        """Rows of the split's queries, rising."""
        unknown = np.array([row for row, _, _ in self._unknown(split)], dtype=np.int64)
        return np.unique(np.concatenate([self.judgements(split)[:, 0], unknown]))

    def _unknown(self, split: str) -> list[tuple[int, str, int]]:
        path = self.path / "judgements" / f"{split}.unknown.json"
        return [tuple(row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []

    def qrels(self, split: str) -> dict[str, dict[str, int]]:
        """The split's judgements by id, those of unknown documents among them."""
        result: dict[str, dict[str, int]] = {}
        for query, document, grade in self.judgements(split).tolist():
            result.setdefault(self.queries.ids[query], {})[self.documents.ids[document]] = grade
        for query, doc_id, grade in self._unknown(split):
            result.setdefault(self.queries.ids[query], {})[doc_id] = grade
        return result

    def report(self) -> None:
        """Say on stderr what was wrong with the source."""
        for kind, facts in self.facts["problems"].items():
            sys.stderr.write(f"flatcoat: {facts['count']} × {kind}, for example {facts['examples'][0]}\n")
