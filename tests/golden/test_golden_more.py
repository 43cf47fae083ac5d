"""Models, and what training, mining and serving keep, written by an earlier Flatcoat: today's code opens them and says the same.

Recomputed numbers agree to 1e-4, since processors round in their own ways.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from make_more import DENSE, DOCUMENTS, FACTS, GOLDEN, MULTI, PAIRS, QRELS, QUERIES, RUN, SPARSE, learner, plainly, step

from flatcoat.data.collection import open_collection
from flatcoat.data.trec import read_qrels, read_run
from flatcoat.index.inverted import search_slowly_sparse
from flatcoat.index.store import open_index
from flatcoat.mining.sg_tree import SGTree
from flatcoat.representations import Dense
from flatcoat.search.journal import Document, Journal
from flatcoat.testing.index import unit
from flatcoat.testing.sparse_index import zipfian

HERE = Path(__file__).parent
LINES = HERE / "lines-1"


def answers(name):
    return json.loads((HERE / "answers-1" / f"{name}.json").read_text())


def load(kind):
    from flatcoat.models.checkpoint import load_dense
    from flatcoat.models.colbert_checkpoint import load_late
    from flatcoat.models.splade_checkpoint import load_splade

    return {"dense": load_dense, "sparse": load_splade, "late": load_late}[kind](str(HERE / f"model-{kind}-1"))


@pytest.mark.parametrize("kind", ["dense", "sparse", "late"])
def test_models_open_and_encode_as_they_did(kind):
    model, said = load(kind), answers(f"model-{kind}-1")
    for side, made in (("queries", model.encode_queries(QUERIES)), ("documents", model.encode_documents(DOCUMENTS))):
        assert len(made) == len(said[side])
        for i, wanted in enumerate(said[side]):
            np.testing.assert_allclose(
                plainly(made[i : i + 1]), np.reshape(wanted, np.shape(plainly(made[i : i + 1]))), atol=1e-4
            )
    first, second = (np.ravel(one)[:8] if kind == "late" else np.ravel(one) for one in said["documents"][:2])
    assert np.abs(first - second).max() > 0.01  # texts are told apart


def test_a_cross_encoder_opens_and_scores_as_it_did():
    from flatcoat.models.cross_checkpoint import load_cross

    found = load_cross(str(HERE / "model-cross-1")).score([q for q, _ in PAIRS], [d for _, d in PAIRS])
    wanted = answers("model-cross-1")["scores"]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.ptp(wanted) > 1e-3


def test_a_checkpoint_goes_on_where_it_stopped():
    from flatcoat.training.state import load_state

    module, optimizer = learner()
    for _ in range(3):
        step(module, optimizer)  # somewhere else
    sampler, progress = load_state(HERE / "checkpoint-1", module, optimizer)
    assert progress == {"step": 1, "epoch": 0} and sampler["rows"].tolist() == [3, 1, 2]
    np.testing.assert_array_equal(sampler["vectors"], unit(3, 2))
    step(module, optimizer)
    said = answers("checkpoint-1")
    np.testing.assert_allclose(module.weight.detach(), said["weight"], atol=1e-6)
    np.testing.assert_allclose(module.bias.detach(), said["bias"], atol=1e-6)


def test_a_tree_opens():
    tree = SGTree.open(HERE / "sg-tree-1")
    np.testing.assert_array_equal(tree.vectors, unit(40, 6))
    said = answers("sg-tree-1")
    assert set(said) == set(tree.state())
    for name, value in tree.state().items():
        np.testing.assert_array_equal(value, np.array(said[name], value.dtype))


def test_a_journal_is_read():
    first, second = list(Journal(HERE / "journal-1", FACTS).follow()[1])
    assert [document.id for document in first.documents] == ["d0", "d1", "d2"]
    assert first.documents[2] == Document("d2", "a title", "text 2 ü", {"n": 2})
    for name, wanted in (("dense", DENSE), ("sparse", SPARSE), ("late", MULTI)):
        assert type(first.vectors[name]) is type(wanted)
        for field, value in vars(wanted).items():
            np.testing.assert_array_equal(getattr(first.vectors[name], field), value)
    assert (second.sequence, second.deleted, second.documents) == (2, ("d1",), ())


def test_lines_of_negatives_and_teachers_are_read(toy, tmp_path):
    from flatcoat.app.samplers import read_negatives
    from flatcoat.training.teacher import PairTeacher, read_teacher

    collection = open_collection(str(toy))
    query = collection.queries.lookup.row("q-heron-home")
    heron, food, otter = (
        collection.documents.lookup.row(f"d-{name}") for name in ("heron-home", "heron-food", "otter-home")
    )
    assert read_negatives(LINES / "mined.jsonl", collection).tolist() == [[query, otter], [query, food]]
    assert read_negatives(LINES / "drawn.jsonl", collection).tolist() == [[query, otter], [query, otter]]
    asked, shown = np.array([query]), np.array([otter, food, heron])
    found = read_teacher(LINES / "teacher.jsonl", collection).score(asked, shown, np.ones((1, 3), dtype=bool))
    np.testing.assert_array_equal(found, [[-1, np.nan, 2]])

    class Silent:
        def score(self, queries, documents):
            raise AssertionError("what is kept is not scored again")

    kept = tmp_path / "teacher-key.scores"
    kept.write_bytes((LINES / "teacher-key.scores").read_bytes())
    teacher = PairTeacher(Silent(), collection, kept)
    scores = teacher.score(np.array([0, 3]), np.array([1, 2, 0]), np.array([[True, True, False], [False, False, True]]))
    np.testing.assert_array_equal(scores, [[2.5, -1.25, np.nan], [np.nan, np.nan, 0.5]])


def test_runs_and_judgements_are_read():
    run = read_run(LINES / "run.trec")
    assert {query: ranking.as_dict() for query, ranking in run.items()} == {q: r.as_dict() for q, r in RUN.items()}
    assert read_qrels(LINES / "qrels.trec") == QRELS


@pytest.mark.parametrize("bits", [16, 32])
def test_inverted_indexes_of_other_bits_open(bits):
    index = open_index(HERE / f"index-inverted-{bits}-1", verify=True).index
    queries = zipfian(4, 12, seed=1, vocab_size=50)
    truth = search_slowly_sparse(zipfian(60, 12, seed=0, vocab_size=50), queries, 5)
    found = index.search(queries, 5)
    np.testing.assert_array_equal(found.rows, truth.rows)
    np.testing.assert_allclose(found.scores, truth.scores, rtol=1e-2 if bits == 16 else 1e-5)


def test_an_engines_folder_opens(tmp_path, monkeypatch):
    """The folder is the golden one, the engine a new one with the same vectors."""
    pytest.importorskip("qdrant_client")
    from flatcoat.index.remote import store
    from flatcoat.index.remote.address import parse_address
    from flatcoat.index.remote.connect import connect
    from flatcoat.index.remote.load import load as load_engine
    from flatcoat.vectors import VectorFolder

    vectors = VectorFolder.open(HERE / "vectors-1")
    here = parse_address(f"qdrant:{tmp_path}/engine")
    load_engine(tmp_path / "own", store.Place(here, "golden"), {"dense": vectors}).close()
    monkeypatch.setattr(store, "connect", lambda address, name, *rest, **more: connect(here, name, *rest, **more))
    with store.open_remote(HERE / "index-qdrant-1", verify=True) as folder:
        assert list(folder.ids) == list(vectors.ids) and folder.kind == "qdrant" and folder.place.name == "golden"
        assert folder.index.search(Dense(unit(60, 16)[:5]), 1).rows[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_every_golden_folder_is_there():
    assert all((HERE / name).is_dir() for name in GOLDEN)
