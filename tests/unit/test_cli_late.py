"""Late interaction and cross-encoders through the command line: encode, index, search, fidelity, update, explain, check."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from test_cli import call

from flatcoat.data.collection import open_collection
from flatcoat.data.trec import read_run
from flatcoat.files import MANIFEST, read_json
from flatcoat.index.multivector_exact import maxsim_slowly
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross
from flatcoat.multi_vectors import MultiFolder, write_multi
from flatcoat.representations import MultiVector
from flatcoat.testing.multi_index import tokens

MARKED = LateOverrides(8, 12, 24, query_marker="q", document_marker="d", expand=True, skip_punctuation=True)
RECIPE = """
[collection]
source = "{toy}"
dev = "dev"
[model]
kind = "{kind}"
start = "{start}"
{more}
[training]
steps = {steps}
[evaluation]
k = 20
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("cli-late")


@pytest.fixture(scope="module")
def late(tiny, home):
    save_late(load_late(str(tiny), MARKED), home / "late")
    return home / "late"


@pytest.fixture(scope="module")
def cross(tiny, home):
    save_cross(load_cross(str(tiny), CrossOverrides(seed=0)), home / "cross")
    return home / "cross"


@pytest.fixture(scope="module")
def made(late, toy, home):
    """Vectors of documents and of the test queries, and an index of each kind."""
    assert call("encode", late, toy, "--out", home / "v", "--quiet") == 0
    assert call("encode", late, toy, "--queries", "test", "--out", home / "q", "--quiet") == 0
    assert call("index", home / "v", "--kind", "exact", "--out", home / "exact", "--quiet") == 0
    settings = ["--set", "bits=4", "--set", "cells=16", "--set", "rescore=20"]
    assert call("index", home / "v", "--kind", "multivector", *settings, "--out", home / "multi", "--quiet") == 0
    return home


def test_an_index_keeps_its_settings(made):
    said = read_json(made / "multi" / MANIFEST)
    assert (said["kind"], said["settings"]["bits"], said["settings"]["cells"]) == ("multivector", 4, 16)
    assert read_json(made / "exact" / MANIFEST)["kind"] == "exact"


@pytest.mark.parametrize("kind", ["exact", "multi"])
def test_a_split_is_searched(made, late, toy, kind):
    out = made / f"{kind}.trec"
    assert call("search", late, made / kind, toy, "--split", "test", "-k", "5", "--out", out, "--quiet") == 0
    documents, queries = MultiFolder.open(made / "v"), MultiFolder.open(made / "q")
    truth, run = maxsim_slowly(queries.vectors, documents.vectors, 5), read_run(out)
    for i, query in enumerate(queries.ids):
        np.testing.assert_allclose(run[query].scores, truth.scores[i], atol=0.02)  # queries of float16 there
        if kind == "exact":
            assert run[query].doc_ids[0] == documents.ids[truth.rows[i, 0]]


def test_queries_are_as_they_were_when_documents_were_encoded(late, toy, home, capsys):
    """A query length that was said then is that of the search, expansion included."""
    assert call("encode", late, toy, "--query-length", "7", "--out", home / "short", "--quiet") == 0
    assert call("index", home / "short", "--kind", "exact", "--out", home / "short-exact", "--quiet") == 0
    capsys.readouterr()
    assert call("search", late, home / "short-exact", toy, "--query", "otter", "-k", "3", "--json") == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    model = load_late(str(late), LateOverrides(query_length=7))
    assert len(model.encode_queries(["otter"]).item(0)) == 7
    wanted = model.score(["otter"] * 3, [hit["text"] for hit in hits])
    np.testing.assert_allclose([hit["score"] for hit in hits], wanted, atol=5e-3)


@pytest.fixture(scope="module")
def ran(tiny, toy, home):
    """A run of an encoder that its recipe makes a late-interaction model of."""
    more = 'dim = 8\nquery_marker = "q"\nexpand = true\nattend_expansion = true\nquery_length = 9'
    (home / "late.toml").write_text(RECIPE.format(toy=toy, kind="late", start=tiny, more=more, steps=0))
    assert call("run", home / "late.toml", "--out", home / "run", "--quiet") == 0
    return home / "run"


