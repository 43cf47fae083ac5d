"""Memory that ends in a batch: encoding goes on in halves, training says which setting to lower and keeps its checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flatcoat.errors import FlatcoatError
from flatcoat.models.encode import encode_all
from flatcoat.models.load import load_model
from flatcoat.models.memory import is_full

TEXTS = [f"the badger makes its home in the {'woods ' * (i % 7)}" for i in range(40)]
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried 99 bytes"
)
GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Narrow(torch.nn.Module):
    """A tower that fits so many texts at once."""

    def __init__(self, tower, most, error):
        super().__init__()
        self.tower, self.most, self.error, self.refused = tower, most, error, 0

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("tower"), name)

    def forward(self, ids, mask):
        if len(ids) > self.most:
            self.refused += 1
            raise self.error
        return self.tower(ids, mask)


@pytest.mark.parametrize("error", [CPU, GPU, MemoryError("Unable to allocate 3 GiB")], ids=["cpu", "gpu", "numpy"])
def test_a_batch_that_does_not_fit_is_halved(tiny, error):
    model = load_model(str(tiny))
    whole = encode_all(model.document, TEXTS, model.runtime)
    narrow = Narrow(model.document, 3, error)
    np.testing.assert_allclose(encode_all(narrow, TEXTS, model.runtime), whole, atol=1e-5)
    assert narrow.refused


def test_a_text_that_does_not_fit_says_what_to_lower(tiny):
    model = load_model(str(tiny))
    with pytest.raises(FlatcoatError, match="a single text; lower runtime.batch_tokens"):
        encode_all(Narrow(model.document, 0, GPU), TEXTS, model.runtime)


def test_another_error_stays_what_it_is(tiny):
    model = load_model(str(tiny))
    with pytest.raises(RuntimeError, match="shapes"):
        encode_all(Narrow(model.document, 0, RuntimeError("shapes differ")), TEXTS, model.runtime)
    assert not is_full(ValueError("x")) and is_full(CPU) and is_full(GPU)


@pytest.mark.parametrize("cached", [False, True])
def test_training_says_what_to_lower_and_keeps_its_checkpoint(tiny, toy, tmp_path, cached):
    from flatcoat.data.collection import build_store
    from flatcoat.data.pairs import load_pairs
    from flatcoat.objectives.contrastive import nll
    from flatcoat.training.loop import LoopSettings, Training
    from flatcoat.training.state import newest
    from flatcoat.training.student import DenseStudent

    pairs = load_pairs(build_store(str(toy), tmp_path / "store"), "train")
    model = load_model(str(tiny))
    settings = LoopSettings(steps=6, batch=4, save_every=2, cached=cached)
    run = Training(DenseStudent(model), pairs, [nll("dual", 0.1)], settings, tmp_path / "t")

    def full(*_):
        if run.step >= 3:
            raise GPU

    model.document.register_forward_pre_hook(full)
    wanted = "runtime.training_batch_tokens" if cached else "training.batch, or set training.cached = true"
    said = f"out of memory at step 4; lower {wanted}; the last good checkpoint is .*step-00000002"
    with pytest.raises(FlatcoatError, match=said):
        run.run()
    last = newest(tmp_path / "t" / "checkpoints")
    assert last is not None and last.name == "step-00000002"
    Training(DenseStudent(load_model(str(tiny))), pairs, [nll("dual", 0.1)], settings, tmp_path / "t").run(resume=True)
