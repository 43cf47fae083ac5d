"""PDF into sections, one a page, through pypdf; lines that stand on most pages (running heads, page numbers) are left out."""

from __future__ import annotations

import contextlib
import logging
import re
import struct
import zlib
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

from flatcoat.data.formats import Section, paragraphs
from flatcoat.data.problems import Problems
from flatcoat.errors import need

MOST_TEXT = 16 * 2**20  # characters of a file: a small one can unfold to more than memory holds
BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, NotImplementedError, RecursionError,
          OverflowError, ZeroDivisionError, zlib.error, struct.error)  # fmt: skip


@contextlib.contextmanager
def _silent(logger: logging.Logger) -> Generator[None, None, None]:
    """A logger says nothing meanwhile: a damaged file is said once, by us."""
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


def read_pdf(path: Path, name: str, problems: Problems) -> tuple[str, list[Section], dict[str, Any]] | None:
    """A PDF's title, pages and author; None, and a problem, where it is encrypted, damaged or has no text."""
    library: Any = need("pypdf", "documents")
    errors: Any = need("pypdf.errors", "documents")
    wrong = (errors.PyPdfError, errors.DependencyError, *BROKEN)
    with _silent(logging.getLogger("pypdf")):
        try:
            reader = library.PdfReader(path, strict=False)
            if reader.is_encrypted and not reader.decrypt(""):
                problems.add("encrypted file", name, "asks for a password; left out")
                return None
            count = len(reader.pages)
            said = reader.metadata or {}
            title, author = (str(said.get(key) or "") for key in ("/Title", "/Author"))
        except wrong as error:
            problems.add("damaged file", name, f"is no readable PDF ({type(error).__name__}: {_line(error)})")
            return None
        pages = _pages(reader, count, name, problems, wrong)
    texts = _without_running_lines(pages)
    sections = [Section((), paragraphs(_mended(text)), number) for number, text in enumerate(texts, start=1)]
    if not any(section.text for section in sections):
        problems.add("empty file", name, "has no text: its pages are pictures, perhaps; recognise their text first")
        return None
    usable = re.search(r"\w{3}", title) and not re.search(r"\.\w{2,4}$|^untitled", title.strip(), re.I)
    return title if usable else "", sections, {"author": author} if author.strip() else {}


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _pages(reader: Any, count: int, name: str, problems: Problems, wrong: tuple[type[Exception], ...]) -> list[str]:
    """The text of the pages; of those behind the page that fills `MOST_TEXT` none is read."""
    pages, room = [], MOST_TEXT
    for number in range(count):
        pages.append(_page(reader, number, name, problems, wrong)[:room])
        room -= len(pages[-1])
        if not room:
            problems.add("file too large", name, f"has more than {MOST_TEXT} characters; cut at page {number + 1}")
            break
    return pages


def _page(reader: Any, number: int, name: str, problems: Problems, wrong: tuple[type[Exception], ...]) -> str:
    try:
        return reader.pages[number].extract_text() or ""
    except wrong as error:
        problems.add("damaged page", f"{name}: page {number + 1}", f"cannot be read ({type(error).__name__})")
        return ""


def _without_running_lines(pages: list[str]) -> list[str]:
    """Pages without first and last lines that, but for digits, are those of more than half of them, where there are four or more.

    At most two at each end go, never all of a page, and none of a kind that stands within the pages too, as numbered lines do.
    """
    fold = lambda line: re.sub(r"\d+", "0", " ".join(line.split())).lower()  # noqa: E731
    lines = [page.strip().split("\n") for page in pages]
    folded = [[fold(line) for line in page] for page in lines]
    counts = Counter(line for page in folded for line in {page[0], page[-1]} if line not in page[1:-1])
    if len(pages) < 4:
        return pages
    for page in lines:
        for end in (0, 0, -1, -1):
            if len(page) > 1 and counts[fold(page[end])] > len(pages) / 2:
                page.pop(end)
    return ["\n".join(page) for page in lines]


def _mended(text: str) -> str:
    """Words that a line's end has cut are joined again."""
    return re.sub(r"(\w)[-\u00ad]\n(?=[^\W\d_A-Z])", r"\1", text).replace("\u00ad", "")