def test_a_run_is_searched_as_it_was_measured(ran, home):
    for name in ("exact", "multivector"):
        out = home / f"run-{name}.trec"
        assert call("search", ran, "--name", name, "--split", "test", "-k", "20", "--out", out, "--quiet") == 0
        measured = read_run(ran / "runs" / f"{name}.trec")
        for query, ranking in read_run(out).items():
            np.testing.assert_allclose(ranking.scores, measured[query].scores[:20], rtol=1e-5)


def test_a_run_explains_with_its_model(ran, capsys):
    assert call("explain", ran, "the otter", "the otter lives", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["token"] for one in said["tokens"]][:4] == ["[CLS]", "q", "the", "otter"] and len(said["tokens"]) == 9


def test_what_learnt_beside_a_model_answers_from_its_own_index(made, late, tiny, toy, tmp_path, capsys):
    run = tmp_path / "run"
    open_collection(str(toy), run / "store")
    (run / "recipe.toml").write_text(RECIPE.format(toy=toy, kind="dense", start=tiny, more="", steps=1))
    shutil.copytree(late, run / "model-late")
    assert call("index", made / "v", "--kind", "exact", "--out", run / "index" / "late", "--quiet") == 0
    capsys.readouterr()
    assert call("search", run, "--name", "late", "--query", "otter", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 10


def test_the_run_of_a_cross_encoder_says_that_it_re_ranks(cross, toy, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(RECIPE.format(toy=toy, kind="cross", start=cross, more="", steps=0))
    assert call("search", tmp_path, "--query", "otter") == 2
    line = capsys.readouterr().err
    assert "re-ranks" in line and "flatcoat rerank" in line and line.count("\n") == 1


def test_fidelity_of_a_multivector_index(made, capsys):
    capsys.readouterr()
    assert call("fidelity", made / "multi", made / "v", made / "q", "--target-recall", "0.5", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["cheapest"]["setting"].startswith("candidates=") and said["settings"][0]["recall"]["10"] > 0.5
    assert call("fidelity", made / "multi", made / "v", made / "q") == 0
    assert "bits=4, nprobe=" in capsys.readouterr().out


def test_an_index_grows_and_shrinks(made, late, toy, tmp_path, capsys):
    assert call("index", made / "v", "--kind", "multivector", "--out", tmp_path / "i", "--quiet") == 0
    whole = MultiFolder.open(made / "v")
    write_multi(tmp_path / "more", whole.vectors[:2], ["new-0", "new-1"], {k: v for k, v in whole.facts.items()
                if k not in ("files", "format", "version", "items", "tokens", "dim", "stored")})  # fmt: skip
    (tmp_path / "gone.txt").write_text(f"{whole.ids[0]}\n")
    assert call("update", tmp_path / "i", "--add", tmp_path / "more", "--delete", tmp_path / "gone.txt") == 0
    assert f"{len(whole) + 1} documents, 1 deleted" in capsys.readouterr().err
    asked = whole.ids[0]
    text = open_collection(str(toy)).documents
    assert call("search", late, tmp_path / "i", toy, "--query", text.text(text.lookup.row(asked)), "--json") == 0
    found = [hit["id"] for hit in json.loads(capsys.readouterr().out)["hits"]]
    assert "new-0" in found and asked not in found
    assert call("check", tmp_path / "i") == 0
    assert "have unit length" in capsys.readouterr().out


def test_explain_shows_what_matches(late, capsys):
    model = load_late(str(late))
    query, document = "where does the otter live", "the otter makes its home in the river ."
    assert call("explain", late, query, document, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["score"] == pytest.approx(float(model.score([query], [document])[0]), abs=1e-5)
    assert sum(one["share"] for one in said["tokens"]) == pytest.approx(1)
    assert call("explain", late, query, document) == 0
    shown = capsys.readouterr().out
    assert "  otter " in shown and "[MASK]" in shown and shown.startswith("score ")


def test_explain_shows_attention_and_says_what_it_is_not(cross, capsys):
    query, document = "where does the otter live", "the otter makes its home in the river ."
    assert call("explain", cross, query, document, "-k", "3", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["score"] == pytest.approx(float(load_cross(str(cross)).score([query], [document])[0]), abs=1e-5)
    assert len(said["attention"]) == 3
    assert call("explain", cross, query, document) == 0
    assert "this is not what the score is made of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("explain", "{late}", "otter"), "give a document behind the query"),
        (("explain", "{cross}", "otter"), "give a document behind the query"),
        (("explain", "{tiny}", "otter", "otter"), "a dense model has no terms to show"),
        (("search", "{tiny}", "{home}/multi", "{toy}", "--query", "x"), "is a dense model, "),
        (("search", "{tiny}", "{home}/exact", "{toy}", "--query", "x"), "holds several vectors a text; want a late model"),
        (("search", "{late}", "{home}/dense", "{toy}", "--query", "x"), "holds one dense vector a text; want a dense model"),
        (("search", "{cross}", "{home}/multi", "{toy}", "--query", "x"), "a cross-encoder has no vectors to search with"),
        (("search", "{late}-2", "{home}/multi", "{toy}", "--query", "x"), "was built from another model"),
        (("encode", "{cross}", "{toy}", "--out", "{home}/x"), "a cross-encoder has no vectors"),
        (("index", "{home}/v", "--kind", "scan", "--out", "{home}/x"), "several vectors a text"),
        (("index", "{home}/v", "--kind", "multivector", "--set", "bits=3", "--out", "{home}/x"), "bits"),
        (("index", "{home}/v", "--kind", "multivectors", "--out", "{home}/x"), "did you mean 'multivector'"),
        (("index", "{home}/dense-v", "--kind", "multivector", "--out", "{home}/x"), "dense vectors"),
        (("fidelity", "{home}/exact", "{home}/v", "{home}/q"), "no approximation to measure"),
        (("update", "{home}/exact", "--add", "{home}/q"), "of kind exact"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(made, late, cross, tiny, toy, words, said, capsys):
    if not (made / "dense").exists():
        assert call("encode", tiny, toy, "--out", made / "dense-v", "--quiet") == 0
        assert call("index", made / "dense-v", "--kind", "exact", "--out", made / "dense", "--quiet") == 0
        save_late(load_late(str(late), LateOverrides(query_length=10)), made / "late-2")
        capsys.readouterr()
    names = {"late": late, "cross": cross, "tiny": tiny, "toy": toy, "home": made}
    assert call(*(str(word).format(**names) for word in words)) in (1, 2)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in line and line.startswith("flatcoat: ")


def lines(words, capsys):
    """Exit code and lines of `flatcoat check`."""
    capsys.readouterr()
    code = call("check", *words)
    return code, capsys.readouterr().out.splitlines()


def test_healthy_things_pass(made, late, toy, capsys):
    code, said = lines((late, made / "v", made / "q", made / "exact", made / "multi", "--on", toy), capsys)
    assert code == 0 and not [line for line in said if ": error: " in line]
    for check in ("marker: 'q' and 'd'", "expansion: queries are filled up to 12", "punctuation: 0%", "query-truncation",
                  "truncation: 0% of documents", "related: "):  # fmt: skip
        assert any(check in line for line in said), check
    assert sum("every file is as it was written" in line for line in said) == 4
    assert sum("have unit length" in line for line in said) == 6


def test_a_damaged_folder_is_found(made, tmp_path, capsys):
    for name in ("v", "multi"):
        shutil.copytree(made / name, tmp_path / name)
        file = tmp_path / name / ("vectors.npy" if name == "v" else "codes.npy")
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(bytes(data))
        assert call("check", tmp_path / name) == 1
        assert file.name in capsys.readouterr().err


@pytest.mark.parametrize("rescore", [0, 20])
def test_a_collapsed_index_is_found(tmp_path, rescore, capsys):
    """Also where it has codes alone."""
    vectors = tokens(60, 3, 9)
    same = MultiVector(vectors.start, np.repeat(vectors.vectors[:1], len(vectors.vectors), 0))
    settings = ["--kind", "multivector", "--set", f"rescore={rescore}", "--set", "cells=4", "--quiet"]
    for name, held, code in (("good", vectors, 0), ("bad", same, 1)):
        write_multi(tmp_path / name, held, [f"d{i}" for i in range(60)], {"side": "documents"})
        made = ("index", tmp_path / name, *settings, "--out", tmp_path / f"i-{name}")
        assert call(*made) == code and call(*made, "--allow", "collapse") == 0
        found, said = lines((tmp_path / f"i-{name}",), capsys)
        assert found == code and any("collapse" in line for line in said)
        assert call("check", tmp_path / name) == code
