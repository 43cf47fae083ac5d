"""Indexes at their edges: knobs, candidates in parts, and folders whose parts do not fit each other."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import MANIFEST, read_json, write_manifest
from flatcoat.index import store, vector
from flatcoat.index.inverted import InvertedSettings
from flatcoat.index.multivector import MultiVectorSettings
from flatcoat.index.store import open_index, write_multivector, write_vector_index
from flatcoat.index.vector import VectorIndex, VectorSettings, rescore
from flatcoat.multi_vectors import write_multi
from flatcoat.representations import Dense, MultiVector
from flatcoat.testing.index import unit
from flatcoat.vectors import write_vectors


@pytest.mark.parametrize(
    "kind,name,value",
    [("ivf", "nprobe", 4), ("hnsw", "ef_search", 16), ("scan", "rescore", 1), ("bits", "rescore", 100)],
)
def test_a_knob_is_the_kinds_own_and_more_of_it_finds_no_less(kind, name, value):
    vectors, queries = unit(400, 8), unit(20, 8, seed=1)
    index = VectorIndex.build(vectors, VectorSettings(kind, cells=4 if kind == "ivf" else None))
    called, values = index.knob()
    assert called == name and value in values and values == sorted(values)
    truth = np.argsort(-queries @ vectors.T, axis=1, kind="stable")[:, :10]

    def recall(setting):
        other = index.with_knob(setting)
        assert getattr(other.settings, name) == setting and other.index is index.index
        rows = other.search(Dense(queries), 10).rows
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), truth.tolist(), strict=True)])

    assert recall(values[-1]) == 1.0 >= recall(values[0])
    if kind == "ivf":
        assert values == [1, 2, 4]


def test_an_index_of_nothing_is_refused():
    with pytest.raises(Misuse, match="at least one vector"):
        VectorIndex.build(np.zeros((0, 8), np.float32), VectorSettings())


def test_rescoring_in_parts_is_rescoring_at_once(monkeypatch):
    vectors, queries = unit(50, 8), unit(7, 8, seed=1)
    rows = np.random.default_rng(0).permuted(np.tile(np.arange(50), (7, 1)), axis=1)[:, :6]
    rows[:, -1] = -1
    whole = rescore(vectors, queries, rows, 8)
    monkeypatch.setattr(vector, "BYTES_AT_ONCE", 1)
    parts = rescore(vectors, queries, rows, 8)
    np.testing.assert_array_equal(whole.rows, parts.rows)
    np.testing.assert_allclose(whole.scores, parts.scores, rtol=1e-6)
    assert (whole.rows[:, 5:] == -1).all() and np.isneginf(
        whole.scores[:, 5:]
    ).all()  # five candidates for eight places


def test_a_full_disk_is_said_by_its_number(tmp_path, monkeypatch):
    class Full(io.RawIOBase):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda *_: Full())
    with pytest.raises(OSError, match="No space left on device") as error:
        store._write_faiss(vector.build(unit(300, 16), VectorSettings("sq")), tmp_path / "index.faiss")
    assert error.value.errno == errno.ENOSPC


@pytest.fixture
def folder(tmp_path):
    facts = {"model": "m", "corpus": "c"}
    return write_vectors(tmp_path / "vectors", unit(60, 8), [f"d{i}" for i in range(60)], facts)


def described_again(path, **changed):
    """Write the manifest anew, as one that fits its files, with other facts."""
    facts = {key: item for key, item in read_json(path / MANIFEST).items() if key not in ("files", "sha256")}
    kind, version = facts.pop("format"), facts.pop("version")
    write_manifest(path, kind, version, {**facts, **changed})


def test_a_graph_that_cannot_be_read_is_refused(folder, tmp_path):
    write_vector_index(tmp_path / "index", folder, VectorSettings("hnsw"))
    (tmp_path / "index" / "index.faiss").write_bytes(b"none of faiss's")
    described_again(tmp_path / "index")
    with pytest.raises(FlatcoatError, match="index.faiss: cannot be read; build the index again"):
        open_index(tmp_path / "index")


def test_vectors_of_another_shape_than_the_manifest_says(folder, tmp_path):
    write_vector_index(tmp_path / "index", folder, None, copy=True)
    described_again(tmp_path / "index", dim=9)
    with pytest.raises(FlatcoatError, match=r"shape \(60, 8\) where .* wants \(60, 9\)"):
        open_index(tmp_path / "index")


def test_vectors_that_were_encoded_anew_are_noticed_without_reading_them_whole(folder, tmp_path):
    write_vector_index(tmp_path / "index", folder, None)
    assert len(open_index(tmp_path / "index", verify=False).index) == 60
    write_vectors(folder.path, unit(60, 8, seed=5), folder.ids, {"model": "m"})
    for verify in (True, False):
        with pytest.raises(FlatcoatError, match=r"vectors.npy: altered since .*index again"):
            open_index(tmp_path / "index", verify=verify)


def test_vectors_that_are_replaced_while_they_are_opened(folder, tmp_path, monkeypatch):
    write_vector_index(tmp_path / "index", folder, None)
    read = store.read_array

    def replaced(path, **how):
        write_vectors(folder.path, unit(60, 8, seed=5), [f"d{i}" for i in range(60)], {"model": "m"})
        return read(path, **how)

    monkeypatch.setattr(store, "read_array", replaced)
    with pytest.raises(FlatcoatError, match="encoded anew while .*index again"):
        open_index(tmp_path / "index")


@pytest.fixture
def several(tmp_path):
    vectors = MultiVector.of([unit(3, 8, seed=i) for i in range(20)], 8)
    return write_multi(tmp_path / "multi", vectors, [f"d{i}" for i in range(20)], {"model": "m"}, "fp32")


@pytest.mark.parametrize("settings", [None, MultiVectorSettings()])
@pytest.mark.parametrize("changed", [{"stored": "fp16"}, {"tokens": 59}, {"items": 19}])
def test_items_of_several_vectors_that_do_not_fit(several, tmp_path, settings, changed):
    write_multivector(tmp_path / "index", several, settings, copy=True)
    if settings is not None and "vectors.npy" not in read_json(tmp_path / "index" / MANIFEST)["files"]:
        pytest.skip("this kind keeps no full vectors")
    described_again(tmp_path / "index", **changed)
    with pytest.raises(FlatcoatError, match=r"do not fit|wants|cannot be read"):
        open_index(tmp_path / "index")


def test_exact_search_wants_its_vectors(several, tmp_path):
    write_multivector(tmp_path / "index", several, None, copy=True)
    (tmp_path / "index" / "vectors.npy").unlink()
    described_again(tmp_path / "index")
    with pytest.raises(FlatcoatError, match="exact search without vectors; build the index again"):
        open_index(tmp_path / "index")


def test_a_manifest_without_what_it_should_say_is_refused(folder, tmp_path):
    write_vector_index(tmp_path / "index", folder, None)
    said = read_json(tmp_path / "index" / MANIFEST)
    (tmp_path / "index" / MANIFEST).write_text(json.dumps({key: said[key] for key in ("format", "version", "files")}))
    with pytest.raises(FlatcoatError, match="not formed as it should be"):
        open_index(tmp_path / "index")


def test_a_pruned_index_is_of_8_bits():
    with pytest.raises(Misuse, match="kind='pruned' works on impacts of 8 bits, not 16"):
        InvertedSettings("pruned", bits=16).checked()
