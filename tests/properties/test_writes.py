"""What a served folder promises, under any order of writes and any kill: `python tests/properties/test_writes.py 100` kills as often."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flatcoat.errors import FlatcoatError
from flatcoat.representations import Dense
from flatcoat.search import retriever as module
from flatcoat.search.journal import Document
from flatcoat.search.legs import DenseView, Encoding, Leg
from flatcoat.search.retriever import Asked, Conflict, Retriever

DIM, BASE = 16, 12
IDS = [*(f"b{i}" for i in range(BASE)), *(f"n{i}" for i in range(8))]


def vector(text: str) -> np.ndarray:
    rng = np.random.default_rng(list(text.encode()))
    return rng.standard_normal(DIM).astype(np.float32)


class Encoder:
    """A vector a text, of the text's bytes alone."""

    def encode_queries(self, texts):
        return Dense(np.stack([vector(text) for text in texts]))

    encode_documents = encode_queries


class Flat:
    """All inner products."""

    def __init__(self, vectors):
        self.vectors = vectors

    def __len__(self):
        return len(self.vectors)

    def search(self, queries, k):
        from flatcoat.index.exact import search_slowly

        return search_slowly(self.vectors, queries.vectors, k)


class Table:
    """Documents of a base in memory."""

    def __init__(self, n: int):
        self.ids = [f"b{i}" for i in range(n)]
        self.titles, self.bodies = [""] * n, [f"base {i}" for i in range(n)]
        self.lookup, self.fingerprint = self, "base"

    def __len__(self):
        return len(self.ids)

    def row(self, id):
        return self.ids.index(id) if id in self.ids else None

    def metadata(self, row):
        return {}


def open_at(folder: Path) -> Retriever:
    table = Table(BASE)
    base = Flat(np.stack([vector(text) for text in table.bodies]))
    leg = Leg("flat", "dense", "flat", DenseView.of(base, "k"), Encoding("k", "dense", "bytes", Encoder()))
    return Retriever(table, [leg], folder)


def nearest(there: dict[str, str], query: str, k: int) -> dict[str, float]:
    """The slow twin: every document, one by one."""
    scores = {id: float(vector(text) @ vector(query)) for id, text in there.items()}
    return dict(sorted(scores.items(), key=lambda pair: -pair[1])[:k])


class Writes(RuleBasedStateMachine):
    """Two processes' views of one journal against a dictionary."""

    @initialize()
    def begin(self):
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.there = {f"b{i}": f"base {i}" for i in range(BASE)}
        self.open = [open_at(self.folder), open_at(self.folder)]
        self.sequence = 0

    @rule(
        who=st.integers(0, 1),
        ids=st.lists(st.sampled_from(IDS), unique=True, max_size=4),
        number=st.integers(0, 99),
        over=st.booleans(),
    )
    def add(self, who, ids, number, over):
        given = [Document(id, "", f"{id} {number}") for id in ids]
        if not over and any(id in self.there for id in ids):
            with pytest.raises(Conflict):
                self.open[who].add(given)
            return
        self.open[who].add(given, replace=over)
        self.there |= {doc.id: doc.text for doc in given}

    @rule(who=st.integers(0, 1), ids=st.lists(st.sampled_from(IDS), max_size=6))
    def delete(self, who, ids):
        assert self.open[who].delete(ids)[0] == len(self.there.keys() & set(ids))
        for id in ids:
            self.there.pop(id, None)

    @rule(who=st.integers(0, 1))
    def open_again(self, who):
        self.open[who].close()
        self.open[who] = open_at(self.folder)

    @rule(who=st.integers(0, 1))
    def compact(self, who):
        if (self.folder / "journal").exists():
            self.open[who].compact()

    @rule(who=st.integers(0, 1))
    def tidy(self, who):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "UNDONE", 3)
            self.open[who].tidy()

    @rule(who=st.integers(0, 1), ids=st.lists(st.sampled_from(IDS), unique=True, min_size=1, max_size=4))
    def be_refused(self, who, ids):
        """A disk that takes all and then does not keep it, while the other looks."""

        def fails(file):
            self.open[1 - who].catch_up()
            raise OSError(5, "Input/output error")

        with pytest.MonkeyPatch.context() as patch:
            self.open[who].delete([])  # the file is there
            patch.setattr(os, "fsync", fails)
            with pytest.raises(FlatcoatError, match="nothing was added"):
                self.open[who].add([Document(id, "", f"{id} refused") for id in ids], replace=True)

    @rule(cut=st.binary(min_size=1, max_size=40))
    def tear(self, cut):
        """A write that never came to its end."""
        if (self.folder / "journal").exists():
            with (self.folder / "journal").open("ab") as file:
                file.write(cut)

    @rule(who=st.integers(0, 1), number=st.integers(0, 9), k=st.integers(1, 30))
    def search(self, who, number, k):
        self.open[who].catch_up()
        hits = self.open[who].search([f"query {number}"], Asked(("flat",), k=k)).rankings[0]
        wanted = nearest(self.there, f"query {number}", k)
        assert {hit.id for hit in hits} == wanted.keys()
        np.testing.assert_allclose([hit.score for hit in hits], list(wanted.values()), rtol=1e-4, atol=1e-5)

    @invariant()
    def the_same(self):
        for retriever in getattr(self, "open", ()):
            retriever.catch_up()
            assert retriever.sequence >= self.sequence
            self.sequence = retriever.sequence
            assert len(retriever) == len(self.there)
            found = {id: doc.text for id in IDS if (doc := retriever.document(id)) is not None}
            assert found == self.there

    def teardown(self):
        for retriever in getattr(self, "open", ()):
            retriever.close()
        if hasattr(self, "place"):
            self.place.cleanup()


