"""Valid examples of what each reader reads, and how it is called; `readers.py` puts them together."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from law import Files, unsealed


def folder_of(write: Callable[[Path], object]) -> Files:
    with tempfile.TemporaryDirectory() as place:
        write(Path(place))
        return {str(p.relative_to(place)): p.read_bytes() for p in sorted(Path(place).rglob("*")) if p.is_file()}


def golden(name: str) -> Callable[[], Files]:
    root = Path(__file__).parents[1] / "golden" / name
    return lambda: {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def jsonl(*records: object) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


# --- collections ---------------------------------------------------------------------------------------------------------------


def store(spec: Callable[[Path], str]) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from flatcoat.data.collection import build_store

        with tempfile.TemporaryDirectory() as place:
            opened = build_store(spec(folder), Path(place) / "store")
            for table in (opened.documents, opened.queries):
                for row in range(len(table)):
                    table.text(row)
                    table.metadata(row)
                    assert table.lookup.row(table.ids[row]) == row
            return [opened.qrels(split) for split in opened.splits]

    return read


def beir() -> Files:
    return {
        "corpus.jsonl": jsonl({"_id": "d1", "title": "T", "text": "one", "metadata": {"year": 2001, "tags": ["a", "b"]}},
                               {"_id": "d2", "title": "", "text": "two", "lang": "en"}),
        "queries.jsonl": jsonl({"_id": "q1", "text": "which"}, {"_id": "q2", "text": "why"}),
        "qrels/test.tsv": b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\n",
    }  # fmt: skip


def tables() -> Files:
    return {
        "collection.tsv": b"d1\tone\nd2\tTitle\ttwo\n",
        "queries.dev.tsv": b"q1\twhich one\nq2\twhy two\n",
        "qrels.dev.tsv": b"q1\t0\td1\t1\nq2\t0\td2\t1\n",
        "triples.train.tsv": b"q1\td1\td2\nwhich one\tone text\tother text\n",
    }


def passage(name: str) -> dict[str, object]:
    return {"docid": name, "title": "t", "text": f"text of {name}", "metadata": {"a": 1}}


LAYOUTS = {
    "tevatron": {"query_id": "q", "query": "w", "positive_passages": [passage("a")], "negative_passages": [passage("b")]},
    "tevatron2": {"query_id": "q", "query_text": "w", "positive_document_ids": ["a"], "negative_document_ids": ["b"]},
    "flag": {"query": "w", "pos": ["one"], "neg": ["two", "three"]},
    "dpr": {"question": "w", "positive_ctxs": [passage("a")], "hard_negative_ctxs": [passage("b")], "negative_ctxs": []},
}  # fmt: skip


def training(layout: str) -> Callable[[], Files]:
    beside = (
        {"corpus.jsonl": jsonl({"docid": "a", "text": "x"}, {"docid": "b", "text": "y"})}
        if layout == "tevatron2"
        else {}
    )
    return lambda: {"train.jsonl": jsonl(LAYOUTS[layout], LAYOUTS[layout]), **beside}


def parquet_rows() -> Files:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"id": ["a", "b"], "text": ["one", "two"], "n": [1, 2]})
    return folder_of(lambda folder: parquet.write_table(table, folder / "rows.parquet"))


PAGE = b"<!doctype html><title>T</title><body><nav>n</nav><main><h1>One</h1><p>a &amp; b<h2>Two</h2><pre>c\n</pre></main><table><tr><td>x"
MARKDOWN = (
    b"---\ntitle: T\ntags: [a, b]\ndate: 2020-01-02\n---\n# One\n\ntext *of* `it`\n\n## Two\n\n* a\n* b\n\n"
    b"| a | b |\n|---|---|\n| c | d |\n"
)
RST = b"=====\nTitle\n=====\n\ntext of :ref:`it <x>`\n\nTwo\n---\n\n.. note:: a\n   b\n\n.. code::\n\n   c\n"
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>endobj\n"
    b"4 0 obj<</Length 33>>stream\nBT /F 9 Tf 9 9 Td (words here) Tj ET\nendstream endobj\n"
    b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\ntrailer<</Root 1 0 R/Info<</Title(A title)>>>>\n%%EOF\n"
)


def documents(name: str, data: bytes) -> Callable[[], Files]:
    return lambda: {name: data, "other.txt": b"Another document.\n\nIt has two paragraphs.\n"}


# --- runs, vectors, indexes -----------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> object:
    from flatcoat.data.trec import format_run, read_run

    found = read_run(folder / "x.trec")
    assert format_run(found) is not None
    return found


def read_qrels(folder: Path) -> object:
    from flatcoat.data.trec import read_qrels

    return read_qrels(folder / "x.qrels")


def ciff() -> Files:
    from flatcoat.index.ciff import write_ciff

    return folder_of(lambda folder: write_ciff(folder / "x.ciff", sparse_vectors(), ["a", "b"], ["x", "y", "ü"]))


def sparse_vectors():
    import numpy as np

    from flatcoat.representations import Sparse

    return Sparse(np.array([0, 2, 3], np.int64), np.array([0, 2, 1], np.int32), np.array([1, 2, 0.5], np.float32), 3)


def read_ciff(folder: Path) -> object:
    from flatcoat.index.ciff import read_ciff

    return read_ciff(folder / "x.ciff")


def read_anserini(folder: Path) -> object:
    from flatcoat.index.sparse_jsonl import read_anserini

    return read_anserini(folder / "x.jsonl")


def opens(module: str, name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        import importlib

        opened = getattr(importlib.import_module(f"flatcoat.{module}"), name).open(folder)
        return opened.ids

    return read


def open_index(folder: Path) -> object:
    from flatcoat.index.store import open_index

    return open_index(folder).ids


def open_collection(folder: Path) -> object:
    from flatcoat.data.store import Collection

    opened = Collection.open(folder)
    opened.documents.texts([0])
    return [opened.qrels(split) for split in opened.splits], [opened.negatives(split) for split in opened.splits]


ENGINE = {"format": "flatcoat-index", "version": 1, "kind": "qdrant", "engine": "qdrant", "url": "http://127.0.0.1:1", "name": "x",
          "schema": 1, "settings": {}, "field": "dense", "fields": {"dense": {"kind": "dense", "width": 4, "of": {}}}, "items": 1,
          "deleted": 0, "files": {"ids.txt": {"bytes": 2, "sha256": hashlib.sha256(b"a\n").hexdigest()}}}  # fmt: skip


def addressed(folder: Path) -> object:
    """What an engine's folder says, up to the connection."""
    from flatcoat.index.remote.store import said_of

    return said_of(folder)


