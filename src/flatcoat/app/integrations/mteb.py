"""Flatcoat under mteb (2.x): a dense model as its encoder, a sparse or late-interaction one as its search, a cross-encoder as such.

`mteb.evaluate(mteb_model("my-model"), tasks)`. Queries and documents go each through their own side of the model, with its prompt
and length; where a task does not say which a text is (similarity, classification), it is taken for a document. Prompts that mteb
knows for a task are not used: a model's own are part of it. Texts are batched by their tokens, so `batch_size` says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.app.integrations.loaded import load_encoder, load_reranker
from flatcoat.errors import FlatcoatError, Misuse, need
from flatcoat.records import full_text
from flatcoat.representations import MultiVector, Representation, Sparse

TYPES: dict[str, Any] = {"dense": "dense", "sparse": "sparse", "late": "late-interaction", "cross": "cross-encoder"}


def mteb_model(source: str, *, name: str | None = None, device: str = "auto", precision: str = "fp32") -> Any:
    """A model as mteb takes one, whatever its kind; `name` (OWNER/MODEL) is what results are filed under.

    Raises:
        Misuse: mteb is not installed, there is no such model, or the name has no owner.
    """
    need("mteb", "mteb")
    from flatcoat.models.base import runtime_of
    from flatcoat.models.load import kind_of
    from flatcoat.models.source import resolve

    runtime_of(device, precision)
    kind = kind_of(resolve(source))
    if kind == "cross":
        model = load_reranker(source, device, precision)
        return CrossReader(model, _meta(source, name, kind, model))
    model = load_encoder(source, tuple(TYPES), device, precision)
    return (DenseEncoder if kind == "dense" else Searcher)(model, _meta(source, name, kind, model))


class DenseEncoder:
    """A dense model: mteb's `EncoderProtocol`."""

    def __init__(self, model: Any, meta: Any):
        self.model, self.mteb_model_meta = model, meta

    def encode(
        self, inputs: Iterable[Any], *, task_metadata: Any, hf_split: str, hf_subset: str,
        prompt_type: Any = None, **kwargs: Any,
    ) -> np.ndarray:  # fmt: skip
        """Vectors [text, dim]; `prompt_type` says whether texts are queries."""
        texts = _batched(inputs)
        asked = str(getattr(prompt_type, "value", prompt_type)) == "query"
        return (self.model.encode_queries(texts) if asked else self.model.encode_documents(texts)).vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Dot products [one, other] as a tensor; of unit vectors they are cosines."""
        return _tensor(embeddings1) @ _tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Dot products [pair] as a tensor."""
        return (_tensor(embeddings1) * _tensor(embeddings2)).sum(-1)


