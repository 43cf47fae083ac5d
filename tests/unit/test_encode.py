from __future__ import annotations

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError
from flatcoat.models import encode as encoding
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.encode import batches_by_length, encode_all
from flatcoat.models.encode_to import encode_to


def test_batches_hold_every_text_once_within_the_budget():
    lengths = [3, 9, 1, 30, 5, 9, 2]
    batches = list(batches_by_length(lengths, 20))
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 20


def test_encoding_resumes_where_it_stopped(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "WINDOW", 5)
    model = load_dense(str(tiny))
    texts, ids = [f"the otter number {i}" for i in range(17)], [str(i) for i in range(17)]
    seen = []
    real = encoding.encode_window

    def dies(tower, window, runtime):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(window))
        return real(tower, window, runtime)

    monkeypatch.setattr(encoding, "encode_window", dies)
    with pytest.raises(KeyboardInterrupt):
        encode_to(tmp_path / "v", model.document, texts, ids, {"model": "m"}, model.runtime)
    assert not (tmp_path / "v").exists()
    monkeypatch.setattr(encoding, "encode_window", lambda t, w, r: (seen.append(len(w)), real(t, w, r))[1])
    made = encode_to(tmp_path / "v", model.document, texts, ids, {"model": "m"}, model.runtime)
    assert seen == [5, 5, 5, 2]
    np.testing.assert_array_equal(made.vectors, encode_all(model.document, texts, model.runtime))
    assert made.ids == ids and not (tmp_path / "v.partial").exists()


def test_a_partial_folder_of_another_model_is_begun_anew(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "WINDOW", 5)
    model = load_dense(str(tiny))
    texts, ids = [f"text {i}" for i in range(12)], [str(i) for i in range(12)]
    real = encoding.encode_window
    calls = []
    monkeypatch.setattr(
        encoding, "encode_window", lambda *a: calls.append(1) or (1 / 0 if len(calls) == 2 else real(*a))
    )
    with pytest.raises(ZeroDivisionError):
        encode_to(tmp_path / "v", model.document, texts, ids, {"model": "m"}, model.runtime)
    calls.clear()
    monkeypatch.setattr(encoding, "encode_window", lambda *a: calls.append(1) or real(*a))
    encode_to(tmp_path / "v", model.document, texts, ids, {"model": "other"}, model.runtime)
    assert len(calls) == 3


def test_vectors_that_are_not_finite_are_refused(tiny, tmp_path):
    model = load_dense(str(tiny))
    for parameter in model.document.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(FlatcoatError, match="vector of 'a' is not finite"):
        encode_to(tmp_path / "v", model.document, ["x"], ["a"], {}, model.runtime)


def test_a_full_disk_is_said_before_it_is_met(tiny, tmp_path, monkeypatch):
    model = load_dense(str(tiny))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flatcoat.models.encode_to.os.posix_fallocate", full)
    with pytest.raises(FlatcoatError, match=r"/v: no space left on device \(.* MB are free\); free some"):
        encode_to(tmp_path / "v", model.document, ["x"], ["a"], {}, model.runtime)