# --- other files ------------------------------------------------------------------------------------------------------------------


def recipe(folder: Path) -> object:
    from flatcoat.app.recipe import format_recipe, load_recipe, parse_recipe

    found = load_recipe(folder / "x.toml")
    import tomllib

    assert parse_recipe(tomllib.loads(format_recipe(found)), "again") == found
    return found


def journal() -> Files:
    import numpy as np

    from flatcoat.representations import Dense
    from flatcoat.search.journal import Document, Journal, Record

    def write(folder: Path) -> None:
        journal = Journal(folder, {"of": "x"})
        with journal.writing():
            list(journal.follow()[1])
            added = (Document("a", "t", "text", {"y": 1}),)
            journal.append(Record(1, added, (), {"m": Dense(np.ones((1, 2), np.float32)), "s": sparse_vectors()[:1]}))
            journal.append(Record(2, (), ("a",), {}))

    return folder_of(write)


def follow(folder: Path) -> object:
    from flatcoat.search.journal import Journal

    journal = Journal(folder, {"of": "x"})
    try:
        return list(journal.follow()[1])
    finally:
        journal.close()


def keys(folder: Path) -> object:
    from flatcoat.app.serve.keys import read_keys

    return read_keys(folder / "keys.toml")


class _Lookup:
    def row(self, id: str) -> int | None:
        return {"q1": 0, "d1": 0, "d2": 1}.get(id)


class _Table:
    lookup = _Lookup()


def known():
    """A collection of which only ids are asked."""
    from flatcoat.data.store import Collection

    made = type("Known", (Collection,), {"queries": _Table(), "documents": _Table()})
    return made(Path(), {})


def teacher(folder: Path) -> object:
    from flatcoat.training.teacher import read_teacher

    return read_teacher(folder / "x.jsonl", known())


def negatives(folder: Path) -> object:
    from flatcoat.app.samplers import read_negatives

    return read_negatives(folder / "x.jsonl", known())


# --- checkpoints ----------------------------------------------------------------------------------------------------------------------


def checkpoint(kind: str) -> Callable[[], Files]:
    def make() -> Files:
        def write(folder: Path) -> None:
            from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
            from flatcoat.models.cross_checkpoint import load_cross, save_cross
            from flatcoat.models.load import load_model, save_model
            from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade, save_splade
            from flatcoat.testing.tiny import write_tiny, write_tiny_mlm

            plain = folder / "plain"
            (write_tiny_mlm if kind.startswith("sparse") else write_tiny)(plain)
            if kind == "dense":
                save_model(load_model(str(plain)), folder / "x")
            elif kind == "late":
                save_late(load_late(str(plain), LateOverrides(dim=8)), folder / "x")
            elif kind == "cross":
                save_cross(load_cross(str(plain)), folder / "x")
            else:
                queries = "lookup" if kind.endswith("lookup") else None
                save_splade(load_splade(str(plain), SparseOverrides(queries=queries)), folder / "x")
            for path in [*(folder / "x").iterdir()]:
                path.rename(folder / path.name)
            shutil.rmtree(plain)
            (folder / "x").rmdir()

        return unsealed(folder_of(write))

    return make


def load_any(folder: Path) -> object:
    from flatcoat.models.load import load_model

    return load_model(str(folder))
