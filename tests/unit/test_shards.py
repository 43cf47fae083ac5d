"""Who does which shard, what a lost worker costs, and parts that become the folders one process writes."""

from __future__ import annotations

import os
from collections import deque
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest

from flatcoat.app import mine_shards, verbs_shards, workers_ray
from flatcoat.app.encode_shards import assemble_dense, assemble_multi, assemble_sparse
from flatcoat.app.mine_shards import Deeper, joined, judged
from flatcoat.app.shards import parts_of, plan_of, read_part, versions, write_part
from flatcoat.app.workers import Event, Hand, Workers, work_through, workers_of
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.base import TopK
from flatcoat.mining.mine import MineSettings
from flatcoat.multi_vectors import write_multi
from flatcoat.representations import MultiVector, Sparse
from flatcoat.sparse_vectors import write_sparse
from flatcoat.vectors import write_vectors


class Told:
    """A crew in memory: `says` gives the fate of each (shard, how often it was given), done where it says nothing."""

    device, threads = "cpu", 1

    def __init__(self, size, says=None, unborn=0):
        self.size, self.says, self.unborn = size, says or (lambda shard, time: None), unborn
        self.events, self.given, self.dismissed, self.hired = deque(), [], set(), 0

    def start(self, make, job):
        self.hand = Hand(make, job)

    def hire(self, place):
        self.hired += 1
        kind = "lost" if self.hired <= self.unborn else "ready"
        self.events.append(Event(place, kind, "no memory"))

    def give(self, place, shard):
        self.given.append(shard)
        told = self.says(shard, self.given.count(shard))
        if told is None and hasattr(self, "hand"):
            told = self.hand.work(shard)
        self.events.append(Event(place, *(told or ("done", ""))))

    def wait(self, seconds):
        return [self.events.popleft()] if self.events else []

    def dismiss(self, place):
        self.dismissed.add(place)

    def close(self):
        return


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("3", Workers("local", 3)),
        ("ray:local", Workers("ray:local")),
        ("ray:local:2", Workers("ray:local", 2)),
        ("ray://head.lan:10001", Workers("ray", None, "ray://head.lan:10001")),
        ("ray://10.0.0.1:10001/16", Workers("ray", 16, "ray://10.0.0.1:10001")),
    ],
)
def test_workers_are_read(said, wanted):
    assert workers_of(said) == wanted


@pytest.mark.parametrize(
    "said", ["0", "-1", "two", "ray", "ray:local:0", "ray://", "ray://host", "ray://h:1/0", "ray://h:1/"]
)
def test_other_workers_are_refused(said):
    with pytest.raises(Misuse, match="want a number above 0, ray:local"):
        workers_of(said)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_every_shard_is_done_once(size):
    crew = Told(size)
    assert sorted(work_through(crew, range(5))) == list(range(5))
    assert crew.given == list(range(5)) and crew.hired == min(size, 5)
    assert crew.dismissed == set(range(size))


def test_a_lost_worker_costs_its_shard_alone():
    crew, notes = Told(2, lambda shard, time: ("lost", "signal 9") if (shard, time) == (3, 1) else None), []
    assert sorted(work_through(crew, range(6), note=notes.append)) == list(range(6))
    assert sorted(crew.given) == [0, 1, 2, 3, 3, 4, 5] and crew.hired == 3
    assert notes == ["a worker was lost on 3 (signal 9); another does it again"]


def test_the_last_shard_lost_when_the_others_are_gone_is_done():
    crew = Told(3, lambda shard, time: ("lost", "x") if shard == 2 and time < 3 else None)
    assert sorted(work_through(crew, range(3))) == [0, 1, 2]


def test_a_shard_that_kills_three_workers_is_named():
    crew = Told(2, lambda shard, time: ("lost", "signal 9") if shard == 2 else None)
    with pytest.raises(FlatcoatError, match="rows 8 to 11: 3 workers were lost on it; the last: signal 9"):
        list(work_through(crew, range(6), name=lambda shard: f"rows {4 * shard} to {4 * shard + 3}"))
    assert crew.dismissed == {0, 1}


def test_what_no_worker_could_do_ends_at_once():
    crew = Told(2, lambda shard, time: ("failed", "the vector of 'd7' is not finite") if shard == 1 else None)
    with pytest.raises(FlatcoatError, match="'d7' is not finite"):
        list(work_through(crew, range(6)))
    assert crew.given.count(1) == 1


def test_workers_that_are_never_ready():
    with pytest.raises(FlatcoatError, match="3 workers in a row were lost before they were ready; the last: no memory"):
        list(work_through(Told(2, unborn=99), range(6)))
    assert sorted(work_through(Told(2, unborn=2), range(6))) == list(range(6))
    silent = Told(1)
    silent.hire = lambda place: None
    with pytest.raises(FlatcoatError, match="no worker is ready after 0 s"):
        list(work_through(silent, range(2), patience=0))


