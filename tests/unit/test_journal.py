"""The journal: what was acknowledged is there, what is torn is not, and damage is said."""

from __future__ import annotations

import os

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.search import journal as module
from flatcoat.search.journal import Document, Journal, Record
from flatcoat.search.packing import Grown, Items, pack, taken, unpack

FACTS = {"corpus": "c"}
DENSE = Dense(np.arange(6, dtype=np.float32).reshape(3, 2))
SPARSE = Sparse(np.array([0, 2, 2, 3]), np.array([1, 4, 0], np.int32), np.array([1, 2, 3], np.float32), 5)
MULTI = MultiVector(np.array([0, 2, 2, 3]), np.arange(6, dtype=np.float16).reshape(3, 2))


def same(one, two):
    assert type(one) is type(two)
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(two, name).dtype
        np.testing.assert_array_equal(value, getattr(two, name))


def write(journal: Journal, record: Record) -> None:
    with journal.writing():
        list(journal.follow()[1])
        journal.append(record)


def add(journal: Journal, sequence: int, *ids: str, gone: tuple[str, ...] = ()) -> None:
    rows = np.array([[sequence, len(id)] for id in ids], np.float32).reshape(len(ids), 2)
    documents = tuple(Document(id, "t", f"text {id} ü", {"n": sequence}) for id in ids)
    write(journal, Record(sequence, documents, gone, {"dense": Dense(rows)} if ids else {}))


def read(folder) -> list[Record]:
    return list(Journal(folder, FACTS).follow()[1])


@pytest.mark.parametrize(
    "made", [DENSE, SPARSE, MULTI, DENSE[0:0], SPARSE[0:0]], ids=lambda m: f"{type(m).__name__}{len(m)}"
)
def test_representations_come_back_as_they_were(made):
    described, body = pack({"a": made, "b": DENSE})
    back = unpack(described, body)
    same(back["a"], made)
    same(back["b"], DENSE)


@pytest.mark.parametrize("made", [DENSE, SPARSE, MULTI])
def test_rows_are_taken_in_the_order_given(made):
    some = taken(made, [2, 0])
    same(some[0:1], made[2:3])
    same(some[1:2], made[0:1])
    assert len(taken(made, [])) == 0


def test_what_grows_leaves_what_was_given_out():
    views, grown, rng = [], Grown(np.empty((0, 2), np.float32)), np.random.default_rng(0)
    whole = np.zeros((0, 2), np.float32)
    for size in (1, 0, 3, 20, 2, 50):
        more = rng.random((size, 2)).astype(np.float32)
        grown, whole = grown.extended(more), np.concatenate([whole, more])
        views.append((grown, whole))
    fork = views[2][0].extended(np.full((1, 2), 9, np.float32))  # a second line from the same rows
    for view, wanted in views:
        np.testing.assert_array_equal(view.array, wanted)
    np.testing.assert_array_equal(fork.array[-1], [9, 9])


def test_items_grow_as_they_are_joined():
    items = Items.of(SPARSE.terms, SPARSE.weights)
    for part in (SPARSE, SPARSE[1:2], SPARSE):
        items = items.extended(part.start, part.terms, part.weights)
    same(items.sparse(5), Sparse.joined([SPARSE, SPARSE[1:2], SPARSE], 5))
    held = Items.of(MULTI.vectors).extended(MULTI.start, MULTI.vectors)
    same(held.multi(), MULTI)
    assert len(items) == 7 and len(held) == 3


def test_records_are_read_as_written_and_only_once(tmp_path):
    writer, reader = Journal(tmp_path, FACTS), Journal(tmp_path, FACTS)
    assert not reader.fresh() and list(reader.follow()[1]) == []
    add(writer, 1, "a", "b")
    assert reader.fresh()
    anew, records = reader.follow()
    (first,) = records
    assert anew and first.documents[1] == Document("b", "t", "text b ü", {"n": 1})
    assert not reader.fresh()
    add(writer, 2, gone=("a",))
    anew, records = reader.follow()
    (second,) = records
    assert not anew and second.deleted == ("a",) and second.sequence == 2
    assert [each.sequence for each in read(tmp_path)] == [1, 2]


