"""`flatcoat run FOLDER`: a folder of documents in the place of a recipe.

What is measured and what is searched are two things here. The run measures on passages that lack the words of the held-out questions
made from them; in `whole/` of the same folder stands the engine to use, over every word, with the model that was trained.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flatcoat.app.packaged import packaged_recipe
from flatcoat.app.recipe import apply_change, parse_recipe
from flatcoat.app.tables import Recipe
from flatcoat.data.collection import is_own
from flatcoat.data.documents import parse_folder
from flatcoat.errors import Misuse
from flatcoat.records import Track


def own_recipe(folder: str, changes: list[str] | None = None) -> Recipe:
    """The recipe for a folder of documents, or for `files:FOLDER?OPTIONS`, with `KEY=VALUE` changes.

    Raises:
        Misuse: no folder of documents, or a change that is not right.
    """
    if not is_own(folder):
        raise Misuse(f"{folder}: neither a recipe (TOML) nor a folder of documents")
    values = tomllib.loads(packaged_recipe("own.toml").read_text(encoding="utf-8"))
    name = folder if folder.startswith("files:") else f"files:{folder}"
    joined = "&" if "?" in name and not Path(name.removeprefix("files:")).exists() else "?"
    values["collection"]["source"] = name if "withhold=" in name else f"{name}{joined}withhold=true"
    for change in changes or []:
        apply_change(values, change)
    return parse_recipe(values, folder)


def whole_recipe(recipe: Recipe, out: Path) -> Recipe:
    """The recipe of the engine to use: every word of the documents, encoded and indexed with what a run at `out` made."""
    source = recipe.collection.source.replace("withhold=true", "withhold=false")
    start = str(out / "model") if recipe.training.steps else recipe.model.start
    return recipe.model_copy(
        update={
            "collection": recipe.collection.model_copy(update={"source": source}),
            "model": recipe.model.model_copy(update={"start": start}),
            "training": recipe.training.model_copy(update={"steps": 0}),
            "before": (),
            "also": (),
        }
    )


def run_own(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    track: Track,
    note: Callable[[str], None],
    allow: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run a folder's recipe into `out`, then index every word into `out/whole`; give the first one's results.

    Raises:
        Misuse: `out` lies in the folder itself, or is another recipe's; or too few documents to hold any out.
        FlatcoatError: a stage could not be done.
    """
    from flatcoat.app.run import run_recipe

    scheme, _, where = recipe.collection.source.partition(":")
    if scheme == "files" and out.resolve().is_relative_to((root := parse_folder(where).root).resolve()):
        raise Misuse(f"{out} lies in {root}, which is to be read; name an --out outside of it")
    results = run_recipe(recipe, out, resume=resume, track=track, note=note, allow=allow)
    if "withhold=true" in recipe.collection.source:
        note("whole: every word of the documents, to be searched")
        run_recipe(whole_recipe(recipe, out), out / "whole", resume=resume, track=track, note=note, allow=allow)
    return results
