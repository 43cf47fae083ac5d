"""Python code as a collection: functions without their docstring are documents, its first sentence is the query.

Pairs of real descriptions and real code that nobody wrote for retrieval, in every Python environment (the idea of
CodeSearchNet, Husain et al. 2019, arXiv 1909.09436). The split is by module, so that a held-out query's neighbours
were never trained on. The rules, each counted in the store's manifest:

* test folders and files, and files that do not parse, are left out;
* a function counts when its docstring's first sentence has at least four words, and its code, without decorators and
  docstring, at least two statements or one that is more than `pass`, `...` or a bare `raise`;
* equal code is one document; sentences equal but for case are one query with several relevant documents, dropped where they are
  more than ten;
* a module's split is drawn by the hash of its name: 10 % test, 5 % dev; a query found in modules of more than one
  split, or one of whose documents serves another split, is of the split train.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from flatcoat.columns import text_hash
from flatcoat.data.problems import Problems
from flatcoat.data.store import StoreBuilder
from flatcoat.errors import FlatcoatError
from flatcoat.files import digest

MOST_RELEVANT = 10
LEAST_WORDS = 4
LONGEST = 4000  # characters of code kept
SKIPPED = {"tests", "test", "testing", "_vendor", "_vendored", "conftest.py"}


class Function(NamedTuple):
    """One documented function."""

    id: str
    module: str
    sentence: str
    code: str


def first_sentence(docstring: str) -> str:
    """The first paragraph up to its first full stop, white space folded."""
    paragraph = docstring.strip().split("\n\n")[0]
    folded = " ".join(paragraph.split())
    match = re.match(r"(.+?[.!?])(?:\s+[A-Z`\[(]|\s*$)", folded)
    return (match.group(1) if match else folded).rstrip(".").strip()


def _speaks(sentence: str) -> bool:
    words = re.findall(r"[A-Za-z]{2,}", sentence)
    return len(words) >= LEAST_WORDS and not sentence.startswith((">>>", ":", "@", "Example", "See ", "http"))


def _empty(body: list[ast.stmt]) -> bool:
    if len(body) != 1:
        return not body
    only = body[0]
    return isinstance(only, ast.Pass | ast.Raise) or (
        isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)
    )


def functions_of(path: Path, root: Path) -> list[Function]:
    """The documented functions of a file. Raises SyntaxError or ValueError where it does not parse."""
    source = path.read_text(encoding="utf-8-sig")
    lines = source.split("\n")  # as ast counts them: a form feed ends no line
    name = str(path.relative_to(root))
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if not docstring or _empty(node.body[1:]) or _shares_a_line(node):
            continue
        sentence = first_sentence(docstring)
        if _speaks(sentence):
            found.append(Function(f"{name}:{node.lineno}:{node.name}", name, sentence, _code(node, lines)))
    return found


def _shares_a_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the docstring stands on one line with code, so that lines cannot be cut between them."""
    quoted, following = node.body[0], node.body[1]
    return quoted.lineno == node.lineno or following.lineno == quoted.end_lineno


def _code(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    quoted = node.body[0]
    kept = lines[node.lineno - 1 : quoted.lineno - 1] + lines[(quoted.end_lineno or 0) : node.end_lineno]
    indent = len(kept[0]) - len(kept[0].lstrip())
    return "\n".join(line[indent:] if line[:indent].isspace() or not indent else line for line in kept)[:LONGEST]


def _scan(job: tuple[Path, Path]) -> tuple[str, list[Function], str | None]:
    path, root = job
    try:
        return str(path), functions_of(path, root), None
    except (SyntaxError, ValueError, RecursionError, OSError) as error:
        return str(path), [], f"{type(error).__name__}: {error}"


def _files(root: Path) -> list[Path]:
    def wanted(path: Path) -> bool:
        parts = path.relative_to(root).parts
        return not SKIPPED.intersection(parts) and not parts[-1].startswith("test_")

    return sorted(path for path in root.rglob("*.py") if wanted(path))


def _all(root: Path, problems: Problems, workers: int) -> Iterator[Function]:
    jobs = [(path, root) for path in _files(root)]
    with ProcessPoolExecutor(workers) as pool:
        for place, functions, error in pool.map(_scan, jobs, chunksize=64):
            if error:
                problems.add("file that does not parse", place, error)
            yield from functions


def python_root(where: str) -> Path:
    """The folder that `python:WHERE` names; this interpreter's packages where it is empty."""
    return Path(where) if where else Path(sysconfig.get_paths()["purelib"])


def python_listing(root: Path) -> str:
    """A digest of the names, sizes and times of a folder's Python files."""
    stats = [(str(path.relative_to(root)), path.stat()) for path in _files(root)]
    return digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def module_split(module: str) -> str:
    """The split that a module's name draws."""
    draw = text_hash(module) % 100
    return "test" if draw < 10 else "dev" if draw < 15 else "train"


def read_python(where: str, builder: StoreBuilder, problems: Problems, workers: int = 2) -> list[Path]:
    """Feed the functions under a folder, or of this interpreter's packages where `where` is empty.

    Raises FlatcoatError where there is no such folder.
    """
    root = python_root(where)
    if not root.is_dir():
        raise FlatcoatError(f"python:{where}: no such folder")
    by_code: dict[str, Function] = {}
    sentences: dict[str, str] = {}  # as it was first written, by its lower case
    wanted: dict[str, dict[str, set[str]]] = {}  # sentence -> document id -> splits of the modules that say so
    for function in _all(root, problems, workers):
        document = by_code.setdefault(function.code, function)
        said = sentences.setdefault(function.sentence.lower(), function.sentence)
        wanted.setdefault(said, {}).setdefault(document.id, set()).add(module_split(function.module))
    for document in by_code.values():
        builder.add_document(document.id, "", document.code, document.id)
    _judge(wanted, builder, problems)
    return []


def _judge(wanted: dict[str, dict[str, set[str]]], builder: StoreBuilder, problems: Problems) -> None:
    kept: dict[str, dict[str, set[str]]] = {}
    for sentence, documents in wanted.items():
        if len(documents) > MOST_RELEVANT:
            problems.add("sentence shared by many functions", next(iter(documents)), f"{sentence!r}: {len(documents)}")
        else:
            kept[sentence] = documents
    split_of = _splits(kept)
    for sentence, documents in kept.items():
        query_id = f"q{text_hash(sentence):016x}"
        builder.add_query(query_id, sentence, query_id)
        for doc in documents:
            builder.judge(split_of[sentence], query_id, doc, 1, query_id)


def _splits(wanted: dict[str, dict[str, set[str]]]) -> dict[str, str]:
    """Each sentence's split: its modules' own where it and all that share its documents agree, else train."""
    own = {sentence: set().union(*documents.values()) for sentence, documents in wanted.items()}
    sharing: dict[str, list[str]] = {}
    for sentence, documents in wanted.items():
        for doc in documents:
            sharing.setdefault(doc, []).append(sentence)
    split_of: dict[str, str] = {}
    for first in wanted:
        if first in split_of:
            continue
        group, waiting = {first}, [first]
        while waiting:  # everything reached through shared documents
            for doc in wanted[waiting.pop()]:
                fresh = [s for s in sharing[doc] if s not in group]
                group.update(fresh)
                waiting += fresh
        splits = set().union(*(own[s] for s in group))
        split = splits.pop() if len(splits) == 1 else "train"
        split_of.update(dict.fromkeys(group, split))
    return split_of
