"""What was written to a served folder, in order: an append-only file that every process reads and any may write.

A record is a head (magic, lengths, CRC-32 of all that follows and of the lengths), a JSON header, and raw arrays. It is on disk
(fsync) before a write is acknowledged. A file's first record says its format, what it is of, and the sequence number it begins
behind. What is torn at the end was never acknowledged: readers pass over it, the next writer cuts it off. Damage with good
records behind it is an error, and so is any before the end that the file `acknowledged` beside it notes: bytes that clients were
told of. (That note is not waited for; after a loss of power it may be behind, and then protects less.) Writers hold a lock; readers
none. A compacted journal is a new file of the old one's name.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flatcoat.arrays import taking_apart
from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_file, sync
from flatcoat.representations import Representation
from flatcoat.search.packing import pack, taken, unpack

FORMAT, VERSION = "flatcoat-journal", 1
MAGIC = b"\xf1FCJ"
HEAD = struct.Struct("<4sIQI")  # magic, bytes of the header, bytes of the arrays, CRC-32
NOTE = struct.Struct("<QI")  # where the last acknowledged record ends, CRC-32
CHUNK = 1 << 20
AT_ONCE = 1 << 30  # bytes that one call of the system reads or writes


@dataclass(frozen=True)
class Document:
    """A document as it is served; `metadata` is what JSON can say."""

    id: str
    title: str = ""
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One write: ids deleted, then documents added (in place of those of the same id), with vectors by encoding's key."""

    sequence: int
    documents: tuple[Document, ...] = ()
    deleted: tuple[str, ...] = ()
    vectors: Mapping[str, Representation] = field(default_factory=dict)


