"""The measured numbers of a model card: means of each measure with their 95 % bootstrap intervals over queries."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flatcoat.files import read_json

BESIDE = {"model-late": "late interaction", "model-sparse": "sparse reading"}


@dataclass(frozen=True)
class System:
    """A row: means by measure, their intervals where each query's value is known, and how it differs from the baseline."""

    name: str
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    against: dict[str, Any] | None = None


@dataclass(frozen=True)
class Numbers:
    """What a run measured of one model. `best` is its exact search, or what comes first; `dataset` a Hub id or None."""

    collection: str
    dataset: str | None
    split: str
    documents: int
    queries: int
    baselines: list[System]
    own: list[System]
    machine: dict[str, Any]
    precision: str

    @property
    def best(self) -> System | None:
        """The row that the card's metadata quotes."""
        exact = [system for system in self.own if system.name.endswith("exact")]
        return next(iter(exact or self.own), None)


def read_numbers(run: Path, model: str) -> Numbers | None:
    """What a run's `results.json` says of the model in its folder `model`; None where nothing was measured."""
    if not (run / "results.json").is_file():
        return None
    results, recipe = read_json(run / "results.json"), resolved_recipe(run)
    by_query = run / "runs" / "by-query.json"
    values = read_json(by_query) if by_query.is_file() else {}
    rows = [_system(row, values.get(row["name"], {})) for row in results["systems"]]
    own = [row for row in rows if is_of(row.name, model, recipe["model"]["kind"])]
    if not own:
        return None
    scheme, _, rest = recipe["collection"]["source"].partition(":")
    return Numbers(
        collection=short_name(recipe["collection"]["source"]),
        dataset=rest if scheme == "hf" else None,
        split=recipe["collection"]["test"],
        documents=results["collection"]["documents"],
        queries=results["collection"]["test_queries"],
        baselines=[row for row in rows if row.name in ("BM25", "before, exact")],
        own=own,
        machine=results["machine"],
        precision=recipe["runtime"]["precision"],
    )


def short_name(source: str) -> str:
    """A source by its name: of a path that is absolute or from home what stands last, other paths and ids as they are."""
    scheme, colon, rest = source.rpartition(":")
    if not rest.startswith(("/", "~", "\\")):
        return source
    last = re.split(r"[/\\]+", rest.rstrip("/\\"))[-1]
    return f"{scheme}{colon}{last}" if len(scheme) > 1 else last


def resolved_recipe(run: Path) -> dict[str, Any]:
    """The tables of a run's resolved recipe as they are written, so that a run of another version is told of too."""
    return tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))


def is_of(system: str, model: str, kind: str) -> bool:
    """Whether a row of a run's table is the work of the model in a folder: `model`, or what learnt beside it."""
    read_again = ", re-ranked (" in system
    if model == "model-cross" or kind == "cross":
        return read_again and ":" not in system
    wanted = BESIDE.get(model, "after")
    return system.startswith(f"{wanted}, ") and not read_again


def _system(row: dict[str, Any], values: dict[str, dict[str, float]]) -> System:
    import numpy as np

    from flatcoat.evaluation.significance import bootstrap

    found = {measure: np.array([of[query] for query in sorted(of)]) for measure, of in values.items()}
    return System(row["name"], row["means"], {m: bootstrap(v) for m, v in found.items() if len(v)}, row.get("against"))


def numbers_table(numbers: Numbers) -> str:
    """The numbers as Markdown, with what they were measured on."""
    rows = [*numbers.baselines, *numbers.own]
    measures = list(rows[0].means)
    versions = ", ".join(f"{name} {version}" for name, version in numbers.machine["versions"].items())
    against = next((row.against for row in rows if row.against), None)
    header = ["system", *measures, *([f"Δ {against['measure']} to {against['baseline']}"] if against else [])]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        change = [] if against is None else [_change(row)]
        lines.append([row.name, *(_value(row, measure) for measure in measures), *change])
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return (
        f"`{numbers.collection}`, split {numbers.split}: {numbers.queries} queries over {numbers.documents} documents. "
        f"In brackets the 95 % interval by bootstrap over the queries.\n\n{table}\n"
        f"{numbers.machine['date']}, {numbers.precision}; {numbers.machine['processor']}, Python {numbers.machine['python']}, {versions}.\n"
    )


def _value(row: System, measure: str) -> str:
    told = row.intervals.get(measure)
    return f"{row.means[measure]:.4f}" + ("" if told is None else f" [{told[0]:.4f}, {told[1]:.4f}]")


def _change(row: System) -> str:
    against = row.against
    return (
        "baseline"
        if against is None
        else f"{against['difference']:+.4f} [{against['low']:+.4f}, {against['high']:+.4f}]"
    )
