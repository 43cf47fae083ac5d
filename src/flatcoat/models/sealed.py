"""The seal of a model that Flatcoat wrote: sentence-transformers' layout has no manifest, so `flatcoat.json` holds the sha256 of
every file beside it, and of itself. Other tools pass it over; a folder without one is anybody's, and is read as it is.
"""

from __future__ import annotations

from pathlib import Path

from flatcoat.errors import FlatcoatError
from flatcoat.files import SEAL, read_json, same_sums, sealed, sum_of, unsealed, write_json

SAID = "flatcoat.json"
SUFFIXES = (".safetensors", ".json", ".txt", ".model")  # what a model is made of; a card may be written and rewritten
MARK = "flatcoat"  # among the versions in config_sentence_transformers.json: this folder was sealed


def seal(folder: Path) -> None:
    """Add the sha256 of a model's files to its `flatcoat.json`."""
    said = read_json(folder / SAID)
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in SUFFIXES and file.is_file()]
    sums = {str(file.relative_to(folder)): sum_of(file) for file in files if file != folder / SAID}
    write_json(folder / SAID, sealed({**said, "files": sums}))


def whole(folder: Path) -> Path:
    """A model's folder, if it is as it was written, or was never sealed.

    Raises:
        FlatcoatError: a file is missing or was altered, the seal itself among them.
    """
    path = folder / SAID
    cure = f'write the model again, or take "files" and "{SEAL}" out of {path} to use it as it is'
    if not path.is_file():
        config = folder / "config_sentence_transformers.json"
        known = read_json(config) if config.is_file() else {}
        versions = known.get("__version__") if isinstance(known, dict) else None
        if isinstance(versions, dict) and MARK in versions:
            raise FlatcoatError(f"{path}: missing; write the model again")
        return folder
    said = read_json(path)
    if not isinstance(said, dict):
        raise FlatcoatError(f"{path}: holds a {type(said).__name__}, not an object; write the model again")
    plain = unsealed(path, said, cure)
    files = plain.get("files")
    if (files is None) != (SEAL not in said) or not isinstance(files or {}, dict):
        raise FlatcoatError(f"{path}: altered since it was written; {cure}")
    same_sums(folder, files or {}, cure)
    return folder
