"""The verbs: a collection into an engine, searched by the verb that searches any index, updated, and pulled out again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flatcoat.app import verbs_engine, verbs_judge, verbs_search
from flatcoat.app.verbs import encode
from flatcoat.app.verbs import index as embedded
from flatcoat.data.trec import read_run
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.remote.store import open_remote
from flatcoat.index.store import open_index
from flatcoat.vectors import VectorFolder, write_vectors

pytest.importorskip("qdrant_client")


@pytest.fixture(scope="module")
def encoded(tiny, toy, tmp_path_factory):
    place = tmp_path_factory.mktemp("encoded")
    for out, queries in (("documents", None), ("queries", "test")):
        encode(str(tiny), str(toy), place / out, queries, None, None, None, "fp32", "cpu", False, None, True)
    return place


@pytest.fixture
def loaded(encoded, toy, tmp_path):
    vectors, out = str(encoded / "documents"), tmp_path / "toy-index"
    verbs_engine.index(vectors, out, f"qdrant:{tmp_path}/db", None, None, [], str(toy), False, False, ["batch=7"], True)
    return out


def test_a_load_that_was_killed_does_not_go_on_with_other_texts(encoded, toy, tmp_path, monkeypatch):
    def load(collection):
        verbs_engine.index(
            str(encoded / "documents"), tmp_path / "i", f"qdrant:{tmp_path}/db", None, None, [], collection, False, False, ["batch=7"], True
        )  # fmt: skip

    def killed(items, total, label):
        yield next(iter(items))
        raise KeyboardInterrupt

    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr(verbs_engine, "tracker", lambda quiet: killed)
        load(None)
    with pytest.raises(Misuse, match="half a load of other vectors, texts or settings"):
        load(str(toy))


def opens(path, **how):
    """What `open_index` is to do with a folder of either kind."""
    return (
        open_remote(path, **how)
        if "engine" in json.loads((path / "manifest.json").read_text())
        else open_index(path, **how)
    )


def test_a_run_through_an_engine_is_the_run_of_exact_search(loaded, encoded, tiny, toy, tmp_path, monkeypatch):
    embedded(str(encoded / "documents"), tmp_path / "exact", "exact", None, False, True)
    monkeypatch.setattr(verbs_search, "open_index", opens)
    runs = []
    for name in ("exact", "toy-index"):
        out = tmp_path / f"{name}.trec"
        verbs_search.search(
            str(tiny),
            tmp_path / name,
            str(toy),
            None,
            "test",
            10,
            str(out),
            None,
            None,
            "cpu",
            False,
            None,
            False,
            True,
        )
        runs.append(read_run(out))
    assert set(runs[0]) == set(runs[1])
    for query in runs[0]:
        np.testing.assert_allclose(runs[0][query].scores, runs[1][query].scores, atol=1e-5)
    same = [runs[0][query].doc_ids[0] == runs[1][query].doc_ids[0] for query in runs[0]]
    assert np.mean(same) > 0.9


def test_payloads_have_texts_and_the_name_is_the_folders(loaded, toy):
    with open_remote(loaded) as folder:
        assert folder.place.name == "toy_index"
        points, _ = folder.engine.client.scroll("toy_index", limit=3)
        assert [point.payload["id"] for point in points] == list(folder.ids[:3])
        assert all(point.payload["text"] and point.payload["metadata"] == {} for point in points)


def test_fidelity_through_the_verb(loaded, encoded, monkeypatch, capsys):
    monkeypatch.setattr("flatcoat.index.store.open_index", opens)
    verbs_judge.fidelity(loaded, encoded / "documents", encoded / "queries", None, "nDCG@10", None, None, True)
    said = json.loads(capsys.readouterr().out)["settings"][0]
    assert said["setting"] == "kind=exact" and said["recall"]["10"] == 1.0


def test_update_and_pull(loaded, encoded, toy, tmp_path, capsys):
    documents = VectorFolder.open(encoded / "documents")
    gone = tmp_path / "gone.txt"
    gone.write_text(f"{documents.ids[0]}\n{documents.ids[4]}\n")
    verbs_engine.update(loaded, [], gone, None, True)
    new = write_vectors(tmp_path / "new", documents.vectors[4:5], [documents.ids[4]], documents.facts)
    verbs_engine.update(loaded, [str(new.path)], None, str(toy), True)
    verbs_engine.pull(loaded, tmp_path / "back", None, False)
    back = VectorFolder.open(tmp_path / "back")
    order = [*range(1, 4), *range(5, len(documents)), 4]
    assert list(back.ids) == [documents.ids[i] for i in order]
    np.testing.assert_array_equal(back.vectors, documents.vectors[order])
    assert back.facts["model"] == documents.facts["model"] and "dense vectors" in capsys.readouterr().err
    with pytest.raises(Misuse, match=r"--delete .*: no such file"):
        verbs_engine.update(loaded, [], tmp_path / "nothing", None, True)


def test_what_is_misused(encoded, tmp_path, toy):
    vectors, url = str(encoded / "documents"), f"qdrant:{tmp_path}/db"

    def index(**how):
        said = {
            "source": vectors,
            "engine": url,
            "name": None,
            "kind": None,
            "also": [],
            "collection": None,
            "changes": None,
        }
        said |= how
        verbs_engine.index(out=tmp_path / "x", replace=False, copy=False, quiet=True, **said)

    with pytest.raises(Misuse, match="--kind scan: an engine has exact or hnsw"):
        index(kind="scan")
    with pytest.raises(Misuse, match="nothing would be left of it"):
        index(engine="qdrant::memory:")
    with pytest.raises(Misuse, match="no such setting"):
        index(changes=["eff=3"])
    with pytest.raises(Misuse, match="a field dense is there already; say NAME="):
        index(also=[vectors])
    with pytest.raises(Misuse, match="want letters, digits"):
        index(name="a-b")
    (tmp_path / "other.jsonl").write_text('{"_id": "d1", "text": "something else"}\n')
    stranger = write_vectors(tmp_path / "strange", np.ones((1, 4), np.float32), ["nobody"], {})
    with pytest.raises(FlatcoatError, match="document 'nobody' is not in"):
        index(source=str(stranger.path), collection=str(toy))
