"""The verb that shows what a recipe says: recipe."""

from __future__ import annotations

import sys
from pathlib import Path

from flatcoat.app.recipe import format_recipe, load_recipe
from flatcoat.app.tables import Recipe


def recipe(path: Path, changes: list[str] | None, as_json: bool) -> None:
    """`flatcoat recipe`."""
    loaded = load_recipe(path, changes)
    if as_json:
        sys.stdout.write(loaded.model_dump_json() + "\n")
        return
    sys.stdout.write(format_recipe(loaded))
    if loaded.training.steps:
        sys.stdout.write("\n" + draw(loaded))


def draw(recipe: Recipe, width: int = 72) -> str:
    """The learning rate over the run, and the ramp of what keeps a sparse model sparse, in characters, as TOML comments."""
    from flatcoat.training.schedule import share
    from flatcoat.training.sparsity import ramped

    t = recipe.training
    steps = [round(i * (t.steps - 1) / max(1, width - 1)) for i in range(width)]
    rates = [t.rate * share(step, t.steps, t.schedule, t.warmup, t.floor) for step in steps]
    text = curve(rates, "rate", f"at step {t.steps} ({t.schedule})")
    table = recipe.sparsity
    if table is None:
        return text
    for side in ("query", "document"):
        kind, weight, terms = (getattr(table, name) for name in (side, f"{side}_weight", f"{side}_terms"))
        ramp = round(table.ramp * t.steps)
        if weight:
            text += "#\n" + curve([ramped(weight, s, ramp) for s in steps], f"{side} {kind} λ", f"at step {t.steps}")
        elif terms:
            text += f"#\n# {side} {kind}: λ is found by a controller that reaches {terms:g} terms at step {ramp + 1}\n"
    return text


def curve(values: list[float], what: str, end: str, height: int = 10) -> str:
    """Values over a run as bars, with the first, the greatest and the last of them."""
    top = max(values) or 1.0
    lines = []
    for level in range(height, 0, -1):
        label = f"{top * level / height:9.2e} " if level in (height, 1) else " " * 10
        lines.append("# " + label + "".join("█" if v >= top * (level - 0.5) / height else " " for v in values).rstrip())
    ends = f"{what} {values[0]:.2e} at step 1, {max(values):.2e} at its peak, {values[-1]:.2e} {end}"
    return "\n".join([*lines, f"# {ends}"]) + "\n"
