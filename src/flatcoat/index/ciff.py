"""The Common Index File Format (Lin et al. 2020, arXiv 2003.08276): inverted indexes for Lucene, PISA, JASS, Terrier.

One file of length-delimited protobuf messages, without a dependency on protobuf:

    Header        1 version · 2 postings lists · 3 documents · 4, 5 the same of the collection · 6 terms in it
                  7 average document length (double) · 8 description
    PostingsList  1 term · 2 df · 3 cf · 4 postings {1 document, as the gap to the one before · 2 tf}
    DocRecord     1 document · 2 its id · 3 its length

tf = max(1, round(weight × scale)): an engine that sums impacts (Anserini `-impact`, PISA `quantized`) then ranks as
the dot product does. Lists are in the order of their terms' UTF-8, lengths are sums of tf.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flatcoat.errors import FlatcoatError, Misuse, is_utf8
from flatcoat.files import atomic_file
from flatcoat.index.sparse_segment import builders
from flatcoat.representations import Sparse

GREATEST = 2**31 - 1


def codec() -> Any:
    """The compiled coding."""
    from flatcoat.index import sparse_varint

    return sparse_varint


def impacts_of(vectors: Sparse, scale: float) -> np.ndarray:
    """Weights as whole numbers, int64. Raises FlatcoatError where one is not above 0 or too great for int32."""
    scaled = np.maximum(np.floor(vectors.weights.astype(np.float64) * scale + 0.5), 1)
    wrong = np.flatnonzero(~((vectors.weights > 0) & (scaled <= GREATEST)))
    if len(wrong):
        row = int(np.searchsorted(vectors.start, int(wrong[0]), side="right")) - 1
        raise FlatcoatError(
            f"item {row}: weight {vectors.weights[wrong[0]]} × {scale:g} is not a whole number from 1 to {GREATEST}"
        )
    return scaled.astype(np.int64)


def check_parts(vectors: Sparse, ids: Sequence[str], vocabulary: Sequence[str]) -> None:
    """Raise Misuse where ids or vocabulary are of another size than the vectors, and FlatcoatError where names cannot tell them apart."""
    if len(ids) != len(vectors) or len(vocabulary) != vectors.vocab_size:
        raise Misuse(
            f"{len(vectors)} vectors over {vectors.vocab_size} terms, but {len(ids)} ids and {len(vocabulary)} terms"
        )
    for what, names in (("id", ids), ("term", vocabulary)):
        wrong = next((name for name in names if not is_utf8(name) or (what == "id" and not name)), None)
        if wrong is not None or len(set(names)) != len(names):
            raise FlatcoatError(
                f"{what} {wrong!r} is no UTF-8 text" if wrong is not None else f"two {what}s are the same"
            )


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str) -> bytes:
    if isinstance(value, str):
        data = value.encode()
        return _number(number << 3 | 2) + _number(len(data)) + data
    return _number(number << 3) + _number(value)


def _message(file: BinaryIO, *parts: bytes) -> None:
    file.write(_number(sum(map(len, parts))))
    for part in parts:
        file.write(part)


def write_ciff(
    path: Path, vectors: Sparse, ids: Sequence[str], vocabulary: Sequence[str], scale: float = 100.0,
    description: str = "",
) -> None:  # fmt: skip
    """Write the vectors of documents, named by `ids` [row] and `vocabulary` [term]; whole or not at all.

    Raises:
        FlatcoatError: sizes that differ, a weight that is not above 0, or one too great for `scale`.
    """
    check_parts(vectors, ids, vocabulary)
    impacts = impacts_of(vectors, scale)
    base = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(vectors.terms, minlength=vectors.vocab_size))])
    rows = np.repeat(np.arange(len(vectors), dtype=np.uint32), np.diff(vectors.start))
    numbers, values = np.empty(len(rows), np.uint32), np.empty(len(rows), np.int64)
    builders().by_rows(base.copy(), vectors.terms, rows, impacts, numbers, values)
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(impacts)])[vectors.start]
    lengths, total = np.diff(sums), int(sums[-1])
    used = sorted(np.flatnonzero(np.diff(base)).tolist(), key=lambda term: vocabulary[term].encode())
    said = description or f"learned sparse vectors; weight = tf / {scale:g}"
    sizes = _field(1, 1) + b"".join(_field(n, v) for n, v in zip((2, 3, 4, 5), (len(used), len(ids)) * 2, strict=True))
    mean = struct.pack("<Bd", 7 << 3 | 1, total / max(1, len(ids)))
    with atomic_file(path) as partial, partial.open("wb") as file:
        _message(file, sizes, _field(6, total), mean, _field(8, said))
        for term in used:
            some = slice(int(base[term]), int(base[term + 1]))
            out = np.empty(24 * (some.stop - some.start), np.uint8)
            size = codec().put_postings(numbers[some], values[some], out)
            head = _field(1, vocabulary[term]) + _field(2, some.stop - some.start)
            _message(file, head + _field(3, int(values[some].sum())), out[:size].tobytes())
        for row, (name, length) in enumerate(zip(ids, lengths.tolist(), strict=True)):
            _message(file, _field(1, row) + _field(2, name) + _field(3, length))


class _Reader:
    """A file's messages, and where in it something is wrong."""

    def __init__(self, path: Path):
        self.path, self.at = path, 0
        try:
            self.data = np.memmap(path, np.uint8, "r")
        except OSError as error:
            raise FlatcoatError(f"{path}: {'no such file' if not path.exists() else error.strerror}") from error
        except ValueError as error:
            raise FlatcoatError(f"{path}: empty; a CIFF file begins with a header") from error

    def wrong(self, at: int, what: str) -> FlatcoatError:
        return FlatcoatError(f"{self.path}: byte {at}: {what}")

    def number(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        for place in range(at, min(end, at + 10)):
            byte = int(self.data[place])
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place + 1
            shift += 7
        raise self.wrong(at, "a number has no end; want a varint of at most 10 bytes. Is the file cut off?")

    def message(self, what: str) -> tuple[int, int]:
        """Where the next message begins and ends; the reader moves behind it."""
        if self.at >= len(self.data):
            raise self.wrong(self.at, f"the file ends where {what} should begin")
        size, start = self.number(self.at, len(self.data))
        if size > len(self.data) - start:
            raise self.wrong(self.at, f"{what} of {size} bytes, but {len(self.data) - start} are left; cut off?")
        self.at = start + size
        return start, self.at

    def fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Each field: its number, its value (a varint's, else 0), and where its bytes begin and end."""
        while at < end:
            place = at
            key, at = self.number(at, end)
            value, start = 0, at
            if key & 7 == 0:
                value, at = self.number(at, end)
            elif key & 7 == 2:
                size, start = self.number(at, end)
                at = start + size
            else:
                at += {1: 8, 5: 4}.get(key & 7, end + 1)
            if at > end:
                raise self.wrong(place, f"field {key >> 3} of wire type {key & 7} leaves its message: not a CIFF file?")
            yield key >> 3, value, start, at

    def text(self, start: int, end: int) -> str:
        try:
            return self.data[start:end].tobytes().decode()
        except UnicodeDecodeError as error:
            raise self.wrong(start, f"text that is not UTF-8 ({error.reason})") from error


def _postings(reader: _Reader, documents: int, number: int) -> tuple[str, np.ndarray, np.ndarray]:
    place, end = reader.message(f"postings list {number + 1}")
    term, df, postings = "", 0, place
    for field, value, start, stop in reader.fields(place, end):
        if field == 4:
            break
        term, df = (reader.text(start, stop) if field == 1 else term), (value if field == 2 else df)
        postings = stop
    most = (end - postings) // 2 + 1
    rows, values = np.empty(most, np.int64), np.empty(most, np.int64)
    n, at = codec().take_postings(reader.data, postings, end, rows, values)
    rows, values = rows[:n], values[:n]
    if at != end:
        raise reader.wrong(~at if at < 0 else at, f"term {term!r}: not a posting of a gap and a tf")
    if n != df:
        raise reader.wrong(place, f"term {term!r} has {n} postings where its df says {df}")
    if n and (rows[-1] >= documents or (np.diff(rows) <= 0).any()):
        raise reader.wrong(place, f"term {term!r}: document numbers must rise and stay below {documents}")
    if n and not ((values > 0) & (values <= GREATEST)).all():
        raise reader.wrong(place, f"term {term!r}: a tf of {values.min()}; want 1 to {GREATEST}")
    return term, rows, values


def read_ciff(path: Path, scale: float = 100.0) -> tuple[Sparse, list[str], list[str]]:
    """The vectors of a file's documents (weight = tf / scale), their ids, and the terms, numbered as they come.

    Raises:
        FlatcoatError: the file is absent, cut off, or not of the format; the message names the byte.
    """
    reader = _Reader(path)
    header = {field: value for field, value, _, _ in reader.fields(*reader.message("the header"))}
    if header.get(1) != 1:
        raise reader.wrong(0, f"CIFF version {header.get(1)}; want 1. Is this a CIFF file?")
    lists, documents = header.get(2, 0), header.get(3, 0)
    if lists > len(reader.data) or documents > len(reader.data):
        raise reader.wrong(0, f"{lists} lists and {documents} documents in {len(reader.data)} bytes: not a CIFF file?")
    found = [_postings(reader, documents, number) for number in range(lists)]
    vocabulary = [term for term, _, _ in found]
    if len(set(vocabulary)) != len(vocabulary):
        raise reader.wrong(0, "a term has two postings lists; want one")
    ids = _documents(reader, documents)
    if len(set(ids)) != len(ids) or "" in ids:
        raise reader.wrong(0, "a document without an id, or two of the same; want one each")
    empty = np.zeros(0, np.int64)
    rows, values = (np.concatenate([empty, *(each[i] for each in found)]) for i in (1, 2))
    terms = np.repeat(np.arange(lists, dtype=np.int32), [len(each[1]) for each in found])
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=documents))])
    to_terms, weights = np.empty(len(terms), np.int32), np.empty(len(terms), np.float32)
    builders().by_rows(start.copy(), rows, terms, values / scale, to_terms, weights)
    return Sparse(start, to_terms, weights, lists), ids, vocabulary


def _documents(reader: _Reader, count: int) -> list[str]:
    ids: list[str | None] = [None] * count
    for number in range(count):
        place, end = reader.message(f"document record {number + 1}")
        row, name = 0, ""
        for field, value, start, stop in reader.fields(place, end):
            row, name = (value if field == 1 else row), (reader.text(start, stop) if field == 2 else name)
        if row >= count or ids[row] is not None:
            raise reader.wrong(
                place, f"document {row} of {count}, or a second time; want each of 0 to {count - 1} once"
            )
        ids[row] = name
    if reader.at != len(reader.data):
        raise reader.wrong(reader.at, f"{len(reader.data) - reader.at} bytes after the last document record")
    return [name for name in ids if name is not None]