TestWrites = Writes.TestCase
TestWrites.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def kills(folder: Path, rounds: int, seed: int) -> int:
    """Kill a process that adds and replaces documents, `rounds` times at random moments; give how many writes were acknowledged.

    Raises AssertionError where one of them is lost, a document is torn, or anything is there that was never sent.
    """
    rng, held, serial = random.Random(seed), {}, 0
    command = [sys.executable, __file__, "--fork", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        for turn in range(rounds):
            said = folder / f"said{turn}"
            parent.stdin.write(f"{turn} {serial}\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            while not said.exists():
                time.sleep(0.001)
            time.sleep(rng.random() * 0.12)
            os.kill(child, signal.SIGKILL)
            assert parent.stdout.readline() == "gone\n"
            lines = said.read_text().split("\n")[:-1]
            for line in lines:
                id, text = line.split(" ", 1)
                held[id] = text
            serial += len(lines) + 1
            check(folder, held, serial)
        parent.stdin.close()
    return serial - rounds


def check(folder: Path, held: dict[str, str], serial: int) -> None:
    retriever = open_at(folder)
    pending = 0
    for id in {*held, *(f"d{n}" for n in range(8)), *(f"one{n}" for n in range(serial))}:
        doc = retriever.document(id)
        if doc is None:
            assert id not in held, f"{id} was acknowledged and is lost"
            continue
        assert doc.text.startswith(f"{id} ") and doc.text.endswith(" " + "x" * 3000), f"{id} is torn"
        if held.get(id) != doc.text[:-3001]:  # written, and killed before it was said
            pending += 1
            held[id] = doc.text[:-3001]
    assert pending <= 1, "more than the last write came without an acknowledgement"
    retriever.close()


def fork_on_demand(folder: Path) -> None:
    """Start a child for each line, say its number, and when it is gone; modules are read once."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            write_for_ever(folder, *map(int, line.split()))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os.waitpid(child, 0)
        sys.stdout.write("gone\n")
        sys.stdout.flush()


def write_for_ever(folder: Path, turn: int, serial: int) -> None:
    """Add or replace, and say so once it is done."""
    retriever = open_at(folder)
    with (folder / f"said{turn}").open("wb", buffering=0) as said:
        while True:
            id = f"d{serial % 8}" if serial % 3 == 0 else f"one{serial}"
            text = f"{id} turn {turn} number {serial}"
            retriever.add([Document(id, "", text + " " + "x" * 3000)], replace=True)
            said.write(f"{id} {text}\n".encode())
            serial += 1
            if serial % 7 == 0:
                retriever.compact()


def test_no_kill_loses_what_was_acknowledged(tmp_path):
    assert kills(tmp_path, 20, seed=0) > 20


if __name__ == "__main__":
    if sys.argv[1] == "--fork":
        fork_on_demand(Path(sys.argv[2]))
        sys.exit()
    with tempfile.TemporaryDirectory() as place:
        made = kills(Path(place), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
        sys.stdout.write(f"{sys.argv[1]} kills, {made} acknowledged writes, none lost\n")
