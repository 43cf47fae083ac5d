"""What a person's files hold, each format read into sections: a heading path and its text, paragraphs apart by an empty line.

Text is UTF-8 unless a byte-order mark or an HTML page says otherwise; what is neither is read as Latin-1, and reported. A file that
cannot be read gives None and a problem that names it, never an exception.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from flatcoat.data.problems import Problems
from flatcoat.errors import need

LARGEST = 64 * 2**20  # bytes of a file; tables may be larger: Parquet is read by parts, CSV as a whole
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([\w\-]+)", re.I)


class Section(NamedTuple):
    """Text under one heading, or of one page; `headings` are those above it and its own, without the document's title."""

    headings: tuple[str, ...]
    text: str
    page: int | None = None


class Source(NamedTuple):
    """A document as it was found: a file, or a row of a table."""

    id: str
    path: str
    title: str
    sections: tuple[Section, ...]
    metadata: dict[str, Any]


def decode(data: bytes, place: str, problems: Problems, *, page: bool = False) -> str | None:
    """The text of a file's bytes, line ends as \\n; `page` looks for the character set that an HTML page names."""
    name = next((name for mark, name in MARKS if data.startswith(mark)), None)
    if name is None and b"\0" in data[:8192]:
        problems.add("binary file", place, "holds zero bytes, so it is no text; left out")
        return None
    said = CHARSET.search(data[:2048]) if page and name is None else None
    for encoding in filter(None, (name, "utf-8", said.group(1).decode() if said else None)):
        try:
            return _lines(data.decode(encoding))
        except (UnicodeError, LookupError):  # a page may name any of Python's codecs, such as "undefined"
            continue
    problems.add("not UTF-8", place, "is not UTF-8, and was read as Latin-1")
    return _lines(data.decode("latin-1"))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", " ")


def document_id(name: str) -> str:
    """A relative path, or a table's key, as an id without white space: such characters, % and bytes that are no UTF-8 as %XX."""
    odd = lambda c: c.isspace() or c == "%" or ord(c) < 32 or "\ud800" <= c <= "\udfff"  # noqa: E731
    return "".join(
        "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape")) if odd(c) else c for c in name
    )


def paragraphs(text: str) -> str:
    """Text with white space folded within paragraphs, and one empty line between them."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n[^\S\n]*\n", text) if part.strip())


def read_file(path: Path, name: str, id: str, problems: Problems) -> Source | None:
    """A file of a known ending as a document. Problems name it by `name`; a title that it does not say is empty."""
    reader = READERS[path.suffix.lower()]
    try:
        if path.stat().st_size > LARGEST:
            problems.add("file too large", name, f"has more than {LARGEST >> 20} MiB; left out")
            return None
        read = reader(path, name, problems)
    except OSError as error:
        problems.add("unreadable file", name, f"cannot be read ({error.strerror})")
        return None
    if read is None:
        return None
    title, sections, metadata = read
    kept = tuple(section for section in sections if section.text.strip())
    if not kept:
        problems.add("empty file", name, "has no text")
        return None
    return Source(id, name, " ".join(title.split()), kept, metadata)


def stem(path: Path) -> str:
    """A file's name as a title."""
    return " ".join(re.split(r"[\s_\-]+", path.stem)).strip() or path.stem


Read = tuple[str, list[Section], dict[str, Any]]


def _plain(path: Path, name: str, problems: Problems) -> Read | None:
    text = decode(path.read_bytes(), name, problems)
    return None if text is None else ("", [Section((), paragraphs(text))], {})


def _html(path: Path, name: str, problems: Problems) -> Read | None:
    from flatcoat.data.formats_html import read_html

    text = decode(path.read_bytes(), name, problems, page=True)
    return None if text is None else (*read_html(text), {})


def _markdown(path: Path, name: str, problems: Problems) -> Read | None:
    from flatcoat.data.formats_html import read_html

    text = decode(path.read_bytes(), name, problems)
    if text is None:
        return None
    parser: Any = need("markdown_it", "documents")
    matter, unread, body = front_matter(text, name, problems)
    title, sections = read_html(parser.MarkdownIt("commonmark").enable("table").render(body))
    said = matter.get("title")
    said = str(matter.pop("title")) if isinstance(said, str | int | float | date) else ""
    if said and title not in ("", said):  # the main heading is one heading among others then
        sections = [section._replace(headings=(title, *section.headings)) for section in sections]
    return said or title, [Section((), paragraphs(unread)), *sections], matter


def front_matter(text: str, place: str, problems: Problems) -> tuple[dict[str, Any], str, str]:
    """The YAML (---) or TOML (+++) at a Markdown file's head, what of it could not be read, and the rest.

    What cannot be read is reported, and is text like any other; what is no object is prose between two rules, and left in the rest.
    """
    found = re.match(r"(---|\+\+\+)[ \t]*\n(.*?)\n\1[ \t]*(?:\n|$)", text, re.S)
    if not found:
        return {}, "", text
    try:
        said = tomllib.loads(found.group(2)) if found.group(1) == "+++" else _yaml(found.group(2))
    except (ValueError, RecursionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        problems.add("bad front matter", place, f"its front matter is not read, and kept as text ({why})")
        return {}, found.group(2), text[found.end() :]
    return (said, "", text[found.end() :]) if isinstance(said, dict) else ({}, "", text)


def _yaml(text: str) -> Any:
    """YAML without references, which a few lines can make larger than memory. Raises ValueError."""
    yaml: Any = need("yaml", "documents")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ValueError("it has references")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error  # `!!bool foo` is a KeyError, and the like


def _rst(path: Path, name: str, problems: Problems) -> Read | None:
    from flatcoat.data.formats_rst import read_rst

    text = decode(path.read_bytes(), name, problems)
    return None if text is None else (*read_rst(text), {})


def _pdf(path: Path, name: str, problems: Problems) -> Read | None:
    from flatcoat.data.formats_pdf import read_pdf

    return read_pdf(path, name, problems)


READERS: dict[str, Callable[[Path, str, Problems], Read | None]] = {
    ".txt": _plain, ".md": _markdown, ".markdown": _markdown, ".html": _html, ".htm": _html, ".xhtml": _html,
    ".rst": _rst, ".pdf": _pdf,
}  # fmt: skip
