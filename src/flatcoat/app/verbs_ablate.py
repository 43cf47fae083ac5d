"""The verb that takes a recipe apart: ablate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from flatcoat.app.progress import say, tracker
from flatcoat.app.recipe import load_recipe


def ablate(
    recipe: Path, out: Path, seeds: int, pairs: bool, only: list[str] | None, changes: list[str] | None,
    allow: list[str] | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """`flatcoat ablate`."""
    from flatcoat.app.ablate import run_ablation
    from flatcoat.app.ablate_report import show

    results = run_ablation(
        load_recipe(recipe, changes), out, seeds=seeds, pairs=pairs, only=tuple(only or ()),
        track=tracker(quiet), note=lambda text: say(text, quiet), allow=tuple(allow or ()),
    )  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(results, ensure_ascii=False) + "\n")
    else:
        show(results)
