"""Sparse models learn, stay sparse and alive, resume to the same bits, and learn from teachers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_training import bits, same_when_killed

from flatcoat.app.build import ModelEncode, freeze
from flatcoat.app.samplers import mining_index, positives_by_query
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import load_pairs
from flatcoat.errors import FlatcoatError
from flatcoat.mining.mine import MineSettings
from flatcoat.mining.periodic import Periodic
from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense
from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade
from flatcoat.objectives.contrastive import nll
from flatcoat.objectives.distil import distil_kl, distil_margin
from flatcoat.records import silent
from flatcoat.training.health import Health
from flatcoat.training.loop import LoopSettings, Training
from flatcoat.training.processes import Processes
from flatcoat.training.sparsity import Regulariser, RegulariserSettings
from flatcoat.training.step import gradient
from flatcoat.training.student import SparseStudent
from flatcoat.training.teacher import FileTeacher, ModelTeacher, ScaleWatch, read_teacher

BASE = {"steps": 12, "batch": 8, "rate": 2e-3, "warmup": 4, "negatives": 2}


@pytest.fixture(scope="module")
def pairs(toy, tmp_path_factory):
    return load_pairs(build_store(str(toy), tmp_path_factory.mktemp("store") / "s"), "train")


def training(
    tiny_mlm, pairs, folder, *, terms=None, teacher=None, overrides=None, frozen=None, evaluate=None, **changes
) -> Training:
    model = load_splade(str(tiny_mlm), overrides or SparseOverrides())
    model.runtime = Runtime(batch_tokens=256)
    if frozen:
        freeze(model.document.backbone, frozen)
    rows, positives = positives_by_query(pairs)
    sampler = Periodic(rows, positives, len(pairs.collection.documents), MineSettings(1, 8), every=5,
                       keys=pairs.keys, index=mining_index("sparse", False))  # fmt: skip
    held = [Regulariser("document", RegulariserSettings(terms=15.0), 8),
            Regulariser("query", RegulariserSettings("df-flops", weight=1e-3), 8)]  # fmt: skip
    watch = Health(model.vocabulary, np.zeros(model.dim, bool), lambda _: None)
    return Training(
        SparseStudent(model), pairs, [*(terms or [nll("sparse", 1.0)]), *(r.term() for r in held)],
        LoopSettings(**{**BASE, **changes}), folder, sampler=sampler,
        encode=ModelEncode(model, model.runtime, pairs.collection, silent), followers=[*held, watch], teacher=teacher,
        evaluate=evaluate,
    )  # fmt: skip


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# in mid-ramp, past it, with cached gradients, and with a lookup for queries
@pytest.mark.parametrize(
    ("at", "how"), [(3, {}), (9, {}), (5, {"cached": True}), (4, {"overrides": SparseOverrides(queries="lookup")})]
)
def test_a_killed_run_resumes_to_the_same_bits(tiny_mlm, pairs, tmp_path, at, how):
    same_when_killed(lambda name, **more: training(tiny_mlm, pairs, tmp_path / name, **how, **more), tmp_path, at,
                     ("loss", "lambda/document", "lambda/query", "active/document", "gradient_norm"))  # fmt: skip


def test_it_overfits_and_meets_its_number_of_terms(tiny_mlm, pairs, tmp_path):
    run = training(tiny_mlm, pairs, tmp_path, steps=200, negatives=1)
    run.run()
    lines = log(tmp_path)
    assert np.mean([line["loss/nll.sparse"] for line in lines[-5:]]) < 0.35 * lines[0]["loss/nll.sparse"]
    assert np.mean([line["active/document"] for line in lines[-20:]]) == pytest.approx(15, rel=0.35)


@pytest.mark.parametrize("queries", ["shared", "lookup"])
def test_cached_gradients_are_the_whole_ones(tiny_mlm, pairs, tmp_path, queries):
    found = []
    for name, cached in (("a", False), ("b", True)):
        run = training(tiny_mlm, pairs, tmp_path / name, overrides=SparseOverrides(queries=queries), negatives=0)
        for part in run.student.module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        run.student.module.train()
        gradient(run.student, run.batch(0), run.terms, 3, processes=Processes(), cached=cached)
        found.append({n: p.grad for n, p in run.student.module.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and any(g.abs().sum() > 0 for g in found[0].values())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-5, rtol=1e-4)


def test_accumulated_batches_show_followers_every_text(tiny_mlm, pairs, tmp_path):
    run = training(tiny_mlm, pairs, tmp_path, accumulate=2, steps=2, negatives=0)
    seen = []
    run.followers.append(type("Count", (), {"after_step": lambda self, step, e: seen.append(len(e.extra["query"])) or {},
                                            "state": lambda self: {}, "restore": lambda self, s: None})())  # fmt: skip
    run.run()
    assert seen == [16, 16]


def test_frozen_parts_do_not_move(tiny_mlm, pairs, tmp_path):
    run = training(tiny_mlm, pairs, tmp_path, frozen="encoder", steps=3)
    before = bits(run)
    run.run()
    moved = {name for name, value in bits(run).items() if not torch.equal(value, before[name])}
    assert moved and all("cls.predictions" in name for name in moved)


def test_an_empty_model_stops_with_cause_and_cure(tiny_mlm, pairs, tmp_path):
    run = training(tiny_mlm, pairs, tmp_path)
    with torch.no_grad():
        run.student.model.document.backbone.get_output_embeddings().bias.fill_(-1e4)
    with pytest.raises(FlatcoatError, match="empty"):
        run.run()


def test_a_dense_model_teaches(tiny, tiny_mlm, pairs, tmp_path):
    teacher = ModelTeacher(load_dense(str(tiny)), pairs.collection, scale=20.0)
    run = training(tiny_mlm, pairs, tmp_path, teacher=teacher, steps=60, negatives=1,
                   terms=[distil_kl("sparse", "teacher"), distil_margin("sparse", "teacher", 0.05)])  # fmt: skip
    run.run()
    lines = log(tmp_path)
    name = "loss/kl.teacher.sparse"
    assert np.mean([line[name] for line in lines[-5:]]) < 0.6 * np.mean([line[name] for line in lines[:3]])


def test_a_models_scores_are_its_own(tiny, tiny_mlm, pairs):
    for model in (load_dense(str(tiny)), load_splade(str(tiny_mlm))):
        teacher = ModelTeacher(model, pairs.collection, scale=2.0)
        queries, documents = np.array([1, 0, 1]), np.array([3, 3, 0, 2])
        for _ in range(2):
            found = teacher.score(queries, documents, np.ones((len(queries), len(documents)), bool))
        q = model.encode_queries(pairs.collection.queries.texts(queries))
        d = model.encode_documents(pairs.collection.documents.texts(documents))
        q, d = ((x.vectors if hasattr(x, "vectors") else x.array()) for x in (q, d))
        np.testing.assert_allclose(found, 2.0 * q @ d.T, atol=1e-4)


def test_a_file_teaches(pairs, tmp_path):
    ids, docs = pairs.collection.queries.ids, pairs.collection.documents.ids
    path = tmp_path / "teacher.jsonl"
    path.write_text(json.dumps({"query_id": ids[1], "document_ids": [docs[4], docs[2]], "scores": [1.5, -2]}) + "\n")
    found = read_teacher(path, pairs.collection, 2.0).score(
        np.array([0, 1]), np.array([2, 3, 4]), np.ones((2, 3), bool)
    )
    assert np.isnan(found[0]).all() and found[1, [0, 2]].tolist() == [-4.0, 3.0] and np.isnan(found[1, 1])
    assert isinstance(FileTeacher({}).score(np.array([0]), np.array([1]), np.ones((1, 1), bool)), np.ndarray)


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ({"query_id": "nobody", "document_ids": ["d"], "scores": [1]}, "query 'nobody'"),
        ({"query_id": "Q", "document_ids": ["nowhere"], "scores": [1]}, "document 'nowhere'"),
        ({"query_id": "Q", "document_ids": ["D", "D"], "scores": [1]}, "as many scores"),
        ({"query_id": "Q", "document_ids": ["D"], "scores": ["high"]}, "finite numbers"),
    ],
)
def test_bad_teacher_files_name_the_line(pairs, tmp_path, record, word):
    swap = {"Q": pairs.collection.queries.ids[0], "D": pairs.collection.documents.ids[0]}
    text = json.dumps(record)
    for key, value in swap.items():
        text = text.replace(f'"{key}"', json.dumps(value))
    path = tmp_path / "teacher.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(FlatcoatError, match=rf"teacher\.jsonl:1.*{word}"):
        read_teacher(path, pairs.collection)


def test_a_query_has_one_line(pairs, tmp_path):
    line = json.dumps(
        {
            "query_id": pairs.collection.queries.ids[0],
            "document_ids": [pairs.collection.documents.ids[0]],
            "scores": [1],
        }
    )
    (tmp_path / "t.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(FlatcoatError, match=r"t\.jsonl:2.*earlier line"):
        read_teacher(tmp_path / "t.jsonl", pairs.collection)


@pytest.mark.parametrize(("scale", "warned"), [(1.0, False), (1000.0, True), (1e-3, True)])
def test_a_teacher_on_another_scale_is_named(tiny, tiny_mlm, pairs, tmp_path, scale, warned):
    said = []
    teacher = ModelTeacher(load_splade(str(tiny_mlm)), pairs.collection, scale)
    run = training(
        tiny_mlm, pairs, tmp_path, teacher=teacher, steps=2, terms=[distil_kl("sparse", "teacher")], negatives=0
    )
    run.followers.append(ScaleWatch("sparse", 1.0, said.append))
    run.run()
    assert bool(said) == warned and all("teacher.scale" in line for line in said)
    assert log(tmp_path)[0]["teacher/spread"] == pytest.approx(scale, rel=0.5)


def test_the_best_checkpoint_is_looked_for_after_the_ramp(tiny_mlm, pairs, tmp_path):
    values = iter([0.5, 0.4, 0.3])
    run = training(tiny_mlm, pairs, tmp_path, evaluate_every=2, evaluate_after=8, evaluate=lambda: next(values))
    run.run()
    assert run.best_step == 8
