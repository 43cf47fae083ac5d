"""Write docs/recipes.md: every table and key of a recipe, its type and default from the code, its meaning from recipe_keys.toml.

    python scripts/recipe_docs.py

A key without a meaning, and a meaning without a key, is an error; a test compares the page.
"""

from __future__ import annotations

import tomllib
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from flatcoat.app.recipe import format_recipe, load_recipe
from flatcoat.app.table import Table
from flatcoat.app.tables import Recipe
from flatcoat.app.teaching import TermTable

ROOT = Path(__file__).resolve().parents[1]
PAGE, MEANINGS = ROOT / "docs" / "recipes.md", Path(__file__).with_name("recipe_keys.toml")
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def type_of(annotation: Any) -> str:
    """A type as TOML has it."""
    if annotation is type(None):
        return ""
    if get_origin(annotation) is Literal:
        return ", ".join(f'`"{value}"`' if isinstance(value, str) else f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(filter(None, map(type_of, get_args(annotation))))
    if get_origin(annotation) is tuple:
        return f"list of {type_of(get_args(annotation)[0])}"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[annotation]


def default_of(field: FieldInfo) -> str:
    """A default as TOML has it."""
    if field.is_required():
        return "must be said"
    value = field.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def bounds_of(field: FieldInfo) -> str:
    """What a number may be."""
    found = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(rule, name)
    ]
    return f" {', '.join(found)}" if found else ""


def tables_of(annotation: Any) -> list[type[Table]]:
    """The tables within a type."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return [annotation]
    return [table for part in get_args(annotation) for table in tables_of(part)]


def repeated(annotation: Any) -> bool:
    """Whether a table comes as often as wanted."""
    return get_origin(annotation) is tuple


def table(name: str, model: type[Table], heading: str, meanings: dict[str, Any], used: set[str]) -> list[str]:
    """A table's part of the page, and those of the tables within it."""
    own = meanings.get(name, {})
    lines = [f"## {heading}", "", own.get("about", ""), "", "| key | type | default | meaning |", "|---|---|---|---|"]
    inner: list[str] = []
    for key, field in model.model_fields.items():
        within = tables_of(field.annotation)
        if within and name in ("before", "term"):
            said, default = f"the table [`{key}`](#{key})", ""
        elif within:
            inner += table(f"{name}.{key}", within[0], f"[{name}.{key}]", meanings, used)
            continue
        else:
            said, default = type_of(field.annotation) + bounds_of(field), default_of(field)
        if key not in own:
            raise KeyError(f"{MEANINGS.name}: no meaning of {name}.{key}")
        used.add(f"{name}.{key}")
        lines.append(f"| `{key}` | {said} | {default} | {own[key]} |".replace("|  |", "| |"))
    for key in EXTRA.get(name, ()):
        used.add(f"{name}.{key}")
        lines.append(f"| `{key}` | number > 0 | | {own[key]} |")
    return [*lines, "", *inner]


EXTRA = {"training": ("scale",)}  # accepted, and turned into another key


def recipes_markdown() -> str:
    """The page."""
    meanings = tomllib.loads(MEANINGS.read_text(encoding="utf-8"))
    flat = _flat(meanings)
    used: set[str] = set()
    parts = [meanings["page"]["about"].strip(), ""]
    for name, field in Recipe.model_fields.items():
        model = TermTable if name == "terms" else tables_of(field.annotation)[0]
        heading = f"[[{name}]]" if repeated(field.annotation) else f"[{name}]"
        parts += table(name, model, heading, flat, used)
    known = {f"{name}.{key}" for name, keys in flat.items() if name != "page" for key in keys if key != "about"}
    if known - used:
        raise KeyError(f"{MEANINGS.name}: {', '.join(sorted(known - used))}: no such keys")
    resolved = format_recipe(load_recipe(ROOT / "recipes" / "dpr.toml"))
    parts += [
        "## A resolved recipe",
        "",
        meanings["page"]["resolved"].strip(),
        "",
        "```toml",
        resolved.rstrip(),
        "```",
        "",
    ]
    return "\n".join(parts)


def _flat(meanings: dict[str, Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, values in meanings.items():
        found[name] = {key: value for key, value in values.items() if isinstance(value, str)}
        for key, inner in values.items():
            if isinstance(inner, dict):
                found[f"{name}.{key}"] = inner
    return found


if __name__ == "__main__":
    PAGE.write_text(recipes_markdown(), encoding="utf-8")
