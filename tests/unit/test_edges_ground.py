"""Files, names, arrays and columns at their edges: damage by its name, locks, and folders that change under a reader."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time

import numpy as np
import pytest

from flatcoat import files, places
from flatcoat.arrays import read_array, taking_apart
from flatcoat.columns import Column, ColumnWriter, Lookup, text_hash
from flatcoat.errors import FlatcoatError, Misuse, is_utf8, need
from flatcoat.multi_vectors import write_multi_parts
from flatcoat.representations import MultiVector, Sparse
from flatcoat.sparse_vectors import SparseFolder, write_sparse
from flatcoat.vectors import VectorFolder, read_arrays, read_ids, write_vectors


def test_json_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "half.json").write_text('{"a": ')
    (tmp_path / "deep.json").write_text("[" * 200_000)
    assert files.read_json(tmp_path / "list.json") == [1]
    for read, name, said in (
        (files.read_json, "none.json", "no such file"),
        (files.read_json, ".", "cannot be read"),
        (files.read_json, "half.json", "not valid JSON"),
        (files.read_json, "deep.json", "not valid JSON"),
        (files.read_object, "list.json", "a JSON list where an object is right"),
    ):
        with pytest.raises(FlatcoatError, match=said):
            read(tmp_path / name)


def test_what_a_dead_writer_left_is_no_part_of_the_new_folder(tmp_path):
    left = tmp_path / ".f.partial"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "x").write_text("old")
    (left / "y").write_text("old")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "z").write_text("mine")
    (left / "link").symlink_to(tmp_path / "kept")
    with files.atomic_folder(tmp_path / "f") as partial:
        (partial / "new").write_text("1")
    assert os.listdir(tmp_path / "f") == ["new"] and (tmp_path / "kept" / "z").read_text() == "mine"


def test_removing_takes_what_an_interrupted_removal_left(tmp_path):
    (tmp_path / ".old.gone-1").mkdir()
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").write_text("1")
    files.remove_folder(tmp_path / "f")
    files.remove_folder(tmp_path / "f")  # what is gone is no error
    assert os.listdir(tmp_path) == []


def test_a_folder_is_read_again_where_it_was_replaced_and_told_of_where_it_always_is(tmp_path):
    folder, turns = tmp_path / "f", []
    folder.mkdir()

    def replaced():
        turns.append(len(turns))
        folder.rename(tmp_path / f"old{len(turns)}")
        folder.mkdir()

    def once():
        if not turns:
            replaced()
            raise FlatcoatError("half of it")
        return "whole"

    assert files.steady(folder, once) == "whole" and len(turns) == 1
    with pytest.raises(FlatcoatError, match="replaced again and again"):
        files.steady(folder, replaced)
    assert len(turns) == 11

    def damaged():
        raise FlatcoatError("damaged")

    with pytest.raises(FlatcoatError, match="^damaged$"):
        files.steady(folder, damaged)
    assert files.steady(tmp_path / "absent", lambda: 1) == 1


def test_a_sealed_note_that_was_altered_is_none(tmp_path):
    note, made = tmp_path / "note.json", files.sealed({"done": 3})
    files.write_json(note, made)
    assert files.noted(note) == {"done": 3}
    for text in ('{"done": 3}', "{", "[]", "3"):
        note.write_text(text)
        assert files.noted(note) is None, text
    files.write_json(note, {**made, "done": 4})
    assert files.noted(note) is None and files.noted(tmp_path / "absent") is None
    with pytest.raises(FlatcoatError, match="altered since it was written.*make it again"):
        files.unsealed(note, {**made, "done": 4}, "make it again")


def test_an_array_that_was_cut_off_is_a_full_disk(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(9))
    whole = (tmp_path / "a.npy").read_bytes()
    files.write_manifest(tmp_path, "thing", 1, {})
    for data in (whole[:-1], whole[:3], b""):
        (tmp_path / "a.npy").write_bytes(data)
        with pytest.raises(OSError, match="space") as error:
            files.write_manifest(tmp_path, "thing", 1, {})
        assert error.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "manifest,said",
    [
        ([1], "a JSON list where an object is right"),
        ({"format": "thing", "version": 1, "files": [1]}, "its files want bytes and sha256"),
        ({"format": "thing", "version": 1, "files": {"a": {"bytes": 1}}}, "its files want bytes and sha256"),
        ({"format": "thing", "version": 1, "sha256": "0"}, "altered since it was written"),
    ],
)
def test_a_manifest_of_another_form_is_refused(tmp_path, manifest, said):
    files.write_json(tmp_path / files.MANIFEST, manifest)
    with pytest.raises(FlatcoatError, match=said):
        files.read_manifest(tmp_path, "thing", 1)


def test_sums_are_compared_by_name_one_by_one_and_side_by_side(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_text(name * 9)
    sums = {name: files.sha256_of(tmp_path / name) for name in "abc"}
    for worth in (files.SIDE_BY_SIDE, 1):
        monkeypatch.setattr(files, "SIDE_BY_SIDE", worth)
        monkeypatch.setattr(files, "_sums", {})
        files.same_sums(tmp_path, sums, "again")
        with pytest.raises(FlatcoatError, match="/b: altered"):
            files.same_sums(tmp_path, {**sums, "b": sums["a"]}, "again")
    with pytest.raises(FlatcoatError, match="/d: missing; again"):
        files.same_sums(tmp_path, {**sums, "d": sums["a"]}, "again")


def test_lines_are_those_that_the_manifest_lists(tmp_path):
    (tmp_path / "ids.txt").write_text("a\nb\n")
    (tmp_path / "bad.txt").write_bytes(b"\xff\n")
    files.write_manifest(tmp_path, "thing", 1, {})
    facts = files.read_manifest(tmp_path, "thing", 1)
    assert files.lines_of(tmp_path, "ids.txt", facts) == ["a", "b"]
    with pytest.raises(FlatcoatError, match="does not list other"):
        files.lines_of(tmp_path, "other", facts)
    with pytest.raises(FlatcoatError, match="not UTF-8 .* at byte 0"):
        files.lines_of(tmp_path, "bad.txt", facts)
    (tmp_path / "ids.txt").write_text("a\nc\n")
    with pytest.raises(FlatcoatError, match="not what the manifest said"):
        files.lines_of(tmp_path, "ids.txt", facts)


def test_only_ours_is_replaced(tmp_path):
    ours, model, empty = tmp_path / "ours", tmp_path / "model", tmp_path / "empty"
    for folder in (ours, model, empty):
        folder.mkdir()
    files.write_manifest(ours, "thing", 1, {})
    for name in ("modules.json", "flatcoat.json"):
        (model / name).write_text("{}")
    for out, kind in ((tmp_path / "absent", "thing"), (empty, "thing"), (ours, "thing"), (model, None)):
        files.free_to_write(out, kind, str(tmp_path / "source"))
    for out, kind in ((ours, "other"), (ours, None), (model, "thing"), (ours / files.MANIFEST, "thing")):
        with pytest.raises(Misuse, match="choose another --out, or remove it"):
            files.free_to_write(out, kind)
    with pytest.raises(Misuse, match="is also what is read"):
        files.free_to_write(ours, "thing", str(model), str(tmp_path / "model" / ".." / "ours"))


def opener(path):
    return lambda: os.open(path, os.O_RDWR | os.O_CREAT)


def test_a_name_that_another_holds_is_refused_or_waited_for(tmp_path):
    path = tmp_path / ".out.partial"
    first = places.held(path, opener(path), wait=False)
    with pytest.raises(Misuse, match=f"^{tmp_path}/out: another process is writing it"):
        places.held(path, opener(path), wait=False)
    got: list[int] = []
    waiting = threading.Thread(target=lambda: got.append(places.held(path, opener(path), wait=True)))
    waiting.start()
    time.sleep(0.05)
    assert not got
    os.close(first)
    waiting.join(20)
    assert len(got) == 1
    os.close(got[0])


def test_a_name_that_went_to_another_file_is_opened_again(tmp_path):
    path, opened = tmp_path / "x", []

    def open_it():
        opened.append(1)
        if len(opened) == 1:
            raise FileNotFoundError
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        if len(opened) == 2:  # another writer gives its file this name
            (tmp_path / "y").write_text("")
            (tmp_path / "y").replace(path)
        elif len(opened) == 3:
            path.unlink()
        return descriptor

    descriptor = places.held(path, open_it, wait=True)
    assert len(opened) == 4 and os.fstat(descriptor).st_ino == path.stat().st_ino
    os.close(descriptor)


def test_a_name_that_never_stays_is_given_up(tmp_path):
    path = tmp_path / "x"

    def gone():
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        path.unlink()
        return descriptor

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with pytest.raises(Misuse, match="taken away again and again"):
        places.held(path, gone, wait=True)
    assert before is None or len(os.listdir("/proc/self/fd")) == before  # every one of them was closed

    def never():
        raise FileNotFoundError(errno.ENOENT, "none", str(path))

    with pytest.raises(FileNotFoundError):
        places.held(path, never, wait=True)


def test_where_there_are_no_locks_the_name_is_still_given(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with files.atomic_folder(tmp_path / "f") as partial:
        (partial / "x").write_text("1")
    assert os.listdir(tmp_path / "f") == ["x"]


@pytest.mark.parametrize("can", [True, False])
def test_a_folder_is_replaced_where_names_can_be_exchanged_and_where_not(tmp_path, monkeypatch, can):
    if not can:
        monkeypatch.setattr(places.ctypes, "CDLL", lambda _: object())  # no renameat2
        assert not places._exchanged(tmp_path, tmp_path)
    for text in ("old", "new"):
        with files.atomic_folder(tmp_path / "f") as partial:
            (partial / text).write_text(text)
    assert os.listdir(tmp_path / "f") == ["new"] and os.listdir(tmp_path) == ["f"]


def test_a_folder_that_was_moved_aside_is_brought_back(tmp_path):
    old, path = tmp_path / ".f.old", tmp_path / "f"
    places.restore(path)
    assert not path.exists()
    old.mkdir()
    (old / "x").write_text("1")
    places.restore(path)
    assert os.listdir(path) == ["x"] and not old.exists()
    old.mkdir()
    places.restore(path)  # the new one is there: the old one is no longer wanted
    assert os.listdir(path) == ["x"] and old.exists()


def test_arrays_of_another_kind_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "many.npz", a=np.arange(3))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    for name, said in (
        ("many.npy", "NpzFile, where an array is right"),
        ("objects.npy", "not formed"),
        ("none.npy", "no such file"),
    ):
        with pytest.raises(FlatcoatError, match=f"{name}: .*{said}"):
            read_array(tmp_path / name)
    with (
        pytest.raises(FlatcoatError, match="here: cannot be read .Input/output error"),
        taking_apart(tmp_path / "here"),
    ):
        raise OSError(errno.EIO, "Input/output error")


def test_parts_in_work_that_are_damaged_are_removed(tmp_path):
    part = tmp_path / "part.npz"
    np.savez(part, a=np.arange(300))
    assert read_arrays(part)["a"].tolist() == list(range(300))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 255
    part.write_bytes(data)
    with pytest.raises(FlatcoatError, match="damaged, and removed"):
        read_arrays(part)
    with pytest.raises(FileNotFoundError):
        read_arrays(part)


def test_parts_stay_where_the_machine_is_at_fault(tmp_path, monkeypatch):
    part = tmp_path / "part.npz"
    np.savez(part, a=np.arange(3))

    def load(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(np, "load", load)
        with pytest.raises(OSError, match="Too many open files"):
            read_arrays(part)
    assert read_arrays(part)["a"].tolist() == [0, 1, 2]


def test_columns_at_their_edges(tmp_path):
    writer, empty = ColumnWriter(tmp_path, "a"), ColumnWriter(tmp_path, "none")
    for text in ("one", "", "drei ü"):
        writer.append(text)
    with pytest.raises(UnicodeEncodeError):
        writer.append("\ud800")
    writer.close()
    empty.close()
    column = Column(tmp_path, "a")
    assert [column[-1], *column[0:2], *column] == ["drei ü", "one", "", "one", "", "drei ü"]
    assert len(Column(tmp_path, "none")) == 0
    for row in (3, -4):
        with pytest.raises(IndexError, match=f"row {row} of 3"):
            column[row]
    hashes = [text_hash("one"), text_hash("one"), text_hash("drei ü")]  # the second is a collision
    Lookup.write(tmp_path, "lookup", hashes)
    lookup = Lookup(tmp_path, "lookup", column)
    assert [lookup.row(text) for text in ("one", "drei ü", "", "zwei")] == [0, 2, None, None]
    Lookup.write(tmp_path, "lookup", [text_hash("drei ü")] * 3)
    assert Lookup(tmp_path, "lookup", column).row("drei ü") == 2
    (tmp_path / "a.bin").write_bytes(b"one")
    with pytest.raises(FlatcoatError, match="3 bytes do not fit its offsets"):
        Column(tmp_path, "a")


def test_vectors_that_do_not_fit_their_manifest(tmp_path):
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(FlatcoatError, match=r"float32\[3, 3\], manifest: 2"):
        write_vectors(tmp_path / "a", vectors, ["a", "b"], {})
    for wrong in ("a\nb", "a\rb", "\ud800"):
        with pytest.raises(FlatcoatError, match="has a line break, or is no UTF-8"):
            write_vectors(tmp_path / "b", vectors, ["a", wrong, "c"], {})
    whole = write_vectors(tmp_path / "c", vectors, ["a", "b", "c"], {})
    assert whole.ids == ["a", "b", "c"] and len(whole) == 3 and len(whole.dense()) == 3
    with pytest.raises(FlatcoatError, match="3 ids for 4 items"):
        read_ids(tmp_path / "c", whole.facts, 4)
    np.save(tmp_path / "c" / "vectors.npy", vectors.astype(np.float64))
    files.write_manifest(tmp_path / "c", "flatcoat-vectors", 1, {"items": 3, "dim": 3})
    with pytest.raises(FlatcoatError, match=r"float64\[3, 3\], manifest: 3"):
        VectorFolder.open(tmp_path / "c")


def test_sparse_vectors_that_do_not_fit_their_manifest(tmp_path):
    vectors = Sparse.of(np.eye(3, dtype=np.float32))
    with pytest.raises(FlatcoatError, match="3 vectors over 3 terms, but 3 ids and 1 terms"):
        write_sparse(tmp_path / "a", vectors, ["a", "b", "c"], ["x"], {})
    whole = write_sparse(tmp_path / "a", vectors, ["a", "b", "c"], ["x", "y", "z"], {})
    assert whole.vocabulary == ["x", "y", "z"] and whole.ids == ["a", "b", "c"] and len(whole) == 3
    files.write_manifest(tmp_path / "a", "flatcoat-sparse", 1, {"items": 2, "vocab_size": 3})
    with pytest.raises(FlatcoatError, match="3 items of 3 entries; manifest: 2"):
        SparseFolder.open(tmp_path / "a")


def test_runs_of_items_have_a_step_of_one(tmp_path):
    sparse, multi = Sparse.of(np.eye(3, dtype=np.float32)), MultiVector.of([np.ones((2, 4), np.float32)] * 3, 4)
    for items in (sparse, multi):
        assert len(items[1:]) == 2 and len(items[2:1]) == 0
        with pytest.raises(IndexError, match="of step 1"):
            items[::2]
    with pytest.raises(IndexError, match="item 3 of 3"):
        multi.item(3)
    with pytest.raises(FlatcoatError, match="items from 3 on have vectors of 4 dimensions, those before of 5"):
        write_multi_parts(tmp_path / "m", [MultiVector.of([np.ones((1, 5), np.float32)] * 3, 5), multi], [], 5, {})
    assert os.listdir(tmp_path) == []


def test_texts_and_libraries_that_cannot_be(monkeypatch, tmp_path):
    assert is_utf8("ü") and not is_utf8("a\udc00")
    (tmp_path / "flatcoat_wants_more.py").write_text("import flatcoat_has_no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="flatcoat_has_no_such_module"):
        need("flatcoat_wants_more", "extra")  # it is installed: what it lacks is another's to say
    (tmp_path / "flatcoat_wants_cairo.py").write_text("raise OSError('no library called \"cairo\" was found\\nmore')\n")
    with pytest.raises(
        Misuse, match='^flatcoat_wants_cairo wants a library of the system: no library called "cairo" was found$'
    ):
        need("flatcoat_wants_cairo", "extra")


def test_what_a_killed_writer_left_in_a_folder_is_no_part_of_it(tmp_path):
    (tmp_path / "data").write_bytes(b"12345")
    (tmp_path / ".manifest.json.partial").write_text("{")
    (tmp_path / ".done.json.partial").write_text("{")
    (tmp_path / ".part.partial").mkdir()
    (tmp_path / ".part.partial" / ".x.partial").write_text("{")
    files.write_manifest(tmp_path, "thing", 1, {})
    assert list(files.read_manifest(tmp_path, "thing", 1)["files"]) == ["data"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "manifest.json"]
