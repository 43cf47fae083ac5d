"""What the folders of late-interaction models say: three layouts, one description.

* PyLate: `model_type` ColBERT, a Transformer and a Dense, settings in `config_sentence_transformers.json`;
* Stanford: architecture `HF_ColBERT`, `linear.weight` beside the encoder's weights, settings in `artifact.metadata`;
* sentence-transformers' MultiVectorEncoder: Transformer (with lengths and expansion), Dense, MultiVectorMask, Normalize.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flatcoat.errors import FlatcoatError
from flatcoat.files import read_json
from flatcoat.models.checkpoint import prompt_of
from flatcoat.models.colbert import filling, token_id

PUNCTUATION = tuple(string.punctuation)
CONFIG, METADATA, WEIGHTS = "config_sentence_transformers.json", "artifact.metadata", "model.safetensors"
QUERY_LENGTH, DOCUMENT_LENGTH = 32, 180  # where nobody says: ColBERT's and PyLate's


class Side(NamedTuple):
    """What a checkpoint says of one side; `prefix` is a marker where the vocabulary has it, else text before the prompt."""

    prefix: str = ""
    prompt: str = ""
    length: int | None = None
    expansion: int | None = None
    attend: bool = False
    skip: tuple[str, ...] = ()


class Said(NamedTuple):
    """What a checkpoint says: where its encoder is, its projection (weight and bias; None: the states), and its sides."""

    backbone: Path
    projection: tuple[Tensor, Tensor | None] | None
    query: Side
    document: Side


def is_late(folder: Path) -> bool:
    """Whether a model folder holds a late-interaction model."""
    if (folder / CONFIG).is_file():
        kind = read_json(folder / CONFIG).get("model_type")
        if kind in ("ColBERT", "MultiVectorEncoder"):
            return True
    if (folder / "modules.json").is_file():
        return any(m["type"].endswith(".MultiVectorMask") for m in read_json(folder / "modules.json"))
    return _is_stanford(folder)


def _is_stanford(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and "HF_ColBERT" in (read_json(config).get("architectures") or [])


def describe_late(folder: Path) -> Said:
    """What the folder of a late-interaction model says.

    Raises:
        FlatcoatError: a module, a projection or a score that Flatcoat does not know.
    """
    if not (folder / "modules.json").is_file():
        return _stanford(folder)
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if config.get("similarity_fn_name") == "meanmaxsim":
        raise FlatcoatError(
            f"{folder}/{CONFIG}: similarity meanmaxsim is not supported; Flatcoat's late score is MaxSim"
        )
    modules = _modules(folder)
    pylate = config.get("model_type") == "ColBERT"
    if not pylate and "Normalize" not in modules:
        raise FlatcoatError(
            f"{folder}: its token vectors have no unit length (no Normalize module); that is not supported"
        )
    backbone = modules["Transformer"][0]
    heads = modules.get("Dense", [])
    query, document = _pylate(config) if pylate else _native(backbone, config, modules.get("MultiVectorMask", []))
    return Said(backbone, _folded([_dense(path) for path in heads]), query, document)


def _modules(folder: Path) -> dict[str, list[Path]]:
    """The folders of a model's modules by their kind."""
    found: dict[str, list[Path]] = {}
    for module in read_json(folder / "modules.json"):
        name = module["type"].rsplit(".", 1)[-1]
        if name not in ("Transformer", "Dense", "MultiVectorMask", "Normalize"):
            raise FlatcoatError(
                f"{folder}: module {module['type']} is not one of Transformer, Dense, MultiVectorMask, Normalize"
            )
        found.setdefault(name, []).append(folder / module["path"])
    if "Transformer" not in found:
        raise FlatcoatError(f"{folder}/modules.json: no Transformer")
    return found


