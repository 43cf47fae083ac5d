"""docs/parity.md names every file of these tests and nothing else, at the versions that are pinned, and each test of a peer says so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PINNED = {
    "PyLate": None,
    "naver's SPLADE": None,
    "faiss": "faiss-cpu",
    "trec_eval (pytrec_eval-terrier)": "pytrec_eval-terrier",
}


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_page_names_the_files_of_parity_tests():
    named = {name for row in rows() for name in re.findall(r"`(test_\w+\.py)`", row[4])}
    assert named == {path.name for path in HERE.glob("test_*.py")} - {Path(__file__).name}


def test_the_pages_versions_are_pinned():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for peer, version, *_ in rows():
        package = PINNED.get(peer, peer)
        if package is not None:
            assert pins[package.lower().replace("_", "-")] == version, peer


def test_names_of_newer_tests_say_the_peer():
    for path in map(HERE.joinpath, ("test_pylate.py", "test_naver_splade.py", "test_faiss.py", "test_bm25s.py", "test_trec_eval.py",
                                    "test_scipy.py", "test_ranx.py")):  # fmt: skip
        tests = [
            node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
        ]
        assert all(name.startswith(path.stem) for name in tests if name.startswith("test_")), path.name