def test_what_is_wrong_with_the_job_fails_and_other_errors_lose():
    def make(job):
        def do(shard):
            if shard:
                raise job["error"]

        return do

    assert Hand(make, {}).work(0) == ("done", "")
    assert Hand(make, {"error": FlatcoatError("no model")}).work(1) == ("failed", "no model")
    assert Hand(make, {"error": OSError("stale handle")}).work(1) == ("lost", "OSError: stale handle")


def squares(job):
    from flatcoat.app.shards import Plan

    plan = Plan(**job["plan"])

    def do(shard):
        span = plan.span(shard)
        write_part(plan, shard, {"values": np.arange(span.start, span.stop) ** 2})

    return do


def test_a_plan_goes_on_from_its_parts_and_another_key_begins_anew(tmp_path):
    plan = plan_of(tmp_path / "v.shards", {"model": "m"}, 10, 4)
    assert [plan.span(shard) for shard in plan.shards] == [slice(0, 4), slice(4, 8), slice(8, 10)]
    crew = Told(2, lambda shard, time: ("failed", "stop") if shard == 2 else None)
    with pytest.raises(FlatcoatError, match="stop"), parts_of(plan, crew, squares, {}):
        pass
    assert sum(plan.part(shard).is_file() for shard in plan.shards) == 2
    (tmp_path / "v.shards" / f".{plan.part(2).name}.half").write_text("torn")
    crew, notes = Told(2), []
    with parts_of(plan, crew, squares, {}, note=notes.append) as parts:
        found = np.concatenate([part["values"] for part in parts])
    assert crew.given == [2] and notes == ["2 of 3 shards are there already"]
    np.testing.assert_array_equal(found, np.arange(10) ** 2)
    assert not (tmp_path / "v.shards").exists()

    write_part_of_other = plan_of(tmp_path / "v.shards", {"model": "other"}, 10, 4)
    (tmp_path / "v.shards").mkdir()
    write_part(write_part_of_other, 0, {"values": np.zeros(4)})
    crew = Told(1)
    with parts_of(plan, crew, squares, {}) as parts:
        assert len(list(parts)) == 3
    assert crew.given == [0, 1, 2]


def test_a_damaged_part_is_said_and_made_again(tmp_path):
    plan = plan_of(tmp_path, {}, 8, 4)
    write_part(plan, 0, {"values": np.arange(4000)})
    whole = plan.part(0).read_bytes()
    plan.part(0).write_bytes(whole[:2000] + b"\x07" + whole[2001:])
    with pytest.raises(FlatcoatError, match="damaged, and removed"):
        read_part(plan, 0)
    assert not plan.part(0).exists()
    with pytest.raises(FlatcoatError, match="not to be seen from here"):
        read_part(plan, 0)


def test_the_key_holds_all_that_goes_in(tmp_path):
    keys = {plan_of(tmp_path, facts, items, rows).key
            for facts, items, rows in [({"m": 1}, 9, 4), ({"m": 2}, 9, 4), ({"m": 1}, 8, 4), ({"m": 1}, 9, 8)]}  # fmt: skip
    assert len(keys) == 4


class Judged:
    """A collection that has judgements alone."""

    facts = MappingProxyType({"content": {}})

    def __init__(self, *rows):
        self.rows = np.array(rows, np.int64)

    def judgements(self, split):
        return self.rows


def test_mining_is_keyed_by_its_judgements_and_a_worker_wants_the_same(tmp_path, monkeypatch):
    def key(collection):
        seen = []
        monkeypatch.setattr(verbs_shards, "plan_of", lambda folder, facts, *of: seen.append(facts) or 1 / 0)
        vectors = SimpleNamespace(facts={})
        with pytest.raises(ZeroDivisionError):
            verbs_shards._mine(
                tmp_path,
                SimpleNamespace(collection=collection),
                Told(1),
                (vectors, vectors),
                ("train", 1),
                MineSettings(),
                False,
                None,
            )
        return seen[0]

    one, other = Judged((0, 1, 1)), Judged((0, 2, 1))
    assert key(one) == key(Judged((0, 1, 1))) != key(other)
    monkeypatch.setattr(mine_shards, "settle", lambda job: None)
    monkeypatch.setattr(mine_shards, "seen_collection", lambda job: other)
    with pytest.raises(FlatcoatError, match="split 'train' of toy is not judged as the driver's is"):
        mine_shards.mining({"split": "train", "collection": "toy", "judged": judged(one, "train")})


