"""A run's state in safetensors and JSON, never pickle: weights, optimizer, sampler, progress."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_folder, read_manifest, write_json, write_manifest
from flatcoat.files import read_json as read

KIND, VERSION = "flatcoat-checkpoint", 1


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once however many names share it."""
    return {name: value.detach() for name, value in [*module.named_parameters(), *module.named_buffers()]}


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors as `KEY.PARAMETER`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{key}.{names[parameter]}": value.detach()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def save_state(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    sampler: Mapping[str, np.ndarray],
    progress: Mapping[str, Any],
) -> None:
    """Write a checkpoint folder atomically."""
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file

    with atomic_folder(folder) as partial:
        save_file({k: v.contiguous() for k, v in weights_of(module).items()}, partial / "weights.safetensors")
        tensors = {k: v.contiguous() for k, v in optimizer_tensors(module, optimizer).items()}
        save_file(tensors, partial / "optimizer.safetensors")
        save_arrays({k: np.ascontiguousarray(v) for k, v in sampler.items()}, partial / "sampler.safetensors")
        write_json(partial / "progress.json", dict(progress))
        write_manifest(partial, KIND, VERSION, {"step": progress["step"]})


def load_state(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Restore weights and optimizer; give the sampler's state and the progress.

    Raises:
        FlatcoatError: not a checkpoint, damaged, or of another model.
    """
    from safetensors.numpy import load_file as load_arrays
    from safetensors.torch import load_file

    read_manifest(folder, KIND, VERSION)
    saved = load_file(folder / "weights.safetensors")
    own = weights_of(module)
    if set(saved) != set(own):
        odd = sorted(set(saved) ^ set(own))
        raise FlatcoatError(f"{folder}: weights of another model ({len(odd)} names differ, for example {odd[0]})")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved[name])
    _load_optimizer(load_file(folder / "optimizer.safetensors"), module, optimizer)
    return load_arrays(folder / "sampler.safetensors"), read(folder / "progress.json")


def _load_optimizer(saved: Mapping[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    parameters = dict(module.named_parameters())
    optimizer.state.clear()
    for name, value in saved.items():
        key, parameter = name.split(".", 1)
        # a step counter stays on the CPU unless the optimizer is fused on a GPU, which asks for it beside the weights
        where = parameters[parameter].device
        optimizer.state[parameters[parameter]][key] = value.to(where)


def newest(folder: Path) -> Path | None:
    """The checkpoint of the most steps under a folder."""
    found = [path for path in folder.glob("step-*") if (path / "manifest.json").is_file()]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)