def test_a_torn_tail_is_passed_over_and_cut_off_by_the_next_writer(tmp_path):
    writer = Journal(tmp_path, FACTS)
    add(writer, 1, "a")
    whole = (tmp_path / "journal").read_bytes()
    add(writer, 2, "b")
    both = (tmp_path / "journal").read_bytes()
    writer._acknowledge(len(whole))  # killed before it could say so of the second
    for size in range(len(whole), len(both)):
        (tmp_path / "journal").write_bytes(both[:size])
        assert [each.sequence for each in read(tmp_path)] == [1]
    add(Journal(tmp_path, FACTS), 2, "c")
    assert [each.documents[0].id for each in read(tmp_path)] == ["a", "c"]


def test_any_altered_byte_is_noticed(tmp_path):
    writer = Journal(tmp_path, FACTS)
    add(writer, 1, "a")
    begin = (tmp_path / "journal").stat().st_size
    add(writer, 2, "b")
    end = (tmp_path / "journal").stat().st_size
    add(writer, 3, "c")
    whole = (tmp_path / "journal").read_bytes()
    for at in range(begin, end):
        altered = bytearray(whole)
        altered[at] ^= 0x41
        (tmp_path / "journal").write_bytes(altered)
        with pytest.raises(FlatcoatError, match=f"damaged at byte {begin}, before its end"):
            read(tmp_path)
        with pytest.raises(FlatcoatError, match="damaged"):
            add(Journal(tmp_path, FACTS), 4, "d")  # nobody cuts off what is good
    for at in range(end, len(whole)):
        altered = bytearray(whole)
        altered[at] ^= 0x41
        (tmp_path / "journal").write_bytes(altered)
        with pytest.raises(FlatcoatError, match=f"damaged at byte {end}"):
            read(tmp_path)
    (tmp_path / "acknowledged").unlink()  # a copy without the note: of the last record only its end is lost
    assert [each.sequence for each in read(tmp_path)] == [1, 2]


def test_what_was_acknowledged_cannot_be_cut_off_unseen(tmp_path):
    writer = Journal(tmp_path, FACTS)
    add(writer, 1, "a")
    add(writer, 2, "b")
    whole = (tmp_path / "journal").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "journal").write_bytes(whole[:size])
        with pytest.raises(FlatcoatError):
            read(tmp_path)
    for note in (b"", b"x" * 12, b"torn"):
        (tmp_path / "journal").write_bytes(whole)
        (tmp_path / "acknowledged").write_bytes(note)
        assert [each.sequence for each in read(tmp_path)] == [1, 2]


def test_a_good_record_is_found_across_the_edges_of_what_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 37)
    writer = Journal(tmp_path, FACTS)
    for sequence in (1, 2, 3):
        add(writer, sequence, f"d{sequence}")
    data = bytearray((tmp_path / "journal").read_bytes())
    at = data.index(b"text d1")
    data[at] ^= 1
    (tmp_path / "journal").write_bytes(data)
    with pytest.raises(FlatcoatError, match="damaged"):
        read(tmp_path)


def test_another_corpus_and_what_is_no_journal_are_refused(tmp_path):
    add(Journal(tmp_path, FACTS), 1, "a")
    with pytest.raises(FlatcoatError, match="not of"):
        Journal(tmp_path, {"corpus": "other"}).follow()
    (tmp_path / "journal").write_bytes(b"something else entirely, longer than a head")
    with pytest.raises(FlatcoatError, match="not a flatcoat-journal"):
        read(tmp_path)


