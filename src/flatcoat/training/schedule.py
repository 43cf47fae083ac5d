"""Learning-rate schedules as pure functions: step (from 0) to a share of the peak rate.

    share(t) = (t + 1) / w                          t < w, the warm-up
    share(t) = floor + (1 − floor) · f(x)           x = (t − w) / (T − w − 1)
    linear  f(x) = 1 − x        cosine  f(x) = ½ (1 + cos πx)        wsd  f(x) = min(1, (1 − x) / decay)

Warm-up is linear from 1/warm-up to 1, and after it each shape ends at `floor`, which is a share of the peak and not 0
unless asked: a rate of nothing teaches nothing.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

Shape = Literal["constant", "linear", "cosine", "wsd"]
SHAPES: tuple[str, ...] = get_args(Shape)


def share(step: int, steps: int, shape: Shape, warmup: int, floor: float, decay: float = 0.2) -> float:
    """The share of the peak rate at `step` of `steps`.

    `wsd` (warm-up, stable, decay; Hu et al. 2024, arXiv 2404.06395) falls linearly over the last share `decay`.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup - 1))
    if shape == "constant":
        return 1.0
    if shape == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    if shape == "wsd":
        done = max(0.0, (done - (1 - decay)) / decay)
    return floor + (1 - floor) * (1 - done)
