"""Lines of text files, with their places: `FILE:LINE`."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from flatcoat.data.problems import Problems
from flatcoat.errors import FlatcoatError

LONGEST = 256 * 2**20  # bytes of a line
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")  # what int64 holds, in digits that every tool reads


def whole_number(text: str) -> int | None:
    """A whole number of at most 18 plain digits; None where it is none."""
    text = text.strip()
    return int(text) if WHOLE.fullmatch(text) else None


def text_lines(path: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """(place, line) of each line of a UTF-8 file, plain or .gz; a byte-order mark and bad bytes are dealt with.

    Raises FlatcoatError on a file that cannot be read, a damaged gzip file, or a line of more than LONGEST bytes.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:  # pyright: ignore[reportArgumentType, reportCallIssue]
            for number, raw in enumerate(_raw_lines(cast("IO[bytes]", file), path), start=1):
                place = f"{path}:{number}"
                if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                    raw = raw[3:]
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    problems.add("bad UTF-8", place, f"byte {error.start} is not UTF-8; replaced by U+FFFD")
                    line = raw.decode("utf-8", "replace")
                yield place, line.rstrip("\r\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FlatcoatError(f"{path}: a damaged gzip file ({error})") from error
    except OSError as error:
        raise FlatcoatError(f"{path}: cannot be read ({error.strerror or error})") from error


def _raw_lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a file, each bounded: a few bytes of gzip can unfold to a line that no memory holds."""
    number = 0
    while raw := file.readline(LONGEST + 1):
        number += 1
        if len(raw) > LONGEST:
            raise FlatcoatError(f"{path}:{number}: a line of more than {LONGEST >> 20} MiB; is this a file of lines?")
        yield raw


def json_lines(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line of a JSONL file; a line that is not an object is reported and skipped."""
    for place, line in text_lines(path, problems):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError
            problems.add("bad line", place, f"not valid JSON ({error})")
            continue
        if isinstance(record, dict):
            yield place, record
        else:
            problems.add("bad line", place, f"a JSON {type(record).__name__} where an object is right")


def as_text(value: Any) -> str:
    """A field as text: None is empty, numbers are written out."""
    return "" if value is None else value if isinstance(value, str) else str(value)


def field(record: dict[str, Any], names: tuple[str, ...], place: str, problems: Problems) -> str | None:
    """The first field of `names` that a record has, as text; its absence is reported."""
    for name in names:
        if record.get(name) is not None:
            return as_text(record[name])
    problems.add("missing field", place, f"no field {' or '.join(names)}; the line has {', '.join(record) or 'none'}")
    return None


def find(folder: Path, *names: str) -> Path | None:
    """The first of `names` in a folder, plain or with .gz."""
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    return None
