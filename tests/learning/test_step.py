"""One engine, exact gradients: whole against cached against plain autograd, one process against two."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flatcoat.columns import text_hash
from flatcoat.data.toy import toy_sentences
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import Overrides, load_dense
from flatcoat.models.encode import pad
from flatcoat.objectives.contrastive import contrastive, nll
from flatcoat.training.processes import Processes
from flatcoat.training.step import gradient
from flatcoat.training.student import Batch, DenseStudent, allowed

ROWS = toy_sentences()[:12]


def batch(rows=ROWS, extra=("The heron sleeps.", "A mouse, alone in the marsh, waits for the rain to end.")):
    documents = [d for _, _, d in rows] + list(extra)
    keys = np.array([text_hash(d) for d in documents], dtype=np.int64)
    known = np.array([[key, -1] for key in keys[: len(rows)]], dtype=np.int64)
    return Batch([q for _, q, _ in rows], documents, keys, known)


def student(tiny, dropout=0.0, batch_tokens=40, **overrides):
    model = load_dense(str(tiny), Overrides(**overrides))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    model.runtime = Runtime(batch_tokens=batch_tokens)
    return DenseStudent(model.train())


def gradients(student, cached, seed=0):
    student.module.zero_grad()
    torch.manual_seed(seed)
    outcome = gradient(student, batch(), [nll("dual", 0.1)], 0, processes=Processes(), cached=cached)
    return outcome, {n: p.grad.clone() for n, p in student.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("separate", [False, True])
def test_gradients_are_those_of_plain_autograd(tiny, separate):
    s = student(tiny, separate=separate)
    b = batch()
    vectors = {}
    for name, tower in s.towers().items():
        vectors[name] = tower(*pad(tower.tokenize(list(s.texts(b)[name])), tower.pad_id, "cpu"))
    scores = vectors["query"] @ vectors["document"].T
    target = torch.arange(len(b.queries))
    may = allowed(torch.from_numpy(b.keys), torch.from_numpy(b.known), target)
    loss = contrastive(scores, target, may, 0.1)
    s.module.zero_grad()
    loss.backward()
    plain = {n: p.grad.clone() for n, p in s.module.named_parameters() if p.grad is not None}
    for cached in (False, True):
        outcome, found = gradients(s, cached)
        assert outcome.loss == pytest.approx(loss.item(), abs=1e-6)
        assert set(found) == set(plain)
        for name, value in plain.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-4)


def test_cached_repeats_the_dropout_of_its_first_pass(tiny):
    s = student(tiny, dropout=0.3)
    whole, kept = gradients(s, cached=False, seed=5)
    cached, found = gradients(s, cached=True, seed=5)
    assert whole.loss == cached.loss
    for name, value in kept.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-4)


def test_cached_leaves_the_random_state_of_the_whole_pass(tiny):
    s = student(tiny, dropout=0.3)
    states = []
    for cached in (False, True):
        gradients(s, cached, seed=5)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_a_known_positive_and_a_repeat_are_no_negatives():
    keys = torch.tensor([10, 20, 30, 20, 40, 40])
    known = torch.tensor([[10, 30], [20, -1], [30, -1]])
    may = allowed(keys, known, torch.tensor([0, 1, 2]))
    assert may.tolist() == [
        [True, True, False, False, True, False],  # 30 answers query 0 too; the second 20 and 40 are repeats
        [True, True, True, False, True, False],
        [True, True, True, False, True, False],
    ]


def test_effective_negatives_are_counted(tiny):
    outcome, _ = gradients(student(tiny), cached=False)
    assert outcome.negatives == len(ROWS) - 1 + 2


def _worker(rank, world, folder, rows, port, queue):
    import os

    import torch.distributed as dist

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    from pathlib import Path

    processes = Processes()
    s = student(Path(folder))
    share = processes.slice(len(rows))
    extra = ["The heron sleeps.", "A mouse waits."]
    own = batch(rows[share], [extra[rank]])
    for cached in (False, True):
        s.module.zero_grad()
        outcome = gradient(s, own, [nll("dual", 0.1)], 0, processes=processes, cached=cached)
        parameters = [p for p in s.module.parameters() if p.requires_grad]
        processes.add_gradients(parameters)
        norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]))
        queue.put((rank, cached, outcome.loss, norm.item(), parameters[0].grad.sum().item(), outcome.negatives))
    dist.destroy_process_group()


def test_two_processes_give_the_loss_and_gradients_of_one(tiny):
    import socket

    import torch.multiprocessing as mp

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_worker, args=(r, 2, str(tiny), ROWS, port, queue)) for r in range(2)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in range(4)]
    for worker in workers:
        worker.join(60)
    s = student(tiny)
    outcome = gradient(
        s, batch(ROWS, ["The heron sleeps.", "A mouse waits."]), [nll("dual", 0.1)], 0, processes=Processes()
    )
    parameters = [p for p in s.module.parameters() if p.requires_grad]
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters if p.grad is not None])).item()
    first = parameters[0].grad.sum().item()
    for _, _, loss, found_norm, found_first, negatives in found:
        assert loss == pytest.approx(outcome.loss, abs=1e-6)
        assert found_norm == pytest.approx(norm, rel=1e-4)
        assert found_first == pytest.approx(first, abs=1e-5)
        assert negatives == outcome.negatives
