"""What a model folder's small files say, by their kinds: a checkpoint is anybody's, so every value is looked at before it is used.

Paths in them name places within the folder: an absolute one, or one that climbs out, is refused. (What a link within the folder
leads to is followed: the Hub's cache is made of links.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from flatcoat.errors import FlatcoatError
from flatcoat.files import read_json, read_object

MOST_LENGTH = 10**6  # tokens; transformers writes 10^30 for "no limit"


class Module(NamedTuple):
    """A module of a model: its whole type, its folder within the model's, and that folder."""

    type: str
    path: str
    folder: Path

    @property
    def name(self) -> str:
        """The type without its package."""
        return self.type.rsplit(".", 1)[-1]


def object_of(path: Path) -> dict[str, Any]:
    """The JSON object of a file, {} where there is none. Raises FlatcoatError where it holds anything else."""
    return read_object(path) if path.is_file() else {}


def inside(folder: Path, path: str, where: Path) -> Path:
    """A place within a folder. Raises FlatcoatError, naming the file `where` that says it, where it is outside."""
    parts = PurePosixPath(path.replace("\\", "/"))
    if parts.is_absolute() or PureWindowsPath(path).drive or ".." in parts.parts or "\0" in path:
        raise FlatcoatError(f"{where}: path {path!r} leads out of the model's folder; want one within it")
    return folder / path


def modules_of(folder: Path) -> list[Module]:
    """The modules that `modules.json` lists. Raises FlatcoatError where it is no list of them."""
    where = folder / "modules.json"
    listed = read_json(where)
    if not isinstance(listed, list) or not listed:
        raise FlatcoatError(f"{where}: want a list of modules, each with type and path")
    return [_module(folder, entry, where) for entry in listed]


def _module(folder: Path, entry: Any, where: Path) -> Module:
    said = (entry.get("type"), entry.get("path", "")) if isinstance(entry, dict) else (None, None)
    if not isinstance(said[0], str) or not isinstance(said[1], str):
        raise FlatcoatError(f"{where}: {str(entry)[:100]!r} is no module; want type and path, both text")
    return Module(said[0], said[1], inside(folder, said[1], where))


def routes_of(folder: Path) -> dict[str, list[Module]]:
    """The modules of each route of a router. Raises FlatcoatError where a route is missing or not understood."""
    where = folder / "router_config.json"
    said = read_object(where)
    structure, types = table(said, "structure", where), table(said, "types", where)
    if not {"query", "document"} <= set(structure):
        raise FlatcoatError(f"{where}: routes {', '.join(structure) or 'none'}; want query and document")
    found = {}
    for side in ("query", "document"):
        names = words(structure, side, where)
        if not names:
            raise FlatcoatError(f"{where}: route {side} has no modules")
        found[side] = [_module(folder, {"type": types.get(name), "path": name}, where) for name in names]
    return found


def table(said: Mapping[str, Any], key: str, where: Path) -> dict[str, Any]:
    """An object, {} where there is none. Raises FlatcoatError where it is something else."""
    return _of(said, key, dict, "an object", where) or {}


def words(said: Mapping[str, Any], key: str, where: Path) -> list[str]:
    """A list of texts, [] where there is none. Raises FlatcoatError where it is something else."""
    found = _of(said, key, list, "a list of texts", where) or []
    if not all(isinstance(word, str) for word in found):
        raise FlatcoatError(f"{where}: {key} is {str(found)[:100]}; want a list of texts")
    return found


def text(said: Mapping[str, Any], key: str, where: Path) -> str | None:
    """A text, None where there is none. Raises FlatcoatError where it is something else."""
    return _of(said, key, str, "a text", where)


def length(said: Mapping[str, Any], key: str, where: Path) -> int | None:
    """A number of tokens, None where there is none. Raises FlatcoatError where it is not 1 to 10^6."""
    found = _of(said, key, int, "a whole number", where)
    if found is not None and (isinstance(found, bool) or not 0 < found <= MOST_LENGTH):
        raise FlatcoatError(f"{where}: {key} is {str(found)[:30]}; want 1 to {MOST_LENGTH}")
    return found


def prompts_of(said: Mapping[str, Any], where: Path) -> dict[str, str]:
    """Prompts by name. Raises FlatcoatError where one is no text."""
    found = table(said, "prompts", where)
    return {name: prompt for name in found if (prompt := text(found, name, where)) is not None}


def _of(said: Mapping[str, Any], key: str, kind: type, want: str, where: Path) -> Any:
    found = said.get(key)
    if found is not None and not isinstance(found, kind):
        raise FlatcoatError(f"{where}: {key} is {str(found)[:100]!r}; want {want}")
    return found
