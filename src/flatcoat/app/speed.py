"""What each precision of a model costs and gives on a sample: its rate, how far its vectors are from fp32's, and nDCG@10 when
queries and documents are both encoded so; and which is the quickest that loses next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flatcoat.app.family import as_queries, exact_index
from flatcoat.app.speed_sample import Pairs, Sample
from flatcoat.errors import FlatcoatError
from flatcoat.evaluation.fidelity import relative_change
from flatcoat.evaluation.measures import evaluate, means
from flatcoat.models.base import Precision
from flatcoat.records import Qrels, Ranking, Run, Track, silent
from flatcoat.representations import Dense
from flatcoat.search.engine import named
from flatcoat.search.precisions import alternate, cosines, finite, precisions_of, trying, zeroed

MEASURE, K = "nDCG@10", 10
Shown = tuple[float | None, float | None, float | None]  # least, mean and apart of a row
GAIN = 1.05  # rates of two rounds differ by as much: less is no reason to round
LOSS = 0.002  # of nDCG@10, as a share of fp32's: what a quicker precision may not lose more than


@dataclass(frozen=True)
class Row:
    """One precision. `rate` is documents (or pairs) a second; `change` a share of fp32's nDCG@10, with its 95 % interval."""

    precision: Precision
    rate: float
    times: float  # of fp32's rate
    least: float | None  # cosine of a vector with fp32's
    mean: float | None
    apart: float | None  # the greatest difference of a score, in standard deviations of fp32's
    quality: float  # nDCG@10
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """Rows, fp32 first, and what they were measured on."""

    unit: str  # documents or pairs
    queries: int
    documents: int
    pairs: int | None
    gold: str
    rows: tuple[Row, ...]

    def quickest(self, most: float = LOSS) -> Row:
        """The quickest of those that lose at most a share `most` of nDCG@10; fp32 itself loses nothing."""
        return choose(self.rows, most)

    def as_json(self) -> dict[str, Any]:
        """All of it, and the quickest, as JSON has it."""
        best = self.quickest()
        return {**asdict(self), "most_loss": LOSS, "quickest": best.precision}


def choose(rows: Sequence[Row], most: float = LOSS) -> Row:
    """The quickest row whose loss is below `most`, or the first (fp32), also where no other is `GAIN` times as quick.

    A change that is no number counts as a loss.
    """
    kept = [row for row in rows[1:] if row.change > -most and row.rate >= GAIN * rows[0].rate]
    return max([rows[0], *kept], key=lambda row: row.rate)


def measure_encoder(model: Any, sample: Sample, *, track: Track = silent) -> Speed:
    """Measure a dense, sparse or late-interaction model.

    Raises:
        FlatcoatError: fp32's own vectors are not finite, the queries find nothing, or a lookup of queries has no weights.
    """
    if getattr(model.query, "fresh", False):
        raise FlatcoatError("this model has no weights for a lookup of queries yet; measure the model that was trained")
    documents, queries = list(sample.documents.values()), list(sample.queries.values())
    with trying(model) as at:

        def work(precision: Precision) -> Callable[[int], Any]:
            def make(count: int) -> Any:
                at(precision)
                return model.encode_documents(documents[:count])

            return make

        names = precisions_of(model.runtime.device)
        made, rates = alternate({name: work(name) for name in names}, len(documents), track=track)
        asked = {}
        for name in names:
            at(name)
            asked[name] = model.encode_queries(queries)
    _refuse_broken(all(map(finite, (made["fp32"], asked["fp32"]))))
    sides = [{name: zeroed(some) for name, some in side.items()} for side in (made, asked)]
    runs: dict[Precision, Run] = {name: _run(sides[0][name], sides[1][name], sample) for name in names}
    shown: dict[Precision, Shown] = {
        name: _near([cosines(side[name], side["fp32"]) for side in sides]) for name in names
    }
    rows, gold = _rows(runs, rates, shown, sample)
    return Speed("documents", len(queries), len(documents), None, gold, rows)


