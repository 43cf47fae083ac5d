"""Encoding and mining by workers give what one process gives, whoever is killed meanwhile: local processes, and a Ray cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from flatcoat.app import verbs_shards
from flatcoat.app.build import model as build_model
from flatcoat.app.encode import encode_documents, encode_queries
from flatcoat.app.encode_shards import encoding
from flatcoat.app.tables import ModelTable, RuntimeTable
from flatcoat.app.verbs_mine import mine as mine_verb
from flatcoat.app.verbs_shards import Asked, Judge, encode_by_workers, mine_by_workers, negative_lines
from flatcoat.app.workers import Event, Hand, Workers, open_crew
from flatcoat.data.collection import open_collection
from flatcoat.data.toy import ANIMALS, FOODS, PLACES
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.mine import MineSettings
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross
from flatcoat.records import silent

WINDOW = 16
KINDS = ("dense", "sparse", "late")


@pytest.fixture
def small(monkeypatch):
    """Windows of 16 texts and blocks of 8 queries, here and in every worker."""
    for name in ("encode", "encode_sparse", "encode_multi"):
        monkeypatch.setattr(f"flatcoat.models.{name}.WINDOW", WINDOW)
    monkeypatch.setattr("flatcoat.mining.mine.BLOCK", 8)
    monkeypatch.setattr("flatcoat.app.verbs_shards.QUERIES", 8)


class Here:
    """Two workers in this process."""

    size, device, threads = 2, "cpu", 1

    def start(self, make, job):
        self.hands, self.events, self.trade = {}, deque(), (make, job)

    def hire(self, place):
        self.hands[place] = Hand(*self.trade)
        self.events.append(Event(place, *self.hands[place].ready()))

    def give(self, place, shard):
        self.events.append(Event(place, *self.hands[place].work(shard)))

    def wait(self, seconds):
        return [self.events.pop()]  # the later first: shards are not done in order

    def dismiss(self, place):
        self.hands.pop(place, None)

    def close(self):
        return


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(verbs_shards, "open_crew", lambda workers, device: Here())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def models(tiny, tiny_mlm, home):
    marked = LateOverrides(8, 12, 24, query_marker="q", document_marker="d", expand=True, skip_punctuation=True)
    save_late(load_late(str(tiny), marked), home / "late")
    save_cross(load_cross(str(tiny), CrossOverrides(seed=0)), home / "cross")
    return {"dense": tiny, "sparse": tiny_mlm, "late": home / "late", "cross": home / "cross"}


def asked_of(kind, models, collection, **more):
    table = ModelTable.model_validate({"kind": kind, "start": str(models[kind])})
    return Asked(
        build_model(table, RuntimeTable()), table, str(collection), open_collection(str(collection)), "cpu", **more
    )


def same_bytes(one: Path, two: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def by_one(path, asked, split=None):
    if split:
        encode_queries(path, asked.model, asked.table.start, asked.collection, split, track=silent)
    else:
        encode_documents(path, asked.model, asked.table.start, asked.collection, track=silent)


def noted(job):
    """The work, and a line in `log` for each shard that is begun."""
    do = encoding(job)

    def shard(number):
        with (Path(job["plan"]["folder"]).parent / "log").open("a") as log:
            log.write(f"{number}\n")
        do(number)

    return shard


def dying(job):
    """Shard 1 kills its first worker at its second batch."""
    from flatcoat.models import encode

    do, flag, pad = noted(job), Path(job["plan"]["folder"]).parent / "flag", encode.pad
    job = {**job}

    def shard(number):
        batches = []

        def killing(rows, pad_id, device):
            batches.append(len(rows))
            if len(batches) == 2 and not flag.exists():
                flag.write_text("killed")
                os.kill(os.getpid(), signal.SIGKILL)
            return pad(rows, pad_id, device)

        encode.pad = killing if number == 1 else pad
        do(number)

    return shard


def slow(job):
    """The work, a third of a second late."""
    do = noted(job)
    return lambda number: (time.sleep(0.3), do(number))[1]


def test_processes_give_the_bytes_of_one_though_one_is_killed_in_mid_shard(models, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    words = [*ANIMALS, *PLACES, *FOODS, "the", "lives", "in", "eats"]
    with (tmp_path / "corpus.jsonl").open("w") as file:
        for number in range(9000):
            text = " ".join(rng.choice(words, int(rng.integers(1, 30))))
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}) + "\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "otter"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    monkeypatch.setattr(verbs_shards, "encoding", dying)
    notes = []
    asked = asked_of("dense", models, tmp_path, note=notes.append)
    by_one(tmp_path / "one", asked)
    encode_by_workers(tmp_path / "two", asked, "2")
    same_bytes(tmp_path / "one", tmp_path / "two")
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1", "1", "2"]
    assert notes == ["a worker was lost on shard 1 (rows 4096 to 8191) (signal 9); another does it again"]
    assert not (tmp_path / "two.shards").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_vectors_is_that_of_one_process(kind, models, toy, tmp_path, small, here):
    asked = asked_of(kind, models, toy)
    by_one(tmp_path / "one", asked)
    by_one(tmp_path / "q-one", asked, "train")
    encode_by_workers(tmp_path / "two", asked, "2")
    encode_by_workers(tmp_path / "q-two", asked, "1", split="train")
    same_bytes(tmp_path / "one", tmp_path / "two")
    same_bytes(tmp_path / "q-one", tmp_path / "q-two")


DRIVER = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
import test_workers
from flatcoat.app import verbs_shards

if __name__ == "__main__":
    for name in ("encode", "encode_sparse", "encode_multi"):
        __import__("flatcoat.models." + name, fromlist=["WINDOW"]).WINDOW = 16
    verbs_shards.encoding = test_workers.slow
    asked = test_workers.asked_of({kind!r}, {models!r}, {toy!r})
    verbs_shards.encode_by_workers(Path({out!r}), asked, "1")
"""


