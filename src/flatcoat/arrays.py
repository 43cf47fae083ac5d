"""Arrays and other parts of files that somebody else may have written: read, or refused by the file's name."""

from __future__ import annotations

import contextlib
import tokenize
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import numpy as np

from flatcoat.errors import FlatcoatError

ILL_FORMED = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, RecursionError, MemoryError, SyntaxError,
    tokenize.TokenError,
)  # fmt: skip


def first_line(error: BaseException) -> str:
    """What an exception says, in one line, after its name."""
    said = str(error).strip()
    return f"{type(error).__name__}: {said.splitlines()[0][:300]}" if said else type(error).__name__


@contextlib.contextmanager
def taking_apart(path: Path) -> Generator[None, None, None]:
    """While what a file or folder says is taken apart: where it is not formed as it should be, that is said of it by name.

    Raises:
        FlatcoatError: whatever a value of the wrong kind, a missing key or a damaged header raises within.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FlatcoatError(f"{error.filename or path}: cannot be read (no such file)") from error
    except OSError as error:
        raise FlatcoatError(f"{path}: cannot be read ({error.strerror or first_line(error)})") from error
    except ILL_FORMED as error:
        raise FlatcoatError(
            f"{path}: cannot be read, it is not formed as it should be ({first_line(error)})"
        ) from error


def read_array(path: Path, *, mapped: bool = True) -> np.ndarray:
    """The array of a .npy file, memory-mapped or as a copy; never of objects, and never larger than the file.

    Raises:
        FlatcoatError: no such file, or no array of numbers.
    """
    with taking_apart(path):
        found: Any = np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # mapping holds a header's promise to the file's size
        if not isinstance(found, np.ndarray):
            raise TypeError(f"a {type(found).__name__}, where an array is right")
        array = cast(np.ndarray, found)
        return array if mapped else np.array(array)
