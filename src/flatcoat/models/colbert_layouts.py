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

from flatcoat.arrays import taking_apart
from flatcoat.errors import FlatcoatError
from flatcoat.files import read_object
from flatcoat.models.backbone import read_tensor, read_tokenizer
from flatcoat.models.checkpoint import prompt_of
from flatcoat.models.colbert import filling, token_id
from flatcoat.models.said import length as said_number
from flatcoat.models.said import modules_of, object_of, prompts_of, table, text, words

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
    if object_of(folder / CONFIG).get("model_type") in ("ColBERT", "MultiVectorEncoder"):
        return True
    if (folder / "modules.json").is_file():
        return any(module.name == "MultiVectorMask" for module in modules_of(folder))
    return _is_stanford(folder)


def _is_stanford(folder: Path) -> bool:
    config = folder / "config.json"
    return "HF_ColBERT" in words(object_of(config), "architectures", config)


def describe_late(folder: Path) -> Said:
    """What the folder of a late-interaction model says.

    Raises:
        FlatcoatError: a module, a projection or a score that Flatcoat does not know.
    """
    if not (folder / "modules.json").is_file():
        return _stanford(folder)
    config = object_of(folder / CONFIG)
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
    query, document = (
        _pylate(config, folder / CONFIG)
        if pylate
        else _native(backbone, config, folder / CONFIG, modules.get("MultiVectorMask", []))
    )
    return Said(backbone, _folded([_dense(path) for path in heads]), query, document)


def _modules(folder: Path) -> dict[str, list[Path]]:
    """The folders of a model's modules by their kind."""
    found: dict[str, list[Path]] = {}
    for module in modules_of(folder):
        if module.name not in ("Transformer", "Dense", "MultiVectorMask", "Normalize"):
            raise FlatcoatError(
                f"{folder}: module {module.type} is not one of Transformer, Dense, MultiVectorMask, Normalize"
            )
        found.setdefault(module.name, []).append(module.folder)
    if "Transformer" not in found:
        raise FlatcoatError(f"{folder}/modules.json: no Transformer")
    return found


def _dense(folder: Path) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a Dense module; a residual connection is a part of the weight."""
    config = read_object(folder / "config.json")
    if not str(config.get("activation_function", "Identity")).endswith("Identity"):
        raise FlatcoatError(f"{folder}: a projection with {config['activation_function']}; Flatcoat has linear ones")
    weight = read_tensor(folder / WEIGHTS, "linear.weight").float()
    bias = read_tensor(folder / WEIGHTS, "linear.bias", may_lack=True)
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise FlatcoatError(f"{folder / WEIGHTS}: linear.weight {list(weight.shape)} and its bias are no linear map")
    if config.get("use_residual"):
        residual = read_tensor(folder / WEIGHTS, "residual.weight", may_lack=True)
        weight = weight + (torch.eye(len(weight)) if residual is None else residual.float())
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


def _prompts(config: Mapping[str, Any], where: Path) -> tuple[str, str]:
    prompts = prompts_of(config, where)
    return prompt_of(None, prompts, "query"), prompt_of(None, prompts, "document")


def _pylate(config: Mapping[str, Any], where: Path) -> tuple[Side, Side]:
    """The sides of PyLate's settings, under its defaults; prompts that repeat the prefix do so once."""
    first, second = text(config, "query_prefix", where), text(config, "document_prefix", where)
    first, second = "[Q] " if first is None else first, "[D] " if second is None else second
    prompts = _prompts(config, where)
    length = said_number(config, "query_length", where) or QUERY_LENGTH
    expansion, attend = length, bool(config.get("attend_to_expansion_tokens"))
    if config.get("do_query_expansion") is False:
        expansion, attend = None, False
    elif config.get("query_expansion"):  # sentence-transformers' own key, where the length is no ceiling
        expansion = _filled(table(config, "query_expansion", where), where)
    skip = PUNCTUATION if config.get("skiplist_words") is None else tuple(words(config, "skiplist_words", where))
    query = Side(first, prompts[0].removeprefix(first), length, expansion, attend)
    longest = said_number(config, "document_length", where) or DOCUMENT_LENGTH
    return query, Side(second, prompts[1].removeprefix(second), longest, skip=skip)


def _filled(how: Mapping[str, Any], where: Path) -> int:
    """Where queries are filled up to."""
    found = said_number(how, "length", where)
    if found is None:
        raise FlatcoatError(f"{where}: query_expansion without length; want the tokens that queries are filled up to")
    return found


def _native(backbone: Path, config: Mapping[str, Any], where: Path, masks: Sequence[Path]) -> tuple[Side, Side]:
    """The sides of a MultiVectorEncoder: its Transformer's settings, and its MultiVectorMask's."""
    path = backbone / "sentence_bert_config.json"
    said = object_of(path)
    masked = masks[-1] / "config.json" if masks else path
    mask = read_object(masked) if masks else {}
    if mask.get("keep_only_token_ids"):
        raise FlatcoatError(f"{masks[-1]}: keep_only_token_ids is not supported")
    skip, tasks = tuple(words(mask, "skiplist_words", masked)), words(mask, "skiplist_tasks", masked) or ["document"]
    length, expansion, attend = said_number(said, "query_length", path), None, False
    if (how := table(said, "query_expansion", path)) and masks:
        expansion, attend = _filled(how, path), bool(how.get("attend"))
        length = expansion if how.get("strategy") == "fixed" else length
        _refuse_token(backbone, text(how, "token", path))
    prompts = _prompts(config, where)
    query = Side("", prompts[0], length, expansion, attend, skip if "query" in tasks else ())
    return query, Side(
        "", prompts[1], said_number(said, "document_length", path), skip=skip if "document" in tasks else ()
    )


def _refuse_token(backbone: Path, token: str | None) -> None:
    if token is None:
        return
    with taking_apart(backbone):
        tokenizer = read_tokenizer(backbone)
    if token_id(tokenizer, token) != filling(tokenizer):
        raise FlatcoatError(f"{backbone}: queries are filled up with {token!r}; Flatcoat fills with the mask token")


def _stanford(folder: Path) -> Said:
    where = folder / METADATA
    said = object_of(where)
    if said.get("similarity", "cosine") != "cosine":
        raise FlatcoatError(f"{folder}/{METADATA}: similarity {said['similarity']!r}; Flatcoat has cosine")
    weight = read_tensor(folder / WEIGHTS, "linear.weight").float()  # the projection of a Stanford ColBERT
    length = said_number(said, "query_maxlen", where) or QUERY_LENGTH
    skip = PUNCTUATION if said.get("mask_punctuation", True) else ()
    first, second = (text(said, name, where) for name in ("query_token_id", "doc_token_id"))
    query = Side(first or "[unused0]", "", length, length, bool(said.get("attend_to_mask_tokens")))
    document = Side(second or "[unused1]", "", said_number(said, "doc_maxlen", where) or DOCUMENT_LENGTH, skip=skip)
    return Said(folder, (weight, None), query, document)
