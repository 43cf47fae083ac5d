"""Training a recipe's model into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatcoat.app import build, cascade, objective
from flatcoat.app.family import as_queries, exact_index
from flatcoat.app.ready import given_files
from flatcoat.app.samplers import sampler
from flatcoat.app.tables import Recipe
from flatcoat.app.terms import taught_terms
from flatcoat.checks.base import Finding, enforce
from flatcoat.checks.collection import leakage
from flatcoat.checks.training import frozen_batches
from flatcoat.data.pairs import Pairs, epoch_batches, load_pairs
from flatcoat.data.store import Collection
from flatcoat.errors import Misuse
from flatcoat.evaluation.measures import parse
from flatcoat.files import digest, read_json, remove_folder, sha256_of, write_json
from flatcoat.index.base import TopK
from flatcoat.records import Track, silent

if TYPE_CHECKING:
    from flatcoat.objectives.total import Term
    from flatcoat.training.loop import Follower, LoopSettings, Training
    from flatcoat.training.student import Student


def train_model(
    recipe: Recipe,
    collection: Collection,
    out: Path,
    work: Path,
    *,
    bm25: Callable[[], Any],
    first: Any = None,
    earlier: Path | None = None,
    track: Track,
    note: Callable[[str], None],
    allow: tuple[str, ...] = (),
) -> dict[str, float]:
    """Train, save the best (or last) weights to `out`; give what training cost.

    `work` keeps checkpoints and the log; a run killed there goes on from the last checkpoint of the same recipe. `earlier` is the
    model of the stage before, beside which a cascade takes up what learnt with it.
    """
    from flatcoat.training.loop import Training
    from flatcoat.training.processes import join_processes
    from flatcoat.training.state import newest

    pairs = before_training(recipe, collection)
    drawn = lambda e: epoch_batches(pairs.query_keys, recipe.training.batch, recipe.training.seed, e)  # noqa: E731
    enforce(frozen_batches(drawn), allow, note)
    settings = build.loop_settings(recipe.training, recipe.negatives)
    if not recipe.taught:
        settings = replace(
            settings, norms_every=None
        )  # one term, or a ramp of its own: nothing to weigh against another
    if recipe.sparsity is not None:
        settings = replace(settings, evaluate_after=round(recipe.sparsity.ramp * settings.steps))
    learner = _learner(recipe, collection, earlier, note)
    model, encoding = learner.model, build.runtime(recipe.runtime)
    student, terms, followers = learner.student, learner.terms, learner.followers
    quiet = build.ModelEncode(model, encoding, collection, silent)  # for draws, one a step
    # vectors of before training serve what is asked before its first step, and nothing later
    source = build.ModelEncode(model, encoding, collection, track, None if recipe.negatives.warmup else first)
    training = Training(
        student, pairs, terms, settings, work, followers=followers, teacher=objective.teacher(recipe, collection, encoding, work),
        sampler=sampler(recipe, collection, used_pairs(pairs, settings), bm25, note, quiet), encode=source,
        evaluate=_dev(recipe, collection, model, encoding, bm25) if recipe.training.evaluate_every else None,
        processes=join_processes(),
    )  # fmt: skip
    if recipe.teacher is not None and recipe.teacher.scale == "fit":
        training.prepare = lambda: objective.fit_scale(training, work, note)
    processes = training.processes
    resume = processes.agree(_same(work, recipe, collection) if processes.rank == 0 else False)
    if resume and newest(work / "checkpoints"):
        source.first = None  # the vectors of before training are not those of the checkpoint
    if processes.rank == 0:
        cascade.clear(out)
    training.run(resume=resume, track=track)
    if processes.rank == 0:
        _finish(recipe, training, learner, out, note)
    return _cost(work)


def _finish(recipe: Recipe, training: Training, learner: _Learner, out: Path, note: Callable[[str], None]) -> None:
    """Take the best weights, where they were chosen, say what was reached, and save."""
    from flatcoat.training.state import load_state

    if recipe.training.evaluate_every and training.best is not None:
        load_state(training.folder / "best", learner.student.module, training.optimizer)
        note(f"kept step {training.best_step}, dev {recipe.training.measure} {training.best:.4f}")
    for name, reached, wanted in training_reached(training.followers):
        note(f"{name}: {reached:.0f} terms a text, {wanted:.0f} wanted")
    learner.save(out)
    remove_folder(training.folder / "checkpoints")


@dataclass(frozen=True)
class _Learner:
    """What is trained: the model that is served, its student, and what it learns."""

    model: Any
    student: Student
    terms: list[Term]
    followers: list[Follower]
    save: Callable[[Path], None]


def _learner(recipe: Recipe, collection: Collection, earlier: Path | None, note: Callable[[str], None]) -> _Learner:
    """The learner of a recipe, in its training runtime."""
    from flatcoat.models.load import save_model
    from flatcoat.training.cascade import CascadeStudent
    from flatcoat.training.student import DenseStudent, SparseStudent

    running = build.runtime(recipe.runtime, training=True)
    scorer = recipe.main or recipe.model.kind
    if recipe.taught:
        made = cascade.begin(recipe, earlier)
        made.runtime = running
        model, student = cascade.served(made), CascadeStudent(made, cascade.settings(recipe))
        terms, save = taught_terms(recipe), lambda out: cascade.save(made, out)
        sparse = model if recipe.main == "sparse" else made.sparse
    else:
        model: Any = build.model(recipe.model, recipe.runtime)
        model.runtime = running
        sparse = model if scorer == "sparse" else None
        student = (DenseStudent if sparse is None else SparseStudent)(model)
        terms, save = objective.ranking_terms(recipe, scorer), lambda out: save_model(model, out)
    followers = objective.scale_watch(recipe, scorer, note)
    if sparse is not None:
        note(f"{objective.prepare_sparse(recipe, sparse, collection)} vocabulary entries are switched off")
        own, watching = objective.sparse_objective(recipe, sparse, note)
        terms, followers = [*terms, *own], [*watching, *followers]
    return _Learner(model, student, terms, followers, save)


def training_reached(followers: Sequence[Any]) -> Iterator[tuple[str, float, float]]:
    """Of each regulariser with a number to meet: its side, the number met (smoothed) and the number wanted."""
    from flatcoat.training.sparsity import Regulariser

    for follower in followers:
        if isinstance(follower, Regulariser) and follower.active is not None and follower.settings.terms is not None:
            yield follower.side, follower.active, follower.settings.terms


def before_training(recipe: Recipe, collection: Collection) -> Pairs:
    """What can be known before time is spent: pairs, splits, measures, files. Gives the training pairs.

    Raises:
        Misuse: a split or file is not there, or a measure is unknown.
    """
    table, training = recipe.collection, recipe.training
    pairs = load_pairs(collection, table.train)
    parse([training.measure])
    if (training.evaluate_every or training.patience) and table.dev is None:
        raise Misuse(
            "training.evaluate_every chooses a checkpoint: say on which split, collection.dev, other than the test's"
        )
    if table.dev is not None and table.dev == table.test:
        raise Misuse(
            f"collection.dev and collection.test are both {table.dev!r}; choosing and judging want different queries"
        )
    if table.dev is not None:
        collection.judgements(table.dev)
    for name, file in given_files(recipe):
        if not file.is_file():
            raise Misuse(f"{name} {file}: no such file")
    return pairs


def told_before(recipe: Recipe, collection: Collection, pairs: Pairs, *, again: bool = False) -> list[Finding]:
    """The checks of what training is to see: its batches, and whether the measured splits share queries with it.

    `again` leaves out the splits, which another stage of the same recipe was asked about. Raises Misuse where no batch can be made.
    """
    table, training = recipe.collection, recipe.training
    found = frozen_batches(lambda e: epoch_batches(pairs.query_keys, training.batch, training.seed, e))
    for split in () if again else (table.dev, table.test):
        found += leakage(collection, table.train, split) if split in collection.splits else []
    return found


def used_pairs(pairs: Pairs, settings: LoopSettings) -> Pairs:
    """The pairs that this many steps will see: nothing is mined for queries that never come up."""
    batches = settings.steps * settings.accumulate
    chosen: list[np.ndarray] = []
    epoch = 0
    while batches > 0:
        found = epoch_batches(pairs.query_keys, settings.batch, settings.seed, epoch)[:batches]
        chosen.append(found.reshape(-1))
        batches, epoch = batches - len(found), epoch + 1
        if len(np.unique(np.concatenate(chosen))) == len(pairs):
            return pairs
    queries = np.unique(pairs.queries[np.concatenate(chosen)])
    mask = np.isin(pairs.queries, queries)
    return replace(
        pairs, queries=pairs.queries[mask], documents=pairs.documents[mask], query_keys=pairs.query_keys[mask]
    )


def training_inputs(recipe: Recipe, collection: Collection) -> list[object]:
    """Everything that a trained model depends on: settings, the start's weights, data, given negatives."""
    from flatcoat.models.checkpoint import fingerprint

    names = (
        "collection",
        "model",
        "runtime",
        "training",
        "negatives",
        "lexical",
        "loss",
        "teacher",
        "sparsity",
        "cascade",
        "terms",
    )
    data = {name: file["sha256"] for name, file in collection.facts["files"].items()}
    given = sha256_of(Path(recipe.negatives.file)) if recipe.negatives.file else None
    dev = [recipe.evaluation.dev_queries, recipe.evaluation.dev_documents]
    if recipe.model.kind == "cross":
        dev.append(recipe.evaluation.rerank)  # a checkpoint is chosen by it
    said = recipe.model_dump()
    taught = None
    if recipe.teacher is not None:
        file = recipe.teacher.file
        taught = sha256_of(Path(file)) if file else [fingerprint(source) for source in recipe.teacher.sources]
    others = [recipe.negatives.model, recipe.negatives.judge, recipe.cascade.cross if recipe.cascade else None]
    starts = [fingerprint(source) if source else None for source in (recipe.model.start, *others)]
    return [[said[name] for name in names], dev, starts, data, given, taught]


