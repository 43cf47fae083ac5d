"""Damage to any file of anything that Flatcoat writes: `python tests/faults/damaging.py --times 1000 --seed 7`.

A thing is a folder and what it answers. One file of a copy of it is damaged: a bit flipped (seven times of ten), cut off at a random
length, emptied, deleted, or a folder put in its place. Then the copy is asked: it must answer the same, or raise a FlatcoatError of one
line that names the file. Anything else is a fault.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError

KINDS = ("bit",) * 7 + ("cut", "empty", "gone", "folder")
FACTS = {"corpus": "c"}
WORDS = ["where does the badger live", "what does the heron eat in the long grass by the river at dusk"]


@dataclass(frozen=True)
class Thing:
    """A folder, and everything that can be had from it."""

    name: str
    folder: Path
    answer: Callable[[Path], Any]


def told(value: Any) -> str:
    """A digest of any value that an answer is made of, to the bit."""
    made = hashlib.sha256()

    def add(part: Any) -> None:
        if hasattr(part, "numpy"):
            part = part.detach().numpy()
        if isinstance(part, np.ndarray):
            made.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        elif is_dataclass(part):
            add({field.name: getattr(part, field.name) for field in fields(part)})
        elif isinstance(part, dict):
            for key in sorted(part, key=str):
                add((str(key), part[key]))
        elif isinstance(part, list | tuple):
            made.update(f"[{len(part)}".encode())
            for each in part:
                add(each)
        else:
            made.update(repr(part).encode("utf-8", "backslashreplace"))

    add(value)
    return made.hexdigest()


def damage(folder: Path, rng: random.Random) -> tuple[Path, str]:
    """Damage one file; which, and how."""
    file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    size, kind = file.stat().st_size, rng.choice(KINDS)
    if kind in ("bit", "cut", "empty") and not size:
        kind = "gone"
    if kind == "bit":
        data = bytearray(file.read_bytes())
        data[rng.randrange(size)] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
    elif kind in ("cut", "empty"):
        file.write_bytes(file.read_bytes()[: rng.randrange(size) if kind == "cut" else 0])
    else:
        file.unlink()
        if kind == "folder":
            file.mkdir()
    return file, kind


def attempt(thing: Thing, wanted: str, place: Path, rng: random.Random) -> tuple[str, str]:
    """Damage a copy and ask it: "refused" or "the same", and how it was damaged. Raises AssertionError where it is a fault."""
    copy = place / "copy" / thing.folder.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(thing.folder, copy)
    file, kind = damage(copy, rng)
    where = f"{thing.name}, {file.relative_to(copy)}, {kind}"
    try:
        found = told(thing.answer(copy))
    except FlatcoatError as error:
        assert "\n" not in str(error), f"{where}: more than a line: {error}"
        assert file.name in str(error), f"{where}: does not name the file: {error}"
        return "refused", kind
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    assert found == wanted, f"{where}: another answer"
    return "the same", kind


def rounds(things: list[Thing], place: Path, times: int, seed: int) -> Counter[tuple[str, str, str]]:
    """Damage each thing in turn, `times` in all; how often what came of what. Raises AssertionError at the first fault."""
    rng = random.Random(seed)
    wanted = {thing.name: told(thing.answer(thing.folder)) for thing in things}
    seen: Counter[tuple[str, str, str]] = Counter()
    for turn in range(times):
        thing = things[turn % len(things)]
        outcome, kind = attempt(thing, wanted[thing.name], place, rng)
        seen[thing.name, kind, outcome] += 1
    return seen


def folders(root: Path) -> list[Thing]:
    """A collection, vectors of each kind, and every kind of index."""
    from flatcoat.data.collection import build_store
    from flatcoat.data.store import Collection
    from flatcoat.data.toy import write_toy
    from flatcoat.index.bm25 import Bm25Settings
    from flatcoat.index.inverted import InvertedSettings
    from flatcoat.index.multivector import MultiVectorSettings
    from flatcoat.index.store import write_bm25, write_inverted, write_multivector, write_vector_index
    from flatcoat.index.vector import VectorSettings
    from flatcoat.multi_vectors import MultiFolder, write_multi
    from flatcoat.representations import Dense
    from flatcoat.sparse_vectors import SparseFolder, write_sparse
    from flatcoat.testing.index import unit
    from flatcoat.testing.multi_index import tokens
    from flatcoat.testing.sparse_index import zipfian
    from flatcoat.vectors import VectorFolder, write_vectors

    def texts(folder: Path) -> Any:
        opened = Collection.open(folder)
        tables = [
            [(t.ids[i], t.text(i), t.lookup.row(t.ids[i])) for i in range(len(t))]
            for t in (opened.documents, opened.queries)
        ]
        return tables, [(split, opened.qrels(split)) for split in opened.splits]

    def vectors(kind: Any) -> Callable[[Path], Any]:
        def answer(folder: Path) -> Any:
            made = kind.open(folder)
            return made.facts["model"], made.ids, made.vectors, getattr(made, "vocabulary", None)

        return answer

    def asked(queries: Any) -> Callable[[Path], Any]:
        def answer(folder: Path) -> Any:
            from flatcoat.index.store import open_index

            made = open_index(folder / "index" if (folder / "index").exists() else folder)
            return made.ids, made.facts["of"], made.index.search(queries, 5)

        return answer

    collection = build_store(str(write_toy(root / "toy")), root / "store")
    ids = list(collection.documents.ids)
    things = [Thing("store", root / "store", texts)]
    dense = write_vectors(root / "dense", unit(60, 16), ids, {"model": "m"})
    things.append(Thing("vectors", dense.path, vectors(VectorFolder)))
    queries = Dense(unit(3, 16, 1))
    for kind in ("exact", "scan", "bits", "sq", "hnsw", "ivf"):
        settings = None if kind == "exact" else VectorSettings(kind, cells=4, nprobe=4)
        write_vector_index(root / f"index-{kind}", dense, settings, copy=True)
        things.append(Thing(f"index {kind}", root / f"index-{kind}", asked(queries)))
    own = write_vectors(root / "linked" / "vectors", unit(60, 16), ids, {"model": "m"})
    write_vector_index(root / "linked" / "index", own, None)
    things.append(Thing("index and vectors", root / "linked", asked(queries)))
    words = [f"t{i}" for i in range(50)]
    sparse = write_sparse(
        root / "sparse", zipfian(60, 12, seed=0, vocab_size=50), [f"d{i}" for i in range(60)], words, {"model": "m"}
    )
    things.append(Thing("sparse vectors", sparse.path, vectors(SparseFolder)))
    for name, made in (
        ("inverted", InvertedSettings("inverted")),
        ("inverted fp32", InvertedSettings("inverted", bits=32)),
        ("pruned", InvertedSettings("pruned")),
    ):
        write_inverted(root / name, sparse, made)
        things.append(Thing(f"index {name}", root / name, asked(zipfian(3, 6, seed=1, vocab_size=50))))
    several = write_multi(root / "multi", tokens(30, 0, 6), [f"d{i}" for i in range(30)], {"model": "m"})
    things.append(Thing("token vectors", several.path, vectors(MultiFolder)))
    write_multivector(root / "multivector", several, MultiVectorSettings(cells=8), copy=True)
    things.append(Thing("index multivector", root / "multivector", asked(tokens(3, 1, 4, seed=1))))
    write_bm25(root / "bm25", collection.documents.texts(), ids, {"corpus": "c"}, Bm25Settings())
    things.append(Thing("index bm25", root / "bm25", asked(WORDS)))
    return things


def kept(root: Path) -> list[Thing]:
    """A journal of a served folder, and a teacher's scores."""
    from flatcoat.data.store import Collection
    from flatcoat.representations import Dense
    from flatcoat.search.journal import Document, Journal, Record
    from flatcoat.training.teacher import PairTeacher

    journal = Journal(root / "live", FACTS)
    for number in range(4):
        with journal.writing():
            list(journal.follow()[1])
            made = Dense(np.full((1, 8), number, np.float32))
            doc = Document(f"d{number}", "", f"text {number}", {"n": number})
            journal.append(Record(number + 1, (doc,), (f"b{number}",), {"k": made}))
    journal.close()
    shutil.rmtree(root / "live" / ".lock", ignore_errors=True)
    (root / "live" / ".lock").unlink(missing_ok=True)

    def records(folder: Path) -> Any:
        reader = Journal(folder, FACTS)
        try:
            return list(reader.follow()[1])
        finally:
            reader.close()

    class Lengths:
        def score(self, queries: Any, documents: Any) -> np.ndarray:
            return np.array([len(q) + 0.5 * len(d) for q, d in zip(queries, documents, strict=True)], np.float32)

    collection = Collection.open(root / "store")

    def scores(folder: Path) -> Any:
        teacher = PairTeacher(Lengths(), collection, folder / "teacher.scores")
        return [teacher.score(np.array([i]), np.arange(i, i + 3), np.ones((1, 3), bool)) for i in range(5)]

    (root / "teacher").mkdir()
    scores(root / "teacher")
    return [Thing("journal", root / "live", records), Thing("teacher's scores", root / "teacher", scores)]


