"""BM25 through bm25s (Lù 2024, arXiv 2407.03618), Lucene's variant.

Tokens: lower-cased words of two letters or more (`\\w\\w+`), English stop words removed, Snowball stems where asked.
`identifiers` adds the parts of snake_case and camelCase words, without which a lexical baseline on code is unfair.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import need
from flatcoat.files import read_json, write_json
from flatcoat.index.base import TopK, check_k

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Bm25Settings:
    """BM25's parameters and its tokenisation."""

    k1: float = 0.9
    b: float = 0.4
    stem: bool = True
    stopwords: bool = True
    identifiers: bool = False


def split_identifiers(text: str) -> str:
    """Words as they stand, and behind each compound word its parts."""

    def parts(match: re.Match[str]) -> str:
        word = match.group()
        pieces = _PART.findall(word)
        return word if len(pieces) < 2 else f"{word} {' '.join(pieces)}"

    return re.sub(r"\w+", parts, text)


def tokenize(texts: Sequence[str], settings: Bm25Settings) -> Any:
    """Texts as bm25s takes them: split, without stop words where the settings say so, stemmed."""
    bm25s: Any = need("bm25s", "search")
    stemmer = need("Stemmer", "search").Stemmer("english") if settings.stem else None
    if settings.identifiers:
        texts = [split_identifiers(text) for text in texts]
    stopwords: str | list[str] = "en" if settings.stopwords else []
    return bm25s.tokenize(list(texts), stopwords=stopwords, stemmer=stemmer, show_progress=False)


def _ordered(tokens: Any) -> Any:
    """The same with its words numbered in their order: bm25s numbers stems as a set gives them, in each process its own way."""
    words = sorted(tokens.vocab)
    number = np.empty(max(tokens.vocab.values(), default=-1) + 1, np.int64)
    number[[tokens.vocab[word] for word in words]] = np.arange(len(words))
    ids = [number[np.asarray(row, np.int64)].tolist() for row in tokens.ids]
    return type(tokens)(ids=ids, vocab={word: n for n, word in enumerate(words)})


class Bm25Index:
    """Lexical search; its queries are texts."""

    def __init__(self, scorer: Any, size: int, settings: Bm25Settings, where: object = "memory"):
        self.scorer, self.size, self.settings, self.where = scorer, size, settings, where

    @classmethod
    def build(cls, texts: Sequence[str], settings: Bm25Settings = Bm25Settings()) -> Bm25Index:
        """Build in memory."""
        bm25s: Any = need("bm25s", "search")
        scorer = bm25s.BM25(method="lucene", k1=settings.k1, b=settings.b)
        scorer.index(_ordered(tokenize(texts, settings)), show_progress=False)
        return cls(scorer, len(texts), settings)

    def save(self, folder: Path) -> None:
        """Write into a folder that exists."""
        self.scorer.save(folder, show_progress=False)
        write_json(folder / "bm25.json", {"settings": asdict(self.settings), "size": self.size})

    @classmethod
    def load(cls, folder: Path) -> Bm25Index:
        """Open memory-mapped."""
        bm25s: Any = need("bm25s", "search")
        said = read_json(folder / "bm25.json")
        scorer = bm25s.BM25.load(folder, mmap=True, load_corpus=False, allow_pickle=False)
        return cls(scorer, int(said["size"]), Bm25Settings(**said["settings"]), folder)

    def __len__(self) -> int:
        return self.size

    def search(self, queries: Sequence[str], k: int) -> TopK:
        """The k best rows of each query text; rows that share no token with it are not matches."""
        check_k(k, self.size, self.where)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        tokens = tokenize(queries, self.settings)
        words = {number: word for word, number in tokens.vocab.items()}
        for i, ids in enumerate(tokens.ids):
            known = [words[t] for t in ids if words[t] in self.scorer.vocab_dict]
            if not known:
                continue
            found = self.scorer.get_scores(known).astype(np.float32)
            best = top_rows(found, k)
            best = best[found[best] > 0]
            rows[i, : len(best)], scores[i, : len(best)] = best, found[best]
        return TopK(rows, scores)


def top_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """The k best positions, by falling score, equal scores by rising position."""
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        above, level = np.flatnonzero(scores > threshold), np.flatnonzero(scores == threshold)
        candidates = np.concatenate([above, level[: k - len(above)]])
    else:
        candidates = np.arange(len(scores))
    return candidates[np.lexsort((candidates, -scores[candidates]))]
