"""What every model offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch

from flatcoat.errors import Misuse
from flatcoat.representations import Representation

Precision = Literal["fp32", "bf16", "int8"]


@runtime_checkable
class Encoder(Protocol):
    """Texts in, a representation out: a pure function of each text, whatever its batch or padding (to 1e-5 in fp32)."""

    def encode_queries(self, texts: Sequence[str]) -> Representation:
        """Queries, in the order given."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Representation:
        """Documents, in the order given."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """One number a pair; higher is better."""

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Scores [pair] of queries[i] with documents[i]."""
        ...


@dataclass(frozen=True)
class Runtime:
    """How a model is run; not part of the model, though bf16 moves its vectors by about 1e-3 and int8 by about 1e-2.

    `batch_tokens` bounds rows × length of one forward pass; 0 leaves it to the device. `int8` is for encoding on a CPU.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    batch_tokens: int = 0

    @property
    def on_cpu(self) -> bool:
        """Whether the device is the CPU."""
        return self.device.startswith("cpu")

    @property
    def tokens(self) -> int:
        """The bound of rows × length: as said, or what stays in a core's cache, or what fills a graphics card."""
        return self.batch_tokens or (1024 if self.on_cpu else 32768)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16, enabled=self.precision == "bf16")


def runtime_of(device: str, precision: str) -> Runtime:
    """The runtime of a device and a precision by name. Raises Misuse where there is no such."""
    found = best_device(device)
    if precision not in ("fp32", "bf16", "int8"):
        raise Misuse(f"--precision {precision}: want fp32, bf16 or int8")
    if precision == "int8" and not found.startswith("cpu"):
        raise Misuse("--precision int8: is for the CPU; want bf16 on a graphics card")
    return Runtime(found, precision)


def best_device(wanted: str = "auto") -> str:
    """`auto` is the first CUDA device where there is one, else the CPU. Raises Misuse where `wanted` is not there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise Misuse(f"device {wanted!r}: no CUDA device here; use cpu or auto")
    return wanted
