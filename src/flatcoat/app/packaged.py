"""The recipes that come with Flatcoat, wherever it was installed."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from flatcoat.errors import FlatcoatError


def packaged_recipe(name: str) -> Path:
    """The file of `recipes/NAME`, from the installed package or the checkout.

    Raises:
        FlatcoatError: this installation has no such recipe.
    """
    inside = Path(str(resources.files("flatcoat"))) / "recipes" / name
    checkout = Path(__file__).parents[3] / "recipes" / name
    for place in (inside, checkout):
        if place.is_file():
            return place
    raise FlatcoatError(f"recipes/{name} is not part of this installation; install flatcoat again, or name a recipe")


def recipe_file(path: Path) -> Path:
    """`path` itself; where there is no such file and it says `recipes/NAME`, the one that comes with Flatcoat."""
    if path.exists() or path.parent != Path("recipes"):
        return path
    try:
        return packaged_recipe(path.name)
    except FlatcoatError:
        return path