def models(root: Path) -> list[Thing]:
    """A model of each kind, and a training checkpoint. Takes torch and transformers."""
    import torch

    from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
    from flatcoat.models.cross_checkpoint import load_cross, save_cross
    from flatcoat.models.load import load_model, save_model
    from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade, save_splade
    from flatcoat.testing.tiny import write_tiny, write_tiny_mlm
    from flatcoat.training.state import load_state, save_state

    plain, mlm = str(write_tiny(root / "tiny")), str(write_tiny_mlm(root / "tiny-mlm"))
    save_model(load_model(plain), root / "m-dense")
    save_splade(load_splade(mlm), root / "m-sparse")
    save_splade(load_splade(mlm, SparseOverrides(queries="lookup")), root / "m-lookup")
    save_late(load_late(plain, LateOverrides(dim=8)), root / "m-late")
    torch.manual_seed(0)
    save_cross(load_cross(plain), root / "m-cross")

    def answer(folder: Path) -> Any:
        model = load_model(str(folder))
        if hasattr(model, "document"):
            return model.encode_queries(WORDS), model.encode_documents(WORDS)
        return model.score(WORDS, WORDS[::-1])

    module = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(4)).sum().backward()
    optimizer.step()
    save_state(root / "checkpoint", module, optimizer, {"sampler/a": np.arange(5)}, {"step": 3, "best": 0.5})

    def restored(folder: Path) -> Any:
        other = torch.nn.Linear(4, 3)
        stepping = torch.optim.AdamW(other.parameters())
        said = load_state(folder, other, stepping)
        return said, list(other.parameters()), [sorted(state.items()) for state in stepping.state.values()]

    things = [
        Thing(f"model {name}", root / f"m-{name}", answer) for name in ("dense", "sparse", "lookup", "late", "cross")
    ]
    return [*things, Thing("training checkpoint", root / "checkpoint", restored)]


def table(seen: Counter[tuple[str, str, str]]) -> str:
    """What came of what, a thing a row."""
    lines = ["| thing | damaged | refused, naming the file | the same answer |", "|---|---:|---:|---:|"]
    for name in dict.fromkeys(key[0] for key in seen):
        own = {
            outcome: sum(n for key, n in seen.items() if key[0] == name and key[2] == outcome)
            for outcome in ("refused", "the same")
        }
        lines.append(f"| {name} | {sum(own.values())} | {own['refused']} | {own['the same']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        every = folders(root) + kept(root) + models(root)
        found = rounds(every, root, said.times, said.seed)
    sys.stdout.write(
        f"{table(found)}\n{sum(found.values())} damages with seed {said.seed}: no other answer, no other exception\n"
    )
