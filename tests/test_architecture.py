"""The import law: imports go down, never up; the one sideways arrow is mining to index. And what starts fast stays so."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "flatcoat"
GROUND = {"errors", "records", "representations", "files", "columns", "vectors", "sparse_vectors", "multi_vectors",
          "simd", "places", "arrays"}  # fmt: skip
MAY = {
    "ground": set(),
    "data": {"ground"},
    "models": {"ground"},
    "objectives": set(),
    "index": {"ground"},
    "mining": {"ground", "index"},
    "training": {"ground", "data", "models", "objectives", "mining"},
    "search": {"ground", "models", "index"},
    "evaluation": {"ground", "data", "index"},
    "checks": {"ground", "data", "models", "objectives", "index", "mining", "training", "search", "evaluation"},
    "__main__": {"app"},
    "testing": {"ground", "data", "models", "objectives", "index", "mining", "training", "search", "evaluation"},
}
FORBIDDEN = {
    "ground": {"torch", "transformers", "faiss", "scipy", "pydantic", "rich", "typer"},
    "index": {"torch", "transformers"},
    "mining": {"torch", "transformers"},
    "objectives": {"numpy", "transformers"},
    "evaluation": {"torch", "transformers"},
    "data": {"torch", "transformers"},
}


def room_of(module: str) -> str:
    first = module.split(".")[1] if "." in module else ""
    return "ground" if first in GROUND or not first else first


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if node.module == "flatcoat" else node.module for alias in node.names
            }
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_the_import_law(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    room = room_of(".".join(("flatcoat", *parts)))
    for module in imports(path):
        if module.split(".")[0] == "flatcoat" and room != "app":
            other = room_of(module)
            assert other == room or other in MAY[room], f"{room} may not import {module}"
        assert module.split(".")[0] not in FORBIDDEN.get(room, set()), f"{room} may not import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_house_rules(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    assert path.name == "__init__.py" or '"""' in text.split("\n", 3)[0], "a file opens by saying what it is"
    assert not re.search(r"^\s*print\(|\bpickle\.|\beval\(|except:", text, re.M)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_flatcoat_imports_nothing_heavy():
    loaded = run("import sys, flatcoat; print(*[m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])")
    assert loaded.split() == []


def test_help_and_evaluate_do_without_torch():
    code = "import sys, flatcoat.app.cli{}; print(*[m for m in ('torch', 'transformers', 'faiss') if m in sys.modules])"
    assert run(code.format("")).split() == []
    assert (
        run(code.format(", flatcoat.evaluation.measures, flatcoat.data.trec, flatcoat.app.verbs_judge")).split() == []
    )
