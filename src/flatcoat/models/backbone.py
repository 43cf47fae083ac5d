"""Hugging Face encoders and their tokenizers, read from a folder and written back; safetensors only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from flatcoat.arrays import first_line
from flatcoat.errors import FlatcoatError
from flatcoat.files import read_json, write_json
from flatcoat.models.said import inside, object_of, table, text

PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "pytorch_model.pt")
CONVERT = (
    "python -c \"import torch, safetensors.torch as s; s.save_file({k: v.clone() for k, v in torch.load('pytorch_model.bin', "
    "map_location='cpu', weights_only=True).items()}, 'model.safetensors', {'format': 'pt'})\""
)


def load_backbone(folder: Path) -> tuple[nn.Module, Any]:
    """The encoder (fp32, evaluation mode) and tokenizer of a folder.

    Raises:
        FlatcoatError: no weights, weights that the architecture lacks or that the file lacks, or no tokenizer.
    """
    import transformers

    return read_pretrained(folder, transformers.AutoModel, spare=("pooler",))


def read_pretrained(folder: Path, kind: Any, spare: tuple[str, ...] = ()) -> tuple[nn.Module, Any]:
    """A network of one of transformers' auto classes and its tokenizer; weights named by `spare` may be missing.

    Raises:
        FlatcoatError: no weights, weights that the file lacks, or no tokenizer.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    check_folder(folder)
    try:
        model, facts = kind.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        tokenizer = read_tokenizer(folder)
    except FlatcoatError:
        raise
    except (
        Exception
    ) as error:  # transformers and tokenizers raise anything at what they cannot read, bare Exception too
        raise FlatcoatError(f"{folder}: cannot be loaded ({first_line(error)})") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of tokenizers' Rust; it is no Exception
            raise
        raise FlatcoatError(f"{folder}: cannot be loaded ({first_line(error)})") from error
    missing = [key for key in facts["missing_keys"] if not any(name in key for name in (*spare, "position_ids"))]
    if missing:
        raise FlatcoatError(
            f"{folder}: {len(missing)} weights are missing from the file, for example {sorted(missing)[0]}"
        )
    return model.float().train(False), tokenizer


def check_folder(folder: Path) -> None:
    """See that a folder has a configuration and weights that are read, and wants no code of its own.

    Raises:
        FlatcoatError: one of them is not so; of pickled weights it says how to convert them.
    """
    if not (folder / "config.json").is_file():
        raise FlatcoatError(
            f"{folder}: no config.json; a model folder has config.json, model.safetensors, tokenizer.json"
        )
    if not any(folder.glob("*.safetensors")):
        pickled = next((name for name in PICKLED if (folder / name).is_file()), None)
        said = "" if pickled is None else f", only {pickled}; it is pickled, and never read. To convert it: {CONVERT}"
        raise FlatcoatError(f"{folder}: no .safetensors weights{said}")
    closed = next((file for file in folder.glob("*.safetensors") if not os.access(file, os.R_OK)), None)
    if closed is not None:  # safetensors says that there is no such file
        raise FlatcoatError(f"{closed}: permission denied; its owner opens it with chmod a+r")
    index = folder / "model.safetensors.index.json"
    for name in set(table(object_of(index), "weight_map", index).values()):
        inside(folder, str(name), index)
    config = folder / "config.json"
    if not text(object_of(config), "model_type", config):
        raise FlatcoatError(f"{config}: no model_type: which architecture it is")
    object_of(folder / "tokenizer_config.json")  # refused by name where it is no object
    if object_of(config).get("auto_map") and not _known(str(object_of(config)["model_type"])):
        raise FlatcoatError(
            f"{config}: asks for code of its own (auto_map), which is never run; use a checkpoint of an architecture that "
            "transformers has"
        )


def _known(model_type: str) -> bool:
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def read_tensor(path: Path, name: str, *, may_lack: bool = False) -> Any:
    """A tensor of a safetensors file; None where it `may_lack` it and does.

    Raises:
        FlatcoatError: no such file, a damaged one, or no tensor of that name.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FlatcoatError(f"{path}: no such file (pickled weights are not read)")
    try:
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118  (not a mapping)
                return file.get_tensor(name)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise FlatcoatError(f"{path}: cannot be read ({first_line(error)})") from error
    if may_lack:
        return None
    raise FlatcoatError(f"{path}: no {name}")


def read_tokenizer(folder: Path) -> Any:
    """A folder's tokenizer; no code of its own is run. Raises what transformers and tokenizers raise."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def has_bias(part: nn.Linear | nn.LayerNorm) -> bool:
    """Whether a part adds a bias; torch's own annotations say that each does."""
    bias: Tensor | None = getattr(part, "bias", None)
    return bias is not None


def longest(backbone: nn.Module) -> int | None:
    """The most positions a backbone has, where its configuration says."""
    config = backbone.config
    most = getattr(config, "max_position_embeddings", None)
    if most and getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        most -= getattr(config, "pad_token_id", 1) + 1
    return most


def save_backbone(backbone: nn.Module, tokenizer: Any, folder: Path, max_length: int) -> None:
    """Write an encoder and its tokenizer, and the length that sentence-transformers reads."""
    from safetensors.torch import save_model

    config: Any = backbone.config
    config.architectures = [type(backbone).__name__]
    config.save_pretrained(folder)
    save_model(backbone, str(folder / "model.safetensors"), metadata={"format": "pt"})
    save_tokenizer(tokenizer, folder, max_length)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})


def save_tokenizer(tokenizer: Any, folder: Path, max_length: int) -> None:
    """Write a tokenizer and the length at which it cuts."""
    tokenizer.save_pretrained(folder)
    said = folder / "tokenizer_config.json"
    write_json(said, {**read_json(said), "model_max_length": max_length})
