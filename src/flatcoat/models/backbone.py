"""Hugging Face encoders and their tokenizers, read from a folder and written back; safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from flatcoat.errors import FlatcoatError
from flatcoat.files import read_json, write_json


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
    from safetensors import SafetensorError

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if not (folder / "config.json").is_file():
        raise FlatcoatError(
            f"{folder}: no config.json; a model folder has config.json, model.safetensors, tokenizer.json"
        )
    if not any(folder.glob("*.safetensors")):
        raise FlatcoatError(f"{folder}: no .safetensors weights (pickled weights are not read)")
    try:
        model, facts = kind.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, local_files_only=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise FlatcoatError(f"{folder}: cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    missing = [key for key in facts["missing_keys"] if not any(name in key for name in (*spare, "position_ids"))]
    if missing:
        raise FlatcoatError(
            f"{folder}: {len(missing)} weights are missing from the file, for example {sorted(missing)[0]}"
        )
    return model.float().train(False), tokenizer


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
