"""A run's folder, opened to be served: its retrievers are those that `flatcoat search` has, and what is added is found."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from flatcoat.app.opening import model_of, of_run
from flatcoat.app.recipe import load_recipe
from flatcoat.app.run import run_recipe
from flatcoat.app.serve import open as module
from flatcoat.app.serve.open import open_served, rerankers_of, retrievers_of
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import sealed, write_json
from flatcoat.index.store import open_index
from flatcoat.records import silent
from flatcoat.search import align
from flatcoat.search.journal import Document
from flatcoat.search.retriever import Asked

DENSE = """
[collection]
source = "{toy}"
dev = "dev"
[model]
start = "{tiny}"
document_length = 20
query_length = 10
[[indexes]]
kind = "hnsw"
[training]
steps = 2
batch = 4
[cascade]
late = true
late_dim = 8
cross = "{tiny}"
cross_length = 40
[evaluation]
rerank = 3
[[also]]
name = "splade"
recipe = "{other}"
"""
SPARSE = """
[collection]
source = "{toy}"
dev = "dev"
[model]
kind = "sparse"
start = "{mlm}"
document_length = 18
[[indexes]]
kind = "inverted"
[training]
steps = 0
[evaluation]
rerank = 3
"""


@pytest.fixture(scope="module")
def run(tiny, tiny_mlm, toy, tmp_path_factory) -> Path:
    """A run of a dense model with late interaction and a cross-encoder beside it, and a sparse companion."""
    home = tmp_path_factory.mktemp("served")
    (home / "sparse.toml").write_text(SPARSE.format(toy=toy, mlm=tiny_mlm))
    (home / "dense.toml").write_text(DENSE.format(toy=toy, tiny=tiny, other=home / "sparse.toml"))
    run_recipe(load_recipe(home / "dense.toml"), home / "run", track=silent, note=lambda text: None)
    return home / "run"


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    return open_served(run, journal=tmp_path_factory.mktemp("live"))


def test_what_there_is(run, served):
    assert list(retrievers_of(run)) == ["hnsw", "exact", "late", "bm25", "splade", "splade-exact"]
    assert list(rerankers_of(run)) == ["cross"]
    facts = {fact.name: fact for fact in served.facts()}
    assert [(name, fact.kind, fact.index, fact.approximate) for name, fact in facts.items()] == [
        ("hnsw", "dense", "hnsw", True), ("exact", "dense", "exact", False), ("late", "late", "multivector", True),
        ("bm25", "lexical", "bm25", False), ("splade", "sparse", "inverted", True), ("splade-exact", "sparse", "inverted", False),
    ]  # fmt: skip
    models = {leg.name: id(leg.encoding.model) for leg in served.legs.values() if leg.encoding}
    assert models["hnsw"] == models["exact"] and models["splade"] == models["splade-exact"]
    assert len(set(models.values())) == 3 and served.reranker == "cross" and served.scorer is not None


@pytest.mark.parametrize("name", ["hnsw", "exact", "late", "bm25"])
def test_retrievers_answer_as_the_verb_does(run, served, name):
    model, path, store = of_run(run, name)
    folder, query = open_index(path), Collection.open(Path(store)).queries.text(0)
    given = [query] if name == "bm25" else model_of(model, folder, None, "cpu").encode_queries([query])
    top = folder.index.search(given, 5)
    wanted = {folder.ids[row]: score for row, score in zip(top.rows[0], top.scores[0], strict=True) if row >= 0}
    hits = served.search([query], Asked((name,), k=5)).rankings[0]
    assert {hit.id for hit in hits} == wanted.keys()
    for hit in hits:
        assert hit.score == pytest.approx(wanted[hit.id], rel=1e-5)


def test_documents_are_encoded_as_the_index_has_them(run, served):
    """A document of the base, taken away and given again, has the score that it had, in every leg: its vectors are the same."""
    id = Collection.open(run / "store").documents.ids[3]
    document = served.document(id)
    text = document.text
    names = [name for name in served.legs if name != "bm25"]
    before = {name: score_of(served, name, text, id) for name in names}
    assert served.delete([id])[0] == 1 and served.document(id) is None
    assert all(score_of(served, name, text, id) is None for name in names)
    served.add([document])
    for name in names:
        assert score_of(served, name, text, id) == pytest.approx(before[name], rel=2e-3 if name == "late" else 1e-4)


def score_of(retriever, name: str, query: str, id: str) -> float | None:
    hits = retriever.search([query], Asked((name,), k=1000)).rankings[0]
    return next((hit.score for hit in hits if hit.id == id), None)


def test_everything_works_together(served):
    served.add([Document("new", "Zebra", "a zebra crosses the old road", {"lang": "en"})])
    names = tuple(served.legs)
    found = served.search(["zebra road", "old"], Asked(names, k=3, rerank=3, filter={"lang": "en"}))
    assert [[hit.id for hit in ranking] for ranking in found.rankings] == [["new"], ["new"]]
    assert "exact" in found.rankings[0][0].found_by
    whole = served.search(["zebra road"], Asked(names, k=5, rerank=5)).rankings[0]
    texts = [f"{doc.title} {doc.text}".strip() for hit in whole if (doc := served.document(hit.id))]
    scores = served.scorer.score(["zebra road"] * len(texts), texts)
    np.testing.assert_allclose([hit.score for hit in whole], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["hnsw", "exact", "late", "bm25", "splade", "splade-exact"])
def test_why_and_what_is_missed(served, name):
    document = Document("x", "", "Old road. A zebra and a river!")
    why = served.explain("the old river", document, name)
    assert json.loads(json.dumps(why)) == why
    keys = {"dense": {"passages"}, "late": {"alignment"}, "sparse": {"terms", "expansion"}, "lexical": {"terms"}}[
        why["kind"]
    ]
    assert why.keys() == {"kind", "score"} | keys
    if why["kind"] == "late":
        table = np.array(why["alignment"]["similarities"])
        assert table.shape == (len(why["alignment"]["query_tokens"]), len(why["alignment"]["document_tokens"]))
        assert why["score"] == pytest.approx(table.max(1).sum())
    if why["kind"] == "sparse":
        assert why["score"] == pytest.approx(sum(each["product"] for each in why["terms"]), rel=1e-4)
    lost = served.missed("the old river", name, 5)
    assert 0 <= lost["recall"] <= 1 and lost["recall"] == pytest.approx(1 - len(lost["missed"]) / 5)
    assert json.loads(json.dumps(lost)) == lost


def test_vectors_terms_and_tokens(served):
    for kind in ("dense", "sparse", "late"):
        made = served.embed(["old road", "river"], kind, "document")
        assert (
            len(made) == 2
            and type(made).__name__ == {"dense": "Dense", "sparse": "Sparse", "late": "MultiVector"}[kind]
        )
    assert served.vocabulary()[served.embed(["old"], "sparse", "query").terms[0]]
    assert served.token_count(["old road"]) > served.token_count(["old"]) > 0


def test_names_that_are_not_there(run, tmp_path):
    with pytest.raises(Misuse, match="no retriever 'exat'; it has .*did you mean 'exact'"):
        open_served(run, legs=["exat"], journal=tmp_path)
    with pytest.raises(Misuse, match="not the folder of a run"):
        open_served(tmp_path)
    with pytest.raises(Misuse, match="is not a cross-encoder"):
        open_served(run, legs=["bm25"], reranker=str(run / "model"), journal=tmp_path)
    alone = open_served(run, legs=["bm25", "exact"], reranker="none", journal=tmp_path)
    assert list(alone.legs) == ["bm25", "exact"] and alone.scorer is None and alone.reranker is None


def test_an_index_of_another_corpus_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    manifest = tmp_path / "run" / "index" / "bm25" / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["of"]["corpus"] = "another"
    write_json(manifest, sealed(facts))
    with pytest.raises(FlatcoatError, match="corpus"):
        open_served(tmp_path / "run", legs=["bm25"])


def test_the_document_side_has_the_index_s_settings(run, served):
    for leg in served.legs.values():
        if leg.encoding is not None:
            place = retrievers_of(run)[leg.name]
            said = open_index(place.run / "index" / place.index).facts["of"]["tower"]
            assert json.loads(json.dumps(asdict(leg.encoding.model.document.settings))) == said


def test_a_document_of_tokens_that_the_model_skips_is_misuse(served, monkeypatch):
    real = align.token_vectors
    nothing = ([], np.zeros((0, 8), np.float32))
    monkeypatch.setattr(
        align, "token_vectors", lambda tower, text, how: real(tower, text, how) if text != "!" else nothing
    )
    with pytest.raises(Misuse, match="one that the model skips"):
        served.explain("the old river", Document("x", "", "!"), "late")


def test_an_exact_index_is_taken_where_it_lies_or_built_where_that_is_quick(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    monkeypatch.setattr(module, "MOST_POSTINGS", 10)
    opened = open_served(tmp_path / "run", legs=["splade"], reranker="none")
    assert opened.missed("the old river", "splade", 5)["k"] == 5  # the run's own exact index
    shutil.rmtree(tmp_path / "run" / "also" / "splade" / "index" / "exact")
    opened = open_served(tmp_path / "run", legs=["splade"], reranker="none")
    with pytest.raises(Misuse, match="postings are too many to build one while it serves"):
        opened.missed("the old river", "splade", 5)
    monkeypatch.setattr(module, "MOST_POSTINGS", 10**6)
    assert opened.missed("the old river", "splade", 5)["k"] == 5
