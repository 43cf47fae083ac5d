"""The cascade: its scores by hand, its gradients by plain autograd and finite differences, who teaches whom, resume, processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training import same_when_killed

from flatcoat.app import cascade
from flatcoat.app.recipe import parse_recipe
from flatcoat.app.teaching import TermTable
from flatcoat.app.terms import taught_terms, weight_of
from flatcoat.columns import text_hash
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import load_pairs
from flatcoat.data.toy import toy_sentences
from flatcoat.errors import FlatcoatError
from flatcoat.mining.uniform import Uniform
from flatcoat.models.base import Runtime
from flatcoat.models.maxsim import maxsim_slowly
from flatcoat.objectives.total import total
from flatcoat.training.cascade import CascadeStudent, candidates
from flatcoat.training.loop import LoopSettings, Training
from flatcoat.training.processes import Processes
from flatcoat.training.step import _kept, _observe, gradient, term_norms
from flatcoat.training.student import Batch
from flatcoat.training.teacher import GRID, Ensemble, PairTeacher, fitted_scale, standard

ROWS = toy_sentences()[:6]
SEVEN = ["nll.cross", "nll.late", "nll.dual", "kl.cross.late", "kl.cross.dual", "kl.late.dual", "att.cross.late"]


def batch(drawn=2):
    others = [d for _, _, d in toy_sentences()[6 : 6 + drawn * len(ROWS)]]
    documents = [d for _, _, d in ROWS] + (others * drawn)[: drawn * len(ROWS)]
    keys = np.array([text_hash(d) for d in documents], dtype=np.int64)
    return Batch([q for _, q, _ in ROWS], documents, keys, np.array([[key, -1] for key in keys[: len(ROWS)]]))


def recipe(start, terms=None, kind="dense", also="", **table):
    said = {"late": True, "late_dim": 8, "cross": str(start), "cross_length": 40, **table}
    hidden = 1e-9 if any(name.startswith("reg.") for name in terms or {}) else 0.0  # reg wants some
    values = {
        "collection": {"source": "x"},
        "model": {"kind": kind, "start": str(start), "dropout": hidden, "query_length": 16, "document_length": 20},
        "training": {"steps": 10, "temperature": 0.1},
        "cascade": said,
    }
    if kind == "dense":
        values["model"] |= {"pooling": "mean", "normalise": True}
    if terms:
        values["terms"] = terms
    return parse_recipe(values, "test")


def student(said, batch_tokens=64):
    made = cascade.begin(said)
    made.runtime = Runtime(batch_tokens=batch_tokens)
    return CascadeStudent(made.train(), cascade.settings(said))


def gradients(s, terms, b, **how):
    s.module.zero_grad()
    torch.manual_seed(0)
    outcome = gradient(s, b, terms, 0, processes=Processes(), **how)
    return outcome, {n: p.grad.clone() for n, p in s.module.named_parameters() if p.grad is not None}


def test_the_paper_s_sum_is_the_default(tiny):
    assert sorted(recipe(tiny).every_term()) == sorted(SEVEN)
    assert [t.name for t in taught_terms(recipe(tiny))] == list(recipe(tiny).every_term())
    alone = recipe(tiny, cross=None)
    assert sorted(alone.every_term()) == ["kl.late.dual", "nll.dual", "nll.late"]


def test_scores_are_those_of_the_models_alone(tiny):
    said = recipe(tiny)
    s = student(said)
    b = batch()
    evidence, _, _ = _observe(s, b, Processes(), _kept)
    model = s.model
    one, two = model.student.encode_queries(b.queries), model.student.encode_documents(b.documents)
    torch.testing.assert_close(
        evidence.scores["dual"] * 0.1, torch.from_numpy(one.vectors @ two.vectors.T), atol=1e-5, rtol=0
    )
    left, right = model.late.encode_queries(b.queries), model.late.encode_documents(b.documents)
    for i in range(len(b.queries)):
        for j in range(len(b.documents)):
            by_hand = (left.item(i) @ right.item(j).T).max(1).sum()
            assert abs(evidence.scores["late"][i, j].item() - by_hand) < 1e-4
    rows, columns = candidates(len(b.queries), len(b.documents), 0)
    cross = model.cross.score([b.queries[i] for i in rows], [b.documents[j] for j in columns])
    torch.testing.assert_close(evidence.scores["cross"][rows, columns], torch.from_numpy(cross), atol=1e-5, rtol=0)
    assert int(evidence.scores["cross"].isfinite().sum()) == len(rows) == len(b.queries) * 3


def test_gradients_are_those_of_plain_autograd_whole_or_cached(tiny):
    said = recipe(tiny)
    s = student(said)
    terms, b = taught_terms(said), batch()
    outcome, whole = gradients(s, terms, b)
    other, cached = gradients(s, terms, b, cached=True)
    assert abs(outcome.loss - other.loss) < 1e-5
    for name in whole:
        torch.testing.assert_close(whole[name], cached[name], atol=1e-5, rtol=1e-4)
    # by plain autograd: everything in one graph, padded by hand
    from flatcoat.models.encode import pad

    s.module.zero_grad()
    readings = {}
    for name, tower in s.towers().items():
        made = tower(*pad(tower.tokenize(list(s.texts(b)[name])), tower.pad_id, "cpu"))
        readings |= {f"{name}/{part}": value for part, value in made.items()}
    target = torch.arange(len(b.queries))
    marks = {
        "keys": torch.from_numpy(b.keys),
        "known": torch.from_numpy(b.known),
        "target": target,
        "world": torch.tensor(1),
    }
    evidence = s.evidence(readings, marks)
    slow = maxsim_slowly(
        *(readings[f"{side}/{part}"] for side in ("query", "document") for part in ("tokens", "present"))
    )
    torch.testing.assert_close(evidence.scores["late"], slow, atol=1e-5, rtol=0)
    loss, _ = total(terms, evidence, 0)
    loss.backward()
    assert abs(loss.item() - outcome.loss) < 1e-4
    for name, parameter in s.module.named_parameters():
        if name in whole:
            torch.testing.assert_close(whole[name], parameter.grad, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "name", [*SEVEN, "reg.query", "reg.document", "margin_mse.cross.dual", "lambdarank.cross", "bce.cross"]
)
def test_every_term_s_gradient_against_finite_differences(tiny, name):
    kind, *names = name.split(".")
    terms = {name: 1.0}
    said = recipe(tiny, terms)
    s = student(said)
    if kind == "reg":  # without dropout both passes are one: give them something to differ in
        for module in s.module.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
    b = batch()
    outcome, found = gradients(s, taught_terms(said), b)
    assert found and outcome.loss == pytest.approx(outcome.parts[name])
    own = dict(s.module.named_parameters())
    learns = "cross." if names[-1] == "cross" else "student."
    assert all(torch.count_nonzero(g) == 0 for n, g in found.items() if n.startswith("cross.") and learns != "cross.")
    chosen = [n for n in found if n.startswith(learns) and n.endswith("layer.0.output.dense.weight")][:1]
    assert chosen, sorted(found)[:5]
    parameter, slope = own[chosen[0]], found[chosen[0]]
    direction = slope / slope.norm()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * 2e-3 * direction
        values.append(gradients(s, taught_terms(said), b)[0].loss)
        with torch.no_grad():
            parameter -= sign * 2e-3 * direction
    if kind in ("kl", "att", "margin_mse", "reg") or learns == "cross.":
        pass  # the teacher's share of these is tested above: nothing of it moves
    measured = (values[0] - values[1]) / 4e-3
    if not (
        kind in ("kl", "margin_mse") and names[0] == "late"
    ):  # there the teacher is the student's own encoder, and moves with it
        assert measured == pytest.approx(float(slope.norm()), rel=0.03, abs=2e-4)


def test_a_cross_encoder_learns_its_candidates(tiny):
    said = recipe(tiny, {"nll.cross": 1.0}, in_batch=5)
    s = student(said, 4096)
    optimizer, losses = torch.optim.AdamW(s.module.parameters(), lr=3e-3), []
    for step in range(40):
        optimizer.zero_grad()
        losses.append(gradient(s, batch(), taught_terms(said), step, processes=Processes()).loss)
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_a_teacher_of_the_same_encoder_is_detached(tiny):
    said = recipe(tiny, {"kl.late.dual": 1.0})
    s = student(said)
    _, leaves, _ = (made := _observe(s, batch(), Processes(), _kept))
    taught_terms(said)[0].loss(made[0]).backward()
    assert leaves["query/dual"].grad is not None and leaves["query/tokens"].grad is None


def test_norms_are_those_of_each_term_and_change_nothing(tiny):
    said = recipe(tiny)
    s = student(said)
    terms, b = taught_terms(said), batch()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    norms = term_norms(s, b, terms, 0, processes=Processes())
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in s.module.parameters())
    for term in terms:
        _, found = gradients(s, [term], b)
        encoder = {id(p) for p in s.model.encoder().parameters()}
        own = [g for n, g in found.items() if id(dict(s.module.named_parameters())[n]) in encoder]
        by_hand = float(torch.stack([g.square().sum() for g in own]).sum().sqrt()) if own else 0.0
        assert norms[f"gradient/{term.name}"] == pytest.approx(by_hand, rel=1e-4, abs=1e-7)
    assert norms["gradient/nll.cross"] == 0 < norms["gradient_cross/nll.cross"]


def test_the_candidates_of_a_cross_encoder():
    rows, columns = candidates(5, 15, 1)
    pairs = sorted(zip(rows.tolist(), columns.tolist(), strict=True))
    drawn = [(i, 5 + 2 * i + k) for i in range(5) for k in range(2)]
    assert pairs == sorted([(i, i) for i in range(5)] + drawn + [(0, 1), (1, 0), (2, 3), (3, 2)])
    rows, columns = candidates(3, 3, 9)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(i, j) for i in range(3) for j in range(3)]


def test_a_candidate_that_stands_twice_is_scored_where_it_competes(tiny):
    from flatcoat.training.cascade import placed

    keys = torch.tensor([10, 20, 30, 20, 40, 10, 30])  # positives of three queries, then drawn negatives
    rows, columns = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 3, 4, 1, 5, 2])
    scores = torch.arange(1.0, 7.0, requires_grad=True)
    made = placed(scores, rows, columns, keys, torch.tensor([0, 1, 2]))
    wanted = torch.full((3, 7), torch.nan)
    wanted[0, 0], wanted[0, 1], wanted[0, 4], wanted[1, 1], wanted[1, 0], wanted[2, 2] = 1, 2, 3, 4, 5, 6
    torch.testing.assert_close(made, wanted, equal_nan=True)
    twice = placed(
        scores, torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 3, 1, 0, 5]), keys, torch.tensor([0, 1, 2])
    )
    twice[torch.isfinite(twice)].sum().backward()
    assert scores.grad.tolist() == [1, 1, 0, 1, 1, 0]


def test_a_term_s_weight_follows_its_shares():
    weight = weight_of(TermTable(weight=2.0, start=0.2, end=0.8, ramp=0.4), 10)
    assert [weight(step) for step in range(10)] == [0, 0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 0, 0]
    assert weight_of(TermTable(weight=3.0), 10) == 3.0


def test_a_sparse_student_learns_in_the_same_cascade(tiny_mlm):
    said = recipe(tiny_mlm, kind="sparse")
    assert {"nll.sparse", "kl.late.sparse", "kl.cross.sparse"} <= set(said.every_term())
    s = student(said)
    outcome, _ = gradients(s, taught_terms(said), batch())
    assert s.main == "sparse" and np.isfinite(outcome.loss)
    both = recipe(tiny_mlm, terms={"nll.dual": 1.0, "nll.sparse": 1.0, "kl.late.sparse": 1.0}, sparse=True, cross=None)
    s = student(both)
    outcome, _ = gradients(s, taught_terms(both), batch())
    assert set(outcome.parts) == {"nll.dual", "nll.sparse", "kl.late.sparse"} and s.main == "dual"
    one = s.model.sparse.encode_documents(batch().documents)
    evidence, _, _ = _observe(s, batch(), Processes(), _kept)
    np.testing.assert_allclose(evidence.extra["document/sparse"].detach().numpy(), one.array(), atol=1e-5)


@pytest.mark.parametrize("at", [2, 5])
def test_a_killed_cascade_resumes_to_the_same_bits(tiny, toy, tmp_path, at):
    pairs = load_pairs(build_store(str(toy), tmp_path / "store"), "train")
    said = recipe(tiny, terms={**dict.fromkeys(SEVEN, 1.0), "reg.document": {"weight": 1.0, "ramp": 0.5}})
    settings = LoopSettings(steps=7, batch=6, rate=1e-3, warmup=2, negatives=1, norms_every=3, seed=4)

    def make(name, **more):
        learner = student(said)
        for module in learner.module.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        sampler = Uniform(len(pairs.collection.documents))
        return Training(learner, pairs, taught_terms(said), replace(settings, **more), tmp_path / name, sampler=sampler)

    same_when_killed(make, tmp_path, at, ("loss", "loss/kl.late.dual", "loss/reg.document", "gradient_norm"))


def test_a_teacher_of_pairs_says_each_thing_once(tiny, toy, tmp_path):
    from flatcoat.models.cross_checkpoint import load_cross

    collection = build_store(str(toy), tmp_path / "store")
    model = load_cross(str(tiny))
    asked = []
    score = model.score
    model.score = lambda q, d: asked.append(len(q)) or score(q, d)
    teacher = PairTeacher(model, collection, tmp_path / "kept.scores", 2.0)
    queries, documents = np.array([0, 1]), np.array([3, 4, 3])
    wanted = np.array([[True, False, False], [False, True, False]])
    first = teacher.score(queries, documents, wanted)
    assert asked == [2] and np.isnan(first).tolist() == [[False, True, False], [True, False, True]]
    assert first[0, 0] == first[0, 2]  # the same document, where it stands again
    texts = collection.queries.texts(queries), collection.documents.texts(documents)
    assert first[1, 1] == pytest.approx(2 * float(score([texts[0][1]], [texts[1][1]])[0]), abs=1e-5)
    with (tmp_path / "kept.scores").open("ab") as file:
        file.write(b"cut")  # killed while it wrote
    again = PairTeacher(model, collection, tmp_path / "kept.scores", 2.0)
    np.testing.assert_array_equal(again.score(queries, documents, wanted), first)
    assert asked == [2] and (tmp_path / "kept.scores").stat().st_size == (2 + 1) * 20  # and their mark
    both = Ensemble([teacher, again], 3.0).score(queries, documents, wanted)
    np.testing.assert_allclose(both, 3 * standard(first), atol=1e-6)


def test_what_a_judge_takes_for_an_answer_is_no_negative(tiny, toy, tmp_path):
    from flatcoat.app.denoise import refusing
    from flatcoat.models.cross_checkpoint import load_cross, save_cross

    collection = build_store(str(toy), tmp_path / "store")
    model = load_cross(str(tiny))
    save_cross(model, tmp_path / "judge")
    rows, candidates = np.array([2, 5]), np.arange(6)
    text = collection.queries.texts(rows)[1]
    scores = model.score([text] * 6, list(collection.documents.texts(candidates)))
    middle = float(np.median(scores))
    above = 1 / (1 + np.exp(-middle))
    refuse = refusing(str(tmp_path / "judge"), above, collection, rows, Runtime())
    assert refuse(1, candidates).tolist() == (scores > middle).tolist() and 0 < refuse(1, candidates).sum() < 6
    with pytest.raises(FlatcoatError, match="want a cross-encoder"):
        refusing(str(tiny), 0.1, collection, rows, Runtime())


def test_a_teacher_s_scale_is_fitted_to_its_being_right():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 5))
    right = np.array([rng.choice(5, p=np.exp(row) / np.exp(row).sum()) for row in truth])
    assert GRID[fitted_scale(truth / 4, right)] == pytest.approx(4, rel=0.15)
    given = np.where(rng.random(truth.shape) < 0.2, np.nan, truth / 4)
    given[np.arange(4000), right] = truth[np.arange(4000), right] / 4
    assert GRID[fitted_scale(given, right)] > 0.05
    with pytest.raises(ValueError, match="nothing to fit"):
        fitted_scale(np.full((2, 3), np.nan), np.array([0, 1]))
