"""Measure a Flatcoat model, of whatever kind, on tasks of mteb.

python examples/mteb_model.py MODEL SciFact NFCorpus
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import mteb

from flatcoat.app.integrations.mteb import mteb_model


def measure(model: str, tasks: Sequence[Any]) -> dict[str, float]:
    """The main score of each task."""
    results = mteb.evaluate(mteb_model(model), tasks, cache=None, show_progress_bar=False)
    return {result.task_name: result.get_score() for result in results.task_results}


if __name__ == "__main__":
    for name, score in measure(sys.argv[1], mteb.get_tasks(sys.argv[2:])).items():
        sys.stdout.write(f"{name}  {score:.4f}\n")
