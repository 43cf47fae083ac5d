"""The contract of every `NegativeSampler`: subclass, and give `build` and `encode`."""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.testing.index import unit

QUERIES, DOCUMENTS = 12, 40


class FixedEncode:
    """A model that does not move."""

    def queries(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of query rows."""
        return unit(QUERIES, 16, seed=5)[rows]

    def documents(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Vectors of these documents, or of the corpus."""
        vectors = unit(DOCUMENTS, 16, seed=6)
        return vectors if rows is None else vectors[rows]


class SamplerContract:
    """What holds for every source of negatives over QUERIES queries and DOCUMENTS documents."""

    def build(self) -> Any:
        """The sampler under test."""
        raise NotImplementedError

    def _begun(self) -> Any:
        sampler = self.build()
        sampler.after_step(0, FixedEncode())
        return sampler

    def test_rows_are_documents(self) -> None:
        """Every row drawn exists, and comes with a log-probability."""
        queries = np.arange(QUERIES)
        drawn = self._begun().draw(queries, queries, 7, np.random.default_rng(0))
        assert drawn.rows.shape == drawn.log_q.shape == (QUERIES, 7)
        assert ((drawn.rows >= 0) & (drawn.rows < DOCUMENTS)).all()
        assert (drawn.log_q <= 0).all() and np.isfinite(drawn.log_q).all()

    def test_the_generator_decides(self) -> None:
        """The same generator gives the same draw."""
        sampler, queries = self._begun(), np.arange(QUERIES)
        first = sampler.draw(queries, queries, 4, np.random.default_rng(3))
        np.testing.assert_array_equal(first.rows, sampler.draw(queries, queries, 4, np.random.default_rng(3)).rows)

    def test_state_is_enough(self) -> None:
        """A restored sampler goes on to the same bits."""
        sampler, queries = self._begun(), np.arange(QUERIES)
        other = self.build()
        other.restore({key: np.array(value) for key, value in sampler.state().items()})
        for name in ("rows", "log_q"):
            a = getattr(sampler.draw(queries, queries, 4, np.random.default_rng(9)), name)
            np.testing.assert_array_equal(a, getattr(other.draw(queries, queries, 4, np.random.default_rng(9)), name))

    def test_log_q_is_the_frequency(self) -> None:
        """Rows come as often as their log-probability says (one query, many draws)."""
        sampler, query = self._begun(), np.array([3])
        drawn = sampler.draw(query.repeat(4000), query.repeat(4000), 1, np.random.default_rng(1))
        for row in np.unique(drawn.rows):
            at = drawn.rows == row
            said = float(np.exp(drawn.log_q[at][0]))
            assert abs(at.mean() - said) < 5 * np.sqrt(said * (1 - said) / 4000) + 1e-9