def test_a_driver_that_was_killed_is_gone_on_with(models, toy, tmp_path, small, here, monkeypatch):
    out = tmp_path / "v"
    known = {kind: str(path) for kind, path in models.items()}
    words = {"tests": str(Path(__file__).parent), "kind": "sparse", "models": known, "toy": str(toy), "out": str(out)}
    (tmp_path / "driver.py").write_text(DRIVER.format(**words))
    driver = subprocess.Popen([sys.executable, str(tmp_path / "driver.py")], env={**os.environ, "HOME": str(tmp_path)})
    parts = lambda: len(list((tmp_path / "v.shards").glob("part-*")))  # noqa: E731
    until(lambda: parts() > 0 or driver.poll() is not None)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    until(lambda: not _at_work(out))
    begun, there = (tmp_path / "log").read_text().split(), parts()
    assert 0 < there < 4 and not out.exists()
    monkeypatch.setattr(verbs_shards, "encoding", noted)
    notes = []
    asked = asked_of("sparse", models, toy, note=notes.append)
    encode_by_workers(out, asked, "2")
    assert notes == [f"{there} of 4 shards are there already"]
    assert sorted((tmp_path / "log").read_text().split()[len(begun) :]) == [str(n) for n in range(there, 4)]
    by_one(tmp_path / "one", asked)
    same_bytes(tmp_path / "one", out)


def _at_work(out):
    """Whether a worker is still in the midst of a part: it ends when it finds its driver gone."""
    before = sorted((out.parent / "v.shards").iterdir())
    time.sleep(1)
    return sorted((out.parent / "v.shards").iterdir()) != before


def until(true, seconds=90):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_two_drivers_of_one_folder(models, toy, tmp_path, small):
    import fcntl

    (tmp_path / "v.shards").mkdir()
    with (tmp_path / "v.shards" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Misuse, match="another process is writing here"):
            encode_by_workers(tmp_path / "v", asked_of("dense", models, toy), "1")


def test_a_worker_with_another_collection_or_model_fails_at_once(models, toy, tmp_path, small, here, monkeypatch):
    asked = asked_of("dense", models, toy)
    real = verbs_shards.sources

    def other(name, value):
        return lambda *given: {**real(*given), name: value}

    for name, value, said in (
        ("fingerprint", "0" * 64, "is not the model that the driver has"),
        ("content", {"documents": "x", "queries": "y"}, "is not what the driver has under that name"),
    ):
        monkeypatch.setattr(verbs_shards, "sources", other(name, value))
        with pytest.raises(FlatcoatError, match=said):
            encode_by_workers(tmp_path / "v", asked, "1")


