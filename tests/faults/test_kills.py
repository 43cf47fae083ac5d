"""kill -9 between any two operations on files; the long form is `python tests/faults/kills.py --times 200 --seed 7`.

What a server was told is killed and looked for in `tests/properties/test_writes.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flatcoat import places
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_file, atomic_folder, read_manifest, remove_folder, steady, write_manifest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_a_killed_command_begun_again_makes_the_same_bytes(tmp_path):
    words = [sys.executable, str(HERE / "kills.py"), "--times", "8", "--seed", "0", "encode", "index", "train"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "8 kills" in done.stdout or "9 kills" in done.stdout


def put(folder: Path, name: str) -> None:
    with atomic_folder(folder) as partial:
        (partial / name).write_text(name)
        write_manifest(partial, "thing", 1, {"name": name})


def in_child(work) -> int:
    """Do something in a process of its own; its exit code."""
    made = os.fork()
    if not made:
        code = 70
        try:
            work()
            code = 0
        except FlatcoatError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(made, 0)[1])


def test_a_dead_writers_folder_is_taken_over(tmp_path):
    def die():
        with atomic_folder(tmp_path / "f") as partial:
            (partial / "half").write_text("x")
            os._exit(9)

    assert in_child(die) == 9 and (tmp_path / ".f.partial" / "half").exists()
    put(tmp_path / "f", "whole")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["f", "manifest.json", "whole"]


def test_a_dead_writers_file_is_taken_over(tmp_path):
    def die():
        with atomic_file(tmp_path / "f") as partial:
            partial.write_text("a long half")
            os._exit(9)

    assert in_child(die) == 9 and (tmp_path / ".f.partial").exists()
    with atomic_file(tmp_path / "f") as partial:
        assert partial.read_text() == ""
        partial.write_text("new")
    assert (tmp_path / "f").read_text() == "new" and os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_there_at_every_moment_of_its_replacement(tmp_path, monkeypatch, exchange):
    """Killed before each operation of a replacement, what is opened next is the old folder or the new one, whole."""
    if not exchange:
        monkeypatch.setattr(places, "_exchanged", lambda one, other: False)
    for moment in range(1, 40):
        shutil.rmtree(tmp_path / "w", ignore_errors=True)
        put(tmp_path / "w" / "f", "old")

        def replace(moment=moment):
            count = 0

            def watch(event, args):
                nonlocal count
                if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "open"):
                    count += 1
                    if count == moment:
                        os._exit(9)

            sys.addaudithook(watch)
            put(tmp_path / "w" / "f", "new")

        code = in_child(replace)
        name = read_manifest(tmp_path / "w" / "f", "thing", 1)["name"]
        assert name == "new" if code == 0 else name in ("old", "new")
        put(tmp_path / "w" / "f", "last")
        assert read_manifest(tmp_path / "w" / "f", "thing", 1)["name"] == "last"
        assert sorted(path.name for path in (tmp_path / "w").rglob("*")) == ["f", "last", "manifest.json"]
        if code == 0:
            return
    raise AssertionError("a replacement of more than 40 operations")


def test_a_folder_half_removed_is_cleared_by_the_next_removal(tmp_path):
    (tmp_path / ".a.gone-1").mkdir()
    (tmp_path / "b").mkdir()
    remove_folder(tmp_path / "b")
    assert os.listdir(tmp_path) == []


def test_of_two_writers_one_is_told_so(tmp_path):
    with atomic_folder(tmp_path / "f") as partial:
        (partial / "x").write_text("x")
        assert in_child(lambda: put(tmp_path / "f", "other")) == Misuse.exit_code
        with pytest.raises(Misuse, match="f: another process is writing it"), atomic_folder(tmp_path / "f"):
            pass
    assert os.listdir(tmp_path / "f") == ["x"]


def test_a_reader_sees_the_old_folder_or_the_new_one(tmp_path):
    """Two files that must agree, replaced over and over while they are read."""
    folder = tmp_path / "f"

    def make(number):
        with atomic_folder(folder) as partial:
            (partial / "a").write_text(str(number))
            (partial / "b").write_text(str(number))

    make(0)

    def replace():
        for number in range(1, 150):
            make(number)

    writer = os.fork()
    if not writer:
        try:
            replace()
        finally:
            os._exit(0)
    seen = set()
    while not os.waitpid(writer, os.WNOHANG)[0]:
        one, other = steady(folder, lambda: ((folder / "a").read_text(), (folder / "b").read_text()))
        assert one == other, "half of one and half of the other"
        seen.add(one)
    assert len(seen) > 1
