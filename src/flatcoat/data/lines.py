"""Lines of text files, with their places: `FILE:LINE`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flatcoat.data.problems import Problems
from flatcoat.errors import FlatcoatError


def text_lines(path: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """(place, line) of each line of a UTF-8 file, plain or .gz; a byte-order mark and bad bytes are dealt with."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:  # pyright: ignore[reportArgumentType, reportCallIssue]
            for number, raw in enumerate(file, start=1):
                place = f"{path}:{number}"
                if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                    raw = raw[3:]
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    problems.add("bad UTF-8", place, f"byte {error.start} is not UTF-8; replaced by U+FFFD")
                    line = raw.decode("utf-8", "replace")
                yield place, line.rstrip("\r\n")
    except (gzip.BadGzipFile, EOFError) as error:
        raise FlatcoatError(f"{path}: a damaged gzip file ({error})") from error


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
