"""Folders of token vectors and of indexes over them: what is kept, what damage says, and updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_multivector import FULL, same

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.multivector import MultiVectorIndex, MultiVectorSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.store import open_index, write_multivector
from flatcoat.index.update import update_inverted, update_multivector
from flatcoat.multi_vectors import MultiFolder, write_multi, write_multi_parts
from flatcoat.representations import MultiVector
from flatcoat.testing.multi_index import DIM, tokens

FACTS = {"model": "m", "corpus": "c"}


def folder(path, count, seed, prefix, facts=FACTS):
    names = [f"{prefix}{i}" for i in range(count)]
    return write_multi(path, tokens(count, 0, 9, seed=seed), names, facts)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_vectors_are_kept_as_they_are(tmp_path, precision):
    vectors, kind = tokens(20, 0, 5), np.float16 if precision == "fp16" else np.float32
    made = write_multi(tmp_path / "a", vectors, [f"d{i}" for i in range(20)], {"precision": "bf16"}, precision)
    np.testing.assert_array_equal(made.vectors.vectors, vectors.vectors.astype(kind))
    np.testing.assert_array_equal(made.vectors.start, vectors.start)
    said = ("items", "tokens", "dim", "stored", "precision")
    assert [made.facts[n] for n in said] == [20, len(vectors.vectors), DIM, precision, "bf16"]
    parts = write_multi_parts(
        tmp_path / "b", (vectors[i : i + 3] for i in range(0, 20, 3)), made.ids, DIM, {}, precision
    )
    assert len(parts) == 20 and parts.ids == made.ids
    for name in ("start.npy", "vectors.npy"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    MultiFolder.open(tmp_path / "b", verify=True)


def test_what_cannot_be_kept_says_why(tmp_path):
    vectors = tokens(4, 1, 3)
    for arguments, word in (
        ((vectors, ["a"], {}), "4 items, but 1 ids"),
        (
            (MultiVector(vectors.start, vectors.vectors * 1e6), list("abcd"), {}),
            "item 0 has a value that is not finite in fp16",
        ),
        ((vectors, ["a", "b\n", "c", "d"], {}), "line break"),
    ):
        with pytest.raises(FlatcoatError, match=word):
            write_multi(tmp_path / "x", *arguments)
        assert not (tmp_path / "x").exists()
    with pytest.raises(FlatcoatError, match="dimensions"):
        write_multi_parts(tmp_path / "x", [vectors, tokens(1, 1, 1, dim=8)], list("abcde"), DIM, {})


def damage(path, name, array):
    """Replace an array and keep the manifest true to it, as a hand would that knows the format."""
    from flatcoat.files import read_json, write_manifest

    np.save(path / name, array)
    said = read_json(path / "manifest.json")
    facts = {key: value for key, value in said.items() if key not in ("format", "version", "files", "sha256")}
    write_manifest(path, said["format"], said["version"], facts)


def test_damaged_folders_say_so_in_one_line(tmp_path):
    made = folder(tmp_path / "a", 10, 0, "d")
    start, vectors = np.array(made.vectors.start), np.array(made.vectors.vectors)
    write_multivector(tmp_path / "i", made, MultiVectorSettings())
    parts = MultiVectorIndex.load(tmp_path / "i", replace(MultiVectorSettings(), rescore=None)).parts
    for path, name, array, word, open_ in (
        ("a", "start.npy", start[::-1].copy(), "not rising from 0", MultiFolder.open),
        ("a", "start.npy", start[:-1], "manifest: fp16 of 10", MultiFolder.open),
        ("a", "start.npy", start, "", MultiFolder.open),
        ("a", "vectors.npy", vectors.astype(np.float32), "manifest: fp16 of 10", MultiFolder.open),
        ("a", "vectors.npy", vectors[:, :8], "8 dimensions", MultiFolder.open),
        ("a", "vectors.npy", vectors, "", MultiFolder.open),
        ("i", "cells.npy", np.array(parts.coded.cells)[:-1], "do not fit one another", open_index),
        ("i", "cells.npy", np.array(parts.coded.cells).astype(np.int32), "do not fit one another", open_index),
        ("i", "cells.npy", np.array(parts.coded.cells), "", open_index),
        ("i", "codes.npy", np.array(parts.coded.codes)[:, :1], "do not fit one another", open_index),
        ("i", "codes.npy", np.array(parts.coded.codes), "", open_index),
    ):
        damage(tmp_path / path, name, array)
        if word:
            with pytest.raises(FlatcoatError, match=word) as caught:
                open_(tmp_path / path)
            assert "\n" not in str(caught.value)
        else:
            open_(tmp_path / path)
    (tmp_path / "i" / "codes.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(FlatcoatError, match="bytes where the manifest says"):
        open_index(tmp_path / "i")
    (tmp_path / "a" / "vectors.npy").unlink()
    with pytest.raises(FlatcoatError, match="missing"):
        MultiFolder.open(tmp_path / "a")


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("setting", [None, MultiVectorSettings(), MultiVectorSettings(kept="int8"),
                                     MultiVectorSettings(rescore=None)], ids=str)  # fmt: skip
def test_an_index_folder_answers_as_the_index(tmp_path, setting, copy):
    source, queries = folder(tmp_path / "a", 40, 0, "d"), tokens(5, 1, 20, seed=1)
    made = write_multivector(tmp_path / "i", source, setting, copy=copy)
    index = MaxSimExact(source.vectors) if setting is None else MultiVectorIndex.build(source.vectors, setting)
    same(open_index(tmp_path / "i", verify=True).index.search(queries, 10), index.search(queries, 10))
    reads = setting is None or (setting.rescore and setting.kept == "full")
    assert (made.facts["vectors"] is not None) == bool(reads and not copy)
    assert made.kind == ("exact" if setting is None else "multivector") and made.ids == source.ids
    if reads and not copy:
        damage(tmp_path / "a", "vectors.npy", np.zeros((3, DIM), np.float16))
        with pytest.raises(FlatcoatError, match="altered since"):
            open_index(tmp_path / "i")


def test_a_moved_pair_of_folders_still_opens(tmp_path):
    source = folder(tmp_path / "one" / "a", 10, 0, "d")
    write_multivector(tmp_path / "one" / "i", source, MultiVectorSettings())
    (tmp_path / "one").rename(tmp_path / "two")
    assert len(open_index(tmp_path / "two" / "i").index) == 10
    (tmp_path / "two" / "a").rename(tmp_path / "elsewhere")
    with pytest.raises(FlatcoatError, match="are gone"):
        open_index(tmp_path / "two" / "i")


@pytest.mark.parametrize("gone", [3, 20])  # tombstones, and so many that the index is compacted
@pytest.mark.parametrize("kept", ["full", "int8"])
def test_an_updated_index_answers_like_a_new_one(tmp_path, gone, kept):
    first, more = folder(tmp_path / "a", 30, 0, "a"), folder(tmp_path / "b", 15, 1, "b")
    setting = replace(FULL, kept=kept)
    write_multivector(tmp_path / "index", first, setting)
    made = update_multivector(tmp_path / "index", more, first.ids[:gone])
    assert (made.facts["deleted"] == 0) == (gone == 20)
    whole = MultiVector.joined([first.vectors[gone:30], more.vectors], DIM)
    left = write_multi(tmp_path / "c", whole, [*first.ids[gone:], *more.ids], FACTS)
    fresh, asked = write_multivector(tmp_path / "fresh", left, setting), tokens(8, 1, 9, seed=5)
    again = open_index(tmp_path / "index", verify=True)
    ours, theirs = again.index.search(asked, 10), fresh.index.search(asked, 10)
    assert [[again.ids[r] for r in rows] for rows in ours.rows] == [
        [fresh.ids[r] for r in rows] for rows in theirs.rows
    ]
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert not list(tmp_path.glob(".*"))
    assert len(update_multivector(tmp_path / "index", None, ["b0"]).ids) in (45, 25)


def test_what_cannot_be_updated_says_why(tmp_path):
    write_multivector(tmp_path / "index", folder(tmp_path / "a", 5, 0, "a"), MultiVectorSettings())
    before = {p.name: p.read_bytes() for p in (tmp_path / "index").iterdir()}
    narrow = write_multi(tmp_path / "n", tokens(1, 1, 1, dim=8), ["n"], FACTS)
    for arguments, error, word in (
        ((None, ["z"]), FlatcoatError, "no document 'z'"),
        ((folder(tmp_path / "x", 2, 1, "a"), []), FlatcoatError, "has document 'a0' already"),
        ((folder(tmp_path / "y", 2, 1, "b", {"model": "other"}), []), FlatcoatError, "another model"),
        ((narrow, []), FlatcoatError, "8 dimensions"),
        ((None, []), Misuse, "nothing to add"),
    ):
        with pytest.raises(error, match=word):
            update_multivector(tmp_path / "index", *arguments)
    with pytest.raises(Misuse, match="of kind multivector"):
        update_inverted(tmp_path / "index", None, ["a0"])
    write_multivector(tmp_path / "exact", MultiFolder.open(tmp_path / "a"), None)
    with pytest.raises(Misuse, match="of kind exact"):
        update_multivector(tmp_path / "exact", None, ["a0"])
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "index").iterdir()}
