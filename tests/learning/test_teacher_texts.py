"""A teacher reads a query's own answer as training shows it, and every other document whole."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.columns import ColumnWriter
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import load_pairs
from flatcoat.data.store import Collection
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.cross_checkpoint import load_cross
from flatcoat.models.splade_checkpoint import load_splade
from flatcoat.training.teacher import ModelTeacher, PairTeacher, shown_texts


@pytest.fixture
def collection(toy, tmp_path):
    """The toy collection; training shows other texts of every second judgement."""
    made = build_store(str(toy), tmp_path / "store")
    return showing(made, [f"other text {n}" if n % 2 else "" for n in range(len(made.judgements("train")))])


def showing(made, texts):
    column = ColumnWriter(made.path / "judgements", "train.shown")
    for text in texts:
        column.append(text)
    column.close()
    return Collection.open(made.path)


def asked(collection):
    """Pairs with a text of their own, and without one; texts [query, document] as they are to be read."""
    pairs = load_pairs(collection)
    at = np.array([1, 2, 3])
    queries, documents = pairs.queries[at], pairs.documents[at]
    texts = [list(collection.documents.texts(documents)) for _ in at]
    shown = shown_texts(collection)
    for i, query in enumerate(queries.tolist()):
        texts[i] = [
            shown.get(query, {}).get(int(d), text) for d, text in zip(documents.tolist(), texts[i], strict=True)
        ]
        assert texts[i][i] == pairs.answers(at)[i]  # what the student reads
    assert [texts[i][i].startswith("other text") for i in range(3)] == [True, False, True]
    return queries, documents, texts


def test_a_dual_encoder_reads_what_training_shows(tiny, tiny_mlm, collection):
    queries, documents, texts = asked(collection)
    for model in (load_dense(str(tiny)), load_splade(str(tiny_mlm))):
        found = ModelTeacher(model, collection, 2.0).score(queries, documents, np.ones((3, 3), bool))
        q = model.encode_queries(collection.queries.texts(queries))
        for i, own in enumerate(texts):
            d = model.encode_documents(own)
            q_own, d_own = (x.vectors if hasattr(x, "vectors") else x.array() for x in (q, d))
            np.testing.assert_allclose(found[i], 2.0 * d_own @ q_own[i], atol=1e-4)


def test_a_scorer_of_pairs_reads_what_training_shows_and_keeps_it_apart(tiny, collection, tmp_path):
    queries, documents, texts = asked(collection)
    model = load_cross(str(tiny))
    found = PairTeacher(model, collection, tmp_path / "t.scores").score(queries, documents, np.eye(3, dtype=bool))
    wanted = model.score(list(collection.queries.texts(queries)), [texts[i][i] for i in range(3)])
    np.testing.assert_allclose(np.diag(found), wanted, atol=1e-5)
    first = {path.name for path in tmp_path.glob("*.scores")}
    other = showing(collection, ["yet another text"] * len(collection.judgements("train")))
    PairTeacher(model, other, tmp_path / "t.scores").score(queries, documents, np.eye(3, dtype=bool))
    assert len(first) == 1 and len({path.name for path in tmp_path.glob("*.scores")} - first) == 1
