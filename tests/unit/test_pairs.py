from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatcoat.data.pairs import epoch_batches
from flatcoat.errors import Misuse


@given(st.lists(st.integers(0, 6), min_size=4, max_size=60), st.integers(2, 4), st.integers(0, 3))
def test_no_query_twice_in_a_batch_and_no_pair_twice_in_an_epoch(keys, batch, epoch):
    keys = np.array(keys)
    if len(np.unique(keys)) < batch:
        with pytest.raises(Misuse, match="distinct training queries"):
            epoch_batches(keys, batch, 0, epoch)
        return
    batches = epoch_batches(keys, batch, 0, epoch)
    for rows in batches:
        assert len(set(keys[rows])) == batch
    assert len(np.unique(batches)) == batches.size


def test_all_pairs_come_up_when_they_can():
    batches = epoch_batches(np.arange(40), 8, 0, 0)
    assert sorted(batches.reshape(-1)) == list(range(40))


def test_epochs_differ_and_are_repeatable():
    keys = np.arange(64)
    assert not np.array_equal(epoch_batches(keys, 8, 0, 0), epoch_batches(keys, 8, 0, 1))
    assert np.array_equal(epoch_batches(keys, 8, 0, 1), epoch_batches(keys, 8, 0, 1))
    assert not np.array_equal(epoch_batches(keys, 8, 0, 0), epoch_batches(keys, 8, 1, 0))
