"""Two commands in one folder: one does the work, the other says so and exits 2, or waits and finds the same."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from flatcoat.files import read_manifest
from flatcoat.index.store import open_index, write_vector_index
from flatcoat.index.vector import VectorSettings
from flatcoat.representations import Dense
from flatcoat.testing.index import unit
from flatcoat.vectors import VectorFolder, write_vectors

sys.path.insert(0, str(Path(__file__).parent))


def together(*works) -> list[int]:
    """Do things at once, each in a process of its own; their exit codes."""
    made = []
    for work in works:
        child = os.fork()
        if not child:
            code = 70
            try:
                code = work() or 0
            finally:
                os._exit(code)
        made.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in made]


def command(place: Path, *words: str):
    def work() -> int:
        from flatcoat.app.cli import main

        sys.stdout = sys.stderr = (place / f"said-{os.getpid()}").open("w", buffering=1)  # not the test's own
        sys.argv = ["flatcoat", *words, "--quiet"]
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return work


RECIPE = """
[collection]
source = "{place}/toy"
test = "test"
[model]
start = "{tiny}"
[training]
steps = 4
batch = 8
[evaluation]
measures = ["nDCG@10"]
"""


@pytest.mark.slow
def test_two_of_the_same_command_do_the_work_once_or_alike(tiny, toy, tmp_path):
    (tmp_path / "toy").symlink_to(toy)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(place=tmp_path, tiny=tiny))
    write_vectors(tmp_path / "vectors", unit(60, 16), [f"d{i}" for i in range(60)], {"model": "m"})
    recipe, out = str(tmp_path / "recipe.toml"), tmp_path / "out"
    for words in (
        ("encode", str(tiny), str(toy)),
        ("index", str(tmp_path / "vectors"), "--kind", "hnsw", "--copy"),
        ("mine", str(tiny), str(toy), "--last", "8"),
        ("train", recipe),
        ("run", recipe),
    ):
        path = out / words[0]
        one = command(tmp_path, *words, "--out", str(path))
        codes = together(one, one)
        said = [file.read_text() for file in tmp_path.glob("said-*")]
        assert sorted(codes) in ([0, 0], [0, 2]), (words, codes, said)
        assert not any("Traceback" in text for text in said), said
        if 2 in codes:
            assert any("another process is writing" in text for text in said), said
        assert path.exists() and together(one) == [0]  # and a third goes well
        for file in tmp_path.glob("said-*"):
            file.unlink()
    assert not [path for path in out.rglob("*") if ".partial" in path.name or ".old" in path.name]


def test_a_search_while_the_index_is_replaced_is_of_the_old_one_or_the_new_one(tmp_path):
    """Vectors and ids change together; an answer that mixes them would name the wrong documents."""
    queries, answers = Dense(unit(4, 16, 9)), set()
    sources = [
        write_vectors(tmp_path / f"v{n}", unit(40, 16, n), [f"v{n}-{i}" for i in range(40)], {"model": "m"})
        for n in (0, 1)
    ]
    wanted = set()
    for source in sources:
        write_vector_index(tmp_path / "index", source, None, copy=True)
        wanted.add(asked(tmp_path / "index", queries))
    assert len(wanted) == 2

    def replace() -> int:
        for turn in range(40):
            write_vector_index(tmp_path / "index", sources[turn % 2], None, copy=True)
        return 0

    writer = multiprocessing.get_context("fork").Process(target=replace)
    writer.start()
    while writer.is_alive():
        answers.add(asked(tmp_path / "index", queries))
    writer.join()
    assert writer.exitcode == 0 and answers <= wanted and answers


def asked(path: Path, queries: Dense) -> str:
    made = open_index(path)
    top = made.index.search(queries, 3)
    return repr([[made.ids[row] for row in rows] for rows in top.rows.tolist()])


def test_a_store_that_is_read_anew_while_it_is_open_is_not_mixed(toy, tmp_path):
    from flatcoat.data.collection import build_store
    from flatcoat.errors import FlatcoatError

    opened = build_store(str(toy), tmp_path / "store")
    other = tmp_path / "other"
    import shutil

    shutil.copytree(toy, other)
    corpus = other / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("badger", "wombat"))
    build_store(str(other), tmp_path / "store")
    with pytest.raises(FlatcoatError, match="read anew meanwhile; run again"):
        opened.documents.text(0)


def test_ids_of_vectors_that_were_replaced_are_not_mixed(tmp_path):
    from flatcoat.errors import FlatcoatError

    opened = write_vectors(tmp_path / "v", unit(4, 16), list("abcd"), {"model": "m"})
    write_vectors(tmp_path / "v", unit(4, 16, 1), list("efgh"), {"model": "m"})
    with pytest.raises(FlatcoatError, match="not what the manifest said when it was opened"):
        assert opened.ids
    assert VectorFolder.open(tmp_path / "v").ids == list("efgh")
    assert read_manifest(tmp_path / "v", "flatcoat-vectors", 1)["items"] == 4
    write_vector_index(tmp_path / "i", VectorFolder.open(tmp_path / "v"), VectorSettings("scan"))
