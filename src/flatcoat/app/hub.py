"""Sending a model to the Hugging Face Hub: its files and its card, in one commit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from flatcoat.app.model_card import Story, model_card, story_of
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_folder, free_to_write

CARD = "README.md"
SUFFIXES = (
    ".json",
    ".safetensors",
    ".txt",
    ".model",
)  # what a model is made of; nothing else of a folder leaves this machine
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx")


class Api(Protocol):
    """What of `huggingface_hub.HfApi` is used."""

    def create_repo(self, repo_id: str, *, private: bool | None, repo_type: str, exist_ok: bool) -> Any:
        """Make a repository, or find it there."""
        ...

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str, repo_type: str) -> Any:
        """Commit files; its answer has `commit_url`."""
        ...


def push(model: str, repo: str, *, private: bool = False, license: str | None = None, api: Api | None = None) -> str:
    """Send a model, or the model of a run's folder, to OWNER/NAME on the Hub; give the commit's address.

    The repository is made where it is not there; one that is there keeps who may see it. `api` None is the Hub, with the token
    that `hf auth login` keeps.

    Raises:
        Misuse: not a repository's name, not a model, or a licence that the Hub has no name for.
        FlatcoatError: the Hub refused, or could not be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the second: no answer at all

    check_repo(repo)
    story = story_of(model)
    contents = contents_of(story, repo, license)
    used: Any = api or HfApi()
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
    try:
        used.create_repo(repo, private=private or None, repo_type="model", exist_ok=True)
        made = used.create_commit(repo, added, commit_message=f"{story.kind} model, by Flatcoat", repo_type="model")
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise FlatcoatError(
            f"{repo}: the Hub did not take it ({_reason(error)}); hf auth login gives it a token"
        ) from error
    return str(made.commit_url)


def write_push(model: str, repo: str, out: Path, *, license: str | None = None) -> Path:
    """Write what `push` would send into a folder, to look at, to edit the card, and to push from.

    Raises:
        Misuse: as `push`; or `out` is something else, or the model itself.
    """
    check_repo(repo)
    story = story_of(model)
    free_to_write(out, None, model, str(story.folder))
    contents = contents_of(story, repo, license)
    with atomic_folder(out) as folder:
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                shutil.copyfile(content, folder / name)
    return out


def contents_of(story: Story, repo: str, license: str | None) -> Mapping[str, Path | bytes]:
    """What is sent, by its name in the repository. A card that lies in the folder is sent as it is, unless a licence is said.

    Raises:
        FlatcoatError: weights in a format that runs code or that Flatcoat does not read, and no safetensors.
        Misuse: a licence said for a card that is there.
    """
    found = {
        path.relative_to(story.folder).as_posix(): path
        for path in sorted(story.folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(story.folder).parts)
    }
    contents: dict[str, Path | bytes] = {name: path for name, path in found.items() if name.endswith(SUFFIXES)}
    if not any(name.endswith(".safetensors") for name in contents):
        other = [name for name in found if name.endswith(OTHER_WEIGHTS)]
        raise FlatcoatError(f"{story.folder}: no .safetensors to send{', only ' + ', '.join(other) if other else ''}")
    if CARD in found:
        if license is not None:
            raise Misuse(f"{found[CARD]} is there and is sent as it is; say the licence in it, or remove it")
        return {**contents, CARD: found[CARD]}
    return {**contents, CARD: model_card(story, repo, license).encode()}


def check_repo(repo: str) -> None:
    """Raise Misuse where a name is not OWNER/NAME as the Hub has it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        known = re.fullmatch(r"[^/]+/[^/]+", repo) is not None
    except HFValidationError:
        known = False
    if not known:
        raise Misuse(f"{repo!r}: not a repository of the Hub; want OWNER/NAME")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
