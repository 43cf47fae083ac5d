from __future__ import annotations

import itertools
import math

import pytest

from flatcoat.training.schedule import SHAPES, share


@pytest.mark.parametrize("shape", SHAPES)
def test_warm_up_peak_and_floor(shape):
    rates = [share(step, 100, shape, 10, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1.0 if shape == "constant" else 0.1)
    assert min(rates[10:]) >= 0.1 - 1e-12
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates[10:]))


def test_shapes_at_the_middle():
    assert share(50, 101, "linear", 0, 0.0) == pytest.approx(0.5)
    assert share(50, 101, "cosine", 0, 0.2) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert share(50, 101, "wsd", 0, 0.0) == 1.0
    assert share(90, 101, "wsd", 0, 0.0) == pytest.approx(0.5)


def test_one_step_and_no_warm_up():
    assert share(0, 1, "linear", 0, 0.1) == 1.0
