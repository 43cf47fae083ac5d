"""Loading, resuming, changing and pulling back, on every engine that can run here."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.evaluation.fidelity import Judge, setting_of
from flatcoat.index.exact import ExactIndex
from flatcoat.index.remote.address import parse_address
from flatcoat.index.remote.base import Payload, RemoteSettings
from flatcoat.index.remote.load import change, load, pull
from flatcoat.index.remote.store import Place, is_remote, open_remote
from flatcoat.multi_vectors import write_multi
from flatcoat.representations import Dense, Sparse
from flatcoat.sparse_vectors import write_sparse
from flatcoat.testing.engine import asked
from flatcoat.testing.index import unit
from flatcoat.testing.multi_index import tokens
from flatcoat.testing.sparse_index import VOCABULARY, zipfian
from flatcoat.vectors import write_vectors

ROWS, DIM = 90, 8
HOLDS = {
    "qdrant": ("dense", "sparse", "late"),
    "postgresql": ("dense", "sparse", "late"),
    "milvus": ("dense", "sparse"),
}


@pytest.fixture(params=["qdrant", "postgresql", "milvus"])
def place(request, tmp_path):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres")
    elif request.param == "qdrant":
        pytest.importorskip("qdrant_client")
        url = f"qdrant:{tmp_path}/qdrant"
    else:
        pytest.importorskip("pymilvus")
        pytest.importorskip("milvus_lite")
        url = f"milvus:{tmp_path}/milvus.db"
    yield Place(parse_address(url), "moving")
    if request.param == "postgresql":
        from flatcoat.index.remote.connect import connect

        engine = connect(parse_address(url), "moving")
        engine.drop()
        engine.close()


@pytest.fixture
def folders(tmp_path):
    return made(tmp_path / "vectors", [f"d{i}" for i in range(ROWS)])


def made(path, ids, seed=0):
    facts = {"model": "m" * 64, "corpus": "c" * 64, "side": "documents", "precision": "fp32"}
    words = [f"w{i}" for i in range(VOCABULARY)]
    return {
        "dense": write_vectors(path / "dense", unit(len(ids), DIM, seed), ids, facts),
        "sparse": write_sparse(path / "sparse", zipfian(len(ids), 12, seed), ids, words, facts),
        "late": write_multi(path / "late", tokens(len(ids), 1, 4, DIM, seed), ids, facts),
    }


def fitting(folders, place):
    return {name: folder for name, folder in folders.items() if name in HOLDS[place.address.engine]}


def described(ids):
    return [Payload(id, f"title of {id}", f"text of {id}", {"number": int(id[1:])}) for id in ids]


def reopened(path, place, **how):
    return open_remote(path, secret=place.address.secret, **how)


def test_there_and_back_again(tmp_path, place, folders):
    sources = fitting(folders, place)
    with load(tmp_path / "index", place, sources, describe=described, batch=17) as folder:
        assert is_remote(tmp_path / "index") and len(folder.index) == ROWS and folder.kind == place.address.engine
        queries = asked(sources)
        before = {name: folder.index.at(name).search(queries[name], 10) for name in sources}
        few = folder.index.search(queries["dense"], 10, filter={"number": {"lt": 20}})
        assert (few.rows < 20).all() and (few.rows >= 0).all()
    for name in sources:
        with reopened(tmp_path / "index", place, field=name, verify=True) as folder:
            back = pull(folder, tmp_path / "back" / name, batch=13)
        assert list(back.ids) == list(sources[name].ids)
        for file in (tmp_path / "back" / name).glob("*.npy"):
            np.testing.assert_array_equal(np.load(file), np.load(sources[name].path / file.name))
        assert {k: v for k, v in back.facts.items() if k != "files"} == {
            k: v for k, v in sources[name].facts.items() if k != "files"
        }
    again = made_of(tmp_path / "back", sources)
    with load(tmp_path / "again", Place(place.address, "again"), again) as folder:
        for name in sources:
            after = folder.index.at(name).search(queries[name], 10)
            np.testing.assert_array_equal(after.rows, before[name].rows)
            np.testing.assert_array_equal(after.scores, before[name].scores)
        folder.engine.drop()


def made_of(path, sources):
    return {name: type(source).open(path / name) for name, source in sources.items()}


class Killed(Exception):
    pass


def test_a_load_that_was_killed_goes_on(tmp_path, place, folders):
    sources, seen = fitting(folders, place), []

    def until(n):
        def track(items, total, label):
            for i, item in enumerate(items):
                if i == n:
                    raise Killed
                yield item

        return track

    def counting(ids):
        seen.extend(ids)
        return described(ids)

    out = tmp_path / "index"
    with pytest.raises(Killed):
        load(out, place, sources, describe=counting, batch=20, track=until(2))
    assert not out.exists() and len(seen) == 40
    with pytest.raises(Misuse, match="half a load of other vectors"):
        load(out, place, {"dense": sources["dense"]}, batch=20)
    with pytest.raises(Misuse, match="half a load of other vectors, texts"):
        load(out, place, sources, describe=described, texts="f" * 64, batch=20)
    with load(out, place, sources, describe=counting, batch=20) as folder:
        assert seen == [f"d{i}" for i in range(ROWS)]  # nothing twice
        assert folder.engine.count() == ROWS
        truth = ExactIndex(sources["dense"].vectors).search(asked({"dense": None})["dense"], 5)
        np.testing.assert_array_equal(folder.index.search(asked({"dense": None})["dense"], 5).rows, truth.rows)
    assert not list(tmp_path.glob(".index.*"))


def test_a_name_that_exists_is_refused_unless_replaced(tmp_path, place, folders):
    dense = {"dense": folders["dense"]}
    load(tmp_path / "one", place, dense).close()
    with pytest.raises(Misuse, match="is there already; choose another --name, or give --replace"):
        load(tmp_path / "two", place, dense)
    less = {"dense": write_vectors(tmp_path / "less", unit(7, DIM), [f"e{i}" for i in range(7)], {})}
    with load(tmp_path / "two", place, less, replace=True) as folder:
        assert folder.engine.count() == 7
    with pytest.raises(FlatcoatError, match="holds 7 rows where 90 are right"):
        reopened(tmp_path / "one", place, verify=True)


def test_a_collection_of_another_width_or_none_is_said(tmp_path, place, folders):
    load(tmp_path / "one", place, {"dense": folders["dense"]}).close()
    wide = {"dense": write_vectors(tmp_path / "wide", unit(5, DIM + 3), [f"e{i}" for i in range(5)], {})}
    load(tmp_path / "two", place, wide, replace=True).close()
    with pytest.raises(FlatcoatError, match=f"dense holds vectors of {DIM + 3}, where {DIM} are wanted"):
        reopened(tmp_path / "one", place)
    with reopened(tmp_path / "two", place) as folder:
        with pytest.raises(Misuse, match="dimensions do not fit"):
            folder.index.search(Dense(unit(1, DIM)), 1)
        with pytest.raises(Misuse, match="no field 'sparse'; it has dense"):
            folder.index.at("sparse")
        folder.engine.drop()
    with pytest.raises(FlatcoatError, match="not there; was it removed"):
        reopened(tmp_path / "two", place)


def test_documents_come_and_go(tmp_path, place, folders):
    sources, out = fitting(folders, place), tmp_path / "index"
    load(out, place, sources, describe=described).close()
    new = fitting(made(tmp_path / "new", ["d3", "x1", "x2"], seed=5), place)
    with pytest.raises(FlatcoatError, match="document 'd3' is there already"):
        change(out, secret=place.address.secret, add=new)
    with pytest.raises(FlatcoatError, match="no document 'nobody' to delete"):
        change(out, secret=place.address.secret, delete=["nobody"])
    with pytest.raises(Misuse, match="nothing to do"):
        change(out, secret=place.address.secret)
    with change(out, secret=place.address.secret, add=new, delete=["d3", "d50"]) as folder:
        assert (
            len(folder.index) == ROWS + 3 and folder.deleted.tolist() == [3, 50] and folder.engine.count() == ROWS + 1
        )
        assert folder.ids[-3:] == ["d3", "x1", "x2"]
        wanted = np.concatenate([np.delete(sources["dense"].vectors, [3, 50], 0), new["dense"].vectors])
        numbers = np.array([row for row in range(ROWS + 3) if row not in (3, 50)])
        queries = asked({"dense": None})["dense"]
        truth = ExactIndex(wanted).search(queries, 10)
        found = folder.index.search(queries, 10)
        np.testing.assert_array_equal(found.rows, numbers[truth.rows])
        back = pull(folder, tmp_path / "back")
        np.testing.assert_array_equal(back.vectors, wanted)
        assert list(back.ids) == [folder.ids[n] for n in numbers]


def test_a_change_that_was_killed_gives_no_row_without_an_id(tmp_path, place, folders):
    out, secret = tmp_path / "index", place.address.secret
    load(out, place, {"dense": folders["dense"]}).close()
    new = {"dense": made(tmp_path / "new", [f"x{i}" for i in range(9)], seed=5)["dense"]}

    def killed(items, total, label):
        yield next(iter(items))
        raise Killed

    with pytest.raises(Killed):
        change(out, secret=secret, add=new, batch=5, track=killed)
    queries = Dense(new["dense"].vectors[:5])
    with reopened(out, place) as folder:
        assert folder.engine.count() == ROWS + 5
        both = {"dense": queries}
        for found in (
            folder.index.search(queries, 10),
            folder.index.hybrid(both, 10),
            folder.index.hybrid(both, 10, weights={"dense": 2.0}),
        ):
            assert found.rows.max() < ROWS and (found.rows[:, 0] >= 0).all()
    with change(out, secret=secret, add=new) as folder:
        assert folder.index.search(queries, 1).rows[:, 0].tolist() == list(range(ROWS, ROWS + 5))


def test_fidelity_is_measured_through_it(tmp_path, place, folders):
    with load(tmp_path / "index", place, {"dense": folders["dense"]}, RemoteSettings("hnsw", ef=64)) as folder:
        assert folder.index.approximate and setting_of(folder.index) == "ef=64"
        ids = [f"q{i}" for i in range(6)]
        judge = Judge(
            ExactIndex(folders["dense"].vectors), asked({"dense": None})["dense"], query_ids=ids, doc_ids=folder.ids,
            qrels={q: {f"d{i}": 1} for i, q in enumerate(ids)}, measures=["nDCG@10"], timed=False,
        )  # fmt: skip
        measured = judge.measure(folder.index, setting_of(folder.index))
        assert measured.recall[10] > 0.9 and "nDCG@10" in measured.change
        best, tried = judge.cheapest(folder.index, recall=0.9)
        assert best is not None and best.setting in [f"ef={n}" for n in folder.index.knob()[1]] and tried


def test_kinds_that_cannot_be(tmp_path, place, folders):
    with pytest.raises(Misuse, match="kind hnsw is a graph over dense vectors"):
        load(tmp_path / "x", place, {"sparse": folders["sparse"]}, RemoteSettings("hnsw"))
    if place.address.engine == "milvus":
        with pytest.raises(Misuse, match="milvus does not hold late vectors here; it holds dense and sparse"):
            load(tmp_path / "x", place, {"late": folders["late"]})
    with pytest.raises(Misuse, match="not of the same documents"):
        other = write_vectors(tmp_path / "other", unit(ROWS, DIM), [f"e{i}" for i in range(ROWS)], {})
        load(tmp_path / "x", place, {"dense": folders["dense"], "second": other})
    with pytest.raises(Misuse, match="field 'row'"):
        load(tmp_path / "x", place, {"row": folders["dense"]})


def test_two_dense_fields_make_a_hybrid(tmp_path, place, folders):
    second = write_vectors(tmp_path / "second", unit(ROWS, DIM, 4), list(folders["dense"].ids), {})
    with load(tmp_path / "index", place, {"one": folders["dense"], "two": second}) as folder:
        queries = Dense(unit(4, DIM, 8))
        found = folder.index.hybrid({"one": queries, "two": queries}, 5, depth=20)
        assert (found.rows >= 0).all() and folder.index.hybrid({"one": queries[:0]}, 5).rows.shape == (0, 5)
        with pytest.raises(Misuse, match="weights of one; want one for each of one, two"):
            folder.index.hybrid({"one": queries, "two": queries}, 5, weights={"one": 1.0})
        with pytest.raises(Misuse, match="one holds dense vectors, the queries are Sparse"):
            folder.index.search(Sparse.of(np.ones((1, 3), np.float32)), 5)


def test_a_manifest_says_where_and_nothing_secret(tmp_path, place, folders):
    load(tmp_path / "index", place, {"dense": folders["dense"]}).close()
    said = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert said["engine"] == place.address.engine and said["name"] == "moving" and said["schema"] == 1
    assert said["url"] == place.address.url
    if place.address.secret:
        for file in tmp_path.rglob("*"):
            assert not file.is_file() or place.address.secret.encode() not in file.read_bytes()