def test_a_disk_that_refuses_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    writer = Journal(tmp_path, FACTS)
    add(writer, 1, "a")
    before = (tmp_path / "journal").read_bytes()

    def full(file, data, offset):
        os.pwrite(file, data[: len(data) // 2], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", full)
        with pytest.raises(FlatcoatError, match="No space left on device"):
            add(writer, 2, "b")
    assert (tmp_path / "journal").read_bytes() == before
    add(writer, 2, "c")
    assert [each.documents[0].id for each in read(tmp_path)] == ["a", "c"]


def test_compacting_leaves_out_what_is_undone(tmp_path):
    writer, reader = Journal(tmp_path, FACTS), Journal(tmp_path, FACTS)
    add(writer, 1, "a", "b", "c")
    add(writer, 2, gone=("b", "base1"))
    add(writer, 3, "c", "d")
    add(writer, 4, "e")
    add(writer, 5, gone=("e",))
    list(reader.follow()[1])
    before, after = writer.compact(lambda id: id.startswith("base"))
    assert after < before and reader.fresh()
    anew, records = reader.follow()
    records = list(records)
    assert anew and reader.floor == 5
    said = [(each.sequence, [doc.id for doc in each.documents], each.deleted) for each in records]
    assert said == [(1, ["a"], ()), (2, [], ("base1",)), (3, ["c", "d"], ())]
    vectors = records[0].vectors["dense"]
    assert isinstance(vectors, Dense)
    np.testing.assert_array_equal(vectors.vectors, [[1, 1]])
    add(writer, 6, "f")
    assert [each.sequence for each in reader.follow()[1]] == [6]
    assert writer.compact(lambda id: False)[1] <= after + 400
    assert [each.sequence for each in read(tmp_path)] == [1, 3, 6]


def test_a_journal_that_is_taken_away_with_its_note_begins_anew(tmp_path):
    writer, reader = Journal(tmp_path, FACTS), Journal(tmp_path, FACTS)
    add(writer, 1, "a")
    list(reader.follow()[1])
    (tmp_path / "journal").unlink()
    assert reader.fresh()
    with pytest.raises(FlatcoatError, match="gone, with"):
        Journal(tmp_path, FACTS).follow()
    with pytest.raises(FlatcoatError, match="gone, with"):
        add(Journal(tmp_path, FACTS), 1, "b")
    (tmp_path / "acknowledged").unlink()
    anew, records = reader.follow()
    assert anew and list(records) == [] and not reader.fresh()


def test_what_a_disk_refused_and_a_reader_has_seen_is_taken_back(tmp_path, monkeypatch):
    writer, reader = Journal(tmp_path, FACTS), Journal(tmp_path, FACTS)
    add(writer, 1, "a")
    list(reader.follow()[1])

    def fails(file):
        seen.extend(each.documents[0].id for each in reader.follow()[1])
        raise OSError(5, "Input/output error")

    seen: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", fails)
        with pytest.raises(FlatcoatError, match="Input/output error.*nothing was added"):
            add(writer, 2, "phantom")
    assert seen == ["phantom"]
    add(writer, 2, "genuine, and longer")
    anew, records = reader.follow()
    assert anew and [each.documents[0].id for each in records] == ["a", "genuine, and longer"]
    add(writer, 3, "c")
    assert [each.documents[0].id for each in reader.follow()[1]] == ["c"]


def test_a_record_taken_back_while_it_is_read_begins_anew(tmp_path):
    writer, reader = Journal(tmp_path, FACTS), Journal(tmp_path, FACTS)
    add(writer, 1, "a")
    size = (tmp_path / "journal").stat().st_size
    add(writer, 2, "phantom")
    records = reader.follow()[1]
    assert [next(records).sequence, next(records).sequence] == [1, 2]
    writer._acknowledge(size)  # a disk refused the second, and it was taken back
    os.truncate(tmp_path / "journal", size)
    add(Journal(tmp_path, FACTS), 2, "genuine")
    assert list(records) == [] and reader.fresh()
    anew, records = reader.follow()
    assert anew and [each.documents[0].id for each in records] == ["a", "genuine"]


def test_a_disk_that_takes_nothing_back_either_is_said(tmp_path, monkeypatch):
    writer = Journal(tmp_path, FACTS)
    add(writer, 1, "a")
    calls: list[int] = []

    def refuses(file, size):
        calls.append(size)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")

    def fails(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.os, "ftruncate", refuses)
    monkeypatch.setattr(module.os, "fsync", fails)
    with pytest.raises(FlatcoatError, match="may be found all the same"):
        add(writer, 2, "b")


def test_sequence_numbers_given_twice_are_compacted_by_place(tmp_path):
    writer = Journal(tmp_path, FACTS)
    add(writer, 3, "a", "b")
    add(writer, 3, "a")
    writer.compact()
    assert [[doc.id for doc in each.documents] for each in read(tmp_path)] == [["b"], ["a"]]


def test_folders_made_are_on_disk_before_what_is_written_inside(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(module, "sync", synced.append)
    add(Journal(tmp_path / "one" / "live", FACTS), 1, "a")
    assert synced == [tmp_path, tmp_path / "one", tmp_path / "one" / "live"]
