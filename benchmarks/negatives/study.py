"""Every source of negatives on the same collection, model, steps and seeds: what it teaches, and what it costs.

    python benchmarks/negatives/study.py COLLECTION [--seeds 3] [--steps 250] [--only NAME …]
    python benchmarks/negatives/study.py COLLECTION --cost     (results/negatives_cost.tsv: 100 steps of each, alone on the machine)
    python benchmarks/negatives/study.py COLLECTION --equal    (results/negatives_equal.md: each as long as `dynnibal, best` takes by it)

Writes results/negatives_study.md. Each trains recipes/negatives-study.toml with its own table [negatives]; the model is then
measured by exact search. "held" are the full-width vectors of documents that a sampler keeps beside the model, as a share of all;
"ms a step" is all of training, samplers included.
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
from common import RESULTS, command, write_table
from flatcoat.app.ablate import Runner, Variant, machine
from flatcoat.app.ablate_report import averaged
from flatcoat.app.html.study_report import study_report
from flatcoat.app.recipe import load_recipe
from flatcoat.evaluation.significance import compare, holm
from flatcoat.records import silent

PER_QUERY = 4
"""Drawn negatives a query; all are shared over the batch, as the paper has it."""


def tables(documents: int) -> dict[str, tuple[dict[str, Any], int]]:
    """Each variant's [negatives], and how many documents' vectors it keeps at full width."""
    of = lambda share: int(share * documents)  # noqa: E731
    landmarks, sample = 128, max(64, documents // 150 - 2 * 128)
    # as all others: what they draw is what they have. The tree is the paper's: built anew, not kept
    tree = {"landmarks": landmarks, "sample": sample, "uniform": 0.0, "follow": "anew"}
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


COST, BASE = 100, "dynnibal, best"


def costs() -> dict[str, float]:
    """Milliseconds a step of each, as --cost measured them."""
    lines = (RESULTS / "negatives_cost.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("# ")]
    return {row[0]: float(row[rows[0].index("ms a step")]) for row in rows[1:]}


def variants(source: str, steps: int | None, documents: int, equal: bool = False) -> dict[str, tuple[Variant, int]]:
    path = Path(__file__).resolve().parents[2] / "recipes" / "negatives-study.toml"
    found = {}
    for name, (table, kept) in tables(documents).items():
        recipe = load_recipe(path, [f"collection.source={source}", *([f"training.steps={steps}"] if steps else [])])
        if equal:
            most = round(recipe.training.steps * costs()[BASE] / costs()[name])
            recipe = load_recipe(path, [f"collection.source={source}", f"training.steps={max(50, most)}"])
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
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--equal", action="store_true")
    args = parser.parse_args()
    if args.cost:
        args.seeds, args.steps = 1, COST
    args.work = args.work / ("cost" if args.cost else "equal" if args.equal else "")
    args.out = args.out or RESULTS / ("negatives_equal.md" if args.equal else "negatives_study.md")
    args.work.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(
        Path(__file__).resolve().parents[2] / "recipes" / "negatives-study.toml",
        [f"collection.source={args.collection}"],
    )
    runner = Runner(recipe, args.work.resolve(), silent, print, ("leakage", "only-judged"))
    runner.prepare()
    chosen = variants(args.collection, args.steps, len(runner.collection.documents), args.equal)
    chosen = {name: value for name, value in chosen.items() if not args.only or name in args.only}
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for seed in range(args.seeds):
        for name, (variant, _) in chosen.items():
            began = time.perf_counter()
            found = runner.record(variant, seed)
            print(name, seed, found["means"], f"{time.perf_counter() - began:.0f} s", flush=True)
            records[name].append(found)
        if not args.cost:
            write(args, runner, {name: kept for name, (_, kept) in chosen.items()}, records)
    if args.cost:
        rows = [[name, f"{1000 * found[0]['seconds']['training'] / COST:.0f}"] for name, found in records.items()]
        write_table(
            "negatives_cost",
            "negatives/study",
            ["negatives", "ms a step"],
            rows,
            f"{COST} steps of each, samplers included",
        )


def stamp() -> str:
    """The machine, versions and date."""
    facts = machine()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"{facts['processor']}, {facts['cores']} cores, Python {facts['python']}, {versions}, {facts['date']}"


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
        f"{len(runner.ids)} held-out queries, {documents} documents, {len(records[base])} seed{'s' * (len(records[base]) > 1)}, "
        + (f"each as long as {BASE} takes for {steps} steps" if args.equal else f"{steps} steps")
        + f" of {runner.recipe.training.batch} queries, {PER_QUERY} drawn negatives each, shared over the batch.",
        "",
        "| negatives | "
        + " | ".join(measures)
        + f" | Δ {first} to {base} (95 %) | p (Holm) | held | {'steps' if args.equal else 'ms a step'} |",
        "| --- |" + " --- |" * (len(measures) + 4),
    ]
    values = {n: {m: [r["means"]["served"][m] for r in found] for m in measures} for n, found in records.items()}
    for name in sorted(records, key=lambda n: -np.mean(values[n][first])):
        delta, cost = deltas.get(name), costs().get(name, float("nan"))
        cells = [f"{np.mean(values[name][m]):.4f}" for m in measures]
        cells[0] += f" ± {np.std(values[name][first], ddof=1):.4f}" if len(records[name]) > 1 else ""
        cells.append("" if delta is None else f"{delta.difference:+.4f} [{delta.low:+.4f}, {delta.high:+.4f}]")
        cells.append("" if delta is None else "< 0.001" if corrected[name] < 0.001 else f"{corrected[name]:.3f}")
        cells += [
            f"{kept[name] / documents:.2%}",
            f"{max(50, round(steps * costs()[BASE] / cost))}" if args.equal else f"{cost:.0f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Δ and p: paired over queries, each one's values averaged over seeds."]
    lines += ["", f"`{command('negatives/study')}`", "", stamp(), ""]
    args.out.write_text("\n".join(lines), encoding="utf-8")
    shares = {name: held / documents for name, held in kept.items()}
    page = study_report(
        args.work, f"{Path(args.collection).name}: which negatives teach most", records, base, line=lines[2],
        split=runner.recipe.collection.test, shares=shares, machine=machine(),
    )  # fmt: skip
    page.write(args.work / "report.html")


if __name__ == "__main__":
    main()
