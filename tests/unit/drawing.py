"""What tests of samplers share: rows of queries, generators, and the defaults that a function was given."""

from __future__ import annotations

import inspect

import numpy as np

from flatcoat.testing.sampler import QUERIES

RNG = np.random.default_rng
ALL = np.arange(QUERIES)
NONE = np.zeros(0, np.int64)


def defaults(function):
    return {
        name: one.default
        for name, one in inspect.signature(function).parameters.items()
        if one.default is not one.empty
    }
