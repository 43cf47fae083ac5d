"""The house's rules that no linter knows: files that fit a reader, and docstrings that say what is raised."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "flatcoat"
FILES = sorted(SOURCE.rglob("*.py"))
BESIDE = sorted(path for room in ("tests", "scripts", "benchmarks") for path in (ROOT / room).rglob("*.py"))
Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
APART = Named | ast.Lambda  # what stands within a function and is not its body


def public(body: list[ast.stmt], of: str = "") -> Iterator[tuple[str, Named]]:
    """Public classes and functions, and the methods of public classes."""
    for node in body:
        if isinstance(node, Named) and not node.name.startswith("_"):
            yield of + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{of}{node.name}.")


def raised(function: ast.AST) -> Iterator[str]:
    """What a function raises itself, by name."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        elif not isinstance(node, APART):
            yield from raised(node)


def silent(text: str, of_commands: bool) -> list[str]:
    """Public names that do not say what they are, or not that they raise. A command's docstring is its help, and says neither."""
    found = []
    for name, node in public(ast.parse(text).body):
        says = ast.get_docstring(node) or ""
        errors = set() if isinstance(node, ast.ClassDef) or of_commands else set(raised(node))
        if not says:
            found.append(f"{name}: no docstring")
        elif errors - {"NotImplementedError", "AssertionError"} and not re.search(r"\b[Rr]aises?\b", says):
            found.append(f"{name}: raises {', '.join(sorted(errors))}, and does not say so")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_public_names_say_what_they_do_and_raise(path):
    of_commands = path.parent.name == "app" and (path.name == "cli.py" or path.name.startswith("verbs"))
    assert silent(path.read_text(encoding="utf-8"), of_commands) == []


def test_the_rule_finds_what_is_silent():
    text = 'def read(x):\n    "Read."\n    raise {}("no")\n\nclass A:\n    "An A."\n    def go(self): ...\n'
    assert silent(text.format("Misuse"), False) == ["read: raises Misuse, and does not say so", "A.go: no docstring"]
    assert silent(text.format("AssertionError"), False) == silent(text.format("Misuse"), True) == ["A.go: no docstring"]


@pytest.mark.parametrize("path", BESIDE, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_fits_a_reader(path):
    assert path.read_text(encoding="utf-8").count("\n") <= 400
