"""BM25 is bm25s's own over random corpora, in every setting that we offer, and Lucene's formula written again by hand."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest

from flatcoat.index.bm25 import Bm25Index, Bm25Settings, split_identifiers

bm25s = pytest.importorskip("bm25s")
Stemmer = pytest.importorskip("Stemmer")

SAID = """otter otters swimming swims heron marsh marshes river rivers running runner the and of a is to
readFile read_file HTTPServer get_url2 x y42 naïve Über дом 東京 cats categorical"""
WORDS = SAID.split()
FLAGS = list(itertools.product((True, False), repeat=3))  # stems, stop words, identifiers
OTHERS = [(1.2, 0.75), (2.0, 0.0), (0.0, 1.0)]
SETTINGS = [Bm25Settings(0.9, 0.4, *flags) for flags in FLAGS] + [
    Bm25Settings(k1, b, *flags) for k1, b in OTHERS for flags in FLAGS[1::2]
]


def corpus(seed, documents=40):
    """Texts of random words: short ones, empty ones, repeats, so that scores tie."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 12))) for _ in range(documents)]
    texts[1:4] = ["", texts[0], "the of and"]
    return texts, [" ".join(rng.choice(WORDS, rng.integers(1, 5))) for _ in range(12)] + ["unknown words", "", "the of"]


def named(settings):
    said = [f"k1={settings.k1:g}", f"b={settings.b:g}"]
    return "-".join([*said, *(name for name in ("stem", "stopwords", "identifiers") if getattr(settings, name))])


def tokens(texts, settings):
    """As bm25s cuts them, with its own stemming and stop words."""
    texts = [split_identifiers(text) for text in texts] if settings.identifiers else texts
    stemmer = Stemmer.Stemmer("english") if settings.stem else None
    stopwords = "en" if settings.stopwords else []
    return bm25s.tokenize(texts, stopwords=stopwords, stemmer=stemmer, show_progress=False, return_ids=False)


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_bm25s_scores_and_rankings_over_random_corpora(settings):
    texts, queries = corpus(0)
    peer = bm25s.BM25(method="lucene", k1=settings.k1, b=settings.b)
    peer.index(tokens(texts, settings), show_progress=False)
    top = Bm25Index.build(texts, settings).search(queries, len(texts))
    for q, asked in enumerate(tokens(queries, settings)):
        known = [word for word in asked if word in peer.vocab_dict]
        scores = peer.get_scores(known) if known else np.zeros(len(texts), np.float32)
        order = [row for row in np.argsort(-scores, kind="stable").tolist() if scores[row] > 0]
        assert top.rows[q, : len(order)].tolist() == order
        np.testing.assert_array_equal(top.scores[q, : len(order)], scores[order].astype(np.float32))
        assert (top.rows[q, len(order) :] == -1).all()


@pytest.mark.parametrize("settings", [s for s in SETTINGS if not s.stem and not s.identifiers], ids=named)
def test_bm25s_lucene_variant_is_its_formula_by_hand(settings):
    """Σ_t log(1 + (N − n_t + ½) / (n_t + ½)) · f / (f + k1 (1 − b + b |d| / mean |d|)), words of two letters or more."""
    texts, queries = corpus(7)
    words = bm25s.tokenization.STOPWORDS_EN if settings.stopwords else ()
    cut = lambda text: [w for w in re.findall(r"(?u)\b\w\w+\b", text.lower()) if w not in words]  # noqa: E731
    bags, index = [cut(text) for text in texts], Bm25Index.build(texts, settings)
    mean = sum(map(len, bags)) / len(bags)
    top = index.search(queries, len(texts))
    for q, query in enumerate(queries):
        wanted = {}
        for row, bag in enumerate(bags):
            for word in cut(query):
                n, f = sum(word in other for other in bags), bag.count(word)
                if f:
                    idf = math.log(1 + (len(bags) - n + 0.5) / (n + 0.5))
                    part = idf * f / (f + settings.k1 * (1 - settings.b + settings.b * len(bag) / mean))
                    wanted[row] = wanted.get(row, 0.0) + part
        found = {int(r): float(s) for r, s in zip(top.rows[q], top.scores[q], strict=True) if r >= 0}
        assert found == pytest.approx(wanted, rel=1e-5)


def test_bm25s_retrieve_gives_the_same_scores_rank_by_rank():
    settings = Bm25Settings()
    texts, queries = corpus(3, documents=200)
    peer = bm25s.BM25(method="lucene", k1=settings.k1, b=settings.b)
    peer.index(tokens(texts, settings), show_progress=False)
    top = Bm25Index.build(texts, settings).search(queries, 10)
    for q, asked in enumerate(tokens(queries, settings)):
        if not any(word in peer.vocab_dict for word in asked):
            assert (top.rows[q] == -1).all()
            continue
        _, scores = peer.retrieve([asked], k=10, show_progress=False)
        there = top.rows[q] >= 0
        np.testing.assert_allclose(top.scores[q][there], scores[0][there], rtol=1e-6)
        assert (scores[0][~there] == 0).all()
