"""A recipe's teacher, looked at before it teaches: on a few judged queries, beside the student as it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flatcoat.app import build
from flatcoat.app.ready import student_scale
from flatcoat.app.tables import Recipe
from flatcoat.checks import teacher as checks
from flatcoat.checks.base import Finding
from flatcoat.checks.sampling import evenly
from flatcoat.data.pairs import Pairs
from flatcoat.data.store import Collection
from flatcoat.models.load import load_model
from flatcoat.search.rerank import EncodedScorer
from flatcoat.training.teacher import FileTeacher, read_teacher, standard

ASKED, BESIDE = 32, 3  # queries, and documents beside each one's answer
READ = 2000  # queries of a file


class Asked(NamedTuple):
    """Queries and documents to score, the answer first: rows, and texts as training shows them."""

    queries: np.ndarray  # int64 [query]
    documents: np.ndarray  # int64 [query, 1 + BESIDE]; -1 for none
    answers: list[str]


def of_scores(teacher: FileTeacher, pairs: Pairs) -> list[Finding]:
    """The checks of a file of scores for the training queries."""
    wanted = np.unique(pairs.queries)
    there = [int(query) for query in wanted if int(query) in teacher.scores]
    found = checks.covers(len(there), len(wanted))
    if not there:
        return found
    some = [there[i] for i in evenly(len(there), READ)]
    scores = _matrix(teacher, pairs, some)
    return found + checks.squeezed(scores) + checks.says_something(scores) + checks.right_way_up(scores)


def _matrix(teacher: FileTeacher, pairs: Pairs, queries: list[int]) -> np.ndarray:
    """Scores [query, document], an answer's in column 0 and those of documents that answer nothing behind it."""
    rows = []
    for query in queries:
        documents, scores = teacher.scores[query]
        right = np.isin(pairs.keys[documents], pairs.known[query])
        rows.append(np.concatenate([scores[right][:1] if right.any() else [np.nan], scores[~right]]))
    width = max(2, *(len(row) for row in rows))
    return np.stack([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows]).astype(np.float32)


def of_teacher(recipe: Recipe, collection: Collection, pairs: Pairs, student: Any) -> list[Finding]:
    """The checks of a recipe's teacher beside its student, loaded as it starts; None leaves the student out."""
    table = recipe.teacher
    assert table is not None
    file = read_teacher(Path(table.file), collection) if table.file else None
    found = [] if file is None else of_scores(file, pairs)
    asked = _asked(pairs, file)
    if not len(asked.queries) or (file is not None and student is None):
        return found
    scores = _from_file(file, asked) if file is not None else _from_models(recipe, collection, asked)
    if file is None:
        found += checks.says_something(scores) + checks.right_way_up(scores)
    if student is None:
        return found
    own = student_scale(recipe) * _scored(_as_scorer(student), collection, asked)
    if table.scale != "fit":
        found += checks.same_scale(table.scale * scores, own, margins=_margins(recipe))
    return found + checks.stronger(scores, own)


def _from_file(file: FileTeacher, asked: Asked) -> np.ndarray:
    given = [file.score(np.array([q]), d, d[None] >= 0)[0] for q, d in zip(asked.queries, asked.documents, strict=True)]
    return np.stack(given)


def _from_models(recipe: Recipe, collection: Collection, asked: Asked) -> np.ndarray:
    """Scores of the models that teach; of several, the mean of each one's at mean 0 and deviation 1."""
    given, running = [], build.runtime(recipe.runtime)
    for source in recipe.teacher.sources if recipe.teacher else ():
        loaded: Any = load_model(source)
        loaded.runtime = running
        given.append(_scored(_as_scorer(loaded.to(running.device)), collection, asked))
    return given[0] if len(given) == 1 else np.mean([standard(own) for own in given], axis=0)


def _margins(recipe: Recipe) -> bool:
    """Whether differences of the teacher's scores are learnt from as they are."""
    if not recipe.taught:
        return bool(recipe.loss.margin_mse)
    return any(name.startswith("margin_mse.teacher.") and term.weight for name, term in recipe.every_term().items())


def _asked(pairs: Pairs, file: FileTeacher | None) -> Asked:
    """A few training pairs, evenly; beside each answer the answers of the next, or what a file has scores for."""
    _, first = np.unique(pairs.query_keys, return_index=True)
    first = np.sort(first)
    if file is not None:
        first = np.array([at for at in first if int(pairs.queries[at]) in file.scores], np.int64)
    at = first[evenly(len(first), ASKED)] if len(first) else first
    queries, own = pairs.queries[at], pairs.documents[at]
    documents = np.full((len(at), 1 + BESIDE), -1, np.int64)
    documents[:, 0] = own
    for i, query in enumerate(queries.tolist()):
        beside = file.scores[query][0] if file is not None else np.roll(own, -1 - i)
        beside = beside[~np.isin(pairs.keys[beside], pairs.known[query])]
        beside = beside[evenly(len(beside), BESIDE)] if file is not None else beside[:BESIDE]
        documents[i, 1 : 1 + len(beside)] = beside
    return Asked(queries, documents, pairs.answers(at))


def _as_scorer(model: Any) -> Any:
    return model if hasattr(model, "score") else EncodedScorer(model)


def _scored(scorer: Any, collection: Collection, asked: Asked) -> np.ndarray:
    """A scorer's scores [query, document]; not a number where there is no document."""
    scores = np.full(asked.documents.shape, np.nan, np.float32)
    places = np.argwhere(asked.documents >= 0)
    questions = collection.queries.texts(asked.queries[places[:, 0]])
    texts = [asked.answers[i] if not j else collection.documents.text(int(asked.documents[i, j])) for i, j in places]
    scores[places[:, 0], places[:, 1]] = scorer.score(list(questions), texts)
    return scores
