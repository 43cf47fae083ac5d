"""Opening what a run made: which model, index and collection stand behind a name, and the model as its index wants it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from flatcoat.checks.base import enforce, to_stderr
from flatcoat.checks.belongs import belongs, same_vocabulary
from flatcoat.checks.belongs import precision as check_precision
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import read_json
from flatcoat.index.store import SPARSE_KINDS, IndexFolder


def of_run(folder: Path, name: str | None) -> tuple[str, Path, str]:
    """Model, index and collection of a run's folder. Raises Misuse where the folder is no run's, has no such index, or is a re-ranker's."""
    if not (folder / "recipe.toml").is_file():
        raise Misuse(f"{folder}: not the folder of a run; search wants MODEL INDEX COLLECTION")
    from flatcoat.app.recipe import load_recipe

    recipe = load_recipe(folder / "recipe.toml")
    if recipe.model.kind == "cross" and name != "bm25":
        raise Misuse(
            f"{folder}: the run of a cross-encoder, which re-ranks and has no vectors; say --name bm25, "
            "or flatcoat rerank a run of another system with its model"
        )
    wanted = name or (recipe.indexes[0].label if recipe.indexes else "exact")
    index = folder / "index" / wanted
    if not index.is_dir():
        have = ", ".join(sorted(p.name for p in (folder / "index").glob("*"))) or "none"
        raise Misuse(f"{folder}: no index {wanted!r}; it has {have}")
    if wanted == "bm25":
        return "bm25", index, str(folder / "store")
    from flatcoat.app.cascade import beside

    other = beside(folder / "model", wanted)  # what learnt beside the model has an index of its own
    if other.is_dir() and wanted not in [table.label for table in recipe.indexes]:
        return str(other), index, str(folder / "store")
    begun = folder / "start"  # a start that the run had to make: new weights for a lookup
    start = str(begun) if begun.is_dir() else recipe.model.start
    return str(folder / "model") if recipe.training.steps else start, index, str(folder / "store")


def model_of(
    model: str,
    folder: IndexFolder,
    precision: str | None,
    device: str,
    allow: Sequence[str] | None = None,
    note: Callable[[str], None] = to_stderr,
) -> Any:
    """A model, set as it was when an index's documents were encoded. `allow` and `note` are those of `enforce`.

    Raises Misuse or FlatcoatError where it is another.
    """
    from flatcoat.models.base import runtime_of
    from flatcoat.models.checkpoint import fingerprint

    of, kind = folder.facts["of"], holds(folder)
    given = fingerprint(model)
    if of.get("model") != given:  # a recipe may make another kind of a checkpoint than it says itself
        _same_kind(model, folder, kind)
    enforce(belongs(folder.path, of, model=given), allow, note)
    load: Any = {"sparse": _sparse, "late": _late, "dense": _dense}[kind]
    loaded = load(model, folder, allow, note)
    used = precision or of.get("precision", "fp32")
    loaded.runtime = runtime_of(device, used)
    enforce(check_precision(folder.path, of, used), allow, note)
    _documents_as(loaded, of)
    loaded.to(loaded.runtime.device)
    return loaded


def _documents_as(model: Any, of: Mapping[str, Any]) -> None:
    """Give the document side the settings that the index's documents were encoded with."""
    said, tower = of.get("tower"), model.document
    if said is None or said == json.loads(json.dumps(asdict(tower.settings))):
        return
    settings = type(tower.settings)(**{name: tuple(v) if isinstance(v, list) else v for name, v in said.items()})
    parts = [tower.backbone, *([tower.projection] if hasattr(tower, "projection") else []), tower.tokenizer]
    model.document = type(tower)(*parts, settings)


def holds(folder: IndexFolder) -> Literal["dense", "sparse", "late"]:
    """The kind of model that an index holds vectors of."""
    if "holds" in folder.facts:  # behind an engine
        return folder.facts["holds"]
    if folder.kind in SPARSE_KINDS:
        return "sparse"
    return "late" if "tokens" in folder.facts else "dense"


def _same_kind(model: str, folder: IndexFolder, wanted: str) -> None:
    """Refuse a model that gives other things than an index holds."""
    from flatcoat.models.load import kind_of
    from flatcoat.models.source import resolve

    place = resolve(model)
    kind = kind_of(place)
    if kind == "cross":
        raise Misuse(
            f"{model}: a cross-encoder has no vectors to search with; search {folder.path} with the model that encoded it, "
            "then flatcoat rerank the run"
        )
    plain = kind == "sparse" and not (place / "modules.json").is_file()  # a masked-language model may be read as dense
    if kind != wanted and not (plain and wanted == "dense"):
        vectors = {"sparse": "sparse vectors", "late": "several vectors a text", "dense": "one dense vector a text"}
        raise Misuse(
            f"{model} is a {kind} model, {folder.path} ({folder.kind}) holds {vectors[wanted]}; want a {wanted} model"
        )


def _sparse(model: str, folder: IndexFolder, allow: Sequence[str] | None, note: Callable[[str], None]) -> Any:
    from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade

    of = folder.facts["of"]
    asked = of.get("query_tower", {})  # the query side as it was when the documents were encoded, and measured
    loaded = load_splade(model, SparseOverrides(
        query_length=asked.get("max_length"), query_prompt=asked.get("prompt"), query_terms=asked.get("top_terms"),
        aggregate=asked.get("aggregate"), queries=of.get("queries"),
    ))  # fmt: skip
    if getattr(loaded.query, "fresh", False):
        raise FlatcoatError(f"{model} has no weights for a lookup of queries; search with the model that was trained")
    enforce(same_vocabulary(folder.path, read_json(folder.path / "vocabulary.json"), loaded.vocabulary), allow, note)
    return loaded


def _late(model: str, folder: IndexFolder, *_: Any) -> Any:
    from flatcoat.models.colbert import LateModel, LateSettings, LateTower
    from flatcoat.models.colbert_checkpoint import LateOverrides, is_late, load_late
    from flatcoat.models.source import resolve

    of = folder.facts["of"]
    asked, answered = of.get("query_tower"), of.get("tower", {})
    new = None if is_late(resolve(model)) else folder.facts["dim"]
    if not asked:
        loaded = load_late(model, LateOverrides(new))
    else:
        marks = asked["marker"] or "", answered.get("marker") or ""
        overrides = LateOverrides(new, asked["max_length"], query_marker=marks[0], document_marker=marks[1])
        loaded = load_late(model, overrides)
        settings: dict[str, Any] = {**asked, "skip": tuple(asked["skip"])}
        own = loaded.query
        queries = LateTower(own.backbone, own.projection, own.tokenizer, LateSettings(**settings))
        loaded = LateModel(queries, loaded.document)
    if loaded.dim != folder.facts["dim"]:
        raise FlatcoatError(
            f"{model} gives vectors of {loaded.dim} dimensions, {folder.path} holds {folder.facts['dim']}"
        )
    return loaded


def _dense(model: str, folder: IndexFolder, allow: Sequence[str] | None, note: Callable[[str], None]) -> Any:
    from flatcoat.checks.towers import pooling
    from flatcoat.models.checkpoint import Overrides, load_dense

    of = folder.facts["of"]
    tower, asked = of.get("tower", {}), of.get("query_tower", {})
    enforce(pooling(of.get("declared_pooling"), tower.get("pooling", of.get("declared_pooling"))), allow, note)
    return load_dense(
        model,
        Overrides(
            tower.get("pooling"), tower.get("normalise"),
            query_length=asked.get("max_length"), query_prompt=asked.get("prompt"), document_prompt=tower.get("prompt"),
        ),
    )  # fmt: skip
