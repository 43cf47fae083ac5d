"""Silent mistakes of training: gradients that pile up from step to step, in-batch negatives that never change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flatcoat.checks.base import Finding, ok


def piled_up(gradient_norm: Callable[[], float]) -> list[Finding]:
    """Call the same step twice on the same batch, weights held: the gradient's norm must not grow.

    `gradient_norm` clears, computes and measures the gradient as the loop does.
    """
    first, second = gradient_norm(), gradient_norm()
    if second > first * 1.5:
        message = f"the same batch has gradient norm {first:.4g}, then {second:.4g}: the last step's is still in it"
        return [Finding("error", "piled-up-gradients", message, "clear gradients before each step")]
    return [ok("piled-up-gradients", f"gradient norm {first:.4g} twice")]


def frozen_batches(epoch: Callable[[int], np.ndarray]) -> list[Finding]:
    """Whether two epochs put the same pairs together. `epoch(e)` gives positions [batches, batch]."""
    first, second = epoch(0), epoch(1)
    if len(first) < 2:
        return [ok("frozen-batches", "one batch an epoch")]
    sets = {tuple(sorted(row)) for row in first.tolist()}
    same = sum(tuple(sorted(row)) in sets for row in second.tolist())
    if same / len(second) > 0.5:
        message = (
            f"{same} of {len(second)} batches of the second epoch are batches of the first: negatives never change"
        )
        return [Finding("error", "frozen-batches", message, "shuffle again every epoch")]
    return [ok("frozen-batches", "batches change from epoch to epoch")]
