"""Fixtures of several test files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def models(tiny: Path, tiny_mlm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of each kind, by its name."""
    from flatcoat.models.colbert_checkpoint import load_late, save_late
    from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross

    home = tmp_path_factory.mktemp("models")
    save_late(load_late(str(tiny)), home / "late")
    save_cross(load_cross(str(tiny), CrossOverrides(seed=2)), home / "cross")
    return {"dense": tiny, "sparse": tiny_mlm, "late": home / "late", "cross": home / "cross"}


@pytest.fixture(scope="session")
def index(tiny: Path, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exact index of the toy collection."""
    from flatcoat.app import verbs

    home = tmp_path_factory.mktemp("toy-index")
    verbs.encode(str(tiny), str(toy), home / "vectors", None, None, None, None, "fp32", "cpu", False, None, True)
    verbs.index(str(home / "vectors"), home / "index", "exact", None, False, True)
    return home / "index"


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """A retriever beside the plain dictionary of what it should hold."""
    from retrieving import Served

    return Served(tmp_path)
