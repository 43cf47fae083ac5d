"""Stages of a run folder: each is keyed by what went into it and is not done twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import digest, read_json, sum_of, write_json, write_text


class Stages:
    """`stages.json` of a run folder: the key under which each stage was finished, and the sha256 of a product that is one file.

    A folder has its own manifest, or seal.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]):
        self.folder, self.note = folder, note
        self.path = folder / "stages.json"
        known = read_json(self.path) if self.path.is_file() else {}
        if not isinstance(known, dict):
            raise FlatcoatError(f"{self.path}: not an object of stages; remove it to make every stage again")
        self.keys: dict[str, str] = known

    def do(self, name: str, inputs: Any, product: Path, make: Callable[[], object], *, together: Any = None) -> str:
        """Make `product` unless it was made of the same inputs; give the stage's key.

        `together` are processes that make it as one: the first one's word holds, and it alone writes.
        """
        key = digest([name, inputs])
        done = self.keys.get(name) in (key, _with_sum(key, product)) and product.exists()
        if (together is not None and together.agree(done)) or (together is None and done):
            self.note(f"{name}: already done")
            return key
        if together is not None and together.rank:
            make()
            together.agree(True)  # what comes next reads what the first has written by now
            return key
        if name in self.keys:
            del self.keys[name]
            write_json(self.path, self.keys)
            shutil.rmtree(product, ignore_errors=True) if product.is_dir() else product.unlink(missing_ok=True)
        self.note(name)
        make()
        self.keys[name] = _with_sum(key, product)
        write_json(self.path, self.keys)
        if together is not None:
            together.agree(True)
        return key


def _with_sum(key: str, product: Path) -> str:
    return f"{key} {sum_of(product)}" if product.is_file() else key


def claim(folder: Path, recipe_text: str, resume: bool) -> None:
    """Make a folder the run of a recipe. Raises Misuse where it is another's, or not a run's at all."""
    said = folder / "recipe.toml"
    if said.is_file():
        if said.read_text(encoding="utf-8") != recipe_text and not resume:
            raise Misuse(
                f"{folder} was made by another recipe; --resume redoes what the change touches, or choose another --out"
            )
    elif folder.is_dir() and any(path.name != ".lock" for path in folder.iterdir()):
        raise Misuse(f"{folder} is not empty and not a run's folder; choose another --out")
    write_text(said, recipe_text)
