from __future__ import annotations

import os

import pytest

from flatcoat.errors import FlatcoatError, Misuse, need
from flatcoat.files import MANIFEST, atomic_file, atomic_folder, only_writer, read_manifest, write_manifest


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_folder_leaves_what_was_there(tmp_path):
    folder = tmp_path / "f"
    with atomic_folder(folder) as partial:
        (partial / "x").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(folder) as partial:
        raise RuntimeError
    assert (folder / "x").read_text() == "1"
    with atomic_folder(folder) as partial:
        (partial / "y").write_text("2")
    assert os.listdir(folder) == ["y"]
    assert os.listdir(tmp_path) == ["f"]


@pytest.fixture
def described(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"12345")
    write_manifest(tmp_path, "thing", 1, {"n": 5})
    return tmp_path


def test_a_manifest_opens(described):
    assert read_manifest(described, "thing", 1, verify=True)["n"] == 5


@pytest.mark.parametrize(
    ("damage", "verify", "message"),
    [
        (lambda f: (f / "data.bin").unlink(), False, "missing"),
        (lambda f: (f / "data.bin").write_bytes(b"1234"), False, "4 bytes where the manifest says 5"),
        (lambda f: (f / "data.bin").write_bytes(b"12346"), True, "sha256"),
        (lambda f: (f / MANIFEST).write_text("{"), False, "not valid JSON"),
        (lambda f: (f / MANIFEST).unlink(), False, "not a thing folder"),
    ],
)
def test_damage_is_named(described, damage, verify, message):
    damage(described)
    with pytest.raises(FlatcoatError, match=message):
        read_manifest(described, "thing", 1, verify=verify)


def test_another_version_or_kind_is_refused(described):
    with pytest.raises(FlatcoatError, match="version 1; this Flatcoat reads version 2"):
        read_manifest(described, "thing", 2)
    with pytest.raises(FlatcoatError, match="holds 'thing', not a other"):
        read_manifest(described, "other", 1)


def test_one_writer_a_folder(tmp_path):
    with only_writer(tmp_path), pytest.raises(Misuse, match="another process"), only_writer(tmp_path):
        pass


def test_an_absent_library_names_its_extra():
    with pytest.raises(Misuse, match=r"pip install 'flatcoat\[search\]'"):
        need("no_such_module_here", "search")