def _same(work: Path, recipe: Recipe, collection: Collection) -> bool:
    """Whether the checkpoints under `work` are of this recipe and collection; if not, they are removed."""
    key = digest(training_inputs(recipe, collection))
    note = work / "training.json"
    same = note.is_file() and read_json(note) == key
    if not same:
        for stale in ("checkpoints", "best", "tensorboard"):
            remove_folder(work / stale)
        write_json(note, key)
    return same


def _cost(work: Path) -> dict[str, float]:
    from flatcoat.training.log import read_log

    lines = read_log(work / "log.jsonl")
    if not lines:
        return {"steps": 0, "seconds": 0.0, "loss": float("nan"), "negatives": 0.0}
    tail = lines[-max(1, len(lines) // 10) :]
    return {
        "steps": lines[-1]["step"],
        "seconds": sum(line["seconds"] for line in lines),
        "loss": float(np.mean([line["loss"] for line in tail])),
        "negatives": float(np.mean([line["negatives"] for line in lines])),
    }


def _dev(recipe: Recipe, collection: Collection, model: Any, run: Any, bm25: Callable[[], Any]) -> Callable[[], float]:
    """The measure on a sample of dev: for choosing a checkpoint, not for claims."""
    from flatcoat.evaluation.measures import evaluate, means
    from flatcoat.models.load import encode_texts
    from flatcoat.search.engine import named

    rng = np.random.default_rng(recipe.training.seed)
    split = str(recipe.collection.dev)
    table = recipe.evaluation
    every = collection.query_rows(split)
    queries = np.sort(rng.permutation(every)[: table.dev_queries])
    judged = np.asarray(collection.judgements(split))
    wanted = np.unique(judged[np.isin(judged[:, 0], queries), 1])
    others = rng.permutation(len(collection.documents))[: table.dev_documents]
    rows = np.union1d(wanted, others)
    ids = [collection.queries.ids[int(row)] for row in queries]
    doc_ids = [collection.documents.ids[int(row)] for row in rows]
    qrels = {query: judgements for query, judgements in collection.qrels(split).items() if query in set(ids)}

    def measure() -> float:
        if recipe.model.kind == "cross":
            return again()
        vectors = encode_texts(model.document, collection.documents.texts(rows), run)
        asked = as_queries(encode_texts(model.query, collection.queries.texts(queries), run))
        top = exact_index(vectors).search(asked, min(100, len(rows)))
        return means(evaluate(qrels, named(top, ids, doc_ids), [recipe.training.measure]))[recipe.training.measure]

    def again() -> float:
        """A cross-encoder reads BM25's best again."""
        texts = collection.queries.texts(queries)
        k = min(table.rerank, len(collection.documents))
        top = bm25().search(texts, k)
        pairs = [(text, int(row)) for text, found in zip(texts, top.rows, strict=True) for row in np.maximum(found, 0)]
        documents = collection.documents.texts(np.array([row for _, row in pairs]))
        scores = model.score([text for text, _ in pairs], list(documents)).reshape(top.rows.shape)
        order = np.argsort(-np.where(top.rows >= 0, scores, -np.inf), axis=1, kind="stable")
        best = TopK(np.take_along_axis(top.rows, order, 1), np.take_along_axis(scores, order, 1))
        every = list(collection.documents.ids)
        return means(evaluate(qrels, named(best, ids, every), [recipe.training.measure]))[recipe.training.measure]

    return measure
