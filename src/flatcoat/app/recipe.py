"""Recipes: TOML that says what differs from the defaults. Unknown keys are refused with the nearest name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from flatcoat.app.packaged import recipe_file
from flatcoat.app.tables import Recipe, Table, TrainingTable
from flatcoat.errors import Misuse, nearest


def load_recipe(path: Path, changes: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `KEY=VALUE` changes through the same checks.

    `recipes/NAME.toml` is the one that comes with Flatcoat where the present folder has none.

    Raises:
        Misuse: no such file, not TOML, an unknown key, or a value that is not right.
    """
    path = recipe_file(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Misuse(f"{path}: no such recipe") from error
    except (ValueError, RecursionError, OSError) as error:  # a number of too many digits is a ValueError
        raise Misuse(f"{path}: not valid TOML ({error})") from error
    for change in changes or []:
        apply_change(values, change)
    for other in values.get("also", ()) if isinstance(values.get("also"), list) else ():
        if isinstance(other, dict) and isinstance(other.get("recipe"), str):
            other["recipe"] = str(
                (path.parent / other["recipe"]).resolve()
            )  # it stands beside the recipe that names it
    return parse_recipe(values, str(path))


def parse_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Check a recipe's values. Raises Misuse with the key, what is wrong, and what would be right."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "recipe"
        if first["type"] == "extra_forbidden":
            known = _keys_at(first["loc"][:-1])
            hint = nearest(str(first["loc"][-1]), known) or f"; known keys: {', '.join(known)}"
            raise Misuse(f"{where}: {key}: unknown key{hint}") from error
        given = f", not {first['input']!r}" if first["type"] not in ("missing", "value_error") else ""
        raise Misuse(f"{where}: {key}: {first['msg'].removeprefix('Value error, ')}{given}") from error


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = Recipe
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inside = [
            t for t in get_args(annotation) if isinstance(t, type) and issubclass(t, Table)
        ]  # tuples and optionals
        model = inside[0] if inside else annotation
    return list(model.model_fields) + (["scale"] if model is TrainingTable else [])


def apply_change(values: dict[str, Any], change: str) -> None:
    """Put `table.key=value` into tables. Raises Misuse where it is none."""
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise Misuse(f"--set {change}: want KEY=VALUE, as in training.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    *tables, last = key.strip().split(".")
    for table in tables:
        inner: Any = values.setdefault(table, {})
        if not isinstance(inner, dict):
            raise Misuse(f"--set {change}: {table} is not a table")
        values = inner
    values[last] = value
    for one, other in (("weight", "terms"), ("terms", "weight")):  # a sparsity is said in one way; the last word counts
        if tables == ["sparsity"] and last.endswith(f"_{one}"):
            values.pop(last.replace(f"_{one}", f"_{other}"), None)


def format_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML, which loads back equal."""
    lines: list[str] = []
    for name, table in recipe.model_dump(exclude_none=True).items():
        if isinstance(table, tuple | list):
            for entry in table:
                lines += [f"[[{name}]]", *_entries(entry), ""]
            if not table:
                lines = [f"{name} = []", "", *lines]
        else:
            lines += [f"[{name}]", *_entries(table["terms"] if name == "terms" else table), ""]
    return "\n".join(lines).rstrip() + "\n"


def _entries(table: dict[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items()]


def _key(name: str) -> str:
    return f'"{name}"' if "." in name else name


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if ord(c) >= 32 and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(_entries(value)) + " }" if value else "{}"
    return repr(value)
