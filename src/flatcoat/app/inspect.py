"""`flatcoat check`: tells what a thing is and runs the checks that fit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flatcoat.app.inspect_files import lines_of, of_lines, of_recipe, of_run_file
from flatcoat.checks.base import Finding
from flatcoat.data.collection import open_collection
from flatcoat.data.trec import names_run
from flatcoat.errors import Misuse
from flatcoat.files import MANIFEST, read_json

KINDS = (
    "a model, a collection, vectors, an index, a run (.trec), a run's folder, a recipe (.toml), "
    "a teacher's scores or negatives (.jsonl)"
)


def inspect(thing: str, qrels: Path | None, on: str | None) -> list[Finding]:
    """Everything there is to say of a model, collection, vectors, index, run, recipe, teacher's scores or negatives.

    Raises:
        Misuse: it is none of these.
    """
    path = Path(thing)
    if path.is_file():
        return _file(thing, path, qrels, on)
    if (path.suffix in (".toml", ".jsonl") or names_run(path)) and not path.exists():
        raise Misuse(f"{thing}: no such file")
    if path.is_dir() and (path / "recipe.toml").is_file():
        from flatcoat.app.inspect_folders import of_run_folder

        return of_run_folder(path)
    manifest = read_json(path / MANIFEST) if (path / MANIFEST).is_file() else {}
    kind = manifest.get("format") if isinstance(manifest, dict) else None
    look = _folder(str(kind))
    if look is not None:
        return look(path, on)
    if _model_like(thing, path):
        from flatcoat.app.inspect_models import of_model_at

        return of_model_at(thing, on)
    return _collection(thing)


def _file(thing: str, path: Path, qrels: Path | None, on: str | None) -> list[Finding]:
    if path.suffix == ".toml":
        return of_recipe(path)
    if names_run(path):
        return of_run_file(path, qrels, on)
    kind = lines_of(path) if path.name.endswith((".jsonl", ".jsonl.gz")) else None
    return of_lines(path, kind, on) if kind else _collection(thing)


def _folder(kind: str) -> Callable[[Path, str | None], list[Finding]] | None:
    """What looks at a folder of this format."""
    from flatcoat.app import inspect_folders as folders

    return {
        "flatcoat-index": folders.of_index,
        "flatcoat-vectors": folders.of_vectors,
        "flatcoat-sparse": folders.of_sparse,
        "flatcoat-multi": folders.of_multi,
    }.get(kind)


def _model_like(thing: str, path: Path) -> bool:
    if thing.startswith("pypi:") or (path / "config.json").is_file() or (path / "modules.json").is_file():
        return True
    return not path.exists() and ":" not in thing  # a Hub id


def _collection(thing: str) -> list[Finding]:
    from flatcoat.app.inspect_folders import of_collection

    try:
        return of_collection(open_collection(thing))
    except Misuse as error:
        raise Misuse(f"{error}; check looks at {KINDS}") from error
