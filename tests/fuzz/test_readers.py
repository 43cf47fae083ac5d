"""Readers of foreign bytes keep the law of `readers.py` on damaged files; `coverage_guided.py` looks for longer."""

from __future__ import annotations

import functools
import random
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from mutations import damaged
from readers import READERS, Files, Reader, attempt

EXAMPLES, SLOW_EXAMPLES = 25, 6


@functools.cache
def made(name: str) -> Files:
    return READERS[name].make()


@pytest.mark.parametrize("name", READERS)
def test_what_is_whole_is_read(name):
    reader, files = READERS[name], made(name)
    assert attempt(reader, files, reader.broken[0], files[reader.broken[0]]) is None or name in ("run", "engine")


def _holds(reader: Reader, examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.integers(0, 2**32), st.sampled_from(reader.broken))
    def law(seed: int, broken: str) -> None:
        files = made(reader.name)
        attempt(reader, files, broken, damaged(files[broken], random.Random(seed), reader.words))

    law()


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if not reader.slow])
def test_what_is_damaged_is_read_or_named(name):
    _holds(READERS[name], EXAMPLES)


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.slow])
def test_checkpoints_that_are_damaged_are_read_or_named(name):
    pytest.importorskip("transformers")
    _holds(READERS[name], SLOW_EXAMPLES)


@pytest.mark.parametrize("name", READERS)
def test_what_is_empty_or_gone_is_named(name):
    reader, files = READERS[name], made(name)
    for broken in reader.broken:
        attempt(reader, files, broken, b"")


def test_the_law_is_seen_to_be_broken():
    """A reader that lets another exception through, names no file, or takes too much memory does not pass."""
    files = {"x": b"y"}

    def raises(error):
        def call(_):
            raise error

        return Reader("planted", lambda: files, ("x",), call)

    from flatcoat.errors import FlatcoatError

    for wrong in (KeyError("x"), FlatcoatError("no file named"), FlatcoatError("two\nlines")):
        with pytest.raises((KeyError, AssertionError)):
            attempt(raises(wrong), files, "x", b"")
    with pytest.raises(MemoryError):
        attempt(Reader("planted", lambda: files, ("x",), lambda _: bytearray(1 << 40)), files, "x", b"")
