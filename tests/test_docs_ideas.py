"""Each idea's page has a formula that its files open with, files, and tests that are there; no file of ideas is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "flatcoat"
PAGES = [page for page in sorted((ROOT / "docs" / "ideas").glob("*.md")) if page.name != "index.md"]
ROOMS = ("objectives", "mining", "index")


def row(text: str, name: str) -> str:
    """A row of the page's table."""
    found = re.search(rf"^\| {name} \| (.+) \|$", text, re.M)
    assert found, f"no row {name!r}"
    return found.group(1)


def files_of(text: str) -> list[Path]:
    """The files that a page is about."""
    return [SOURCE / name for name in re.findall(r"\]\(\.\./\.\./src/flatcoat/([\w/.]+)\)", row(text, "files"))]


def squeezed(text: str) -> str:
    """The text, each run of white space as one space."""
    return " ".join(text.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_formula_is_the_files_own(page):
    text = page.read_text(encoding="utf-8")
    files = files_of(text)
    said = squeezed(" ".join(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "" for file in files))
    formula = [line for line in text.split("\n") if line.startswith("    ")]
    assert files and formula
    for line in formula:
        assert squeezed(line) in said, f"{page.name}: none of its files opens with {line.strip()!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tests_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert row(text, "said by") and row(text, "slow twin") and row(text, "source") and row(text, "costs and limits")
    parts = row(text, "tests").split("; ")
    for part in parts:
        file = re.search(r"\]\(\.\./\.\./(tests/[\w/.]+\.py)\)", part)
        assert file and (ROOT / file.group(1)).is_file(), part
        code = (ROOT / file.group(1)).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", part):
            assert re.search(rf"(?:def|class) {name}\b", code), f"{page.name}: {file.group(1)} has no {name}"


def test_every_file_of_an_idea_has_its_page():
    named = {file for page in PAGES for file in files_of(page.read_text(encoding="utf-8"))}
    files = {file for room in ROOMS for file in (SOURCE / room).glob("*.py") if file.name != "__init__.py"}
    assert not sorted(str(file.relative_to(SOURCE)) for file in files - named)
    assert all(file.is_file() for file in named)


def test_the_list_of_ideas_has_every_page():
    listed = re.findall(r"\]\(([\w\-]+\.md)\)", (ROOT / "docs" / "ideas" / "index.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [page.name for page in PAGES]