def test_the_key_holds_the_judgements_and_the_versions(tmp_path, monkeypatch):
    found = [judged(Judged(*rows), "train") for rows in ([(0, 1, 1)], [(0, 2, 1)], [(0, 1, 0)], [(0, 1, 1), (0, 2, 1)])]
    assert len(set(found)) == 4 and found[0] == judged(Judged((0, 1, 1)), "train")
    before = plan_of(tmp_path, {}, 9, 4).key
    assert {"flatcoat", "faiss-cpu"} <= set(versions())
    monkeypatch.setattr("flatcoat.app.shards.VERSIONS", ("numpy", "no-such-package-of-flatcoat"))
    assert versions()["no-such-package-of-flatcoat"] == "none" and plan_of(tmp_path, {}, 9, 4).key != before


def same_bytes(one, two):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_parts_become_the_folders_that_one_process_writes(tmp_path):
    rng = np.random.default_rng(0)
    ids, facts = [f"d{i}" for i in range(11)], {"model": "m", "corpus": "c"}
    cuts = [slice(0, 4), slice(4, 8), slice(8, 11)]

    dense = rng.standard_normal((11, 3)).astype(np.float32)
    write_vectors(tmp_path / "dense", dense, ids, facts)
    assemble_dense(tmp_path / "dense2", ({"values": dense[cut]} for cut in cuts), ids, 3, facts)
    same_bytes(tmp_path / "dense", tmp_path / "dense2")

    weights = rng.random((11, 7), dtype=np.float32)
    weights[rng.random((11, 7)) < 0.6] = 0
    weights[4:8] = 0  # a shard of nothing
    sparse = Sparse.of(weights)
    write_sparse(tmp_path / "sparse", sparse, ids, list("abcdefg"), facts)
    pieces = [sparse[cut] for cut in cuts]
    parts = ({"start": part.start, "terms": part.terms, "values": part.weights} for part in pieces)
    assemble_sparse(tmp_path / "sparse2", parts, ids, list("abcdefg"), facts)
    same_bytes(tmp_path / "sparse", tmp_path / "sparse2")

    items = [rng.standard_normal((size, 3)).astype(np.float32) for size in (2, 0, 3, 1, 0, 0, 0, 0, 5, 1, 2)]
    multi = MultiVector.of(items, 3)
    for stored in ("fp16", "fp32"):
        write_multi(tmp_path / stored, multi, ids, facts, stored)
        parts = ({"start": multi[cut].start, "values": multi[cut].vectors} for cut in cuts)
        assemble_multi(tmp_path / f"{stored}2", parts, ids, 3, facts, stored)
        same_bytes(tmp_path / stored, tmp_path / f"{stored}2")


def test_rankings_are_as_deep_as_the_widest_query_wants():
    class Index:
        def __len__(self):
            return 9

        def search(self, queries, k):
            return TopK(np.arange(k)[None], np.zeros((1, k), np.float32))

    assert [Deeper(Index(), more).search(None, 4).rows.shape[1] for more in (0, 3, 50)] == [4, 7, 9]
    assert len(Deeper(Index(), 3)) == 9
    none = joined([], 5)
    assert none.rows.shape == none.scores.shape == (0, 5)


def test_the_plans_in_the_docs_are_what_the_script_computes():
    import importlib.util
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("plan_scale", root / "benchmarks" / "plan_scale.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (root / "docs" / "scale.md").read_text(encoding="utf-8")
    assert page.split("<!-- plan -->\n")[1].split("<!-- /plan -->")[0].strip() == script.plan(), (
        "run: python benchmarks/plan_scale.py"
    )
    assert [script.size(n) for n in (60, 1536e7, 2.278e15)] == ["60 B", "15.4 GB", "2.28 PB"]
    assert [script.much(n) for n in (0.0168, 58.31, 19400.3, 1271234)] == ["0.0168", "58.3", "19,400", "1,270,000"]


class Slow:
    """A Ray whose processes are not up in time, so often."""

    def __init__(self, failures):
        self.failures, self.begun, self.ended = failures, 0, 0

    def init(self, **how):
        assert how["address"] == "local" and how["num_cpus"] == 2 and os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        self.begun += 1
        if self.begun <= self.failures:
            raise RuntimeError("The current node timed out during startup.\nmore")

    def shutdown(self):
        self.ended += 1


def test_a_cluster_that_is_not_up_in_time_is_started_again(monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    for failures in (0, 1, 2):
        ray = Slow(failures)
        workers_ray._start(ray, 2)
        assert (ray.begun, ray.ended) == (failures + 1, failures)
    ray = Slow(3)
    with pytest.raises(
        FlatcoatError, match=r"^ray:local: Ray does not start here \(The current node .*\); its logs are"
    ):
        workers_ray._start(ray, 2)
    assert (ray.begun, ray.ended) == (3, 3) and "RAY_USAGE_STATS_ENABLED" not in os.environ
