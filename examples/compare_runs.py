"""Is one run better than another, or is it luck of the queries? Two TREC runs from any tools, and judgements.

python examples/compare_runs.py QRELS BASELINE SYSTEM ["nDCG@10 RR@10"]
"""

from __future__ import annotations

import sys
from pathlib import Path

from flatcoat.data.trec import read_qrels, read_run
from flatcoat.evaluation.measures import evaluate
from flatcoat.evaluation.significance import Comparison, compare, holm


def main(qrels: Path, baseline: Path, system: Path, measures: str = "nDCG@10 RR@10") -> list[tuple[Comparison, float]]:
    """Each measure's comparison, with its p corrected for the number of measures (Holm)."""
    judged, names = read_qrels(qrels), measures.split()
    old, new = (evaluate(judged, read_run(path), names) for path in (baseline, system))
    found = [compare(name, new[name], old[name]) for name in names]
    return list(zip(found, holm([one.randomisation_p for one in found]), strict=True))


if __name__ == "__main__":
    for one, p in main(*map(Path, sys.argv[1:4]), *sys.argv[4:]):
        said = "real" if p < 0.05 else "not shown to be real"
        sys.stdout.write(f"{one.measure}: {one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}], p {p:.3f}, "
                         f"effect {one.effect:.2f}, {one.queries} queries: {said}\n")  # fmt: skip
