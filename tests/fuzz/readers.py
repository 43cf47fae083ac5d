"""Every reader of foreign bytes, with a valid example of what it reads: the table that fuzzing goes by."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import examples as e
from law import Files, Reader, attempt

__all__ = ["READERS", "Files", "Reader", "attempt"]

MODEL_WORDS = (
    b'"../../x"',
    b'"/etc"',
    b"null",
    b"[]",
    b"{}",
    b"-1",
    b"1e400",
    b"10000000000000",
    b'"auto_map"',
    b'"type"',
    b'"path"',
)
DENSE = ("config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json",
         "flatcoat.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")  # fmt: skip

READERS = {
    reader.name: reader
    for reader in (
        Reader(
            "beir",
            e.beir,
            ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"),
            e.store(str),
            (b'"metadata"', "²".encode(), b"--1"),
        ),
        Reader("tables", e.tables, tuple(e.tables()), e.store(str), (b"\t", b"--1", "²".encode())),
        *(
            Reader(name, e.training(name), ("train.jsonl",), e.store(lambda f: f"{f}/train.jsonl"))
            for name in e.LAYOUTS
        ),
        Reader(
            "array",
            lambda: {"train.json": json.dumps([e.LAYOUTS["dpr"]]).encode()},
            ("train.json",),
            e.store(lambda f: f"{f}/train.json"),
        ),
        Reader("parquet", e.parquet_rows, ("rows.parquet",), e.store(lambda f: f"{f}/rows.parquet")),
        Reader(
            "html",
            e.documents("a.html", e.PAGE),
            ("a.html",),
            e.store(lambda f: f"files:{f}"),
            (b"<nav", b"</main>", b"<!--", b"&#", b"charset="),
        ),
        Reader(
            "markdown",
            e.documents("a.md", e.MARKDOWN),
            ("a.md",),
            e.store(lambda f: f"files:{f}"),
            (b"---\n", b"!!python/name:os.x", b"&a *a", b"[]("),
        ),
        Reader(
            "rst", e.documents("a.rst", e.RST), ("a.rst",), e.store(lambda f: f"files:{f}"), (b"====", b".. ", b"::")
        ),
        Reader(
            "pdf",
            e.documents("a.pdf", e.PDF),
            ("a.pdf",),
            e.store(lambda f: f"files:{f}"),
            (b"/Kids[2 0 R]", b"/Filter/FlateDecode", b"9999999999", b"<<"),
        ),
        Reader(
            "csv",
            e.documents("a.csv", b'id,title,text\n1,a,"one"\n2,b,two\n'),
            ("a.csv",),
            e.store(lambda f: f"files:{f}"),
            (b'"', b";", b"\r"),
        ),
        Reader("documents parquet", e.parquet_rows, ("rows.parquet",), e.store(lambda f: f"files:{f}")),
        Reader(
            "run",
            lambda: {"x.trec": b"q1 Q0 d1 1 2.5 t\nq1 Q0 d2 2 1e-3 t\nq2 Q0 d1 1 nan t\n"},
            ("x.trec",),
            e.read_run,
            (b"nan", b"1e400", b"inf", b"1_0"),
        ),
        Reader(
            "qrels",
            lambda: {"x.qrels": b"q1 0 d1 1\nq1 0 d2 -1\nq2\t0\td 1\t3\n"},
            ("x.qrels",),
            e.read_qrels,
            ("²".encode(), b"9" * 5000, b"--1"),
        ),
        Reader("ciff", e.ciff, ("x.ciff",), e.read_ciff, (b"\xff" * 9 + b"\x01", b"\x80")),
        Reader(
            "sparse jsonl",
            lambda: {
                "x.jsonl": e.jsonl({"id": "a", "contents": "", "vector": {"x": 3, "y": 10}}, {"id": "b", "vector": {}})
            },
            ("x.jsonl",),
            e.read_anserini,
            (b"1e400", b"9" * 400, b"9" * 5000, b"[" * 3000, b"NaN", b"1e-300"),
        ),
        Reader(
            "vectors",
            e.golden("vectors-1"),
            ("manifest.json", "vectors.npy", "ids.txt"),
            e.opens("vectors", "VectorFolder"),
        ),
        Reader(
            "sparse vectors",
            e.golden("sparse-1"),
            ("manifest.json", "start.npy", "terms.npy", "weights.npy", "ids.txt", "vocabulary.json"),
            e.opens("sparse_vectors", "SparseFolder"),
        ),
        Reader(
            "several vectors",
            e.golden("multi-1"),
            ("manifest.json", "start.npy", "vectors.npy", "ids.txt"),
            e.opens("multi_vectors", "MultiFolder"),
        ),
        *(
            Reader(f"index {kind}", e.golden(f"index-{kind}-1"), broken, e.open_index)
            for kind, broken in {
                "bm25": (
                    "manifest.json",
                    "bm25.json",
                    "params.index.json",
                    "vocab.index.json",
                    "data.csc.index.npy",
                    "indptr.csc.index.npy",
                    "ids.txt",
                ),
                "scan": ("manifest.json", "vectors.npy", "ids.txt"),
                "inverted": ("manifest.json", "inverted.json", "segment0-base.npy", "segment0-words.npy", "ids.txt"),
                "multivector": ("manifest.json", "start.npy", "cells.npy", "offsets.npy", "vectors.npy"),
            }.items()
        ),
        Reader(
            "collection",
            e.golden("collection-1"),
            (
                "manifest.json",
                "judgements/dev.npy",
                "documents/ids.offsets.npy",
                "documents/texts.bin",
                "documents/lookup.hashes.npy",
            ),
            e.open_collection,
            resealed=False,
        ),
        Reader(
            "engine",
            lambda: {"manifest.json": json.dumps(e.ENGINE).encode(), "ids.txt": b"a\n"},
            ("manifest.json", "ids.txt"),
            e.addressed,
        ),
        Reader(
            "recipe",
            lambda: {"x.toml": (Path(__file__).parents[2] / "recipes" / "dpr.toml").read_bytes()},
            ("x.toml",),
            e.recipe,
            (b"[" * 3000, b"1e400", b"nan", b"[[also]]\n", b"[[before]]\n", b"9" * 5000),
        ),
        Reader("journal", e.journal, ("journal",), e.follow),
        Reader(
            "keys",
            lambda: {"keys.toml": b'read = ["sha256:' + b"0" * 64 + b'"]\nwrite = []\n'},
            ("keys.toml",),
            e.keys,
            (b"[" * 3000,),
        ),
        Reader(
            "teacher scores",
            lambda: {"x.jsonl": e.jsonl({"query_id": "q1", "document_ids": ["d1", "d2"], "scores": [1, 0.5]})},
            ("x.jsonl",),
            e.teacher,
            (b"1e400", b"true", b"9" * 400),
            True,
        ),
        Reader(
            "negatives",
            lambda: {"x.jsonl": e.jsonl({"query_id": "q1", "negatives": ["d1", "d2"], "scores": [1, 0.5]})},
            ("x.jsonl",),
            e.negatives,
            (b"null",),
            True,
        ),
        Reader("dense model", e.checkpoint("dense"), DENSE, e.load_any, MODEL_WORDS, True),
        Reader(
            "sparse model",
            e.checkpoint("sparse"),
            ("config.json", "modules.json", "1_SpladePooling/config.json", "flatcoat.json", "model.safetensors"),
            e.load_any,
            MODEL_WORDS,
            True,
        ),
        Reader(
            "lookup model",
            e.checkpoint("sparse lookup"),
            (
                "router_config.json",
                "modules.json",
                "flatcoat.json",
                "query_0_SparseStaticEmbedding/config.json",
                "query_0_SparseStaticEmbedding/model.safetensors",
            ),
            e.load_any,
            MODEL_WORDS,
            True,
        ),
        Reader(
            "late model",
            e.checkpoint("late"),
            (
                "config.json",
                "modules.json",
                "1_Dense/config.json",
                "1_Dense/model.safetensors",
                "config_sentence_transformers.json",
                "tokenizer_config.json",
            ),
            e.load_any,
            MODEL_WORDS,
            True,
        ),
        Reader(
            "cross model",
            e.checkpoint("cross"),
            ("config.json", "modules.json", "config_sentence_transformers.json", "flatcoat.json", "tokenizer.json"),
            e.load_any,
            MODEL_WORDS,
            True,
        ),
    )
}
