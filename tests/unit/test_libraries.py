"""Readers through libraries that are not installed here run against stand-ins of the same interface."""

from __future__ import annotations

import sys
from types import SimpleNamespace as Of

import pytest

from flatcoat.data.collection import build_store
from flatcoat.errors import FlatcoatError, Misuse


def test_ir_datasets(tmp_path, monkeypatch):
    data = Of(
        docs_iter=lambda: iter([Of(doc_id="d", title="T", text="x"), Of(doc_id="e", default_text=lambda: "y")]),
        queries_iter=lambda: iter([Of(query_id="q", text="what")]),
        qrels_iter=lambda: iter([Of(query_id="q", doc_id="e", relevance=2)]),
        has_qrels=lambda: True,
    )
    monkeypatch.setitem(sys.modules, "ir_datasets", Of(load=lambda id: {"beir/x/dev": data}[id]))
    collection = build_store("ir_datasets:beir/x/dev", tmp_path / "s")
    assert collection.qrels("dev") == {"q": {"e": 2}} and list(collection.documents.texts()) == ["T x", "y"]
    with pytest.raises(FlatcoatError, match="knows no such id"):
        build_store("ir_datasets:nothing", tmp_path / "t")


def test_hugging_face_datasets(tmp_path, monkeypatch):
    class Rows(list):
        @property
        def features(self):
            return {"question": None, "answer": None}

    rows = Rows([{"question": "what", "answer": "yes"}])
    monkeypatch.setitem(sys.modules, "datasets", Of(load_dataset=lambda name, split, streaming: rows))
    assert len(build_store("hf:some/pairs", tmp_path / "s").judgements("train")) == 1


@pytest.mark.parametrize(
    ("spec", "module", "extra"), [("ir_datasets:x", "ir_datasets", "hub"), ("hf:x", "datasets", "hub")]
)
def test_an_absent_library_names_its_extra(tmp_path, monkeypatch, spec, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Misuse, match=rf"flatcoat\[{extra}\]"):
        build_store(spec, tmp_path / "s")
