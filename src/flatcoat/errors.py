"""Errors that say what, where, and what would be right."""

from __future__ import annotations

import importlib
from types import ModuleType


class FlatcoatError(Exception):
    """The work could not be done; the command line exits with 1."""

    exit_code = 1


class Misuse(FlatcoatError):
    """The request itself is wrong; the command line exits with 2."""

    exit_code = 2


def need(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Raises:
        Misuse: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise Misuse(f"{module} is not installed; run: pip install 'flatcoat[{extra}]'") from error


def nearest(word: str, known: list[str]) -> str:
    """'; did you mean X?' where X is close to `word`, else ''."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
