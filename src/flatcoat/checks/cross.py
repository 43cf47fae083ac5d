"""What is silently wrong with a model that scores pairs: several labels, one score for all, relevant pairs that score below others,
pairs that are cut off.

A head whose sign is turned ranks the worst documents first; a new head that was never trained ranks by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.checks.collection import MOST_CUT
from flatcoat.checks.sparse import PROBES
from flatcoat.files import read_json
from flatcoat.models.base import Scorer
from flatcoat.models.cross import CrossModel


def one_label(folder: Path) -> list[Finding]:
    """Whether a cross-encoder's network gives one number a pair."""
    network = folder
    if not (folder / "config.json").is_file() and (folder / "modules.json").is_file():
        network = folder / read_json(folder / "modules.json")[0]["path"]
    if not (network / "config.json").is_file():
        return [Finding("error", "labels", "no config.json that says how many labels it has")]
    config = read_json(network / "config.json")
    labels = len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))
    if labels != 1:
        message = f"a classifier of {labels} labels; a cross-encoder has one, the score"
        return [Finding("error", "labels", message, "take a model that was trained to rank")]
    return [ok("labels", "one, the score")]


def spread(model: CrossModel) -> list[Finding]:
    """Whether pairs of unlike texts have unlike scores."""
    queries, documents = zip(*((q, d) for q in PROBES[:2] for d in PROBES[2:]), strict=True)
    scores = model.score(queries, documents)
    if not np.isfinite(scores).all():
        return [Finding("error", "collapse", "a score is not finite", "is the model damaged, or trained to NaN?")]
    if np.ptp(scores) < 1e-5 * max(1.0, float(np.abs(scores).max())):
        message = f"{len(scores)} pairs of unlike texts all score {scores[0]:.4f}"
        return [Finding("error", "collapse", message, "the model has collapsed, or its head is zero")]
    return [ok("collapse", f"scores of probing pairs from {scores.min():.3f} to {scores.max():.3f}")]


def related(scorer: Scorer, queries: Sequence[str], documents: Sequence[str]) -> list[Finding]:
    """Whether queries[i] scores above with documents[i], which answers it, than with another query's document."""
    count = len(queries)
    if count < 2:
        return [Finding("warning", "related", f"{count} judged pairs are too few to compare")]
    right = scorer.score(list(queries), list(documents))
    wrong = scorer.score(list(queries), [documents[int(i)] for i in others(count)])
    share = float(((right > wrong) + 0.5 * (right == wrong)).mean())
    error = 2.5 * 0.5 / np.sqrt(count)  # of the share under chance, at about 1 %
    message = f"{share:.0%} of {count} judged pairs score above the query with another document"
    if share < 0.5 - error:
        return [Finding("error", "related", message, "the worst are ranked first: is the sign of the head turned?")]
    if share <= 0.5 + error:
        return [Finding("warning", "related", f"{message}, which is chance", "was the head never trained?")]
    return [ok("related", message)]


def others(count: int) -> np.ndarray:
    """Another number for each of `count`, each once, always the same."""
    order = np.random.default_rng(0).permutation(count)
    made = np.empty(count, np.int64)
    made[order] = np.roll(order, 1)
    return made


def cut_pairs(model: CrossModel, queries: Sequence[str], documents: Sequence[str]) -> list[Finding]:
    """The share of judged pairs that the model's length cuts off."""
    longest = model.tower.settings.max_length
    lengths = np.array(model.tower.lengths(list(zip(queries, documents, strict=True))))
    share = float((lengths > longest).mean()) if len(lengths) else 0.0
    message = f"{share:.0%} of {len(lengths)} judged pairs are longer than {longest} tokens"
    if share > MOST_CUT:
        return [Finding("warning", "truncation", message, "raise max_length, or cut documents into passages")]
    return [ok("truncation", message)]