def mined_by_one(kind, models, toy, out, settings, approximate, judge):
    mine_verb(
        str(models[kind]), str(toy), str(out), "train", settings.first, settings.last, settings.absolute_margin,
        settings.relative, settings.max_score, approximate, str(judge) if judge else None, 0.5, "list", 1, 0, None,
        "fp32", "cpu", True,
    )  # fmt: skip


MINED = [
    ("dense", MineSettings(1, 5), False, False),
    ("dense", MineSettings(2, 6, relative=1.0), True, False),
    ("sparse", MineSettings(1, 5, absolute_margin=0.01), False, False),
    ("late", MineSettings(1, 5, relative=0.999), False, False),
    ("dense", MineSettings(1, 6), False, True),
]


@pytest.mark.parametrize(("kind", "settings", "approximate", "judged"), MINED)
def test_mined_negatives_are_those_of_one_process(
    kind, settings, approximate, judged, models, toy, tmp_path, small, here
):
    judge = models["cross"] if judged else None
    mined_by_one(kind, models, toy, tmp_path / "one.jsonl", settings, approximate, judge)
    asked = asked_of(kind, models, toy)
    by = Judge(str(judge), 0.5) if judge else None
    rows, mined = mine_by_workers(
        tmp_path / "two.jsonl", asked, "2", "train", settings, approximate=approximate, judge=by
    )
    assert "".join(negative_lines(asked.collection, rows, mined)) == (tmp_path / "one.jsonl").read_text()
    assert (mined.rows >= 0).sum() > 20 and not (tmp_path / "two.jsonl.work").exists()


def test_a_wrong_address_is_one_clear_line_within_seconds():
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(FlatcoatError, match=rf"ray://127.0.0.1:{port}: no Ray cluster answers there") as said:
        open_crew(Workers("ray", None, f"ray://127.0.0.1:{port}"), "cpu")
    assert time.monotonic() - start < 20 and "\n" not in str(said.value)


CONNECT = """
import time
from flatcoat.app.workers import open_crew, workers_of
from flatcoat.errors import FlatcoatError
try:
    open_crew(workers_of("ray://127.0.0.1:{port}"), "cpu")
except FlatcoatError as error:
    print(error)
"""


@pytest.mark.slow
def test_an_address_where_something_else_answers_is_one_clear_line_within_seconds(tmp_path):
    pytest.importorskip("ray")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        threading.Thread(target=lambda: [other.accept() for _ in range(2)], daemon=True).start()
        start = time.monotonic()
        code = CONNECT.format(port=other.getsockname()[1])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "something answers, but no Ray cluster that can be used" in done.stdout and done.stdout.count("\n") == 1
    assert time.monotonic() - start < 30  # imports among them


@pytest.fixture
def starting(monkeypatch):
    """Ray, where it starts: on a machine in great demand its own processes may not be up when its patience ends."""
    pytest.importorskip("ray")
    from flatcoat.app import workers_ray

    start = workers_ray._start

    def started(*given):
        try:
            start(*given)
        except FlatcoatError as error:
            pytest.skip(str(error))

    monkeypatch.setattr(workers_ray, "_start", started)


@pytest.mark.slow
def test_a_ray_cluster_gives_the_bytes_of_one_process_though_a_worker_is_killed(
    models, toy, tmp_path, small, monkeypatch, starting
):
    monkeypatch.setattr(verbs_shards, "encoding", dying)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where its workers find `dying`
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray keeps the token of its cluster
    notes = []
    asked = asked_of("dense", models, toy, note=notes.append)
    asked.model.runtime = type(asked.model.runtime)("cpu", "fp32", 64)
    by_one(tmp_path / "one", asked)
    encode_by_workers(tmp_path / "two", asked, "ray:local:2")
    same_bytes(tmp_path / "one", tmp_path / "two")
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1", "1", "2", "3"]
    assert len(notes) == 1 and "lost on shard 1 (rows 16 to 31) (ActorDiedError" in notes[0]

    settings = MineSettings(1, 5, relative=0.99)
    mined_by_one("dense", models, toy, tmp_path / "one.jsonl", settings, False, None)
    asked = asked_of("dense", models, toy)
    rows, mined = mine_by_workers(tmp_path / "two.jsonl", asked, "ray:local:2", "train", settings)
    assert "".join(negative_lines(asked.collection, rows, mined)) == (tmp_path / "one.jsonl").read_text()
