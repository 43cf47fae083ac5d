"""What a checkpoint holds, and what all kinds of model do alike: dense, sparse, late interaction, cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flatcoat.models.base import Runtime
from flatcoat.models.checkpoint import load_dense, save_dense
from flatcoat.models.colbert import LateModel, LateTower
from flatcoat.models.colbert_checkpoint import is_late, load_late, save_late
from flatcoat.models.cross import CrossModel
from flatcoat.models.cross_checkpoint import is_cross, load_cross, save_cross
from flatcoat.models.dense import DenseModel, Tower
from flatcoat.models.encode import encode_all
from flatcoat.models.encode_multi import encode_multi
from flatcoat.models.encode_sparse import encode_sparse
from flatcoat.models.source import resolve
from flatcoat.models.splade import LookupTower, SpladeModel, SpladeTower
from flatcoat.models.splade_checkpoint import is_sparse, load_splade, save_splade
from flatcoat.records import Track, silent

Model = DenseModel | SpladeModel | LateModel  # what encodes


def kind_of(folder: Path) -> str:
    """dense, sparse, late or cross."""
    found = {"cross": is_cross, "late": is_late, "sparse": is_sparse}
    return next((kind for kind, holds in found.items() if holds(folder)), "dense")


def load_model(source: str) -> Model | CrossModel:
    """Load a model of the kind that its folder says."""
    load: dict[str, Any] = {"cross": load_cross, "late": load_late, "sparse": load_splade, "dense": load_dense}
    return load[kind_of(resolve(source))](source)


def save_model(model: Model | CrossModel, path: Any) -> None:
    """Write a model in the layout of its kind."""
    save: dict[type, Any] = {
        SpladeModel: save_splade,
        LateModel: save_late,
        CrossModel: save_cross,
        DenseModel: save_dense,
    }
    save[type(model)](model, path)


def encode_texts(
    tower: Tower | SpladeTower | LookupTower | LateTower,
    texts: Sequence[str],
    runtime: Runtime,
    *,
    track: Track = silent,
    label: str = "encode",
) -> Any:
    """Vectors [text, dim] of a dense tower, the term weights of a sparse one, the token vectors of a late one."""
    encoders: dict[type, Any] = {Tower: encode_all, LateTower: encode_multi}
    encode = encoders.get(type(tower), encode_sparse)
    return encode(tower, texts, runtime, track=track, label=label)