class Searcher:
    """A sparse or late-interaction model with exact search over what it makes: mteb's `SearchProtocol`."""

    def __init__(self, model: Any, meta: Any):
        self.model, self.mteb_model_meta = model, meta
        self.ids: list[str] = []
        self.documents: Representation | None = None
        self._index: Any = None

    def index(
        self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, encode_kwargs: Any,
        num_proc: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Encode and index a task's corpus, in memory."""
        from flatcoat.app.family import exact_index

        self.ids = [str(id) for id in corpus["id"]]
        made = self.model.encode_documents(corpus_texts(corpus))
        self.documents, self._index = made, exact_index(made, str(task_metadata.name))

    def search(
        self, queries: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, top_k: int, encode_kwargs: Any,
        top_ranked: Mapping[str, list[str]] | None = None, num_proc: int | None = None, **kwargs: Any,
    ) -> dict[str, dict[str, float]]:  # fmt: skip
        """Scores by query and document: of the best `top_k`, or of `top_ranked` where a task gives candidates.

        Raises:
            FlatcoatError: nothing is indexed.
        """
        from flatcoat.search.engine import named, search_texts

        if self.documents is None:
            raise FlatcoatError("search before index; mteb indexes a task's corpus first")
        ids, asked = [str(id) for id in queries["id"]], self.model.encode_queries(query_texts(queries))
        if top_ranked is not None:
            return self._candidates(ids, asked, top_ranked)
        top = search_texts(None, self._index, asked, top_k)
        return {query: ranking.as_dict() for query, ranking in named(top, ids, self.ids).items()}

    def _candidates(
        self, ids: list[str], asked: Representation, top_ranked: Mapping[str, list[str]]
    ) -> dict[str, dict[str, float]]:
        assert self.documents is not None
        rows = {id: row for row, id in enumerate(self.ids)}
        return {
            query: {id: pair(asked, place, self.documents, rows[id]) for id in top_ranked.get(query, ())}
            for place, query in enumerate(ids)
        }


class CrossReader:
    """A cross-encoder: mteb's `CrossEncoderProtocol`. Scores are logits: ranking does not change by an activation."""

    def __init__(self, model: Any, meta: Any):
        self.model, self.mteb_model_meta = model, meta

    def predict(
        self, inputs1: Iterable[Any], inputs2: Iterable[Any], *, task_metadata: Any, hf_split: str, hf_subset: str,
        prompt_type: Any = None, **kwargs: Any,
    ) -> np.ndarray:  # fmt: skip
        """Scores [pair] of queries with documents."""
        return self.model.score(_batched(inputs1), _batched(inputs2))


def pair(queries: Representation, query: int, documents: Representation, document: int) -> float:
    """The score of one query with one document: the dot product of term weights, or MaxSim of token vectors."""
    from flatcoat.models.colbert import pair_score

    if isinstance(queries, MultiVector) and isinstance(documents, MultiVector):
        return pair_score(queries.item(query), documents.item(document).astype(np.float32, copy=False))
    assert isinstance(queries, Sparse) and isinstance(documents, Sparse)
    left, right = queries[query : query + 1], documents[document : document + 1]
    _, one, other = np.intersect1d(left.terms, right.terms, assume_unique=True, return_indices=True)
    return float(left.weights[one] @ right.weights[other])


def corpus_texts(corpus: Any) -> list[str]:
    """A task's documents as text: title and text joined."""
    texts = _column(corpus, "text" if "text" in corpus.column_names else "body")
    titles = _column(corpus, "title") if "title" in corpus.column_names else [""] * len(texts)
    return [full_text(title or "", text or "") for title, text in zip(titles, texts, strict=True)]


def query_texts(queries: Any) -> list[str]:
    """A task's queries as text; an instruction, where there is one, stands behind."""
    texts = _column(queries, "text")
    if "instruction" not in queries.column_names:
        return texts
    return [
        f"{text} {told}".strip() if told else text for text, told in zip(texts, queries["instruction"], strict=True)
    ]


def _column(table: Any, name: str) -> list[str]:
    values = list(table[name])
    odd = next((value for value in values if not isinstance(value, str | None)), None)
    if odd is not None:
        raise Misuse(f"column {name!r} holds {type(odd).__name__}, not text; Flatcoat searches text alone")
    return values


def _batched(inputs: Iterable[Any]) -> list[str]:
    texts: list[str] = []
    for batch in inputs:
        if "text" not in batch:
            raise Misuse(f"a batch of {', '.join(batch)} has no text; Flatcoat reads text alone")
        texts += batch["text"]
    return texts


def _tensor(values: Any) -> Any:
    import torch

    return torch.as_tensor(values, dtype=torch.float32)


def _meta(source: str, name: str | None, kind: str, model: Any) -> Any:
    from mteb.models import ModelMeta

    from flatcoat.models.checkpoint import fingerprint

    called = name or (source if source.count("/") == 1 and not Path(source).exists() else f"flatcoat/{_last(source)}")
    if called.count("/") != 1:
        raise Misuse(f"name {called!r}: want OWNER/MODEL")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    towers = [model.tower] if kind == "cross" else [model.query, model.document]
    return ModelMeta(
        loader=None, name=called, revision=fingerprint(source)[:12], release_date=None, languages=None,
        n_parameters=parameters, memory_usage_mb=round(4 * parameters / 2**20, 1),
        max_tokens=max(tower.settings.max_length for tower in towers), embed_dim=None if kind == "cross" else model.dim,
        license=None, open_weights=None, public_training_code=None, public_training_data=None,
        framework=["PyTorch", "Transformers", "safetensors"], similarity_fn_name=_similarity(kind, model),
        use_instructions=any(tower.settings.prompt for tower in towers), training_datasets=None,
        model_type=[TYPES[kind]],
    )  # fmt: skip


def _last(source: str) -> str:
    return Path(source.rpartition(":")[2]).resolve().name


def _similarity(kind: str, model: Any) -> Any:
    from mteb.models.model_meta import ScoringFunction

    if kind == "dense":
        return ScoringFunction.COSINE if model.document.settings.normalise else ScoringFunction.DOT_PRODUCT
    return {"late": ScoringFunction.MAX_SIM, "sparse": ScoringFunction.DOT_PRODUCT}.get(kind)