def measure_scorer(scorer: Any, pairs: Pairs, *, track: Track = silent) -> Speed:
    """Measure what scores pairs: a cross-encoder, or an encoder that stands in for one.

    Raises:
        FlatcoatError: fp32's own scores are not finite.
    """
    flat = [(query, id) for query, ids in pairs.candidates.items() for id in ids]
    queries, documents = [pairs.sample.queries[q] for q, _ in flat], [pairs.sample.documents[d] for _, d in flat]
    model = getattr(scorer, "encoder", scorer)
    with trying(model) as at:

        def work(precision: Precision) -> Callable[[int], np.ndarray]:
            def make(count: int) -> np.ndarray:
                at(precision)
                return np.asarray(scorer.score(queries[:count], documents[:count]), np.float64)

            return make

        names = precisions_of(model.runtime.device)
        made, rates = alternate({name: work(name) for name in names}, len(flat), track=track)
    _refuse_broken(bool(np.isfinite(made["fp32"]).all()))
    least = float(made["fp32"].min())
    scores = {name: np.nan_to_num(made[name], nan=least, posinf=least, neginf=least) for name in names}
    scale = float(scores["fp32"].std()) or 1.0
    far = {name: float(np.abs(scores[name] - scores["fp32"]).max()) / scale for name in names}
    shown: dict[Precision, Shown] = {name: (None, None, far[name]) for name in names}
    runs: dict[Precision, Run] = {name: _ranked(pairs.candidates, scores[name]) for name in names}
    rows, gold = _rows(runs, rates, shown, pairs.sample)
    return Speed("pairs", len(pairs.candidates), len(pairs.sample.documents), len(flat), gold, rows)


def _near(found: list[np.ndarray]) -> Shown:
    """The least and the mean of cosines; none where there is no vector."""
    every = np.concatenate(found)
    return (float(every.min()), float(every.mean()), None) if len(every) else (None, None, None)


def _refuse_broken(whole: bool) -> None:
    if not whole:
        raise FlatcoatError("fp32's own numbers are not finite; is the model damaged or trained to NaN?")


def _run(documents: Any, queries: Any, sample: Sample) -> Run:
    vectors = documents.vectors if isinstance(documents, Dense) else documents
    asked = as_queries(queries.vectors if isinstance(queries, Dense) else queries)
    top = exact_index(vectors).search(asked, min(K, len(documents)))
    return named(top, list(sample.queries), list(sample.documents))


def _ranked(candidates: Mapping[str, Sequence[str]], scores: np.ndarray) -> Run:
    run, start = {}, 0
    for query, ids in candidates.items():
        run[query] = Ranking.of(list(zip(ids, scores[start : start + len(ids)].tolist(), strict=True)))
        start += len(ids)
    return run


def _rows(
    runs: Mapping[Precision, Run], rates: Mapping[Precision, float], shown: Mapping[Precision, Shown], sample: Sample
) -> tuple[tuple[Row, ...], str]:
    qrels, gold = _gold(runs["fp32"], sample)
    first = evaluate(qrels, runs["fp32"], [MEASURE])
    rows = []
    for name in runs:
        table = first if name == "fp32" else evaluate(qrels, runs[name], [MEASURE])
        change = relative_change(table, first)[MEASURE]
        rows.append(Row(name, rates[name], rates[name] / rates["fp32"], *shown[name], means(table)[MEASURE], *change))
    return tuple(rows), gold


def _gold(run: Run, sample: Sample) -> tuple[Qrels, str]:
    """Judgements where there are some and fp32 finds any of what they name; else its own ten best, graded 10 to 1."""
    why = sample.why
    if sample.qrels is not None:
        if means(evaluate(sample.qrels, run, [MEASURE]))[MEASURE] > 0:
            return sample.qrels, f"judgements of {why}"
        why = f"fp32 finds nothing that {why} judges"
    found = {q: {id: K - i for i, id in enumerate(best.doc_ids[:K])} for q, best in run.items() if len(best)}
    if not found:
        raise FlatcoatError(f"none of {len(run)} queries finds a document; is this a model for this collection?")
    return found, f"fp32's own ten best ({why})"