class Journal:
    """One process's place in a journal. `facts` is what the journal is of; another's is refused."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]):
        self.folder, self.facts = folder, dict(facts)
        self.path, self.note = folder / "journal", folder / "acknowledged"
        self.floor = 0  # the sequence number that the file begins behind
        self._file: int | None = None
        self._offset = 0
        self._last: tuple[int, bytes] = (0, b"")  # where the last record that was read begins, and its head
        self._seen: tuple[int, ...] | None = None  # what the file was like when there was nothing more to read
        self._held = False

    def fresh(self) -> bool:
        """Whether there is anything to read; costs one stat."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return self._seen is not None
        return _marks(now) != self._seen

    def follow(self) -> tuple[bool, Iterator[Record]]:
        """Whether to begin anew (the first time, another file took the name, or what was read was taken back: a disk had
        refused it), and the records not read so far.

        Raises:
            FlatcoatError: not a journal, one of something else, or damaged before its end.
        """
        try:
            now = self.path.stat()
        except FileNotFoundError:
            anew = self._file is not None
            self.close()
            self._must_be_none()
            return anew, iter(())
        anew = self._anew(now)
        if anew:
            self._open()
        return anew, self._records()

    def _anew(self, now: os.stat_result) -> bool:
        if self._file is None:
            return True
        mine = os.fstat(self._file)
        if (mine.st_ino, mine.st_dev) != (now.st_ino, now.st_dev) or now.st_size < self._offset:
            return True
        return self._taken_back()

    def _taken_back(self) -> bool:
        assert self._file is not None
        return _read(self._file, HEAD.size, self._last[0]) != self._last[1]

    def _open(self) -> None:
        self.close()
        if self.path.is_dir():
            raise FlatcoatError(f"{self.path}: a folder, not a journal; restore it from a copy")
        self._file = os.open(self.path, os.O_RDONLY)
        found = _frame(self._file, 0, os.fstat(self._file).st_size)
        with taking_apart(self.path):
            said = {} if found is None else dict(json.loads(found[0]))
        if said.get("format") != FORMAT or said.get("version") != VERSION:
            self.close()
            raise FlatcoatError(
                f"{self.path}: not a {FORMAT} of version {VERSION}; move it and {self.note.name} away to begin anew"
            )
        if said["facts"] != self.facts:
            self.close()
            raise FlatcoatError(
                f"{self.path}: of {said['facts']}, not of {self.facts}; move it and {self.note.name} away to begin anew"
            )
        assert found is not None
        self.floor = int(said["sequence"])
        self._past(0, found[2])

    def _past(self, start: int, end: int) -> None:
        assert self._file is not None
        self._offset, self._last = end, (start, _read(self._file, HEAD.size, start))

    def _records(self) -> Iterator[Record]:
        while self._file is not None:
            if self._taken_back():
                self.close()
                return
            now = os.fstat(self._file)
            found = _frame(self._file, self._offset, now.st_size)
            if found is None:
                self._seen = _marks(now)
                self._must_be_the_end(now.st_size)
                return
            self._past(self._offset, found[2])
            with taking_apart(self.path):
                record = _record(*found[:2])
            yield record

    def _must_be_the_end(self, size: int) -> None:
        if not self._more(size):
            return
        with contextlib.nullcontext() if self._held else self._lock():  # a writer may have been at it meanwhile
            assert self._file is not None
            mine = os.fstat(self._file)
            replaced = not self.path.exists() or self.path.stat().st_ino != mine.st_ino
            if not replaced and _frame(self._file, self._offset, mine.st_size) is None and self._more(mine.st_size):
                raise FlatcoatError(
                    f"{self.path}: damaged at byte {self._offset}, before its end; restore it from a copy"
                )
        self._seen = None

    def _more(self, size: int) -> bool:
        """Whether there should be more than was read."""
        assert self._file is not None
        return self._acknowledged() > self._offset or _good_after(self._file, self._offset, size)

    def _acknowledged(self) -> int:
        """Bytes that clients were told of; 0 where nobody noted it, or the note is torn."""
        try:
            data = self.note.read_bytes()
        except OSError:  # not there, or not to be read
            return 0
        end, check = NOTE.unpack(data) if len(data) == NOTE.size else (0, 0)
        return end if check == zlib.crc32(data[:8]) else 0

    def _acknowledge(self, end: int) -> None:
        said = struct.pack("<Q", end)
        with contextlib.suppress(OSError):  # without it a journal is good, and less protected
            file = os.open(self.note, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(file, said + struct.pack("<I", zlib.crc32(said)), 0)
            finally:
                os.close(file)

    def _must_be_none(self) -> None:
        """Refuse to begin anew where there was a journal."""
        if not self._acknowledged():
            return
        with contextlib.nullcontext() if self._held else self._lock():
            told = self._acknowledged()
            if told and not self.path.exists():
                raise FlatcoatError(
                    f"{self.path}: gone, with {told} bytes; restore it from a copy, or remove {self.note} to begin anew"
                )

    @contextlib.contextmanager
    def _lock(self) -> Generator[None, None, None]:
        import fcntl

        _made(self.folder)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def writing(self) -> Generator[None, None, None]:
        """Wait for the turn to write. Read all there is (`follow`) before `append`: other processes write too."""
        with self._lock():
            self._held = True
            try:
                if not self.path.exists():
                    self._must_be_none()
                    self._begin(0, iter(()))
                yield
            finally:
                self._held = False

    def _begin(self, sequence: int, frames: Iterator[bytes]) -> None:
        """Put a new file in place, whole."""
        said = {"format": FORMAT, "version": VERSION, "sequence": sequence, "facts": self.facts}
        self.note.unlink(missing_ok=True)  # of the file before
        with atomic_file(self.path) as partial, partial.open("wb") as file:
            file.write(_framed(json.dumps(said).encode(), b""))
            for frame in frames:
                file.write(frame)
            file.flush()
            end = os.fstat(file.fileno()).st_size
        sync(self.folder)
        self._acknowledge(end)

    def append(self, record: Record) -> None:
        """Write a record and wait until it is on disk; within `writing`, after `follow` was read to its end.

        Raises:
            FlatcoatError: the disk does not take it; the journal is then as it was, or the message says that it may not be.
        """
        assert self._held and self._file is not None, "append within writing(), after follow()"
        data = _framed(*_bytes(record))
        try:
            file = os.open(self.path, os.O_RDWR)
        except OSError as error:
            raise _unwritten(self.path, error, taken_back=True) from error
        try:
            os.ftruncate(file, self._offset)  # what is torn behind the last record
            _write(file, data, self._offset)
            os.fsync(file)
        except OSError as error:
            raise _unwritten(self.path, error, taken_back=_cut(file, self._offset)) from error
        finally:
            os.close(file)
        self._past(self._offset, self._offset + len(data))
        self._acknowledge(self._offset)

    def compact(self, known: Callable[[str], bool] = lambda _: True) -> tuple[int, int]:
        """Rewrite the journal without what later records undo; give its bytes before and after. Sequence numbers stay.

        `known` says of an id whether there is something of it beside the journal: of others no deletion is kept.
        """
        with self.writing():
            return self.rewrite(known)

    def rewrite(self, known: Callable[[str], bool] = lambda _: True) -> tuple[int, int]:
        """What `compact` does, within `writing`."""
        assert self._held, "rewrite within writing()"
        reader = Journal(self.folder, self.facts)
        reader._held = True
        last: dict[str, int] = {}
        sequence, before = 0, self.path.stat().st_size
        try:
            for number, record in enumerate(reader.follow()[1]):
                last |= dict.fromkeys((*record.deleted, *(doc.id for doc in record.documents)), number)
                sequence = max(sequence, record.sequence)
            sequence = max(sequence, reader.floor)
            reader._open()
            self._begin(sequence, (_framed(*_bytes(kept)) for kept in _needed(reader._records(), last, known)))
        finally:
            reader.close()
        return before, self.path.stat().st_size

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._offset, self._last, self.floor, self._seen = None, 0, (0, b""), 0, None


def _needed(records: Iterator[Record], last: Mapping[str, int], known: Callable[[str], bool]) -> Iterator[Record]:
    """Records without documents and deletions that a later record undoes; `last` is the place of an id's last record."""
    for number, record in enumerate(records):
        rows = [row for row, doc in enumerate(record.documents) if last[doc.id] == number]
        again = {record.documents[row].id for row in rows}
        gone = [id for id in record.deleted if last[id] == number and id not in again and known(id)]
        if rows or gone:
            vectors = {key: taken(made, rows) for key, made in record.vectors.items()}
            yield Record(record.sequence, tuple(record.documents[row] for row in rows), tuple(gone), vectors)


def _bytes(record: Record) -> tuple[bytes, bytes]:
    described, body = pack(record.vectors)
    documents = [[doc.id, doc.title, doc.text, dict(doc.metadata)] for doc in record.documents]
    said = {"sequence": record.sequence, "documents": documents, "deleted": list(record.deleted), "vectors": described}
    return json.dumps(said, allow_nan=False).encode("ascii"), body


def _record(header: bytes, body: bytes) -> Record:
    said = json.loads(header)
    documents = tuple(Document(*each) for each in said["documents"])
    return Record(int(said["sequence"]), documents, tuple(said["deleted"]), unpack(said["vectors"], body))


def _framed(header: bytes, body: bytes) -> bytes:
    sizes = struct.pack("<IQ", len(header), len(body))
    check = zlib.crc32(body, zlib.crc32(header, zlib.crc32(sizes)))
    return HEAD.pack(MAGIC, len(header), len(body), check) + header + body


def _frame(file: int, offset: int, size: int) -> tuple[bytes, bytes, int] | None:
    """The header and the arrays of the record at `offset`, and where it ends; None where there is no whole one."""
    if size - offset < HEAD.size:
        return None
    magic, header, body, check = HEAD.unpack(_read(file, HEAD.size, offset).ljust(HEAD.size, b"\0"))
    end = offset + HEAD.size + header + body
    if magic != MAGIC or end > size:
        return None
    data = _read(file, header + body, offset + HEAD.size)
    if zlib.crc32(data, zlib.crc32(struct.pack("<IQ", header, body))) != check:
        return None
    return data[:header], data[header:], end


def _good_after(file: int, offset: int, size: int) -> bool:
    """Whether any whole record begins behind `offset`."""
    if size - offset <= HEAD.size:
        return False
    at = offset + 1
    while len(part := _read(file, min(CHUNK, size - at), at)) >= HEAD.size:
        found = part.find(MAGIC)
        while found >= 0:
            if _frame(file, at + found, size) is not None:
                return True
            found = part.find(MAGIC, found + 1)
        at += len(part) - len(MAGIC) + 1
    return False


def _marks(now: os.stat_result) -> tuple[int, ...]:
    return now.st_ino, now.st_dev, now.st_size, now.st_mtime_ns


def _read(file: int, count: int, offset: int) -> bytes:
    parts = []
    while count:
        part = os.pread(file, min(count, AT_ONCE), offset)
        if not part:  # cut off meanwhile
            break
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view[:AT_ONCE], offset)
        view, offset = view[done:], offset + done


def _cut(file: int, size: int) -> bool:
    """Cut a file off; whether that went well."""
    try:
        os.ftruncate(file, size)
    except OSError:
        return False
    return True


def _unwritten(path: Path, error: OSError, *, taken_back: bool) -> FlatcoatError:
    said = "nothing was added" if taken_back else "nor taken back: what was written may be found all the same"
    return FlatcoatError(f"{path}: could not be written ({error.strerror}); {said}")


def _made(folder: Path) -> None:
    """Make a folder so that it outlives a loss of power, as what is written inside will."""
    if not folder.is_dir():
        _made(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)
