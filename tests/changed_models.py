"""Small models that are other than they were: without holes in their vocabulary, so that tokens can be added; without a weight."""

from __future__ import annotations

import shutil
from pathlib import Path

from flatcoat.files import read_json, write_json


def filled(source: Path, folder: Path, **renamed: str) -> Path:
    """A copy of a model's folder with an entry for each number, some entries under other names (new=old)."""
    shutil.copytree(source, folder)
    said = read_json(folder / "tokenizer.json")
    words = said["model"]["vocab"]
    words |= {f"[{new}]": words.pop(old) for new, old in renamed.items()}
    words |= {f"[unused{i}]": i for i in range(len(words)) if i not in words.values()}
    write_json(folder / "tokenizer.json", said)
    return folder


def unseal(folder: Path) -> None:
    """Take the seal off a model's folder, where it has one, so that it may be changed."""
    path = folder / "flatcoat.json"
    if path.is_file():
        write_json(path, {key: value for key, value in read_json(path).items() if key not in ("files", "sha256")})


def lose(folder: Path, weight: str) -> None:
    """Take a weight out of a model's file."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights[weight]
    unseal(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
