"""Cascades as recipes say them: whole runs, stages before them, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_cascade import SEVEN, recipe

from flatcoat.app import cascade
from flatcoat.errors import Misuse
from flatcoat.objectives.distil import kl, margin_mse
from stages import BEFORE

CASCADE = """
[collection]
source = "{toy}"
[model]
start = "{tiny}"
pooling = "mean"
normalise = true
query_length = 16
document_length = 24
[training]
steps = {steps}
batch = 8
rate = 1e-3
warmup = 2
save_every = 3
norms_every = 4
[negatives]
kind = "periodic"
last = 8
per_query = 2
[cascade]
late = true
late_dim = 8
cross = "{tiny}"
cross_length = 48
in_batch = 1
[evaluation]
rerank = 5
"""


def test_a_cascade_runs_saves_and_reads_back(tiny, toy, tmp_path):
    from flatcoat.app.run import run_recipe
    from flatcoat.models.load import kind_of, load_model
    from flatcoat.records import silent

    file = tmp_path / "r.toml"
    file.write_text(CASCADE.format(toy=toy, tiny=tiny, steps=6) + BEFORE.format(steps=3))
    from flatcoat.app.recipe import format_recipe, load_recipe

    said = load_recipe(file)
    (tmp_path / "again.toml").write_text(format_recipe(said))
    assert load_recipe(tmp_path / "again.toml") == said
    notes = []
    results = run_recipe(said, tmp_path / "run", track=silent, note=notes.append)
    names = [system["name"] for system in results["systems"]]
    assert {"late interaction, multivector", "after, exact, re-ranked (5)"} <= set(names), names
    folders = ("model", "model-late", "model-cross", "stages/interaction/model-late")
    assert [kind_of(tmp_path / "run" / name) for name in folders] == ["dense", "late", "cross", "late"]
    log = [json.loads(line) for line in (tmp_path / "run" / "training" / "log.jsonl").read_text().splitlines()]
    assert {f"loss/{name}" for name in SEVEN} <= set(log[0])
    assert any("gradient/kl.late.dual" in line for line in log)
    late, dense = load_model(str(tmp_path / "run" / "model-late")), load_model(str(tmp_path / "run" / "model"))
    assert torch.equal(
        late.document.backbone.embeddings.word_embeddings.weight,
        dense.document.backbone.embeddings.word_embeddings.weight,
    )
    notes.clear()
    run_recipe(said, tmp_path / "run", track=silent, note=notes.append)
    assert "train: already done" in notes and "before-post: already done" in notes


LATE = """
[model]
kind = "late"
start = "{tiny}"
dim = 8
query_length = 16
document_length = 24
skip_punctuation = true
[negatives]
kind = "periodic"
last = 8
relative = 0.99
[[indexes]]
kind = "multivector"
cells = 4
"""
CROSS = """
[model]
kind = "cross"
start = "{tiny}"
query_length = 12
document_length = 40
[negatives]
kind = "model"
model = "{tiny}"
last = 8
per_query = 3
[terms]
nll.cross = 1.0
lambdarank.cross = 0.5
[evaluation]
rerank = 8
"""


@pytest.mark.parametrize(("kind", "table"), [("late", LATE), ("cross", CROSS)])
def test_late_and_cross_models_run_alone(tiny, toy, tmp_path, kind, table):
    from flatcoat.app.recipe import load_recipe
    from flatcoat.app.run import run_recipe
    from flatcoat.models.load import kind_of
    from flatcoat.records import silent

    file = tmp_path / "r.toml"
    training = (
        '[collection]\nsource = "{toy}"\ndev = "test"\ntest = "test"\n[training]\nsteps = 30\nbatch = 8\nrate = 2e-3\n'
    )
    file.write_text(training.replace('dev = "test"\n', "").format(toy=toy) + table.format(tiny=tiny))
    results = run_recipe(load_recipe(file), tmp_path / "run", track=silent, note=lambda text: None)
    names = [system["name"] for system in results["systems"]]
    assert kind_of(tmp_path / "run" / "model") == kind
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "run" / "training" / "log.jsonl").read_text().splitlines()
    ]
    assert np.isfinite(losses).all() and (kind == "cross" or np.mean(losses[-6:]) < 0.9 * np.mean(losses[:3]))
    if kind == "late":
        assert {"before, exact", "after, exact", "after, multivector"} <= set(names)
        assert results["fidelity"][0]["recall"]["10" if "10" in results["fidelity"][0]["recall"] else 10] > 0.9
    else:
        assert names == ["BM25", "BM25, re-ranked (8)"]


def refused(tiny, tmp_path, text):
    from flatcoat.app.recipe import load_recipe

    file = tmp_path / "r.toml"
    file.write_text(f'[collection]\nsource = "x"\n[model]\nstart = "{tiny}"\n{text}')
    with pytest.raises(Misuse) as caught:
        load_recipe(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


STAGE = '[[before]]\nname = "s"\n[before.cascade]\nlate = true\nlate_dim = 8\ncross = "a"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[terms]\nkl.late.dual = 1.0\n", "scorers here: dual"),
        ("[cascade]\nlate = true\n[terms]\nnll.lat = 1.0\n", "nll.late"),
        ("[cascade]\nlate = true\n[terms]\nnll.dual = 0.0\n", "every term weighs 0"),
        ("[cascade]\nlate = true\n[loss]\nkl = 1.0\n", "loss is of one scorer alone"),
        ("[terms]\nranknet.dual = { temperature = 2.0 }\n", "has no temperature"),
        ("[terms]\nnll.dual = { start = 0.5, end = 0.5 }\n", "would never act"),
        ("dropout = 0.0\n[terms]\nnll.dual = 1.0\nreg.query = 1.0\n", "it would always be 0"),
        ('kind = "cross"\n[negatives]\nkind = "periodic"\n', "cannot search for its negatives"),
        ('kind = "late"\n[cascade]\nlate = true\n', "teaches a dense or a sparse model"),
        (
            'kind = "cross"\n[[before]]\nname = "p"\ntask = "mlm"\n[before.training]\nsteps = 2\n',
            "no vector to post-train",
        ),
        (f"{STAGE}[cascade]\nlate = true\nlate_dim = 16\n", "cascade.late_dim is 8 there and 16 after"),
        (f'{STAGE}[cascade]\ncross = "b"\n', "cascade.cross is a there and b after"),
        ('[negatives]\nkind = "uniform"\njudge = "x"\n', "mines nothing"),
        ('[negatives]\nkind = "model"\n', "negatives.model names the model"),
        ('[teacher]\nmodels = ["a", "b"]\nscale = 0.0\n', "not above 0"),
        ('[[indexes]]\nkind = "multivector"\n', "does not hold dense vectors"),
        (
            'kind = "late"\n[[indexes]]\nbits = 16\nkind = "multivector"\n',
            "bits = 16 is not of an index of kind multivector",
        ),
    ],
)
def test_what_a_recipe_may_not_say(tiny, tmp_path, text, words):
    assert words in refused(tiny, tmp_path, text)


def test_stages_take_what_is_theirs(tiny, tmp_path):
    from flatcoat.app.recipe import load_recipe

    file = tmp_path / "r.toml"
    base = f'[collection]\nsource = "x"\n[model]\nstart = "{tiny}"\n'
    file.write_text(f'{base}[teacher]\nmodel = "t"\n[loss]\nkl = 1.0\n{STAGE}')
    said = load_recipe(file)
    one = said.of_stage(said.before[0])
    assert one.teacher is None and one.taught and "kl.late.dual" in one.every_term()
    file.write_text(f"{base}[cascade]\nsparse = true\n[sparsity]\nquery_terms = 5\n{STAGE}")
    said = load_recipe(file)
    assert said.of_stage(said.before[0]).sparsity is None


def test_a_teacher_of_pairs_that_does_not_learn_says_the_same_at_every_step(tiny):
    said = recipe(tiny, cross_rate=0.0)
    made = cascade.begin(said).train()
    assert made.student.training and not made.cross.training


def test_a_frozen_dual_teacher_teaches_a_cross_encoder(tiny):
    scores = torch.full((2, 3), torch.nan)
    scores[0, :2] = scores[1, 1:] = torch.tensor([1.0, 2.0])
    scores.requires_grad_()
    teacher, may = torch.randn(2, 3), torch.ones(2, 3, dtype=torch.bool)
    for loss in (kl(scores, teacher, may), margin_mse(scores, teacher, torch.tensor([0, 1]), may)):
        scores.grad = None
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(scores.grad).all()


def test_post_training_goes_on_only_from_its_own(tiny, toy, tmp_path):
    """Checkpoints of another start are not taken up, and those of a finished stage do not stay."""
    from flatcoat.app.recipe import load_recipe
    from flatcoat.app.run import run_recipe
    from flatcoat.records import silent
    from flatcoat.testing.tiny import write_tiny

    other, hashes = write_tiny(tmp_path / "other", seed=9), []
    text = '[[before]]\nname = "post"\ntask = "mlm"\nlength = 16\n[before.training]\nsteps = 4\nbatch = 8\nsave_every = 2\n'
    for folder, start in (("a", tiny), ("a", other), ("b", other)):
        file = tmp_path / "r.toml"
        head = f'[collection]\nsource = "{toy}"\n[model]\nstart = "{start}"\n[training]\nsteps = 1\nbatch = 8\n'
        file.write_text(head + text)
        run_recipe(load_recipe(file), tmp_path / folder, resume=True, track=silent, note=lambda text: None)
        stage = tmp_path / folder / "stages" / "post"
        hashes.append((stage / "model" / "model.safetensors").read_bytes())
        assert not (stage / "training" / "checkpoints").exists()
    assert hashes[1] == hashes[2] != hashes[0]
