"""Errors that say what, where, and what would be right."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

#: what breaks a line, steers a terminal, or cannot be printed
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def visible(text: str) -> str:
    """A text on one line: what breaks lines or steers terminals is written out, as in \\n."""
    return UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class FlatcoatError(Exception):
    """The work could not be done; the command line exits with 1. What it says is one line, whatever names and data are in it."""

    exit_code = 1

    def __init__(self, message: str = ""):
        super().__init__(visible(message))


class Misuse(FlatcoatError):
    """The request itself is wrong; the command line exits with 2."""

    exit_code = 2


def need(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Raises:
        Misuse: the module is not installed, or a library of the system that it wants.
    """
    try:
        return importlib.import_module(module)
    except OSError as error:
        first = str(error).partition("\n")[0]
        raise Misuse(f"{module} wants a library of the system: {first}") from error
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise Misuse(f"{module} is not installed; run: pip install 'flatcoat[{extra}]'") from error


def nearest(word: str, known: list[str]) -> str:
    """'; did you mean X?' where X is close to `word`, else ''."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
