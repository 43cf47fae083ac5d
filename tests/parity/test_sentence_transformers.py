"""Our folders load there, theirs load here, and vectors agree to 1e-5."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.checkpoint import Overrides, fingerprint, load_dense, save_dense
from flatcoat.testing.encoder import TEXTS

library = pytest.importorskip("sentence_transformers")


def theirs(tiny, tmp_path, pooling, normalise, similarity="dot", **prompts):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    transformer = Transformer(str(tiny))
    transformer.max_seq_length = 20
    modules = [transformer, Pooling(32, pooling)] + ([Normalize()] if normalise else [])
    model = SentenceTransformer(modules=modules, similarity_fn_name=similarity, prompts=prompts, device="cpu")
    model.save(str(tmp_path / "theirs"))
    return model


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "lasttoken"])
@pytest.mark.parametrize("normalise", [False, True])
def test_their_dense_folders_load_here(tiny, tmp_path, pooling, normalise):
    other = theirs(tiny, tmp_path, pooling, normalise, query="q ", document="")
    model = load_dense(str(tmp_path / "theirs"))
    assert model.document.settings.max_length == 20
    np.testing.assert_allclose(model.encode_queries(TEXTS).vectors, other.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(model.encode_documents(TEXTS).vectors, other.encode_document(TEXTS), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "last"])
@pytest.mark.parametrize("separate", [False, True])
def test_our_folders_load_there(tiny, tmp_path, pooling, separate):
    overrides = Overrides(pooling, False, 12, 20, "a ", "b ", separate)
    model = load_dense(str(tiny), overrides)
    if separate:
        for parameter in model.query.parameters():
            parameter.data.mul_(1.01)
    save_dense(model, tmp_path / "ours")
    other = library.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    queries = [text for text in TEXTS if len(text) < 40]  # a shared Transformer has one length there, the documents'
    np.testing.assert_allclose(model.encode_queries(queries).vectors, other.encode_query(queries), atol=1e-5)
    np.testing.assert_allclose(model.encode_documents(TEXTS).vectors, other.encode_document(TEXTS), atol=1e-5)
    again = load_dense(str(tmp_path / "ours"))
    assert again.query.settings == model.query.settings and again.document.settings == model.document.settings
    assert again.shared != separate
    np.testing.assert_array_equal(again.encode_queries(TEXTS).vectors, model.encode_queries(TEXTS).vectors)


def test_their_router_loads_here(tiny, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Router, Transformer

    routes = {"query": [Transformer(str(tiny)), Pooling(32, "cls"), Normalize()],
              "document": [Transformer(str(tiny)), Pooling(32, "mean")]}  # fmt: skip
    other = SentenceTransformer(
        modules=[Router(routes, default_route="document")], similarity_fn_name="dot", device="cpu"
    )
    other.save(str(tmp_path / "router"))
    model = load_dense(str(tmp_path / "router"))
    np.testing.assert_allclose(model.encode_queries(TEXTS).vectors, other.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(model.encode_documents(TEXTS).vectors, other.encode_document(TEXTS), atol=1e-5)


def test_cosine_without_a_normalize_module_becomes_unit_vectors(tiny, tmp_path):
    other = theirs(tiny, tmp_path, "mean", False, similarity="cosine")
    vectors = load_dense(str(tmp_path / "theirs")).encode_documents(TEXTS).vectors
    raw = other.encode_document(TEXTS)
    np.testing.assert_allclose(vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)


def test_saving_twice_gives_the_same_model(tiny, tmp_path):
    model = load_dense(str(tiny))
    save_dense(model, tmp_path / "a")
    save_dense(model, tmp_path / "b")
    assert fingerprint(str(tmp_path / "a")) == fingerprint(str(tmp_path / "b"))


def test_a_folder_that_does_not_say_its_pooling(tiny, tmp_path):
    import shutil

    shutil.copytree(tiny, tmp_path / "m")
    (tmp_path / "m" / "modules.json").unlink()
    with pytest.raises(Misuse, match="does not say how it pools"):
        load_dense(str(tmp_path / "m"))
    assert load_dense(str(tmp_path / "m"), Overrides(pooling="mean")).document.settings.pooling == "mean"


def test_unknown_modules_and_missing_weights(tiny, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny, tmp_path / "m")
    path = tmp_path / "m" / "modules.json"
    modules = json.loads(path.read_text())
    path.write_text(json.dumps([*modules, {"idx": 3, "name": "3", "path": "3_Dense", "type": "x.Dense"}]))
    with pytest.raises(FlatcoatError, match=r"module x.Dense is not one of"):
        load_dense(str(tmp_path / "m"))
    path.write_text(json.dumps(modules))
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FlatcoatError, match=r"1 weights are missing from the file, for example encoder.layer.1.output"):
        load_dense(str(tmp_path / "m"))
    (tmp_path / "m" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(FlatcoatError, match="cannot be loaded"):
        load_dense(str(tmp_path / "m"))


@pytest.mark.parametrize("name", ["pypi:nothing-here", "./none", "a/b/c"])
def test_nothing_of_that_name(name):
    with pytest.raises(Misuse, match=name.removeprefix("pypi:")):
        load_dense(name)
