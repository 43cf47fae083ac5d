"""Batches side by side: the same whatever the threads, and nobody's count of threads is changed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from flatcoat.models import encode as encoding
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late
from flatcoat.models.encode import batches_by_length, each_batch, encode_all, pad
from flatcoat.models.fast.network import quickly
from flatcoat.models.fast.threads import _openmp, alone

WORDS = ["the", "otter", "river", "marsh", "lives", "in", "near", "a", "stone", "bank"]


@pytest.fixture
def threads():
    """Sets torch's count; the count before is back at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def texts_of(count=150):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 1 + i % 23)) for i in range(count)]


class Stub:
    """A tower that says what it was given, and by which thread."""

    pad_id = 0

    def __init__(self):
        self.seen, self.threads = [], set()

    def __call__(self, ids, mask):
        assert torch.is_inference_mode_enabled()
        self.seen.append(tuple(ids.shape))
        self.threads.add(threading.current_thread())
        return ids.sum(1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_as_many_threads_as_one_likes(tiny, threads, precision):
    model, texts = load_dense(str(tiny)), texts_of()
    found = []
    for count in (1, 2):
        threads(count)
        found.append(encode_all(model.document, texts, Runtime(precision=precision)))
        assert torch.get_num_threads() == count
    np.testing.assert_allclose(found[0], found[1], atol=1e-6 if precision == "fp32" else 1e-3)
    with torch.inference_mode():
        ids, mask = pad(model.document.train(False).tokenize(texts), 0, "cpu")
        plain = model.document(ids, mask).numpy()
    cosines = (plain * found[1]).sum(1)
    assert cosines.min() > {"fp32": 1 - 1e-5, "bf16": 0.999, "int8": 0.99}[precision]


@pytest.mark.parametrize("count", [1, 3])
def test_every_row_is_taken_once(threads, count):
    threads(count)
    rows, tower, got = [[i + 1] * (1 + i % 40) for i in range(90)], Stub(), {}

    def take(batch, sums):
        assert not set(batch) & set(got)
        got.update(zip(batch, sums.tolist(), strict=True))

    each_batch(tower, rows, Runtime(batch_tokens=300), take)
    assert got == {i: sum(row) for i, row in enumerate(rows)}
    assert all(a * b <= 300 for a, b in tower.seen)
    if count == 1:
        assert tower.threads == {threading.current_thread()}
    else:
        assert threading.current_thread() not in tower.threads


def test_which_texts_share_a_batch_does_not_depend_on_the_threads(threads):
    rows, found = [[1] * (1 + i % 40) for i in range(120)], []
    for count in (1, 2, 4):
        threads(count)
        tower = Stub()
        each_batch(tower, rows, Runtime(), lambda batch, made: None)
        found.append(sorted(tower.seen))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 4


def test_few_tokens_are_one_batch(threads):
    threads(2)
    tower = Stub()
    each_batch(tower, [[1] * 10] * 25, Runtime(), lambda batch, made: None)
    assert tower.seen == [(25, 10)]
    each_batch(tower, [], Runtime(), lambda batch, made: None)
    assert len(tower.seen) == 1


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("where", ["tower", "take"])
def test_what_fails_in_one_batch_surfaces(tiny, threads, count, where):
    threads(count)
    tower = load_dense(str(tiny)).document
    rows, calls, lock = tower.tokenize(texts_of(400)), [], threading.Lock()

    def fails(*given):
        with lock:
            calls.append(1)
            if len(calls) == 3:
                raise ZeroDivisionError("in the third batch")

    hook = tower.register_forward_pre_hook(fails) if where == "tower" else None
    with pytest.raises(ZeroDivisionError, match="in the third batch"):
        each_batch(tower, rows, Runtime(batch_tokens=40), fails if where == "take" else lambda batch, made: None)
    assert len(calls) < len(list(batches_by_length([len(row) for row in rows], 40)))  # the rest is not begun
    assert torch.get_num_threads() == count
    assert not [name for name, part in tower.named_modules() if "forward" in vars(part)]
    if hook is not None:
        hook.remove()


def test_batches_run_alone_and_within_the_quick_way(tiny, threads):
    threads(2)
    model, seen = load_dense(str(tiny)), []
    tower = model.document

    def look(*given):
        seen.append((torch.get_num_threads(), "forward" in vars(tower.backbone) or _forwards(tower.backbone) > 0))

    tower.register_forward_pre_hook(look)
    encode_all(tower, texts_of(), model.runtime)
    assert len(seen) > 1
    assert {quick for _, quick in seen} == {True}
    if _openmp():
        assert {count for count, _ in seen} == {1}
    assert torch.get_num_threads() == 2
    assert _forwards(tower.backbone) == 0


def _forwards(network):
    return sum("forward" in vars(part) for part in network.modules())


def test_alone_changes_no_other_thread(threads):
    if not _openmp():
        pytest.skip("torch is built without OpenMP")
    threads(2)
    begun, changed, found = threading.Event(), threading.Event(), {}

    def other():
        found["before"] = torch.get_num_threads()
        begun.set()
        changed.wait(60)
        found["after"] = torch.get_num_threads()

    def own():
        begun.wait(60)
        alone()
        found["own"] = torch.get_num_threads()
        (torch.ones(300, 300) @ torch.ones(300, 300)).sum()  # work does not bring the count back
        found["then"] = torch.get_num_threads()
        changed.set()

    both = [threading.Thread(target=one) for one in (other, own)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert found == {"before": 2, "after": 2, "own": 1, "then": 1}
    assert torch.get_num_threads() == 2
    new = []
    late = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    late.start()
    late.join(60)
    assert new == [2]


@pytest.mark.parametrize("attend", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_expansion_that_is_not_attended_has_vectors_all_the_same(tiny, threads, attend, count):
    threads(count)
    model = load_late(str(tiny), LateOverrides(dim=8, query_length=12, expand=True, attend_expansion=attend))
    tower, texts = model.query, ["the river", "a", "otter near the stone bank in the marsh"] * 40
    assert tower.sees_less is not attend
    rows, found = tower.tokenize(texts), {}

    def take(batch, made):
        for place, row in enumerate(batch):
            found[row] = made["tokens"][place][: len(rows[row])]

    each_batch(tower, rows, Runtime(), take)
    with torch.inference_mode():
        ids, mask = pad(rows, tower.pad_id, "cpu")
        want = tower.train(False)(ids, mask)["tokens"]
    for row, vectors in found.items():
        torch.testing.assert_close(vectors, want[row, : len(rows[row])], atol=1e-5, rtol=1e-5)
    assert len(found) == len(texts)


def test_a_whole_body_would_lose_what_is_not_attended(tiny):
    """Why such towers have their maps alone made quick."""
    tower = load_late(str(tiny), LateOverrides(dim=8, query_length=12, expand=True, attend_expansion=False)).query
    ids, mask = pad(tower.tokenize(["the river"]), tower.pad_id, "cpu")
    with torch.inference_mode():
        want = tower(ids, mask)["tokens"]
        with quickly(tower.backbone, Runtime()):
            if "forward" not in vars(tower.backbone):
                pytest.skip("heads of this size are not taken whole")
            lost = tower(ids, mask)["tokens"]
    assert (lost - want).abs().max() > 1e-2


def test_a_runtime_elsewhere_takes_batches_one_by_one(threads, monkeypatch):
    threads(2)
    monkeypatch.setattr(encoding, "ThreadPoolExecutor", None)
    monkeypatch.setattr(encoding, "pad", lambda rows, pad_id, device: pad(rows, pad_id, "cpu"))
    tower = Stub()
    each_batch(tower, [[1] * 400] * 40, Runtime("cuda", batch_tokens=1000), lambda batch, made: None)
    assert len(tower.seen) == 20