def _dense(folder: Path) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a Dense module; a residual connection is a part of the weight."""
    from safetensors.torch import load_file

    config = read_json(folder / "config.json")
    if not str(config.get("activation_function", "Identity")).endswith("Identity"):
        raise FlatcoatError(f"{folder}: a projection with {config['activation_function']}; Flatcoat has linear ones")
    if not (folder / WEIGHTS).is_file():
        raise FlatcoatError(f"{folder}: no {WEIGHTS} (pickled weights are not read)")
    held = load_file(folder / WEIGHTS)
    weight = held["linear.weight"].float()
    if config.get("use_residual"):
        weight = weight + held.get("residual.weight", torch.eye(len(weight))).float()
    bias = held.get("linear.bias")
    return weight, None if bias is None else bias.float()


def _folded(parts: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None] | None:
    """Linear maps one after another as one; None for none, or for one that changes nothing."""
    if not parts:
        return None
    weight, bias = parts[0]
    for next_weight, next_bias in parts[1:]:
        moved = None if bias is None else next_weight @ bias
        bias = next_bias if moved is None else moved if next_bias is None else moved + next_bias
        weight = next_weight @ weight
    same = bias is None and weight.shape[0] == weight.shape[1] and torch.equal(weight, torch.eye(len(weight)))
    return None if same else (weight, bias)


def _prompts(config: Mapping[str, Any]) -> tuple[str, str]:
    prompts = config.get("prompts") or {}
    return prompt_of(None, prompts, "query"), prompt_of(None, prompts, "document")


def _pylate(config: Mapping[str, Any]) -> tuple[Side, Side]:
    """The sides of PyLate's settings, under its defaults; prompts that repeat the prefix do so once."""
    first, second = config.get("query_prefix"), config.get("document_prefix")
    first, second = "[Q] " if first is None else first, "[D] " if second is None else second
    prompts = _prompts(config)
    length = config.get("query_length") or QUERY_LENGTH
    expansion, attend = length, bool(config.get("attend_to_expansion_tokens"))
    if config.get("do_query_expansion") is False:
        expansion, attend = None, False
    elif config.get("query_expansion"):  # sentence-transformers' own key, where the length is no ceiling
        expansion = int(config["query_expansion"]["length"])
    skip = config.get("skiplist_words")
    skip = PUNCTUATION if skip is None else tuple(skip)
    query = Side(first, prompts[0].removeprefix(first), length, expansion, attend)
    return query, Side(
        second, prompts[1].removeprefix(second), config.get("document_length") or DOCUMENT_LENGTH, skip=skip
    )


def _native(backbone: Path, config: Mapping[str, Any], masks: Sequence[Path]) -> tuple[Side, Side]:
    """The sides of a MultiVectorEncoder: its Transformer's settings, and its MultiVectorMask's."""
    path = backbone / "sentence_bert_config.json"
    said = read_json(path) if path.is_file() else {}
    mask = read_json(masks[-1] / "config.json") if masks else {}
    if mask.get("keep_only_token_ids"):
        raise FlatcoatError(f"{masks[-1]}: keep_only_token_ids is not supported")
    skip, tasks = tuple(mask.get("skiplist_words") or ()), mask.get("skiplist_tasks") or ["document"]
    length, expansion, attend = said.get("query_length"), None, False
    if said.get("query_expansion") and masks:
        how = said["query_expansion"]
        expansion, attend = int(how["length"]), bool(how.get("attend"))
        length = expansion if how["strategy"] == "fixed" else length
        _refuse_token(backbone, how.get("token"))
    prompts = _prompts(config)
    query = Side("", prompts[0], length, expansion, attend, skip if "query" in tasks else ())
    return query, Side("", prompts[1], said.get("document_length"), skip=skip if "document" in tasks else ())


def _refuse_token(backbone: Path, token: str | None) -> None:
    if token is None:
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(backbone, local_files_only=True)
    if token_id(tokenizer, token) != filling(tokenizer):
        raise FlatcoatError(f"{backbone}: queries are filled up with {token!r}; Flatcoat fills with the mask token")


def _stanford(folder: Path) -> Said:
    from safetensors import safe_open

    said = read_json(folder / METADATA) if (folder / METADATA).is_file() else {}
    if said.get("similarity", "cosine") != "cosine":
        raise FlatcoatError(f"{folder}/{METADATA}: similarity {said['similarity']!r}; Flatcoat has cosine")
    if not (folder / WEIGHTS).is_file():
        raise FlatcoatError(f"{folder}: no {WEIGHTS} (pickled weights are not read)")
    with safe_open(folder / WEIGHTS, "pt") as file:
        if "linear.weight" not in file.keys():  # noqa: SIM118  (not a mapping)
            raise FlatcoatError(f"{folder}/{WEIGHTS}: no linear.weight, the projection of a Stanford ColBERT")
        weight = file.get_tensor("linear.weight").float()
    length = said.get("query_maxlen") or QUERY_LENGTH
    skip = PUNCTUATION if said.get("mask_punctuation", True) else ()
    query = Side(said.get("query_token_id") or "[unused0]", "", length, length, bool(said.get("attend_to_mask_tokens")))
    document = Side(said.get("doc_token_id") or "[unused1]", "", said.get("doc_maxlen") or DOCUMENT_LENGTH, skip=skip)
    return Said(folder, (weight, None), query, document)
