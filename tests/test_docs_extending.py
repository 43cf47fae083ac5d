"""The page on extending runs as it stands, what it shows passes its contract, and a contract refuses what breaks it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from flatcoat.mining.base import Drawn

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
CONTRACTS = ("TestSignIndex", "TestHashedWords", "TestNewest")


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """What the page's code makes, its blocks run one after another."""
    text = PAGE.read_text(encoding="utf-8").replace('"my-collection"', repr(str(toy)))
    blocks = re.findall(r"```python\n(.+?)```", text, re.S)
    scope: dict[str, object] = {"__name__": "extending"}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("extending"))
        patched.setattr(Path, "home", lambda: Path.cwd())
        for block in blocks:
            exec(compile(block, PAGE.name, "exec"), scope)
    return scope


def laws_of(contract):
    return [name for name in dir(contract) if name.startswith("test_")]


@pytest.mark.parametrize("name", CONTRACTS)
def test_what_it_shows_passes_its_contract(made, name):
    assert len(laws_of(made[name])) >= 4
    for test in laws_of(made[name]):
        getattr(made[name](), test)()


def test_it_searches_and_measures(made):
    assert 0 <= made["lost"] < 0.3
    assert made["run"]


def fails(contract) -> set[str]:
    """Which of a contract's tests do not hold."""
    found = set()
    for test in laws_of(contract):
        try:
            getattr(contract(), test)()
        except (AssertionError, ValueError):
            found.add(test)
    return found


def test_contracts_refuse_what_breaks_them(made):
    class Careless(made["TestSignIndex"]):
        def build(self, vectors):
            return made["SignIndex"](vectors, candidates=10)

    assert fails(Careless) == {"test_it_finds_what_the_slow_twin_finds"}

    class Batched(made["HashedWords"]):
        def encode_documents(self, texts):
            return type(made["HashedWords"]().encode_documents(["a"]))(
                super().encode_documents(texts).vectors / max(1, len(texts))
            )

    class Careful(made["TestHashedWords"]):
        def encoder(self):
            return Batched()

    assert fails(Careful) == {"test_the_batch_does_not_matter"}

    class Lying(made["Newest"]):
        def draw(self, queries, positives, n, rng):
            drawn = super().draw(queries, positives, n, rng)
            return Drawn(drawn.rows, np.full(drawn.rows.shape, -np.log(len(self.chance)), np.float32))

    class Believing(made["TestNewest"]):
        def build(self):
            return Lying(40)

    assert fails(Believing) == {"test_log_q_is_the_frequency"}
