"""Fixtures of several test files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """A retriever beside the plain dictionary of what it should hold."""
    from retrieving import Served

    return Served(tmp_path)
