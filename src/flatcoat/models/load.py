"""Dense or sparse: what a checkpoint holds, and what both kinds of model do alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense, save_dense
from flatcoat.models.dense import DenseModel, Tower
from flatcoat.models.encode import encode_all
from flatcoat.models.encode_sparse import encode_sparse
from flatcoat.models.source import resolve
from flatcoat.models.splade import LookupTower, SpladeModel, SpladeTower
from flatcoat.models.splade_checkpoint import is_sparse, load_splade, save_splade
from flatcoat.records import Track, silent

Model = DenseModel | SpladeModel


def load_model(source: str) -> Model:
    """Load a model of the kind that its folder says."""
    return load_splade(source) if is_sparse(resolve(source)) else load_dense(source)


def save_model(model: Model, path: Any) -> None:
    """Write a model in the layout of its kind."""
    if isinstance(model, SpladeModel):
        save_splade(model, path)
    else:
        save_dense(model, path)


def encode_texts(
    tower: Tower | SpladeTower | LookupTower,
    texts: Sequence[str],
    runtime: Runtime,
    *,
    track: Track = silent,
    label: str = "encode",
) -> Any:
    """Vectors [text, dim] of a dense tower, or the term weights of a sparse one."""
    encode = encode_all if isinstance(tower, Tower) else encode_sparse
    return encode(tower, texts, runtime, track=track, label=label)
