"""Every source of negatives on the same collection, model, steps and seeds: what it teaches, and what it costs.

    python benchmarks/negatives/study.py COLLECTION [--seeds 3] [--steps 250] [--only NAME …]

Writes results/negatives_study.md. Each trains recipes/negatives-study.toml with its own table [negatives]; the model is then measured
by exact search. "held" are the full-width vectors of documents that a sampler keeps beside the model, as a share of all; "seconds" all of
training, samplers included, alone on the machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import RESULTS
from flatcoat.app.ablate import Runner, Variant, machine
from flatcoat.app.ablate_report import averaged
from flatcoat.app.recipe import load_recipe
from flatcoat.evaluation.significance import compare, holm
from flatcoat.records import silent

PER_QUERY = 4
"""Drawn negatives a query; all are shared over the batch, as the paper has it."""


def tables(documents: int) -> dict[str, tuple[dict[str, Any], int]]:
    """Each variant's [negatives], and how many documents' vectors it keeps at full width."""
    of = lambda share: int(share * documents)  # noqa: E731
    landmarks, sample = 128, max(64, documents // 150 - 2 * 128)
    tree = {"landmarks": landmarks, "sample": sample, "uniform": 0.0}  # as all others: what they draw is what they have
    kept = sample + 2 * landmarks
    return {
        "exhaustive": ({"kind": "exhaustive", "every": 50}, documents),
        "exhaustive, top 20": ({"kind": "exhaustive", "every": 50, "choose": "top", "pool": 20}, documents),
        "in-batch": ({"kind": "none"}, 0),
        "uniform": ({"kind": "uniform"}, 0),
        "stochastic 1 %": ({"kind": "stochastic", "every": 100, "size": of(0.01)}, of(0.01)),
        "stochastic 10 %": ({"kind": "stochastic", "every": 100, "size": of(0.1)}, of(0.1)),
        "cache 1 %": ({"kind": "cache", "size": of(0.01), "renew": 64}, of(0.01)),
        "periodic (ANCE)": ({"kind": "periodic", "every": 100, "last": 20}, documents),
        "dynnibal": ({"kind": "dynnibal", "every": 50, "dynnibal": tree}, kept),
        "dynnibal, best": ({"kind": "dynnibal", "every": 50, "dynnibal": {**tree, "method": "best"}}, kept),
    }


def variants(source: str, steps: int | None, documents: int) -> dict[str, tuple[Variant, int]]:
    path = Path(__file__).resolve().parents[2] / "recipes" / "negatives-study.toml"
    found = {}
    for name, (table, kept) in tables(documents).items():
        recipe = load_recipe(path, [f"collection.source={source}", *([f"training.steps={steps}"] if steps else [])])
        own = table if table["kind"] == "none" else {"per_query": PER_QUERY, **table}
        said = {**recipe.model_dump(exclude_unset=True), "negatives": own}
        found[name] = Variant(name, type(recipe).model_validate(said), "alone"), kept
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--work", type=Path, default=Path("runs/negatives-study"))
    parser.add_argument("--out", type=Path, default=RESULTS / "negatives_study.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(
        Path(__file__).resolve().parents[2] / "recipes" / "negatives-study.toml",
        [f"collection.source={args.collection}"],
    )
    runner = Runner(recipe, args.work.resolve(), silent, print, ("leakage", "only-judged"))
    runner.prepare()
    chosen = variants(args.collection, args.steps, len(runner.collection.documents))
    chosen = {name: value for name, value in chosen.items() if not args.only or name in args.only}
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for seed in range(args.seeds):
        for name, (variant, _) in chosen.items():
            began = time.perf_counter()
            found = runner.record(variant, seed)
            print(name, seed, found["means"], f"{time.perf_counter() - began:.0f} s", flush=True)
            records[name].append(found)
        write(args, runner, {name: kept for name, (_, kept) in chosen.items()}, records)


def stamp() -> str:
    """The machine, versions and date."""
    return ", ".join(str(value) for value in machine().values())


def write(args: argparse.Namespace, runner: Runner, kept: Mapping[str, int], records: Mapping[str, Any]) -> None:
    """The table, best first, each against the oracle: exhaustive softmax where it is among them."""
    measures, documents = list(runner.recipe.evaluation.measures), len(runner.collection.documents)
    steps = args.steps or runner.recipe.training.steps
    base, first = next(iter(records)), measures[0]
    own = {name: averaged(found, "served", first) for name, found in records.items()}
    deltas = {name: compare(first, value, own[base]) for name, value in own.items() if name != base}
    corrected = dict(zip(deltas, holm([d.randomisation_p for d in deltas.values()]), strict=True))
    lines = [
        f"# {Path(args.collection).name}: which negatives teach most",
        "",
        f"{len(runner.ids)} held-out queries, {documents} documents, {len(records[base])} seeds, {steps} steps of "
        f"{runner.recipe.training.batch} queries, {PER_QUERY} drawn negatives each, shared over the batch.",
        "",
        "| negatives | "
        + " | ".join(measures)
        + f" | Δ {first} to {base} (95 %) | p (Holm) | held | seconds | ms a step |",
        "| --- |" + " --- |" * (len(measures) + 5),
    ]
    values = {n: {m: [r["means"]["served"][m] for r in found] for m in measures} for n, found in records.items()}
    for name in sorted(records, key=lambda n: -np.mean(values[n][first])):
        seconds, delta = float(np.mean([r["seconds"]["training"] for r in records[name]])), deltas.get(name)
        cells = [f"{np.mean(values[name][m]):.4f}" for m in measures]
        cells[0] += f" ± {np.std(values[name][first], ddof=1):.4f}" if len(records[name]) > 1 else ""
        cells.append("" if delta is None else f"{delta.difference:+.4f} [{delta.low:+.4f}, {delta.high:+.4f}]")
        cells.append("" if delta is None else "< 0.001" if corrected[name] < 0.001 else f"{corrected[name]:.3f}")
        cells += [f"{kept[name] / documents:.2%}", f"{seconds:.0f}", f"{1000 * seconds / steps:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Δ and p: paired over queries, each one's values averaged over seeds.", "", stamp(), ""]
    args.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
