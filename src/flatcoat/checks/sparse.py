"""What is silently wrong with a sparse model, or with vectors that one made: collapse, noise, saturation, length."""

from __future__ import annotations

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.models.hygiene import GROUPS, members
from flatcoat.models.splade import SpladeModel
from flatcoat.representations import Sparse

# Two questions of one pattern and no subject in common, and three texts to go with them.
PROBES = (
    "what is python programming",
    "best restaurants in paris",
    "The heart pumps blood through arteries and veins; a heart attack damages its muscle.",
    "How do I renew a passport that expired last year?",
    "The court ruled that the contract was void, because neither party had signed it.",
)
TOP = 10
ALL_ACTIVE = 0.25  # of the vocabulary, in the mean text
FEW = 100  # terms: so many may be the text's own, however small the vocabulary


def health(vectors: Sparse, names: list[str], noise: np.ndarray, what: str = "texts") -> list[Finding]:
    """Signs of life of term weights: empty and identical texts, saturated terms, weight on what carries no content.

    `noise` is true for entries of the vocabulary that are punctuation, stop words or special tokens. All dimensions were active with one
    backbone and not with another (huggingface/sentence-transformers#3431); representations die (taoshen58/LexMAE#2, naver/splade#31) or are
    all one, where the first token wins every maximum (texttron/tevatron#36).
    """
    if not len(vectors):
        return [Finding("warning", "dead", f"no {what} to look at")]
    counts = np.diff(vectors.start)
    found: list[Finding] = []
    dead = float((counts == 0).mean())
    if dead > 0.01:
        found.append(Finding("error" if dead > 0.5 else "warning", "dead", f"{dead:.1%} of {what} have no term",
                             "the regulariser was too strong: train with a number of terms, or anti_collapse"))  # fmt: skip
    same = _same(vectors)
    if same > 0.5 and len(vectors) > 1:
        found.append(Finding("error", "collapse", f"{same:.0%} of {what} have the representation of another",
                             "one position wins every maximum: check the tokenizer's special tokens and the rate"))  # fmt: skip
    active = counts.mean() / vectors.vocab_size
    if active > ALL_ACTIVE and counts.mean() > FEW:
        found.append(Finding("error", "all-active", f"{active:.0%} of the vocabulary is active in each of {what}",
                             "is its head untrained, or read without log and ReLU? train with sparsity"))  # fmt: skip
    mass = np.bincount(vectors.terms, vectors.weights, minlength=vectors.vocab_size)
    share = float(mass[noise].sum() / mass.sum()) if mass.sum() else 0.0
    if share > 0.1:
        worst = [t for t in np.argsort(-np.where(noise, mass, 0))[:5].tolist() if mass[t] > 0]
        words = ", ".join(repr(names[t]) for t in worst)
        found.append(Finding("error" if share > 0.3 else "warning", "noise",
                             f"{share:.0%} of all weight is on punctuation, stop words and special tokens ({words})",
                             "switch them off in the checkpoint: sparsity.off, and train on"))  # fmt: skip
    frequency = np.bincount(vectors.terms, minlength=vectors.vocab_size) / len(vectors)
    flat = np.flatnonzero(frequency > 0.8) if len(vectors) > 20 else np.zeros(0, np.int64)
    if len(flat):
        words = ", ".join(repr(names[t]) for t in flat[np.argsort(-frequency[flat])][:5].tolist())
        found.append(Finding("warning", "saturation", f"{len(flat)} terms are in more than 80% of {what} ({words}): "
                             "they rank little and cost every query", "train with df-flops"))  # fmt: skip
    summary = f"{counts.mean():.1f} terms of {what} in the mean, {share:.1%} of weight on what carries no content"
    return found or [ok("dead", summary)]


def _same(vectors: Sparse) -> float:
    rows = [
        (vectors.terms[a:b].tobytes(), vectors.weights[a:b].tobytes())
        for a, b in zip(vectors.start[:-1], vectors.start[1:], strict=True)
    ]
    live = [row for row in rows if row[0]]
    return 1 - len(set(live)) / len(live) if live else 0.0


def clean_top(model: SpladeModel) -> list[Finding]:
    """Whether the ten heaviest terms of the probing questions carry content."""
    noise = members(model.query.tokenizer, model.vocabulary, GROUPS)
    found = model.encode_queries(PROBES[:2])
    bad: list[str] = []
    for i, question in enumerate(PROBES[:2]):
        entries = slice(int(found.start[i]), int(found.start[i + 1]))
        terms, weights = found.terms[entries], found.weights[entries]
        top = terms[np.argsort(-weights)][:TOP]
        bad += [f"{model.vocabulary[t]!r} of {question!r}" for t in top.tolist() if noise[t]]
    if bad:
        return [Finding("warning", "noise", f"among the {TOP} heaviest terms of a question: {', '.join(bad)}",
                        "switch them off: sparsity.off")]  # fmt: skip
    return [ok("noise", "no punctuation, stop word or special token among the heaviest terms of a question")]


def sparse_model(model: SpladeModel) -> list[Finding]:
    """The checks of a model by itself, on a few texts of ordinary English."""
    noise = members(model.document.tokenizer, model.vocabulary, GROUPS)
    return health(model.encode_documents(PROBES), model.vocabulary, noise, "probing texts") + clean_top(model)
